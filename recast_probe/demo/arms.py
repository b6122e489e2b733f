"""The arms of the comparison, each run kept on disk so that an interrupted demo resumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from recast_probe import rank
from recast_probe._utils.provenance import versions
from recast_probe.errors import InputError
from recast_probe.files.envelope import digest
from recast_probe.images.loading import image_digest
from recast_probe.interventions import Prune, WithoutReference
from recast_probe.pocket import Sample
from recast_probe.probe import Probe
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.result import RunResult
from recast_probe.selection.budgets import Adaptive
from recast_probe.studies import Outcome, Store, Unit, run_study
from recast_probe.studies.engine import record_key
from recast_probe.studies.store import Writer

ARMS = ("full", "recast", "random", "none")


@dataclass(frozen=True)
class Case:
    """One sample and one of its prompts. All arms share `seed`, and with it the noise."""

    name: str
    sample: Sample
    prompt: str
    target_mask: Any
    seed: int


@dataclass(frozen=True)
class Run:
    """One arm of one case, fresh or from disk."""

    image: Image.Image
    reference_tokens_per_step: tuple[int, ...]
    seconds: float
    profile: AttentionProfile | None = None

    @property
    def mean_budget(self) -> float:
        """Reference tokens present in a step, on average."""
        return sum(self.reference_tokens_per_step) / len(self.reference_tokens_per_step)


def cases(samples: tuple[Sample, ...], prompts: int, seed: int) -> list[Case]:
    """Every sample with its first `prompts` prompts, each with a seed of its own."""
    return [
        Case(
            name=f"{sample.name}-{number}",
            sample=sample,
            prompt=sample.prompts[number],
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

    def runs(unit: Unit, missing: Sequence[str]) -> Iterator[Outcome]:
        for arm in missing:
            result = _generate(probe, unit.payload, arm, steps)
            values = {
                "reference_tokens_per_step": list(result.reference_tokens_per_step),
                "seconds": result.seconds,
            }
            files: dict[str, Writer] = {".png": result.image.save}
            if arm == "full" and result.profile is not None:
                files[".nc"] = result.profile.save
            yield Outcome(arm, values, files, result.provenance)

    run_study(units, ARMS, runs, store)
    return {arm: [_stored(store, unit, arm) for unit in units] for arm in ARMS}


def _generate(probe: Probe, case: Case, arm: str, steps: int) -> RunResult:
    common: dict[str, Any] = {"steps": steps, "seed": case.seed, "progress": False}
    image, prompt = case.sample.image, case.prompt
    if arm == "full":
        return probe.generate(image, prompt, profile=True, **common)
    if arm == "recast":
        return probe.recast(image, prompt, **common)
    if arm == "random":
        # as ReCAST: step 0 in full, then the same budgets, only other tokens
        tokens = probe.layout(image).reference_tokens
        prune = Prune(rank.random(tokens, case.seed), Adaptive.paper(tokens), start=1)
        return probe.generate(image, prompt, interventions=[prune], **common)
    return probe.generate(image, prompt, interventions=[WithoutReference()], **common)


def _identity(probe: Probe, case: Case, steps: int) -> dict[str, Any]:
    """Everything that decides the outcome of a case's runs."""
    return {
        **probe.identity(),
        "image": image_digest(case.sample.image),
        "prompt": case.prompt,
        "seed": case.seed,
        "steps": steps,
        "versions": versions(),
    }


def _stored(store: Store, unit: Unit, arm: str) -> Run:
    record = store.load(record_key(unit, arm))
    if record is None:
        raise InputError(f"The run {unit.labels['case']}, {arm} was changed while the demo ran.")
    with Image.open(record.files[".png"]) as opened:
        image = opened.convert("RGB")
    profile = AttentionProfile.load(record.files[".nc"]) if arm == "full" else None
    tokens, seconds = record.values["reference_tokens_per_step"], record.values["seconds"]
    return Run(image, tuple(tokens), seconds, profile)
