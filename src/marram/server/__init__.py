"""The asyncio shell around the node: listeners, back-pressure, commits, configuration.

Owns sockets and the event loop; not what a command does (marram.commands), not the turn
(marram.node), not the bytes of a protocol (marram.protocol).

    app.py         serve(config): open the store, listen, run, drain, close
    config.py      ServerConfig: one field an option; file, environment, flags
    commit.py      drives the store's commit groups, releases the replies that wait for them
    connection.py  one client connection: order of replies, back-pressure, limits
    resp.py        RESP on a connection
    frames.py      the framed protocol on a connection
    http.py        HTTP + JSON: routes and answers; http_json.py bodies, http_query.py targets,
                   http_access.py who may ask, http_wire.py uvicorn with limits
    openapi.py     the OpenAPI document, from http.py's table of routes
    metrics.py     Prometheus
    logs.py        log lines for people and for machines
    screen.py      what a person sees who starts it on a terminal

Threading: everything runs on one event loop; commit.py has one thread for syncs.
"""

from __future__ import annotations
