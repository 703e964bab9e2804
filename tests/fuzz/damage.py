"""Ways to damage bytes and lines, each drawn from a seed, so that a case's name is enough to make it again."""

import random
from collections.abc import Callable

Change = Callable[[bytes, random.Random], bytes]

FOREIGN = {
    "empty": b"",
    "zeros": b"\0" * 512,
    "text": b"remember the milk\n",
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
    "json_list": b"[1, 2, 3]\n",
    "json_null": b"null\n",
    "gzip": b"\x1f\x8b\x08\x00" + bytes(range(60)),
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08\x08\x02\0\0\0Km)\xdc",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n",
}
"""What else may lie where a file of ours is expected."""


def flip(data: bytes, draw: random.Random) -> bytes:
    """One bit."""
    if not data:
        return data
    position = draw.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << draw.randrange(8)]) + data[position + 1 :]


def flip_some(data: bytes, draw: random.Random) -> bytes:
    """Eight bits."""
    for _ in range(8):
        data = flip(data, draw)
    return data


def truncate(data: bytes, draw: random.Random) -> bytes:
    """Only its beginning is left."""
    return data[: draw.randrange(len(data))] if data else data


def cut(data: bytes, draw: random.Random) -> bytes:
    """Up to forty bytes of its middle are gone."""
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randint(1, 40) :]


def insert(data: bytes, draw: random.Random) -> bytes:
    """Up to eight bytes too many."""
    position = draw.randrange(len(data) + 1)
    return data[:position] + draw.randbytes(draw.randint(1, 8)) + data[position:]


def zero(data: bytes, draw: random.Random) -> bytes:
    """A block of zeros, as a disk leaves that was never written."""
    start = draw.randrange(len(data))
    length = min(len(data) - start, draw.randint(1, 64))
    return data[:start] + b"\0" * length + data[start + length :]


def repeat(data: bytes, draw: random.Random) -> bytes:
    """A part stands there twice."""
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.randint(1, 60))
    return data[:end] + data[start:]


def append(data: bytes, draw: random.Random) -> bytes:
    """Something follows its end."""
    return data + draw.randbytes(draw.randint(1, 16))


BYTES: dict[str, Change] = {
    change.__name__: change for change in (flip, flip_some, truncate, cut, insert, zero, repeat, append)
}
"""By name."""


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def drop_line(data: bytes, draw: random.Random) -> bytes:
    """One line is gone."""
    lines = _lines(data)
    del lines[draw.randrange(len(lines))]
    return b"".join(lines)


def double_line(data: bytes, draw: random.Random) -> bytes:
    """One line stands there twice."""
    lines = _lines(data)
    position = draw.randrange(len(lines))
    return b"".join([*lines[:position], lines[position], *lines[position:]])


def swap_lines(data: bytes, draw: random.Random) -> bytes:
    """Two lines change places."""
    lines = _lines(data)
    one, other = draw.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def foreign_line(data: bytes, draw: random.Random) -> bytes:
    """A line that is none of ours."""
    lines = _lines(data)
    lines.insert(
        draw.randrange(len(lines) + 1), draw.choice([b"<<<<<<< HEAD\n", b"{}\n", b"0\n", b"hello = there\n"])
    )
    return b"".join(lines)


LINES: dict[str, Change] = {
    change.__name__: change for change in (drop_line, double_line, swap_lines, foreign_line)
}
"""By name; for text."""


def damaged(data: bytes, how: str, seed: int) -> bytes:
    """`data` after a change of :data:`BYTES` or :data:`LINES` by its name, or something of :data:`FOREIGN` instead.

    It is another file in any case: the seed goes on until it is.
    """
    if how in FOREIGN:
        return FOREIGN[how]
    draw = random.Random(f"{how}-{seed}")
    while (changed := (BYTES | LINES)[how](data, draw)) == data:
        pass
    return changed
