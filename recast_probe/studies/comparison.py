"""Methods compared on the same references, prompts and noise: the shape of Tables 1 and 2."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from recast_probe.content.description import describe_setting
from recast_probe.datasets import Case, case_digest, file_label
from recast_probe.interventions.base import Intervention
from recast_probe.masks import MaskFinder, OncePerImage, finder_identity
from recast_probe.metrics import IdentityScorer, Metric, metric_settings, metrics_of
from recast_probe.probe import Probe
from recast_probe.runs.result import RunResult
from recast_probe.studies.engine import Outcome, Unit
from recast_probe.studies.engine.unit_runs import record_key
from recast_probe.studies.extra_metrics import measured, per_run
from recast_probe.studies.named_method import named_method
from recast_probe.studies.scored_area import scored_area
from recast_probe.studies.store import Store, Writer

FULL = "full"


@dataclass(frozen=True)
class Arm:
    """A named method with its budget.

    Attributes:
        method: one of `interventions.METHODS`.
        budget: tokens that stay from step 1 on, see `named_method`; unused by "full" and "none".
        blocks: what rankings that ask the model average over.
        given: interventions in place of the method's own; `method` is a name only then.
        steps: denoising steps, where they are not the comparison's.
    """

    method: str
    budget: Any = None
    blocks: Any = "paper"
    given: tuple[Intervention, ...] | None = None
    steps: int | None = None

    def interventions(self, probe: Probe, case: Case) -> list[Intervention]:
        """What is done to the run of one case."""
        if self.given is not None:
            return list(self.given)
        return named_method(probe, self.method, self.budget, blocks=self.blocks)(case)


@dataclass(frozen=True)
class PlannedArm:
    """An arm that is not a method by name.

    Attributes:
        settings: everything that decides what `plan` gives, ready for JSON; a store keeps it.
        plan: the interventions of a case.
        steps: denoising steps, where they are not the comparison's.
    """

    settings: Mapping[str, Any]
    plan: Callable[[Case], list[Intervention]]
    steps: int | None = None

    def describe(self) -> dict[str, Any]:
        """The settings."""
        return dict(self.settings)

    def interventions(self, probe: Probe, case: Case) -> list[Intervention]:
        """What is done to the run of one case."""
        return self.plan(case)


def units(cases: Sequence[Case]) -> list[Unit]:
    """One unit a case, labelled by subject, prompt and category, with the digest of its content."""
    numbers: dict[str, int] = {}
    found = []
    for case in cases:
        number = numbers[case.subject] = numbers.get(case.subject, -1) + 1
        labels = {
            "subject": case.subject,
            "prompt": f"{number}: {case.prompt}",
            "category": case.category,
            **file_label([case]),
        }
        found.append(Unit(labels, case, case_digest([case])))
    return found


class Comparison:
    """Runs the arms of a comparison; see `run_study`.

    Every arm of a case has the same reference, prompt, seed and initial noise, and each step of
    every pruned arm has as many reference tokens as the arm's budget says.

    Args:
        arms: by name; one of them must be "full" with the method "full".
        store: where the full run's image is found again when only other arms are missing.
        metrics: more columns: names such as "dinov2" and "clip-t", or metrics; see
            `recast_probe.metrics.metric`. Metrics of sets have no value for a single run and
            are left to `extra_metrics.set_distances`.
        finder: finds the subject in outputs whose case has no target mask; None compares whole
            images then.
        profiled: arms whose attention is recorded; the profile is stored beside the image (.nc).
        kept: the store outlives this comparison, so each run keeps what decided it. Without, a
            pipeline, metric or finder that cannot be told from another by its content will do.
    """

    def __init__(
        self,
        probe: Probe,
        arms: Mapping[str, Arm | PlannedArm],
        store: Store,
        *,
        steps: int = 28,
        metrics: Sequence[str | Metric] = (),
        finder: MaskFinder | None = None,
        profiled: Collection[str] = (),
        kept: bool = True,
    ) -> None:
        self.probe, self.arms, self.store, self.steps = probe, dict(arms), store, steps
        self.profiled, self.kept = profiled, kept
        self.metrics = metrics_of(metrics)
        # one mask search for each image: all arms of a case share the full run's output
        self.finder = None if finder is None else OncePerImage(finder)
        self._scorer = IdentityScorer()
        # as they are now: some fill themselves when they are first used
        self._scored_by = {
            "metrics": [metric_settings(each) for each in per_run(self.metrics)] if kept else [],
            "masks": finder_identity(finder) if kept and finder is not None else None,
        }

    def arm_settings(self, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
        """By arm, what decides its runs and the values that are kept of them; see `run_study`."""
        return kept_settings(self.probe, arms, self._settings) if self.kept else {}

    def _settings(self, name: str) -> dict[str, Any]:
        arm = self.arms[name]
        return {
            **describe_setting(arm, strict=True),
            **self._scored_by,
            "steps": self.steps if arm.steps is None else arm.steps,
            "profiled": name in self.profiled,
        }

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        case: Case = unit.payload
        full = None
        if FULL not in arms:
            full = stored_full(self, unit) or self.run(case, FULL).image
        # the full run first: the others are measured against it
        for name in sorted(arms, key=lambda arm: arm != FULL):
            result = self.run(case, name)
            full = result.image if name == FULL else full
            assert full is not None
            files: dict[str, Writer] = {".png": result.image.save}
            if name in self.profiled and result.profile is not None:
                files[".nc"] = result.profile.save
            yield Outcome(name, self._measure(case, result, full), files, result.provenance)

    def run(self, case: Case, name: str) -> RunResult:
        """One arm of one case."""
        arm = self.arms[name]
        return self.probe.generate(
            case.reference,
            case.prompt,
            steps=self.steps if arm.steps is None else arm.steps,
            seed=case.seed,
            interventions=arm.interventions(self.probe, case),
            profile=name in self.profiled,
            progress=False,
        )

    def _measure(self, case: Case, result: RunResult, full: Image.Image) -> dict[str, Any]:
        """What is known of one output.

        identity, colour: masked scores against the reference's subject, of a local edit against
        its true target, as scored_against says; identity_to_full, colour_to_full against the full
        run's. target_error, where there is a target: mean absolute distance to it inside the
        subject's mask, as a fraction of the range. scored_on: what was scored, where not all masks
        were given; see `scored_area`.
        Then a column for each further metric.
        """
        image = result.image
        area = scored_area(case, image, full, self.finder)
        to_wanted = self._scorer.score(image, area.output, area.picture, area.wanted)
        to_full = self._scorer.score(image, area.output, full, area.full)
        return {
            "identity": to_wanted["mobilenet"],
            "colour": to_wanted["colour"],
            "identity_to_full": to_full["mobilenet"],
            "colour_to_full": to_full["colour"],
            **target_error(case.target, image, area.output),
            "token_steps": int(sum(result.reference_tokens_per_step)),
            "mean_budget": result.mean_budget,
            "reference_tokens_per_step": list(result.reference_tokens_per_step),
            "seconds": result.seconds,
            **area.column,
            **measured(self.metrics, case, image, full, area),
        }


def kept_settings(
    probe: Probe, arms: Sequence[str], settings: Callable[[str], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """By arm, its settings and the model as it is now, to be kept with its runs."""
    model = probe.identity()
    return {name: settings(name) | {"model": model} for name in arms}


def stored_full(runs: Any, unit: Unit) -> Image.Image | None:
    """The full run's image, where the store of `runs` holds it."""
    record = runs.store.load(record_key(unit, FULL), runs.arm_settings([FULL]).get(FULL))
    return None if record is None else record.image()


def target_error(
    target: Image.Image | None, image: Image.Image, mask: np.ndarray | None
) -> dict[str, float]:
    """Mean absolute distance of an output to its target inside a mask, as a fraction of the range;
    nothing without a target.

    Args:
        mask: bool (height, width) of the output; None for the whole image.
    """
    if target is None:
        return {}
    wanted = np.asarray(target.resize(image.size), np.float64)
    error = np.abs(np.asarray(image, np.float64) - wanted)
    return {"target_error": float((error if mask is None else error[mask]).mean() / 255)}
