"""Ways to damage bytes and JSON values."""

from __future__ import annotations

import json
import random
from typing import Any

ODD = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.5, 1e308, float("nan")),
    *(float("inf"), "", " ", "x", "1_000", "\u0663", "+5", "NaN", "\0", "\ud800", "../x", "/x"),
    *("<script>alert(1)</script>", "a" * 5000, [], {}, [1], {"a": 1}, [[[]]]),
)
"""Values of JSON, and of what Python takes for JSON."""


def flipped(data: bytes, rng: random.Random, most: int = 4) -> bytes:
    """Some bits turned over."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, most)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut, turned over, with something put in, taken out, doubled, or replaced."""
    way = rng.randrange(7)
    place = rng.randrange(len(data))
    length = rng.choice((1, 2, 8, 64, 512))
    if way == 0:
        return data[:place]
    if way == 1:
        return data[:place] + rng.randbytes(length) + data[place:]
    if way == 2:
        return data[:place] + data[place + length :]
    if way == 3:
        return data[:place] + data[place : place + length] * 2 + data[place + length :]
    if way == 4:
        return data[:place] + rng.randbytes(length) + data[place + length :]
    return flipped(data, rng, 1 if way == 5 else 8)


def edited(values: Any, rng: random.Random) -> Any:
    """A JSON value with one of its parts replaced, left out or added."""
    places = _places(values)
    values = json.loads(json.dumps(values))
    path = rng.choice(places)
    if not path:
        return rng.choice(ODD)
    owner = values
    for step in path[:-1]:
        owner = owner[step]
    way = rng.randrange(6)
    if way == 0 and isinstance(owner, dict):
        del owner[path[-1]]
    elif way == 1 and isinstance(owner, dict):
        owner[f"{path[-1]}2"] = owner[path[-1]]
    elif way == 2 and isinstance(owner[path[-1]], int | float):
        owner[path[-1]] = owner[path[-1]] * rng.choice((-1, 2, 1.5, 1e300, 0))
    else:
        owner[path[-1]] = rng.choice(ODD)
    return values


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in parts:
            found += _places(each, (*path, name))
    return found
