"""The wire protocols as sans-IO codecs: bytes in, requests out; replies in, bytes out.

Owns what the bytes mean and every limit on them; not sockets, not what a command does, not who may
run it. Server, client, shell and tests share these codecs.

    replies.py      reply values that are not plain Python values
    resp.py         RESP2/RESP3, the server's side: requests in, replies out
    resp_client.py  RESP2/RESP3, the client's side: requests out, replies in
    frames.py       the framed protocol (docs/protocols/frames.md), both sides

Every parser keeps four promises; the modules number them and the tests quote them:
the result does not depend on how the bytes were cut; what precedes bad bytes is handed out first;
nothing is allocated because a peer declared it; a message of n bytes costs O(n), however it comes.

Threading: a parser belongs to one connection and is not locked; the encoders are pure functions.
"""
