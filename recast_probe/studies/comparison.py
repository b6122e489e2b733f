"""Methods compared on the same references, prompts and noise: the shape of Tables 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from recast_probe.identity import IdentityScorer, Metric, metrics_of
from recast_probe.images import fit_mask
from recast_probe.interventions.methods import method
from recast_probe.pocket.bench import BenchCase
from recast_probe.probe import Probe
from recast_probe.result import RunResult
from recast_probe.studies.engine import Outcome, Unit
from recast_probe.studies.extra_metrics import measured
from recast_probe.studies.store import Store

FULL = "full"


@dataclass(frozen=True)
class Arm:
    """A named method with its budget.

    Attributes:
        method: one of `interventions.METHODS`.
        budget: tokens that stay from step 1 on; unused by "full" and "none".
        blocks: what rankings that ask the model average over.
    """

    method: str
    budget: Any = None
    blocks: Any = "paper"


def units(cases: Sequence[BenchCase]) -> list[Unit]:
    """One unit a case, labelled by subject, prompt and category."""
    numbers: dict[str, int] = {}
    found = []
    for case in cases:
        number = numbers[case.subject] = numbers.get(case.subject, -1) + 1
        labels = {
            "subject": case.subject,
            "prompt": f"{number}: {case.prompt}",
            "category": case.category,
        }
        found.append(Unit(labels, case))
    return found


class Comparison:
    """Runs the arms of a comparison; see `run_study`.

    Every arm of a case has the same reference, prompt, seed and initial noise, and each step of
    every pruned arm has as many reference tokens as the arm's budget says.

    Args:
        arms: by name; one of them must be "full" with the method "full".
        store: where the full run's image is found again when only other arms are missing.
        metrics: more columns: names such as "dinov2" and "clip-t", or metrics; see
            `recast_probe.identity.metric`. Metrics of sets have no value for a single run and
            are left to `extra_metrics.set_distances`.
    """

    def __init__(
        self,
        probe: Probe,
        arms: Mapping[str, Arm],
        store: Store,
        *,
        steps: int = 28,
        metrics: Sequence[str | Metric] = (),
    ) -> None:
        self.probe, self.arms, self.store, self.steps = probe, dict(arms), store, steps
        self.metrics = metrics_of(metrics)
        self._scorer = IdentityScorer()

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        case: BenchCase = unit.payload
        full = self._stored_full(unit) if FULL not in arms else None
        # the full run first: the others are measured against it
        for name in sorted(arms, key=lambda arm: arm != FULL):
            result = self.run(case, name)
            full = result.image if name == FULL else full
            assert full is not None
            yield Outcome(
                name,
                self._measure(case, result, full),
                {".png": result.image.save},
                result.provenance,
            )

    def run(self, case: BenchCase, name: str) -> RunResult:
        """One arm of one case."""
        arm = self.arms[name]
        interventions = method(
            arm.method,
            arm.budget,
            self.probe.layout(case.reference),
            blocks=arm.blocks,
            mask=self.probe.reference_mask(case.reference_mask, case.reference),
            seed=case.seed,
        )
        return self.probe.generate(
            case.reference,
            case.prompt,
            steps=self.steps,
            seed=case.seed,
            interventions=interventions,
            progress=False,
        )

    def _stored_full(self, unit: Unit) -> Image.Image:
        key = {**{name: str(label) for name, label in unit.labels.items()}, "arm": FULL}
        record = self.store.load(key)
        if record is None:
            return self.run(unit.payload, FULL).image
        with Image.open(record.files[".png"]) as opened:
            return opened.convert("RGB")

    def _measure(self, case: BenchCase, result: RunResult, full: Image.Image) -> dict[str, Any]:
        """What is known of one output.

        identity, colour: masked scores against the reference's subject, and identity_to_full,
        colour_to_full against the full run's. target_error: mean absolute distance to the true
        target inside the subject's mask, as a fraction of the range.
        Then a column for each further metric.
        """
        image = result.image
        mask = fit_mask(case.target_mask, image)
        to_reference = self._scorer.score(image, mask, case.reference, case.reference_mask)
        to_full = self._scorer.score(image, mask, full, mask)
        wanted = np.asarray(case.target.resize(image.size), np.float64)
        error = np.abs(np.asarray(image, np.float64) - wanted)[mask].mean() / 255
        return {
            "identity": to_reference["mobilenet"],
            "colour": to_reference["colour"],
            "identity_to_full": to_full["mobilenet"],
            "colour_to_full": to_full["colour"],
            "target_error": float(error),
            "token_steps": int(sum(result.reference_tokens_per_step)),
            "mean_budget": result.mean_budget,
            "seconds": result.seconds,
            **measured(self.metrics, case, image, mask, full),
        }
