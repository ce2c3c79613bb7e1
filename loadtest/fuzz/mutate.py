"""Mutated inputs from a fixed seed, without atheris: what the ordinary tests run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

INPUT_MAX = 16 << 10  # bytes
_TOKENS = (
    b"\0", b"\xff", b"\xff\xfe", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\n ", b"--b\r\n", b"--b--", b"\x80", b"\xc3", b"\xed\xa0\x80",
    b"\xe2\x80\xae", b"\xef\xbb\xbf", b'"', b"\\", b"<", b">", b"@", b";", b"=?", b"?=", b"=?utf-8?q?=FF?=", b"&#", b"9" * 5000,
    b"{{", b"}}", b"{{n}}", b"%00", b"\x7f", b"\xff" * 9 + b"\x01", b"\x01" * 10, b"a" * 999, b"From: x@evil.test\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n", b"Content-Type: message/rfc822\r\n\r\n", b"charset=-punycode",
)  # fmt: skip


def mutations(seeds: Sequence[bytes], number: int, seed: int) -> Iterator[bytes]:
    """`number` inputs, each a seed with some changes; the same for the same `seed`."""
    chance = random.Random(seed)
    for _ in range(number):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.choice((1, 1, 2, 4, 8))):
            at = chance.randint(0, len(data))
            end = min(len(data), at + chance.choice((1, 2, 8, 64)))
            match chance.randrange(6):
                case 0 if at < len(data):
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at:end]
                case 2:
                    data[at:at] = data[at:end] * chance.choice((1, 2, 50))
                case 3:
                    other = chance.choice(seeds)
                    data[at:] = other[chance.randint(0, len(other)) :]
                case 4 if chance.randrange(4) == 0:
                    del data[at:]
                case _:
                    data[at:at] = chance.choice(_TOKENS)
        yield bytes(data[:INPUT_MAX])
