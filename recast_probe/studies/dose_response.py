"""Dose and response: how identity follows the strength of the attention to a reference."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image
from scipy import stats

from recast_probe._utils.checks import check_finite
from recast_probe._utils.provenance import versions
from recast_probe.content.description import describe_setting
from recast_probe.datasets import Case, case_digest, file_label
from recast_probe.diagnostics.intervals import Interval, mean_interval
from recast_probe.errors import InputError
from recast_probe.files.envelope import digest
from recast_probe.interventions import Intervention, Weigh, WithoutReference
from recast_probe.interventions.weigh import MODES
from recast_probe.masks import MaskFinder, OncePerImage, finder_identity
from recast_probe.metrics import IdentityScorer
from recast_probe.probe import Probe
from recast_probe.studies.comparison import FULL, kept_settings, stored_full, target_error
from recast_probe.studies.engine import Outcome, Unit, run_study
from recast_probe.studies.scored_area import scored_area
from recast_probe.studies.statistics import UNITS, by_subject, compare, means, paired
from recast_probe.studies.store import Store

NONE = "none"
FACTORS: Mapping[str, tuple[float, ...]] = {
    "bias": (0, 0.25, 0.5, 1, 2, 4),
    "scale": (0, 0.25, 0.5, 1, 2, 4),
}
"""By mode of ``Weigh``."""
LIMITS = (-1.0, 1.0)  # of a rank correlation


@dataclass(frozen=True)
class Dose:
    """A token group whose attention is multiplied.

    Attributes:
        group: "reference", or "reference_<i>" of several.
        mode: of ``Weigh``.
        factor: 1 is the run as it is.

    Examples:
        >>> Dose("reference", "bias", 0.5).name
        'reference bias 0.5'
    """

    group: str
    mode: str
    factor: float

    @property
    def name(self) -> str:
        """Its arm; all doses of 1 are one run, and no two other factors share a name."""
        short = f"{self.factor:g}"
        exact = short if float(short) == self.factor else repr(self.factor)
        return FULL if self.factor == 1 else f"{self.group} {self.mode} {exact}"


@dataclass(frozen=True, eq=False)
class DoseResponse:
    """Scores over factors, paired over subjects.

    Attributes:
        runs: one row a run: subject, prompt, arm, and its scores. The arms are "full", "none" and
            the doses by name. Scores are "identity" and, where cases have targets, "target_error";
            of several references "identity_0", "identity_1", ... in their place.
        doses: in the order of their factors.
        selection: what ran, in words.
    """

    runs: pd.DataFrame
    doses: tuple[Dose, ...]
    selection: str

    @property
    def measures(self) -> list[str]:
        """The columns that hold scores."""
        return [
            name
            for name in self.runs
            if str(name).startswith(("identity", "target_error")) and self.runs[name].notna().all()
        ]

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Group and mode of each line of the figure."""
        return list(dict.fromkeys((dose.group, dose.mode) for dose in self.doses))

    def curve(self, measure: str, group: str, mode: str, *, seed: int = 0) -> pd.DataFrame:
        """A score over the factors of one group and mode.

        Returns:
            By factor, ascending: mean with mean_low and mean_high over subjects; difference to the
            run as it is, with low and high, paired, p_value and p_holm (over the factors), and
            subjects. The row of factor 1 has the difference 0 by definition.

        Raises:
            InputError: a score, group or mode that there is not.
        """
        chosen = [dose for dose in self.doses if (dose.group, dose.mode) == (group, mode)]
        if not chosen or measure not in self.measures:
            raise InputError(
                f"There is no {measure!r} of {group!r} by {mode!r}; there is "
                f"{', '.join(self.measures)} of {self.lines}."
            )
        factors = {dose.name: dose.factor for dose in chosen} | {FULL: 1.0}
        table = self.runs[self.runs["arm"].isin(list(factors))]
        mean = means(table, measure, seed=seed)[["mean", "low", "high"]]
        mean = mean.rename(columns={"low": "mean_low", "high": "mean_high"})
        against = compare(table, measure, FULL, seed=seed)
        found = mean.join(against[["difference", "low", "high", "p_value", "p_holm", "subjects"]])
        found.loc[FULL, ["difference", "low", "high"]] = 0.0
        found["subjects"] = against["subjects"].iloc[0]
        found.index = pd.Index([factors[name] for name in found.index], name="factor")
        return found.sort_index()

    def trend(self, measure: str, group: str, mode: str) -> Interval:
        """Spearman correlation of a score with the factor in each case, mean over subjects.

        1 where a score rises with every step of the strength, in every case.
        """
        self.curve(measure, group, mode)
        chosen = [dose for dose in self.doses if (dose.group, dose.mode) == (group, mode)]
        factors = {dose.name: dose.factor for dose in chosen} | {FULL: 1.0}
        table = self.runs[self.runs["arm"].isin(list(factors))]
        wide = paired(table, measure, "arm", UNITS)
        steps = [factors[arm] for arm in wide.columns]
        # a score that no factor changes follows none
        found = wide.apply(
            lambda row: 0.0 if row.nunique() == 1 else float(stats.spearmanr(steps, row)[0]), axis=1
        )
        return mean_interval(by_subject(found), within=LIMITS)

    def __repr__(self) -> str:
        return f"DoseResponse({len(self.doses)} doses, {self.runs['subject'].nunique()} subjects)"


