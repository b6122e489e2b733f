"""Choosing blocks by number, kind or name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from recast_probe._utils.checks import share_of
from recast_probe.errors import InputError

Blocks = str | int | Iterable[str | int]
"""A choice of blocks; see `select_blocks`."""

# FLUX.1 has 38 single-stream blocks, 19..56 counted from 0; the paper averages 20..56, which are
# all but the first if it counts so too, and all but the last if it counts from 1
PAPER_SINGLE_BLOCKS = 38


def select_blocks(selection: Blocks, kinds: Sequence[str]) -> list[int]:
    """Global zero-based block indices, ascending and without repetition.

    Args:
        selection: "all", "double", "single", "paper" (Eq. 3: the single-stream blocks but the
            first of every 38, at least one; 20..56 in FLUX.1; all blocks where only double-stream
            blocks attend to the reference, as with an IP-Adapter and in Qwen-Image-Edit), a block
            index, "double.0" or "single.3" (counted within the kind), or a sequence of these.
        kinds: kind of every block of the model, "double" or "single", by global index.

    Raises:
        InputError: nothing selected, or a block that the model does not have.

    Examples:
        >>> kinds = ["double", "double", "single", "single"]
        >>> select_blocks("single", kinds), select_blocks(["double.1", 3], kinds)
        ([2, 3], [1, 3])
    """
    if isinstance(selection, str | int | np.integer):
        chosen = _one(selection, kinds)
    elif isinstance(selection, Iterable):
        chosen = [block for part in selection for block in _one(part, kinds)]
    else:
        raise _unknown(selection, kinds)
    if not chosen:
        raise InputError(f"blocks={selection!r} selects no block. {_available(kinds)}")
    return sorted(set(chosen))


def _one(selection: Any, kinds: Sequence[str]) -> list[int]:
    if isinstance(selection, bool) or not isinstance(selection, str | int | np.integer):
        raise _unknown(selection, kinds)
    if not isinstance(selection, str):
        if not 0 <= selection < len(kinds):
            raise _unknown(int(selection), kinds)
        return [int(selection)]
    if selection == "all":
        return list(range(len(kinds)))
    single = [block for block, kind in enumerate(kinds) if kind == "single"]
    if selection == "paper":
        if not single:
            return list(range(len(kinds)))
        skipped = share_of(len(single), Fraction(1, PAPER_SINGLE_BLOCKS))
        return single[skipped:] if len(single) > skipped else single
    kind, _, number = selection.partition(".")
    members = [block for block, each in enumerate(kinds) if each == kind]
    if kind not in ("double", "single"):
        raise _unknown(selection, kinds)
    if not number:
        return members
    if not number.isdecimal() or int(number) >= len(members):
        raise _unknown(selection, kinds)
    return [members[int(number)]]


def _unknown(selection: Any, kinds: Sequence[str]) -> InputError:
    return InputError(f"There is no block {selection!r}. {_available(kinds)}")


def _available(kinds: Sequence[str]) -> str:
    counts = {kind: list(kinds).count(kind) for kind in ("double", "single")}
    parts = [f"{kind}.0 to {kind}.{count - 1}" for kind, count in counts.items() if count]
    return (
        f"This model has blocks 0 to {len(kinds) - 1} ({' and '.join(parts)}); groups are "
        "'all', 'double', 'single' and 'paper'."
    )
