"""Random sequences of commands for one connection, the same for the same seed.

Every sequence can be sent to a Redis 7.0 and to marram, and has to be answered alike. What Redis
itself answers differently from one run to the next (random keys, encodings that depend on history)
is left out or asked for in a way that settles it; comparison.py knows the rest (order, clocks).

No command here blocks, needs more than a few megabytes, or makes a key expire while the sequence
runs: deadlines are far in the future or already past, and two of them are either equal for both
sides or at least 1000 s apart, so that it does not matter when a command runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Command = list[bytes]

KEYS = [b"a", b"b", b"c", b"key:1", b"key:2", b"key:10", b"k\x00\xff", b"{t}x", b"*", b"long" * 20]
KEYSPACES = 4

VALUES = [
    *(b"", b"0", b"1", b"-1", b"10", b"42", b"-0", b"01", b"+1", b" 1", b"1 ", b"1.5", b"3.0e3"),
    *(b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808", b"-"),
    *(b"hello", b"hello world", b"\x00", b"\xff", b"\xff\xf0\x00", b"\x00\xff\xf0", b"OK"),
    *(b"0.1", b"-0.1", b"1e2", b"inf", b"nan", b"0x10", b"1e4000", b"3.141592653589793238462"),
    *(b"x" * 44, b"x" * 45, b"ohmytext", b"mynewtext", b"\r\n", b"abcabcabc" * 20),
]
INTEGERS = [
    *(b"0", b"1", b"-1", b"2", b"-2", b"5", b"7", b"8", b"-8", b"9", b"10", b"-10", b"64", b"100"),
    *(b"9223372036854775807", b"-9223372036854775808", b"-9223372036854775807", b"1000000000000"),
]
NOT_INTEGERS = [
    *(b"", b"abc", b"1.0", b" 1", b"1 ", b"+1", b"01", b"-0", b"1e3", b"0x1", b"--1", b"1\x00"),
    *(b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"9" * 40),
]
FLOATS = [
    *(b"0", b"1", b"-1", b"0.1", b"0.2", b"-0.3", b"1.5", b"3.0e3", b"1e-3", b"1E2", b".5", b"5."),
    *(b"1e17", b"123456789.123456789", b"1e-20", b"-1e-20", b"1e300", b"-1e300", b"0x1.8p1"),
    *(b"5e-18", b"2.5", b"1e4932", b"-1e4932", b"1.18973149535723176502e+4932", b"0.000001"),
]
NOT_FLOATS = [
    *(b"", b"nan", b"abc", b" 1", b"1 ", b"1e", b"e1", b".", b"1e5000", b"1e-5000", b"0x"),
    *(b"inf", b"-INF", b"infinity", b"1_0", b"1\x00"),
]
PATTERNS = [
    *(b"*", b"**", b"", b"a", b"key:*", b"*:1", b"key:?", b"k*1*", b"[a-c]", b"[^a-c]", b"[^a]*"),
    *(b"\\*", b"key:[0-9]", b"key:1[0]", b"*[", b"[", b"[a", b"[a-", b"\\", b"a\\", b"[]", b"[^]*"),
    *(b"*g*g*", b"?", b"????*", b"[\\a]", b"[a\\]", b"k?\xff", b"{t}*", b"*" * 20 + b"a", b"[b-a]"),
]


class Generator:
    """A stream of commands.

    next() gives a few that belong together. Every command's name is one that marram and Redis 7.0
    both know, in a random case; one in thirty is malformed by a missing or an additional argument.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._makers = self._all_makers()
        self._weights = [weight for weight, _ in self._makers]

    def commands(self, count: int) -> list[Command]:
        """At least `count` commands."""
        made: list[Command] = []
        while len(made) < count:
            made += self.next()
        return made

    def next(self) -> list[Command]:
        """The next few commands."""
        (_, maker) = self._random.choices(self._makers, self._weights)[0]
        made = maker()
        group = made if made and isinstance(made[0], list) else [made]
        if len(group) == 1 and self._chance(1 / 30):
            group = [self._malformed(group[0])]
        for command in group:
            command[0] = self._cased(command[0])
        return group

    # -- arguments -------------------------------------------------------------------------------

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _pick(self, *choices: bytes) -> bytes:
        return self._random.choice(choices)

    def _cased(self, word: bytes) -> bytes:
        return self._random.choice((word.lower(), word.upper(), word, word.capitalize()))

    def _key(self) -> bytes:
        return self._random.choice(KEYS)

    def _keys(self, most: int = 4) -> list[bytes]:
        return [self._key() for _ in range(self._random.randint(1, most))]

    def _value(self) -> bytes:
        if self._chance(0.2):
            return self._random.randbytes(self._random.choice((1, 2, 3, 8, 20, 300)))
        return self._random.choice(VALUES)

    def _integer(self) -> bytes:
        if self._chance(0.3):
            return b"%d" % self._random.randint(-40, 40)
        return self._random.choice(NOT_INTEGERS if self._chance(0.06) else INTEGERS)

    def _float(self) -> bytes:
        if self._chance(0.3):
            digits = self._random.randint(0, 17)
            return f"{self._random.uniform(-1000, 1000):.{digits}f}".encode()
        return self._random.choice(NOT_FLOATS if self._chance(0.1) else FLOATS)

    def _pattern(self) -> bytes:
        if self._chance(0.5):
            return self._random.choice(PATTERNS)
        return bytes(self._random.choices(b"aabckey:01*??[[]]^-\\", k=self._random.randint(1, 9)))

    def _offset(self) -> bytes:
        if self._chance(0.1):
            return self._random.choice([*NOT_INTEGERS, b"-1", b"9223372036854775807"])
        return b"%d" % self._random.choice((0, 1, 2, 3, 7, 8, 10, 100, 5000))

    def _bit_offset(self) -> bytes:
        if self._chance(0.1):
            return self._random.choice(
                [*NOT_INTEGERS, b"-1", b"4294967296", b"9223372036854775807"]
            )
        return b"%d" % self._random.choice((0, 1, 6, 7, 8, 9, 15, 63, 64, 100, 1000, 40000))

    def _keyspace(self) -> bytes:
        if self._chance(0.1):
            return self._random.choice([*NOT_INTEGERS, b"16", b"-1", b"2147483648", b"99"])
        return b"%d" % self._random.randrange(KEYSPACES)

    # -- times: far in the future, past, or refused ------------------------------------------------

    def _far_s(self) -> int:
        return 1000 * self._random.randint(2, 10**6)

    def _bad_time(self) -> bytes:
        return self._random.choice(
            [*NOT_INTEGERS, b"0", b"-1", b"-5", b"9223372036854775807", b"9223372036854775"]
        )

    def _relative(self, unit_ms: int) -> bytes:
        if self._chance(0.15):
            return self._bad_time()
        return b"%d" % (self._far_s() * 1000 // unit_ms)

    def _absolute(self, unit_ms: int) -> bytes:
        if self._chance(0.15):
            return self._bad_time()
        if self._chance(0.15):
            return b"%d" % (self._random.randint(1, 10**9) * 1000 // unit_ms)  # past
        return b"%d" % ((10**10 + self._far_s()) * 1000 // unit_ms)

    def _expiry(self, *others: bytes) -> list[bytes]:
        option = self._pick(b"EX", b"PX", b"EXAT", b"PXAT", *others)
        if option in others:
            return [self._cased(option)]
        unit_ms = 1 if option[:1] == b"P" else 1000
        time = self._absolute(unit_ms) if option.endswith(b"AT") else self._relative(unit_ms)
        return [self._cased(option), time]

    # -- malformed ---------------------------------------------------------------------------------

    def _malformed(self, command: Command) -> Command:
        # Nothing is put in place of another argument: it might then ask for gigabytes.
        if self._chance(0.5) and len(command) > 1:
            return command[:-1]
        return [*command, self._pick(b"foo", b"NX", b"GET", b"", b"1", b"EX", b"REPLACE", b"BIT")]

    # -- commands --------------------------------------------------------------------------------

    def _all_makers(self) -> list[tuple[int, Callable[[], Command | list[Command]]]]:
        return [
            (14, self._set),
            (3, lambda: [b"SET", self._key(), self._value()]),
            (6, lambda: [b"GET", self._key()]),
            (3, lambda: [b"GETDEL", self._key()]),
            (5, self._getex),
            (2, lambda: [b"GETSET", self._key(), self._value()]),
            (2, lambda: [b"SETNX", self._key(), self._value()]),
            (2, lambda: [b"SETEX", self._key(), self._relative(1000), self._value()]),
            (2, lambda: [b"PSETEX", self._key(), self._relative(1), self._value()]),
            (3, lambda: [b"MGET", *self._keys()]),
            (3, lambda: [b"MSET", *self._pairs()]),
            (3, lambda: [b"MSETNX", *self._pairs()]),
            (4, lambda: [b"APPEND", self._key(), self._value()]),
            (2, lambda: [b"STRLEN", self._key()]),
            (4, self._getrange),
            (4, lambda: [b"SETRANGE", self._key(), self._offset(), self._value()]),
            (6, self._incr),
            (5, self._incrbyfloat),
            (4, self._lcs),
            (5, lambda: [b"SETBIT", self._key(), self._bit_offset(), self._bit()]),
            (3, lambda: [b"GETBIT", self._key(), self._bit_offset()]),
            (4, self._bitcount),
            (5, self._bitpos),
            (5, self._bitop),
            (8, self._bitfield),
            (4, lambda: [self._pick(b"DEL", b"UNLINK", b"EXISTS", b"TOUCH"), *self._keys()]),
            (10, self._expire),
            (8, self._ttl),
            (2, lambda: [b"PERSIST", self._key()]),
            (2, lambda: [b"TYPE", self._key()]),
            (3, lambda: [b"KEYS", self._pattern()]),
            (4, self._scan),
            (5, lambda: [self._pick(b"RENAME", b"RENAMENX"), self._key(), self._key()]),
            (5, self._copy),
            (3, lambda: [b"MOVE", self._key(), self._keyspace()]),
            (2, self._object),
            (2, self._dbsize),
            (1, self._flush),
            (1, lambda: [b"SWAPDB", self._keyspace(), self._keyspace()]),
            (4, lambda: [b"SELECT", b"%d" % self._random.randrange(KEYSPACES)]),
        ]

    def _pairs(self) -> list[bytes]:
        return [item for key in self._keys() for item in (key, self._value())]

    def _bit(self) -> bytes:
        return self._random.choice(NOT_INTEGERS) if self._chance(0.05) else self._pick(b"0", b"1")

    def _set(self) -> Command:
        command = [b"SET", self._key(), self._value()]
        if self._chance(0.3):
            command.append(self._cased(self._pick(b"NX", b"XX")))
        if self._chance(0.5):
            command += self._expiry(b"KEEPTTL")
        if self._chance(0.3):
            command.append(self._cased(b"GET"))
        if self._chance(0.05):
            command += self._expiry(b"NX", b"PERSIST", b"KEEPTTL")
        return command

    def _getex(self) -> Command:
        command = [b"GETEX", self._key()]
        if self._chance(0.8):
            command += self._expiry(b"PERSIST")
        if self._chance(0.1):
            command += self._expiry(b"PERSIST", b"KEEPTTL", b"NX")
        return command

    def _getrange(self) -> Command:
        return [self._pick(b"GETRANGE", b"SUBSTR"), self._key(), self._integer(), self._integer()]

    def _incr(self) -> list[Command]:
        name = self._pick(b"INCR", b"DECR", b"INCRBY", b"DECRBY")
        key = self._key()
        command = [name, key, *([self._integer()] if name.endswith(b"BY") else [])]
        return [*self._prepared(key, self._integer()), command]

    def _incrbyfloat(self) -> list[Command]:
        key = self._key()
        return [*self._prepared(key, self._float()), [b"INCRBYFLOAT", key, self._float()]]

    def _prepared(self, key: bytes, value: bytes) -> list[Command]:
        """Half of the time, a SET that makes it likely that the next command has work to do."""
        return [[b"SET", key, value]] if self._chance(0.5) else []

    def _lcs(self) -> list[Command]:
        first, second = self._key(), self._key()
        made = []
        if self._chance(0.5):
            alphabet = self._pick(b"ab", b"abc", b"abcdefgh")
            for key in (first, second):
                size = self._random.randint(0, 40)
                made.append([b"SET", key, bytes(self._random.choices(alphabet, k=size))])
        command = [b"LCS", first, second]
        for option in (b"IDX", b"WITHMATCHLEN", b"MINMATCHLEN", b"LEN"):
            if self._chance(0.1 if option == b"LEN" else 0.5):
                command.append(self._cased(option))
                if option == b"MINMATCHLEN":
                    command.append(self._integer())
        return [*made, command]

    def _bits(self) -> bytes:
        """A few bytes in which runs of equal bits are long."""
        kinds = (b"\x00", b"\xff", b"\x0f", b"\x80", b"\x01", b"\x7f", b"\xfe")
        return b"".join(self._random.choices(kinds, k=self._random.randint(0, 9)))

    def _place(self) -> bytes:
        """One end of a range in a short string, in bytes or bits."""
        if self._chance(0.1):
            return self._integer()
        return b"%d" % self._random.choice((0, 0, 1, 2, 3, 7, 8, 9, 20, 63, -1, -1, -2, -9, -30))

    def _unit(self) -> bytes:
        return self._cased(self._pick(b"BIT", b"BYTE", b"BIT", b"BYTE", b"BIT", b"BITS"))

    def _bitcount(self) -> list[Command]:
        command = [b"BITCOUNT", self._key()]
        if self._chance(0.8):
            command += [self._place(), self._place()]
            if self._chance(0.5):
                command.append(self._unit())
        return [*self._prepared(command[1], self._bits()), command]

    def _bitpos(self) -> list[Command]:
        command = [b"BITPOS", self._key(), self._bit()]
        if self._chance(0.7):
            command.append(self._place())
            if self._chance(0.8):
                command.append(self._place())
                if self._chance(0.6):
                    command.append(self._unit())
        return [*self._prepared(command[1], self._bits()), command]

    def _bitop(self) -> Command:
        name = self._cased(self._pick(b"AND", b"OR", b"XOR", b"NOT", b"NAND"))
        sources = self._keys(1 if name.upper() == b"NOT" and self._chance(0.9) else 4)
        return [b"BITOP", name, self._key(), *sources]

    def _bitfield(self) -> Command:
        read_only = self._chance(0.25)
        command = [b"BITFIELD_RO" if read_only else b"BITFIELD", self._key()]
        for _ in range(self._random.choice((0, 1, 2, 2, 3, 4, 5))):
            name = self._pick(b"GET", b"SET", b"INCRBY", b"OVERFLOW")
            if read_only and self._chance(0.95):
                name = b"GET"
            command.append(self._cased(name))
            if name == b"OVERFLOW":
                kinds = (b"WRAP", b"SAT", b"FAIL", b"SAT", b"FAIL", b"NONE")
                command.append(self._cased(self._random.choice(kinds)))
                continue
            command += [self._encoding(), self._field_offset()]
            if name != b"GET":
                command.append(self._operand())
        return command

    def _operand(self) -> bytes:
        # Redis's arithmetic overflows where SET's operand is near -2**63 (deviations.md).
        operand = self._integer()
        return b"-4611686018427387904" if operand.startswith(b"-92233720368547758") else operand

    def _encoding(self) -> bytes:
        if self._chance(0.05):
            return self._pick(b"u64", b"i65", b"i0", b"x8", b"", b"i", b"8", b"I8", b"u-1", b"u08")
        width = self._random.choice((1, 2, 5, 7, 8, 16, 32, 33, 63, 64))
        return b"%s%d" % (b"i" if width == 64 else self._pick(b"i", b"u"), width)

    def _field_offset(self) -> bytes:
        if self._chance(0.05):
            return self._pick(b"-1", b"#-1", b"#", b"##1", b"a", b"4294967296", b"#4294967296")
        return self._pick(b"", b"#") + b"%d" % self._random.choice((0, 1, 3, 7, 8, 50, 100, 999))

    def _expire(self) -> list[Command]:
        name = self._pick(b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT")
        unit_ms = 1 if name[:1] == b"P" else 1000
        time = self._absolute(unit_ms) if name.endswith(b"AT") else self._relative(unit_ms)
        if self._chance(0.05):
            time = b"-9223372036854775808"
        command = [name, self._key(), time]
        for _ in range(self._random.choice((0, 1, 1, 2))):
            command.append(self._cased(self._pick(b"NX", b"XX", b"GT", b"LT")))
        key = command[1]
        return [*self._prepared(key, b"v"), [b"PEXPIRE", key, self._relative(1)], command]

    def _ttl(self) -> Command:
        return [self._pick(b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"), self._key()]

    def _scan(self) -> Command:
        if self._chance(0.1):
            return [
                b"SCAN",
                self._pick(b"x", b"18446744073709551616", b"1x", b"0x0"),
                b"COUNT",
                b"9",
            ]
        command = [b"SCAN", self._pick(b"0", b"", b"00", b"+0", b"-0"), b"COUNT", b"9999"]
        if self._chance(0.5):
            command += [self._cased(b"MATCH"), self._pattern()]
        if self._chance(0.3):
            command += [self._cased(b"TYPE"), self._pick(b"string", b"STRING", b"list", b"foo")]
        if self._chance(0.1):
            command += [self._pick(b"COUNT", b"MATCH", b"foo"), self._pick(b"0", b"-1", b"x")]
        return command

    def _copy(self) -> Command:
        command = [b"COPY", self._key(), self._key()]
        if self._chance(0.5):
            command += [self._cased(b"DB"), self._keyspace()]
        if self._chance(0.5):
            command.append(self._cased(b"REPLACE"))
        if self._chance(0.05):
            command.append(self._pick(b"DB", b"foo", b"REPLACE"))
        return command

    def _object(self) -> list[Command]:
        # Redis's encodings depend on how a value came about: SET settles it.
        key = self._key()
        question = self._random.choice(
            ([b"ENCODING", key], [b"FREQ", key], [b"foo"], [b"REFCOUNT", key], [b"IDLETIME", key])
        )
        return [[b"SET", key, self._value()], [b"OBJECT", self._cased(question[0]), *question[1:]]]

    def _dbsize(self) -> list[Command]:
        # Redis counts keys past their deadline until somebody looks at them.
        return [[b"EXISTS", *KEYS], [b"DBSIZE"]]

    def _flush(self) -> Command:
        command = [self._pick(b"FLUSHDB", b"FLUSHDB", b"FLUSHALL")]
        if self._chance(0.5):
            command.append(self._cased(self._pick(b"SYNC", b"ASYNC", b"foo")))
        return command
