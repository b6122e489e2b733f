"""The arms of the comparison, each run kept on disk so that an interrupted demo resumes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from recast_probe import rank
from recast_probe.errors import ProfileFileError
from recast_probe.images import image_digest
from recast_probe.interventions import Prune, WithoutReference
from recast_probe.io import atomic_path, write_json
from recast_probe.pocket import Sample
from recast_probe.probe import Probe
from recast_probe.profile import AttentionProfile
from recast_probe.provenance import versions
from recast_probe.result import RunResult
from recast_probe.selection.budgets import Adaptive

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


def perform(probe: Probe, case: Case, arm: str, steps: int, folder: Path) -> Run:
    """Run one arm of one case, or read it back when the same run is already in `folder`."""
    key = _key(probe, case, arm, steps)
    stored = _stored(folder, case.name, arm, key)
    if stored is not None:
        return stored
    result = _generate(probe, case, arm, steps)
    profile = result.profile if arm == "full" else None
    stem = folder / f"{case.name}.{arm}"
    # an older run's record would vouch for files that are replaced now
    stem.with_name(f"{stem.name}.json").unlink(missing_ok=True)
    if profile is not None:
        profile.save(stem.with_name(f"{stem.name}.nc"))
    with atomic_path(stem.with_name(f"{stem.name}.png")) as temporary:
        result.image.save(temporary)
    # the record comes last: without it the run does not count as done
    write_json(
        stem.with_name(f"{stem.name}.json"),
        {
            "key": key,
            "arm": arm,
            "reference_tokens_per_step": list(result.reference_tokens_per_step),
            "seconds": result.seconds,
            "provenance": result.provenance,
        },
    )
    return Run(result.image, result.reference_tokens_per_step, result.seconds, profile)


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


def _key(probe: Probe, case: Case, arm: str, steps: int) -> str:
    """Everything that decides a run's outcome."""
    facts = {
        "fingerprint": probe.fingerprint,
        "image": image_digest(case.sample.image),
        "prompt": case.prompt,
        "seed": case.seed,
        "steps": steps,
        "arm": arm,
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _stored(folder: Path, name: str, arm: str, key: str) -> Run | None:
    record = folder / f"{name}.{arm}.json"
    try:
        facts = json.loads(record.read_text())
        if facts["key"] != key:
            return None
        with Image.open(folder / f"{name}.{arm}.png") as opened:
            image = opened.convert("RGB")
        profile = AttentionProfile.load(folder / f"{name}.{arm}.nc") if arm == "full" else None
    except (OSError, ValueError, KeyError, TypeError, ProfileFileError):
        return None  # incomplete or damaged: the run is made again
    return Run(image, tuple(facts["reference_tokens_per_step"]), facts["seconds"], profile)
