"""promote, follow: which server takes the writes.

Owns their arguments and reports; the change of role is the server's (REPLICAOF).

Threading: the main thread.
"""

from __future__ import annotations

import click

from marram.cli.options import Place, json_option, print_json, server_options
from marram.errors import Error


@click.command()
@server_options
@json_option
def promote(place: Place, as_json: bool) -> None:
    """Make a replica the primary.

    It takes writes from then on, in a new epoch: the primary it followed is refused by every
    server that knows of that, and has to be told to follow the new one (marram follow). On a
    primary this changes nothing.

    What the old primary acknowledged and this replica does not have is lost to readers; the old
    one sets it aside in a file when it follows. docs/replication.md says which replica to promote.
    """
    with place.connect() as server:
        position = server.promote()
    if as_json:
        print_json({"ok": True, "epoch": position.epoch, "sequence": position.sequence})
    else:
        click.echo(f"OK (primary from position {position} on)")


@click.command()
@server_options
@json_option
@click.argument("upstream", metavar="HOST:FRAMEPORT")
def follow(place: Place, as_json: bool, upstream: str) -> None:
    """Make a server a replica of the one whose frame port is HOST:FRAMEPORT.

    It takes no writes from then on, also after a restart. A store with data of its own follows
    only a store that it shares its beginning with; what the two do not share is set aside.
    """
    from marram.node.replication.address import split_address

    try:
        host, port = split_address(upstream)
    except Error as error:
        raise click.BadParameter(str(error), param_hint="'HOST:FRAMEPORT'") from None
    with place.connect() as server:
        server.follow(host, port)
    if as_json:
        print_json({"ok": True, "upstream": upstream})
    else:
        click.echo(f"OK (follows {upstream})")
