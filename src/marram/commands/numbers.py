"""Decimal fractions as Redis on x86-64 computes them: the 80-bit extended format, in integers.

Owns parsing (what C's strtold accepts), addition and the text of a result (17 decimals, trailing
zeros cut). INCRBYFLOAT's replies are compared with Redis's byte for byte, and a Python float has
eleven bits too few for that. Integers are spec.integer()'s.

N1  a Number is exactly mantissa * 2**exponent with |mantissa| < 2**64 and exponent >= -16445: a
    value of the extended format; every operation rounds once, to nearest, ties to even.
N2  the work is bounded whatever the text: it is at most 5 KiB, and exponents beyond the format's
    range are settled before any power is taken.

Threading: pure functions.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final, NamedTuple

_MANTISSA_BITS: Final = 64
_MIN_EXPONENT: Final = -16445  # of the last bit of a subnormal number
_MAX_BITS: Final = 16384  # 2**16384 is infinite
_MAX_TEXT_BYTES: Final = 5 * 1024 - 1
# Beyond this power of ten, or of two, 5 KiB of digits cannot bring a number back into range.
_FAR: Final = 50_000

_DECIMALS: Final = 17
_SCALE: Final = 10**_DECIMALS

_DECIMAL: Final = re.compile(rb"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")
_HEX: Final = re.compile(
    rb"([+-]?)0[xX]([0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP]([+-]?[0-9]+))?"
)
_INFINITE: Final = re.compile(rb"[+-]?inf(inity)?", re.IGNORECASE)


class Number(NamedTuple):
    """mantissa * 2**exponent."""

    mantissa: int
    exponent: int


ZERO: Final = Number(0, 0)


class Infinite(ValueError):
    """The value is no finite number of the format, though the text, or the sum, is valid."""


def parse(text: bytes) -> Number:
    """The nearest number to a text. Raises Infinite for "inf", ValueError for what is no number.

    Out of range, either way, is no number, as is "nan".
    """
    if len(text) > _MAX_TEXT_BYTES:
        raise ValueError("too long")
    if match := _DECIMAL.fullmatch(text):
        sign, digits, power = match.groups()
        numerator, denominator = Decimal(digits.decode("ascii")).as_integer_ratio()
        number = _scaled(numerator, denominator, 10, power)
    elif match := _HEX.fullmatch(text):
        sign, digits, power = match.groups()
        whole, _, fraction = digits.partition(b".")
        number = _scaled(int(whole + fraction, 16), 16 ** len(fraction), 2, power)
    elif _INFINITE.fullmatch(text):
        raise Infinite
    else:
        raise ValueError("not a number")
    return Number(-number.mantissa, number.exponent) if sign == b"-" else number


def add(one: Number, other: Number) -> Number:
    """Their sum. Raises Infinite."""
    exponent = min(one.exponent, other.exponent)
    total = (one.mantissa << (one.exponent - exponent)) + (
        other.mantissa << (other.exponent - exponent)
    )
    if exponent >= 0:
        return _rounded(total << exponent, 1)
    return _rounded(total, 1 << -exponent)


def to_text(number: Number) -> bytes:
    """At most 17 decimals, no trailing zeros, no exponent, no negative zero."""
    mantissa, exponent = number
    scaled = abs(mantissa) * _SCALE
    if exponent >= 0:
        scaled <<= exponent
    else:
        scaled = _divided(scaled, 1 << -exponent)
    # By way of Decimal: Python refuses to print integers of more than 4300 digits.
    digits = str(Decimal(scaled)).rjust(_DECIMALS + 1, "0")
    text = f"{digits[:-_DECIMALS]}.{digits[-_DECIMALS:]}".rstrip("0").rstrip(".")
    return (f"-{text}" if mantissa < 0 and scaled else text).encode("ascii")


def _scaled(numerator: int, denominator: int, radix: int, power: bytes | None) -> Number:
    """numerator / denominator * radix**power, rounded; ValueError where it is out of range."""
    if numerator == 0:
        return ZERO
    if power is not None:
        digits = power.lstrip(b"+-").lstrip(b"0")
        size = int(digits or b"0") if len(digits) < 6 else _FAR
        if size >= _FAR:
            raise ValueError("out of range")
        if power.startswith(b"-"):
            denominator *= radix**size
        else:
            numerator *= radix**size
    try:
        number = _rounded(numerator, denominator)
    except Infinite:
        raise ValueError("out of range") from None
    if number.mantissa == 0:
        raise ValueError("out of range")
    return number


def _rounded(numerator: int, denominator: int) -> Number:
    """The nearest number to a quotient. Raises Infinite."""
    size = abs(numerator)
    bits = size.bit_length() - denominator.bit_length()  # of the quotient's whole part, less one
    if _divides(size, denominator, bits):
        bits += 1
    exponent = max(bits - _MANTISSA_BITS, _MIN_EXPONENT)
    if exponent >= 0:
        mantissa = _divided(size, denominator << exponent)
    else:
        mantissa = _divided(size << -exponent, denominator)
    if mantissa >> _MANTISSA_BITS:  # rounded up to 2**64
        mantissa >>= 1
        exponent += 1
    if mantissa.bit_length() + exponent > _MAX_BITS:
        raise Infinite
    return Number(-mantissa if numerator < 0 else mantissa, exponent)


def _divides(size: int, denominator: int, power: int) -> bool:
    """Whether size / denominator >= 2**power."""
    if power >= 0:
        return size >= denominator << power
    return size << -power >= denominator


def _divided(size: int, divisor: int) -> int:
    """size / divisor to the nearest integer, ties to even."""
    quotient, rest = divmod(size, divisor)
    rest *= 2
    return quotient + (rest > divisor or (rest == divisor and quotient & 1))
