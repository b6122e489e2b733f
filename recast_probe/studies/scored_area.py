"""Which part of an output is scored: where the subject should be, where it is found, or all of it.

A benchmark without targets does not say where the subject should be in an output. Then a mask
finder looks for it, or whole images are compared; every run says which it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from recast_probe.datasets.case import Case, mask_origin
from recast_probe.errors import InputError
from recast_probe.images import fit_mask
from recast_probe.masks import MaskFinder, find_mask, finder_name

COLUMN = "scored_on"
GIVEN = "given masks"


@dataclass(frozen=True, eq=False)
class ScoredArea:
    """Masks of an output, of its reference and of the full run's output; None for whole images.

    Attributes:
        output, reference, full: bool (height, width), all three or none.
        words: what was scored, `GIVEN` for the benchmark's own masks.
    """

    output: np.ndarray | None
    reference: np.ndarray | None
    full: np.ndarray | None
    words: str

    @property
    def column(self) -> dict[str, str]:
        """What the table says of it; nothing where all masks were given."""
        return {} if self.words == GIVEN else {COLUMN: self.words}


def scored_area(
    case: Case, output: Image.Image, full: Image.Image, finder: MaskFinder | None
) -> ScoredArea:
    """Which part of an output counts.

    The target's mask, where the case has one, says where the subject should be. Else the finder
    looks for it in the output and in the full run's. The kind of area depends on reference and
    full run alone, so that all arms of a case are scored alike: where the finder sees nothing in
    one arm's output, the full run's place counts. Where the reference or the full run has no mask,
    whole images are compared, because a subject against a whole picture compares nothing.
    """
    reference = case.reference_mask
    if reference is None:
        origin = mask_origin(case)
        words = "no masks" if origin == "none" else f"{origin} saw nothing in the reference"
        return _whole(words)
    wanted = case.target_mask
    if wanted is not None:
        origins = {mask_origin(case), mask_origin(case, "target")}
        words = GIVEN if origins == {"given"} else _masks(origins)
        return ScoredArea(fit_mask(wanted, output), reference, fit_mask(wanted, full), words)
    if finder is None:
        return _whole("no masks of outputs")
    name, of_full = finder_name(finder), find_mask(full, finder)
    if not of_full.any():
        return _whole(f"{name} saw nothing in the full run")
    words, of_output = _masks({mask_origin(case), name}), find_mask(output, finder)
    if not of_output.any():
        return ScoredArea(of_full, reference, of_full, f"{words}, the full run's")
    return ScoredArea(of_output, reference, of_full, words)


def _whole(why: str) -> ScoredArea:
    return ScoredArea(None, None, None, f"whole images ({why})")


def _masks(origins: set[str]) -> str:
    found = sorted(origins - {"given"})
    return " and ".join((["given"] if "given" in origins else []) + found) + " masks"


def scored_on(table: pd.DataFrame) -> str | None:
    """What the runs of a table were scored on, in words; None where all masks were given."""
    if COLUMN not in table:
        return None
    counts = table[COLUMN].fillna(GIVEN).value_counts()
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{count} of {len(table)} on {words}" for words, count in counts.items())


def check_oracle(cases: list[Case], methods: Mapping[str, Any]) -> None:
    """Check that every case has a mask, if one of the methods ranks by it.

    Args:
        methods: by arm, the name of its method.

    Raises:
        InputError: a mask is missing; says for which reference, and what to do.
    """
    arms = [arm for arm, method in methods.items() if method == "mask-oracle"]
    lacking = dict.fromkeys(
        case.subject for case in (cases if arms else ()) if case.reference_mask is None
    )
    if lacking:
        raise InputError(
            f"The arm {arms[0]!r} ranks by the subject's mask, and {len(lacking)} references have "
            f"none, the first is {next(iter(lacking))!r} (masks: {mask_origin(cases[0])}). Give "
            "masks, choose another mask finder, or leave the mask oracle out."
        )
