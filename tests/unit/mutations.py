"""Seeded damage to bytes and to JSON, for the fuzzers."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Bytes = Callable[[random.Random, bytes], bytes]


def flip(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(rng: random.Random, data: bytes) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice([1, 4, 8, 64, 4096])
    filling = rng.choice([b"\0", b"\xff", b"\x7f", bytes([rng.randrange(256)])])
    return data[:start] + (filling * length)[: len(data) - start] + data[start + length :]


def cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def remove(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice([1, 8, 100]) :]


def insert(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.choice([1, 8, 100])) + data[start:]


def repeat(rng: random.Random, data: bytes) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice([8, 100, 1000])
    return data[:start] + data[start : start + length] + data[start:]


ON_BYTES: tuple[Bytes, ...] = (flip, overwrite, cut, remove, insert, repeat)

JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1.5, "", "../../x", "shard-00001.h5", "\ud800", [], {}, [[]],
    {"a": 1}, "0" * 64,
)  # fmt: skip


def mutate_json(rng: random.Random, document: Any) -> Any:
    """Replace, remove, add or exchange something somewhere in a JSON value."""
    changed = copy.deepcopy(document)
    holder, key = rng.choice(list(_places(changed)))
    what = rng.choice(["junk", "junk", "remove", "copy"])
    if what == "junk":
        holder[key] = rng.choice(JUNK)
    elif what == "remove":
        del holder[key]
    else:
        other, name = rng.choice(list(_places(changed)))
        holder[key] = copy.deepcopy(other[name])
    return changed


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8")
