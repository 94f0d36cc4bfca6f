"""Mutates seeds, as a strategy of Hypothesis: so failing inputs are minimised and can be reproduced."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

MOST = 200_000
"""Bytes of an input: enough to notice quadratic or exponential time, and still quick to read otherwise."""

_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[-+\w.%]+|[^\s\w]')
"""A string, a number or word, or a single character: the tokens of JSON, TOML and headers."""

WORDS = (
    b"0", b"-1", b"1", b"1.5", b"true", b"null", b'""', b'"x"', b"[]", b"{}", b"[1]", b'{"a": 1}', b"1e999", b"-0.0",
    b"NaN", b"nan", b"inf", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809",
    b"18446744073709551615", b"3.5e38", b"1e-400", b'"\\ud800"', b'"\xf0\x9f\x92\xa5"', b'"\\u0000"', b"\xff", b"\x00",
    b"\r", b"\n", b"\n\n", b" ", b'"', b"'", b"\\", b"[", b"]", b"{", b"}", b",", b":", b"=", b".", b"-", b"#", b"@",
    b"%", b'"2018-10-30T18:00:00.123456+02:00"', b'"0001-01-01T00:00:00Z"', b'"9999-12-31T23:59:60Z"', b"2018-10-30",
    b"0x" + b"f" * 5000,
)  # fmt: skip
"""Values that often break parsers: limits of numbers, invalid characters, extreme times, and each grammar's signs."""

_TIMES = (2, 3, 40, 1200, 30_000)
_OPENERS = ((b"[", b"]"), (b'{"a":', b"}"), (b"{a=", b"}"), (b"(", b")"))

_Op = Callable[[st.DrawFn, bytes, Sequence[bytes], Sequence[bytes]], bytes]


def mutated(seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> st.SearchStrategy[bytes]:
    """One of ``seeds`` after up to five mutations; each of the target's own ``words`` is twice as likely as one of
    WORDS.
    """
    return _mutated(tuple(seeds), (*WORDS, *words, *words))


@st.composite
def _mutated(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 5))):
        data = draw(st.sampled_from(_OPS))(draw, data, seeds, words)[:MOST]
    return data


def _word(draw: st.DrawFn, words: Sequence[bytes]) -> bytes:
    return draw(st.sampled_from(words) | st.binary(max_size=4))


def _at(draw: st.DrawFn, data: bytes) -> int:
    return draw(st.integers(0, len(data)))


def _span(draw: st.DrawFn, data: bytes, longest: int = 60) -> tuple[int, int]:
    """The span of a token or of any bytes."""
    if draw(st.booleans()):
        tokens = [found.span() for found in _TOKEN.finditer(data[:20_000])]
        if tokens:
            return draw(st.sampled_from(tokens))
    begin = _at(draw, data)
    return begin, min(len(data), begin + draw(st.integers(0, longest)))


def _replace(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    begin, end = _span(draw, data)
    return data[:begin] + _word(draw, words) + data[end:]


def _insert(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at = _at(draw, data)
    return data[:at] + _word(draw, words) + data[at:]


def _delete(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    begin, end = _span(draw, data)
    return data[:begin] + data[end:]


def _flip(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at = _at(draw, data)
    return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]


def _repeat(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    begin, end = _span(draw, data)
    return data[:begin] + data[begin:end] * draw(st.sampled_from(_TIMES)) + data[end:]


def _nest(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    begin, end = _span(draw, data)
    opener, closer = draw(st.sampled_from(_OPENERS))
    deep = draw(st.sampled_from((1, 30, 200, 450, 1100, 20_000)))
    return data[:begin] + opener * deep + data[begin:end] + closer * deep + data[end:]


def _move(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Replaces a part of the input by another part of it or of a seed."""
    source = draw(st.sampled_from((data, *seeds)))
    begin, end = _span(draw, source)
    over, until = _span(draw, data)
    return data[:over] + source[begin:end] + data[until:]


def _splice(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    other = draw(st.sampled_from(seeds))
    return data[: _at(draw, data)] + other[_at(draw, other) :]


def _lines(draw: st.DrawFn, data: bytes, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Removes one line, or inserts it once or twice elsewhere."""
    lines = data.split(b"\n")
    line = lines.pop(draw(st.integers(0, len(lines) - 1)))
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), line)
    return b"\n".join(lines)


_OPS: tuple[_Op, ...] = (_replace, _replace, _replace, _insert, _delete, _flip, _repeat, _nest, _move, _splice, _lines)
