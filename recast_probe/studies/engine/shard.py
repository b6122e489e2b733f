"""A part of a study's units, for one of several jobs that know nothing of each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from recast_probe._utils.checks import check_int
from recast_probe.errors import InputError

Item = TypeVar("Item")


def parse_shard(text: str) -> tuple[int, int]:
    """The shard that a text such as "3/8" names.

    Raises:
        InputError: it names none.

    Examples:
        >>> parse_shard("3/8")
        (3, 8)
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if found is None:
        raise InputError(f"A shard is one of several, such as 3/8, not {text!r}.")
    return check_shard((int(found[1]), int(found[2])))


def check_shard(shard: Sequence[int]) -> tuple[int, int]:
    """The shard (number, of how many), counted from 1.

    Raises:
        InputError: it is none.

    Examples:
        >>> check_shard((1, 2))
        (1, 2)
    """
    if isinstance(shard, str) or len(shard) != 2:
        raise InputError(f"A shard is a pair such as (3, 8), the third of eight, not {shard!r}.")
    count = check_int("the number of shards", shard[1], 1)
    number = check_int("the shard", shard[0], 1)
    if number > count:
        raise InputError(f"There is no shard {number} of {count}; the last is {count} of {count}.")
    return number, count


def share_of(items: Sequence[Item], shard: tuple[int, int]) -> list[Item]:
    """Every n-th item, so that all shards together have each once.

    Examples:
        >>> [share_of("abcde", (number, 2)) for number in (1, 2)]
        [['a', 'c', 'e'], ['b', 'd']]
    """
    number, count = shard
    return list(items[number - 1 :: count])
