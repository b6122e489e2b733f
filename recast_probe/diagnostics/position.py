"""Does attention find the subject, or only the place where subjects are?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from recast_probe.diagnostics.inference import PairedDifference, by_subject, paired_difference
from recast_probe.diagnostics.intervals import Interval, mean_interval
from recast_probe.diagnostics.overlap import Overlap
from recast_probe.diagnostics.results import Result, Words
from recast_probe.errors import InputError

SHARE = (0.0, 1.0)
SIGN_FLIPS = "How often so large a difference comes without an effect, signs flipped at random."


@dataclass(frozen=True, repr=False)
class PositionControl(Result):
    """AUROC over several runs, beside what position alone reaches on the same masks.

    Attributes:
        auroc: against each subject's own mask.
        center_auroc: of a map that only prefers the middle, against the same masks.
        other_masks_auroc: of the same scores against masks of other subjects, averaged in each run;
            None where the overlaps were made without them.
        above_center, above_other_masks: `auroc` minus these, pair by pair, with the sign-flip
            p-value.
        verdict: "above position" where every control that was made is beaten (an interval above 0
            and a p-value of at most 0.05), "not above position" where one lies above with the same
            certainty, "undecided" otherwise.
        selection: what was averaged.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profiles = [planted(np.arange(16.0) ** power) for power in (1, 2)]
        >>> overlaps = [rp.overlap(each, np.arange(16) > 11) for each in profiles]
        >>> rp.diagnostics.position_control(overlaps).auroc.mean
        1.0
    """

    name: ClassVar[str] = "position_control"
    title: ClassVar[str] = "Is it more than position?"
    words: ClassVar[Words] = {
        "auroc": ("Subject told from background (AUROC)", "Mean over runs, own masks."),
        "center_auroc": ("AUROC of the middle alone", "Of a map that only prefers the middle."),
        "above_center_p_value": ("p-value against the middle", SIGN_FLIPS),
        "other_masks_auroc": Overlap.words["other_masks_auroc"],
        "above_other_masks_p_value": ("p-value against other subjects' masks", SIGN_FLIPS),
    }

    auroc: Interval
    center_auroc: Interval
    other_masks_auroc: Interval | None
    above_center: PairedDifference
    above_other_masks: PairedDifference | None
    selection: str

    @property
    def verdict(self) -> Literal["above position", "not above position", "undecided"]:
        controls = [each for each in (self.above_center, self.above_other_masks) if each]
        if all(_decided(each) and each.interval.low > 0 for each in controls):
            return "above position"
        if any(_decided(each) and each.interval.high < 0 for each in controls):
            return "not above position"
        return "undecided"

    def summary(self) -> dict[str, float]:
        found = {
            "auroc": self.auroc.mean,
            "center_auroc": self.center_auroc.mean,
            "above_center_p_value": self.above_center.p_value,
        }
        if self.other_masks_auroc and self.above_other_masks:
            found["other_masks_auroc"] = self.other_masks_auroc.mean
            found["above_other_masks_p_value"] = self.above_other_masks.p_value
        return found

    def __repr__(self) -> str:
        others = self.other_masks_auroc
        beside = "" if others is None else f", masks of other subjects {others}"
        return (
            f"PositionControl({self.verdict}: AUROC {self.auroc}, middle alone "
            f"{self.center_auroc}{beside}; {self.selection})"
        )


def position_control(
    overlaps: Sequence[Overlap],
    subjects: Sequence[object] | None = None,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> PositionControl:
    """Compare the AUROC of several runs with that of position alone, pair by pair.

    Args:
        overlaps: one a run, all made with `other_masks` or all without.
        subjects: which subject each run is of; by default each is its own.

    Raises:
        InputError: no overlaps, another number of subjects, an AUROC that is not defined, or masks
            of other subjects in some overlaps only.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> mask = np.arange(16) > 11
        >>> scores = (np.arange(16.0), np.arange(16.0) ** 2, np.arange(16.0) ** 3)
        >>> profiles = [planted(each) for each in scores]
        >>> position_control([rp.overlap(each, mask) for each in profiles]).verdict
        'undecided'
    """
    if not overlaps:
        raise InputError("There are no overlaps to hold against their controls.")
    named = list(range(len(overlaps)) if subjects is None else subjects)
    own = np.array([each.auroc for each in overlaps])
    if np.isnan(own).any():
        raise InputError(f"The AUROC of {int(np.isnan(own).sum())} overlaps is not defined.")
    with_others = {bool(len(each.other_masks_auroc)) for each in overlaps}
    if len(with_others) > 1:
        raise InputError("Some overlaps were made with masks of other subjects, and some without.")

    def mean(values: np.ndarray) -> Interval:
        return mean_interval(by_subject(values, named), within=SHARE, confidence=confidence)

    def above(values: np.ndarray) -> PairedDifference:
        return paired_difference(own, values, confidence, seed=seed, within=SHARE, subjects=named)

    center = np.array([each.center_auroc for each in overlaps])
    others = None
    if with_others == {True}:
        others = np.array([each.other_masks_auroc.mean() for each in overlaps])
    return PositionControl(
        auroc=mean(own),
        center_auroc=mean(center),
        other_masks_auroc=None if others is None else mean(others),
        above_center=above(center),
        above_other_masks=None if others is None else above(others),
        selection=overlaps[0].selection,
    )


def _decided(found: PairedDifference) -> bool:
    return found.p_value <= 0.05 and not math.isnan(found.interval.low)
