"""Neighbouring blocks or steps taken together, so that a sweep needs fewer runs."""

from __future__ import annotations

from collections.abc import Sequence

from recast_probe._utils.checks import check_int


def windows(items: Sequence[int], size: int | None) -> list[tuple[int, ...]]:
    """Items in groups of `size` neighbours, in order; the last group may be smaller.

    Args:
        size: at least 1; None puts all items into one group.

    Raises:
        InputError: a size below 1.

    Examples:
        >>> windows([0, 1, 2, 5, 6], 2)
        [(0, 1), (2, 5), (6,)]
    """
    size = max(len(items), 1) if size is None else check_int("A window's size", size, 1)
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]
