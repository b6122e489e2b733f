"""Choosing blocks by number, kind or name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from recast_probe._utils.checks import share_of
from recast_probe.errors import InputError

Blocks = str | int | slice | Iterable[str | int]
"""A choice of blocks; see `select_blocks`."""

MODULE_LISTS = {"transformer_blocks": "double", "single_transformer_blocks": "single"}
"""diffusers' names of a FLUX transformer's lists of blocks."""

# FLUX.1 has 38 single-stream blocks, 19..56 counted from 0; the paper averages 20..56, which are
# all but the first if it counts so too, and all but the last if it counts from 1
PAPER_SINGLE_BLOCKS = 38


def select_blocks(selection: Blocks, kinds: Sequence[str]) -> list[int]:
    """Global zero-based block indices, ascending and without repetition.

    Args:
        selection: "all", "double", "single", "paper" (Eq. 3: the single-stream blocks but the
            first of every 38, at least one; 20..56 in FLUX.1; all blocks where only double-stream
            blocks attend to the reference, as with an IP-Adapter and in Qwen-Image-Edit), a block
            index, "double.0" or "single.3" (counted within the kind; diffusers' own names
            "transformer_blocks.0" and "single_transformer_blocks.3" mean the same), a slice of all
            blocks, or a sequence of these.
        kinds: kind of every block of the model, "double" or "single", by global index.

    Raises:
        InputError: nothing selected, or a block that the model does not have.

    Examples:
        >>> kinds = ["double", "double", "single", "single"]
        >>> select_blocks("single", kinds), select_blocks(["double.1", 3], kinds)
        ([2, 3], [1, 3])
        >>> select_blocks("single_transformer_blocks.0", kinds), select_blocks(slice(1, 3), kinds)
        ([2], [1, 2])
    """
    if isinstance(selection, str | int | np.integer):
        chosen = _one(selection, kinds)
    elif isinstance(selection, slice):
        try:
            chosen = list(range(len(kinds))[selection])
        except (TypeError, ValueError):
            raise _unknown(selection, kinds) from None
    elif isinstance(selection, Iterable):
        chosen = [block for part in selection for block in _one(part, kinds)]
    else:
        raise _unknown(selection, kinds)
    if not chosen:
        raise InputError(f"blocks={selection!r} selects no block. {_available(kinds)}")
    return sorted(set(chosen))


def group_of(selection: Blocks, kinds: Sequence[str]) -> str:
    """The name of a group of blocks as results say it: "paper" is "all" where it means all.

    Returns:
        The name as it was given otherwise; empty for a choice that is no name.

    Examples:
        >>> group_of("paper", ["double", "single"]), group_of("paper", ["double", "double"])
        ('paper', 'all')
    """
    if not isinstance(selection, str):
        return ""
    return "all" if selection == "paper" and "single" not in kinds else selection


def single_or_all(kinds: Sequence[str]) -> str:
    """The single-stream blocks where a model has any, and all blocks where it has none.

    Examples:
        >>> single_or_all(["double", "single"]), single_or_all(["double", "double"])
        ('single', 'all')
    """
    return "single" if "single" in kinds else "all"


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
    if kind in MODULE_LISTS and "double" in kinds:
        kind = MODULE_LISTS[kind]
    elif kind == "transformer_blocks":  # the only list of LTX and Qwen-Image 2.1
        kind = "single"
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