def dose_response(
    probe: Probe,
    cases: Sequence[Case | Sequence[Case]],
    *,
    factors: Mapping[str, Sequence[float]] = FACTORS,
    to_group: str = "generation",
    steps: int = 28,
    finder: MaskFinder | None = None,
    store: Store | None = None,
    progress: bool = True,
    **where: Any,
) -> DoseResponse:
    """Identity and target error while the attention to the reference is multiplied.

    All runs of a case have the same reference, prompt and noise. A factor of 1 is the run as it is,
    to the last bit; the run without any reference stands beside it.

    Args:
        cases: of a benchmark. A group of cases is one run with a reference of each; its prompt and
            seed are the first's, each reference is weighed by itself, and identity is scored
            against each.
        factors: by mode of ``Weigh``, "bias" (the odds of each key are multiplied) and "scale" (the
            logits are).
        to_group: the queries whose attention is changed.
        steps: denoising steps.
        finder: finds the subject in outputs of cases without a target's mask; see ``Comparison``.
        store: keeps every run, so that a study that was cut short goes on; None keeps none. Runs
            with another `to_group`, `steps` or `finder` may lie beside each other.
        progress: a bar on standard error.
        where: engine, workers and what else `run_study` takes on where the runs are made.

    Raises:
        InputError: no cases, groups of several sizes, an unknown mode, or a factor that ``Weigh``
            refuses; nothing has run.
        VerificationError: a check of exactness failed during a run.

    Examples:
        >>> probe, cases = rp.Probe.pocket(), rp.datasets.load_benchmark("pocket", subjects=2)
        >>> settings = {"factors": {"bias": [0.5, 1]}, "steps": 2, "progress": False}
        >>> found = dose_response(probe, cases[::3], **settings)
        >>> found.lines, found.measures
        ([('reference', 'bias')], ['identity', 'target_error'])
    """
    grouped = [(*each,) if isinstance(each, list | tuple) else (each,) for each in cases]
    counts = sorted({len(each) for each in grouped})
    if len(counts) != 1 or not counts[0]:
        raise InputError(
            "Give cases, or groups of cases that all have as many references, not groups of "
            f"{' and '.join(map(str, counts)) or 'no'} cases."
        )
    doses = tuple(_doses(factors, counts[0]))
    arms: dict[str, list[Intervention]] = {FULL: [], NONE: [WithoutReference()]}
    for dose in doses:
        if dose.factor != 1:
            arms[dose.name] = [
                Weigh(dose.group, dose.factor, to_group, mode=dose.mode)  # type: ignore[arg-type]
            ]
    # a store's own settings need not tell these
    strict = store is not None
    named = None if finder is None else finder_identity(finder, strict=strict)
    settings = {"to_group": to_group, "steps": steps, "finder": named}
    if store is None:
        facts = {"model": probe.name, **probe.identity(strict=False), "versions": versions()}
        place = tempfile.TemporaryDirectory()
    else:
        facts, place = store.settings, nullcontext("")  # type: ignore[assignment]
    with place as folder:
        kept = Store(Path(folder), facts) if store is None else store
        work = _Runs(probe, arms, kept, steps, finder, strict)
        units = _units(grouped, settings, strict)
        runs = run_study(units, list(arms), work, kept, progress=progress, **where)
    selection = (
        f"{probe.name}, attention from {to_group} tokens, {runs['subject'].nunique()} subjects, "
        f"{steps} steps"
    )
    return DoseResponse(runs, doses, selection)


