"""The demo's cases and arms, compared as every study does it: what is on disk is not run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recast_probe._utils.provenance import versions
from recast_probe.errors import InputError
from recast_probe.files.envelope import digest
from recast_probe.images.loading import image_digest
from recast_probe.pocket import Sample
from recast_probe.pocket.shipped import IN_PLACE
from recast_probe.probe import Probe
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.selection.budgets import Adaptive
from recast_probe.studies import Store, Unit, run_study
from recast_probe.studies.comparison import Arm, Comparison
from recast_probe.studies.engine.unit_runs import record_key

ARMS = ("full", "recast", "random", "none")


@dataclass(frozen=True, eq=False)
class Case:
    """One sample and one of its prompts, of a kind; see `datasets.Case`.

    All arms share `seed`, and with it the noise.
    """

    name: str
    sample: Sample
    prompt: str
    kind: str
    target_mask: np.ndarray
    seed: int
    target: Image.Image | None = None

    @property
    def category(self) -> str:
        return "background change" if self.kind == IN_PLACE else "character reference"

    @property
    def subject(self) -> str:
        return self.sample.name

    @property
    def reference(self) -> Image.Image:
        return self.sample.image

    @property
    def reference_mask(self) -> np.ndarray:
        return self.sample.mask


@dataclass(frozen=True)
class Run:
    """One arm of one case, as the store has it; `values` are those of `Comparison`."""

    image: Image.Image
    values: Mapping[str, Any]
    profile: AttentionProfile | None = None


def cases(samples: tuple[Sample, ...], prompts: int, seed: int) -> list[Case]:
    """Every sample with its first `prompts` prompts, each with a seed of its own."""
    return [
        Case(
            name=f"{sample.name}-{number}",
            sample=sample,
            prompt=sample.prompts[number],
            kind=sample.kinds[number],
            target_mask=sample.target_masks[number],
            seed=seed * 1_000_003 + place * 1_009 + number,
        )
        for place, sample in enumerate(samples)
        for number in range(prompts)
    ]


def perform(probe: Probe, chosen: Sequence[Case], steps: int, folder: Path) -> dict[str, list[Run]]:
    """Every arm of every case, by arm in the order of the cases.

    Runs that are already in `folder` and were made in the same way are read back. Runs of other
    models, seeds and steps may lie beside them.
    """
    store = Store(folder, {"study": "demo"})
    units = [
        Unit({"case": case.name, "run": digest(_identity(probe, case, steps))[:16]}, case)
        for case in chosen
    ]
    # all samples have one size
    budget = Adaptive.paper(probe.layout(chosen[0].reference).reference_tokens)
    arms = {name: Arm(name, budget) for name in ARMS}
    run_study(units, ARMS, Comparison(probe, arms, store, steps=steps, profiled=["full"]), store)
    return {arm: [_stored(store, unit, arm) for unit in units] for arm in ARMS}


def _identity(probe: Probe, case: Case, steps: int) -> dict[str, Any]:
    """Everything that decides the outcome of a case's runs, and their scores."""
    return {
        **probe.identity(),
        "image": image_digest(case.reference),
        "masks": [
            image_digest(Image.fromarray(mask)) for mask in (case.reference_mask, case.target_mask)
        ],
        "prompt": case.prompt,
        "seed": case.seed,
        "steps": steps,
        "versions": versions(),
    }


def _stored(store: Store, unit: Unit, arm: str) -> Run:
    record = store.load(record_key(unit, arm))
    if record is None:
        raise InputError(f"The run {unit.labels['case']}, {arm} was changed while the demo ran.")
    profile = AttentionProfile.load(record.files[".nc"]) if ".nc" in record.files else None
    return Run(record.image(), record.values, profile)
