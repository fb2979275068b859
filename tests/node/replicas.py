"""Nodes that replicate, without sockets: worlds joined by wires that a test can cut or slow down.

    net = Net()
    primary, replica = net.world("a"), net.world("b", of="a")
    net.settle()                       # until nothing is under way any more

A world's name stands for its address: its port is 1000 and the letter's place in the alphabet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from marram.commands.spec import CommandError
from marram.env.memory import MemoryEnv
from marram.node.replication.role import PUSH_S
from marram.node.replication.uplink import Uplink
from marram.node.settings import ReplicationSettings, Settings
from marram.protocol.frames import FrameParser, Op, encode_error
from marram.replication.codec import decode_hello
from tests.node.harness import Client, World

PUSH_MS = int(PUSH_S * 1000) + 1


def port_of(name: str) -> int:
    return 1000 + ord(name) - ord("a")


class Wire:
    """One end of a connection. Bytes wait in the net until deliver()."""

    def __init__(self, net: Net, host: World) -> None:
        self.net = net
        self.host = host
        self.peer: Wire
        self.received: Callable[[bytes], None] = lambda data: None
        self.lost: Callable[[], None] = lambda: None
        self.is_open = True
        self.is_paused = False
        self.inbox: deque[bytes | None] = deque()

    def write(self, data: bytes) -> None:
        if self.is_open and not self.net.is_cut(self.host, self.peer.host):
            self.peer.inbox.append(data)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.peer.inbox.append(None)

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def deliver(self) -> bool:
        """Hand over what has come; whether anything had."""
        if self.is_paused or not self.inbox:
            return False
        data = self.inbox.popleft()
        if not self.is_open:
            return True
        if data is None:
            self.is_open = False
            self.lost()
        else:
            self.received(data)
        return True


class NetShell:
    """node.replication.role.Shell; what was given up, and how often `committed` moved."""

    def __init__(self, net: Net, world: World) -> None:
        self.net = net
        self.world = world
        self.given_up: list[tuple[int, int]] = []

    def connect(self, host: str, port: int, uplink: Uplink) -> None:
        link = uplink.link
        target = self.net.at(port)
        if target is None or self.net.is_cut(self.world, target):
            uplink.lost(link, "cannot connect: Connection refused")
            return
        near, far = Wire(self.net, self.world), Wire(self.net, target)
        near.peer, far.peer = far, near
        self.net.wires += [near, far]
        near.received = lambda data: uplink.received(link, data)
        near.lost = lambda: uplink.lost(link, "the connection was closed")
        self.net.accept(target, far)
        uplink.connected(link, near)

    def appended(self) -> None:
        """settle() writes groups."""

    def committed(self) -> None:
        """Whoever waits looks by itself."""

    def give_up(self, first: int, last: int) -> None:
        self.given_up.append((first, last))


class Net:
    """Worlds and the wires between them."""

    def __init__(self) -> None:
        self.worlds: dict[str, World] = {}
        self.wires: list[Wire] = []
        self.cuts: set[frozenset[int]] = set()

    def world(
        self,
        name: str,
        of: str = "",
        *,
        machine: MemoryEnv | None = None,
        settings: Settings | None = None,
        options: dict[str, Any] | None = None,
        **replication: Any,
    ) -> World:
        """A node. of: whose replica; "" for what its record says. replication: its settings."""
        settings = settings or Settings(replication=ReplicationSettings(**replication))
        machine = machine or MemoryEnv(seed=ord(name))
        keep = {"replica_log_bytes": 1 << 30, **(options or {})}
        world = World(settings=settings, machine=machine, **keep)
        world.env.hostname = lambda: name  # type: ignore[method-assign]
        part = world.node.replication
        part.node_id = name.encode().ljust(16, b".")
        part.address = f"resp={name}:7379 http={name}:7380"
        part.shell = NetShell(self, world)
        self.worlds[name] = world
        part.open(f"{of}:{port_of(of)}" if len(of) == 1 else of)
        return world

    def restart(self, name: str, of: str = "", **replication: Any) -> World:
        """Close a world and open it again on its disk."""
        self.stop(name)
        return self.world(name, of, machine=self.worlds[name].machine, **replication)

    def stop(self, name: str) -> None:
        """End a world; its peers notice."""
        world = self.worlds[name]
        over: list[bool] = []
        world.node.replication.stop(lambda: over.append(True))
        self.settle()
        assert over
        world.node.close()
        world.store.close()

    def at(self, port: int) -> World | None:
        """Who listens there."""
        found = self.worlds.get(chr(port - 1000 + ord("a")))
        return None if found is None or found.store.closed is not None else found

    def cut(self, one: World, other: World) -> None:
        """Let nothing through between the two: a partition, which nobody is told of."""
        self.cuts.add(frozenset((id(one), id(other))))

    def heal(self) -> None:
        self.cuts.clear()

    def is_cut(self, one: World, other: World) -> bool:
        return frozenset((id(one), id(other))) in self.cuts

    def accept(self, world: World, wire: Wire) -> None:
        """What server/frames.py does with op 3."""
        parser = FrameParser()

        def first(data: bytes) -> None:
            (request,) = parser.feed(data)
            assert request.op is Op.REPLICATE
            try:
                link = world.node.replication.accept(request.value, wire, "peer:1")
            except CommandError as error:
                wire.write(encode_error(str(error)))
                wire.close()
                return
            wire.received = link.received
            wire.lost = link.lost
            link.hello(decode_hello(request.value))

        wire.received = first

    def step(self) -> bool:
        """Everything that is due now, once; whether anything was."""
        done = False
        for world in list(self.worlds.values()):
            if world.store.closed is not None:
                continue
            while (group := world.store.take_group()) is not None:
                group.write()
                world.store.complete(group, None)
                done = True
            if done:
                world.node.replication.advanced()
            done = bool(world.machine.run_background()) or done
            done = world.loop.run() or done
        for wire in list(self.wires):
            done = wire.deliver() or done
        self.wires = [wire for wire in self.wires if wire.is_open or wire.inbox]
        return done

    def settle(self) -> None:
        """Until nothing is under way, what is sent a little later included (PUSH_S)."""
        for _ in range(2):
            for _ in range(10_000):
                if not self.step():
                    break
            else:
                raise AssertionError("it does not come to rest")
            for world in self.worlds.values():
                world.machine.advance(PUSH_MS)

    def advance(self, ms: int, step_ms: int = 100) -> None:
        """Let time pass, with a tick of every node every 100 ms."""
        for _ in range(max(1, ms // step_ms)):
            for world in self.worlds.values():
                if world.store.closed is None:
                    world.machine.advance(step_ms)
                    world.node.tick()
            self.settle()


def state(world: World) -> str:
    """How far a replica's link is, and what is wrong with it."""
    uplink = world.node.replication.uplink
    assert uplink is not None
    return uplink.follower.trouble or uplink.follower.state.name


def told(client: Client, *words: str | bytes) -> Any:
    """A command's reply; fails where it waits for a position that is not committed."""
    reply = client(*words)
    assert client.waits_for <= client.world.store.committed, "the reply is held"
    return reply