def _doses(factors: Mapping[str, Sequence[float]], references: int) -> Iterator[Dose]:
    groups = ["reference"] if references == 1 else [f"reference_{i}" for i in range(references)]
    if not factors or not all(len(each) for each in factors.values()):
        raise InputError("factors holds no factor; give some, such as {'bias': [0, 0.5, 1, 2]}.")
    for mode, each in factors.items():
        if mode not in MODES:
            raise InputError(f"factors are by mode, {' or '.join(MODES)}, not {mode!r}.")
        values = sorted({check_finite("factor", factor) for factor in each})
        if values == [1]:
            raise InputError(f"A factor of 1 alone changes nothing; give others for {mode!r}.")
        for group in groups:
            yield from (Dose(group, mode, factor) for factor in values)


def _units(
    grouped: Sequence[tuple[Case, ...]], settings: Mapping[str, Any], strict: bool
) -> list[Unit]:
    """One unit a group, labelled by subjects, prompt and category; runs with other settings are
    of another content."""
    numbers: dict[str, int] = {}
    found = []
    for cases in grouped:
        subject = " and ".join(case.subject for case in cases)
        number = numbers[subject] = numbers.get(subject, -1) + 1
        labels = {
            "subject": subject,
            "prompt": f"{number}: {cases[0].prompt}",
            "category": cases[0].category,
            **file_label(cases),
        }
        content = digest({"cases": case_digest(cases, strict=strict), **settings})[:16]
        found.append(Unit(labels, cases, content))
    return found


class _Runs:
    """Runs the doses of a group of cases."""

    def __init__(
        self,
        probe: Probe,
        arms: Mapping[str, list[Intervention]],
        store: Store,
        steps: int,
        finder: MaskFinder | None,
        kept: bool,
    ) -> None:
        self.probe, self.arms, self.store, self.steps = probe, arms, store, steps
        self.finder = None if finder is None else OncePerImage(finder)
        self.kept = kept
        self._scorer = IdentityScorer()

    def arm_settings(self, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
        """By arm, what decides its runs where they are kept; see `run_study`."""
        return kept_settings(self.probe, arms, self._settings) if self.kept else {}

    def _settings(self, name: str) -> dict[str, Any]:
        return {"interventions": describe_setting(self.arms[name], strict=True)}

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        full = None if FULL in arms else stored_full(self, unit)
        # the full run first: areas without a target are found in it
        for name in sorted(arms, key=lambda arm: arm != FULL):
            result = self._run(unit.payload, name)
            if full is None:
                full = result.image if name == FULL else self._run(unit.payload, FULL).image
            values = self._scores(unit.payload, result.image, full) | {"seconds": result.seconds}
            yield Outcome(name, values, {".png": result.image.save}, result.provenance)

    def _run(self, cases: tuple[Case, ...], name: str) -> Any:
        references = [case.reference for case in cases]
        return self.probe.generate(
            references[0] if len(references) == 1 else references,
            cases[0].prompt,
            steps=self.steps,
            seed=cases[0].seed,
            interventions=self.arms[name],
            progress=False,
        )

    def _scores(
        self, cases: tuple[Case, ...], image: Image.Image, full: Image.Image
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for number, case in enumerate(cases):
            area = scored_area(case, image, full, self.finder)
            scores = self._scorer.score(image, area.output, area.picture, area.wanted)
            end = "" if len(cases) == 1 else f"_{number}"
            found |= {f"identity{end}": scores["mobilenet"], f"colour{end}": scores["colour"]}
            if len(cases) == 1:
                found |= target_error(case.target, image, area.output) | area.column
        return found
