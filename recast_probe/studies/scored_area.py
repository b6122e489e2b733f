"""Which part of an output is scored, and against what.

An output is scored where the subject should be, where it is found, or as a whole. A benchmark
without targets does not say where the subject should be in an output. Then a mask finder looks for
it, or whole images are compared; every run says which it was.

It is scored against the subject in the reference. A local edit changes the subject itself, so
there likeness to the reference would reward an output that ignores the prompt: it is scored
against the true target, where there is one, and every run says which it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from recast_probe.datasets.case import Case, mask_origin
from recast_probe.errors import InputError
from recast_probe.images.loading import fit_mask
from recast_probe.masks import MaskFinder, find_mask, finder_name

COLUMN = "scored_on"
GIVEN = "given masks"
AGAINST = "scored_against"
REFERENCE, TARGET, NO_TARGET = "reference", "target", "reference, for lack of a target"


@dataclass(frozen=True, eq=False)
class ScoredArea:
    """Masks of an output, of what it is scored against and of the full run's output.

    Attributes:
        output, wanted, full: bool (height, width), all three or none; None for whole images.
        words: what was scored, `GIVEN` for the benchmark's own masks.
        picture: shows the subject as the output should: the reference, or a local edit's target.
        against: which of them it is.
    """

    output: np.ndarray | None
    wanted: np.ndarray | None
    full: np.ndarray | None
    words: str
    picture: Image.Image
    against: str

    @property
    def column(self) -> dict[str, str]:
        """Columns of the table; none for the masks where all were given."""
        found = {AGAINST: self.against}
        return found if self.words == GIVEN else found | {COLUMN: self.words}


def changes_subject(case: Case) -> bool:
    """Whether the prompt changes the subject itself: a local edit, as the category calls it."""
    return re.search(r"\blocal\b", case.category, re.IGNORECASE) is not None


def scored_area(
    case: Case, output: Image.Image, full: Image.Image, finder: MaskFinder | None
) -> ScoredArea:
    """Which part of an output counts.

    The target's mask, where the case has one, says where the subject should be. Else the finder
    looks for it in the output and in the full run's. The kind of area depends on reference and
    full run alone, so that all arms of a case are scored alike: where the finder sees nothing in
    one arm's output, the full run's place counts. Where the reference or the full run has no mask,
    whole images are compared, because a subject against a whole picture compares nothing. A local
    edit is scored against its target, inside the target's mask.
    """
    target = case.target
    if target is not None and changes_subject(case):
        picture, mask, against, which = target, case.target_mask, TARGET, "target"
    else:
        against = NO_TARGET if changes_subject(case) else REFERENCE
        picture, mask, which = case.reference, case.reference_mask, "reference"

    def area(of_output: Any, of_picture: Any, of_full: Any, words: str) -> ScoredArea:
        return ScoredArea(of_output, of_picture, of_full, words, picture, against)

    def whole(why: str) -> ScoredArea:
        return area(None, None, None, f"whole images ({why})")

    origin = mask_origin(case, which)  # type: ignore[arg-type]
    if mask is None:
        return whole("no masks" if origin == "none" else f"{origin} saw nothing in the {which}")
    wanted = case.target_mask
    if wanted is not None:
        origins = {origin, mask_origin(case, "target")}
        words = GIVEN if origins == {"given"} else _masks(origins)
        return area(fit_mask(wanted, output), mask, fit_mask(wanted, full), words)
    if finder is None:
        return whole("no masks of outputs")
    name, of_full = finder_name(finder), find_mask(full, finder)
    if not of_full.any():
        return whole(f"{name} saw nothing in the full run")
    words, of_output = _masks({origin, name}), find_mask(output, finder)
    if not of_output.any():
        return area(of_full, mask, of_full, f"{words}, the full run's")
    return area(of_output, mask, of_full, words)


def _masks(origins: set[str]) -> str:
    found = sorted(origins - {"given"})
    return " and ".join((["given"] if "given" in origins else []) + found) + " masks"


def scored_on(table: pd.DataFrame) -> str | None:
    """What the runs of a table were scored on, as text; None where all masks were given."""
    if COLUMN not in table:
        return None
    counts = table[COLUMN].fillna(GIVEN).value_counts()
    if len(counts) == 1:
        return str(counts.index[0])
    return ", ".join(f"{count} of {len(table)} on {words}" for words, count in counts.items())


def scored_against(table: pd.DataFrame) -> str | None:
    """What local edits of a table were scored against, as text; None where there are none."""
    found = table[AGAINST].dropna().unique() if AGAINST in table else []
    known = [words for words in (TARGET, NO_TARGET) if words in found]
    return f"local edits: to the {' or the '.join(known)}" if known else None


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
