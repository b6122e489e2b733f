"""What a gate found: the verdict in words, every arm with its work, and who beats whom."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from recast_probe._utils.markup import html_table
from recast_probe.diagnostics.intervals import interval_text
from recast_probe.files.atomic import without_nan, write_json
from recast_probe.files.envelope import digests, sealed
from recast_probe.studies.gate.noninferiority import NonInferiority
from recast_probe.studies.tables import p_value, save_table

BEATS, BEATEN, UNDECIDED = "beats it", "is beaten by it", "cannot be told apart from it"


@dataclass(frozen=True)
class ArmCost:
    """An arm of the gate.

    Attributes:
        arm: its name.
        size: in words.
        flop: of the transformer for one image, mean over the cases.
        share: of the full run's FLOP.
        score, low, high: mean of the metric with its 95 % interval over subjects (`means`).
    """

    arm: str
    size: str
    flop: float
    share: float
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Against:
    """The method against one control.

    Attributes:
        control: its name.
        difference: mean of the method minus the control, in the metric's unit.
        low, high: its repeated confidence interval at the look that decided, as of the loss.
        p_value: two-sided; holds although the gate may have stopped early.
        p_holm: the same, corrected for the number of controls (Holm).
        words: `BEATS`, `BEATEN` or `UNDECIDED`, at 5 % after the correction.
    """

    control: str
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float
    words: str


@dataclass(frozen=True)
class Gate:
    """Whether a saving loses too little to matter; see `gate`.

    Attributes:
        model, method, metric: names.
        test: the verdict with its numbers.
        arms: full run, method and controls, with their work.
        controls: the method against each control.
        left_out: controls that there are not, and why.
        scores: (subject) by arm, mean over the subject's prompts, in the order of the runs.
        table: one row a run.
        provenance: settings of all runs, ready for JSON.

    Examples:
        >>> import numpy as np
        >>> import recast_probe.studies.gate.noninferiority as tests
        >>> full = np.linspace(0.7, 0.9, 40)
        >>> test = tests.non_inferiority(full, full - 0.1 + full / 100, 0.03, failure=0.3)
        >>> found = Gate("tiny", "reuse", "identity", test, (), (), {}, pd.DataFrame(),
        ...              pd.DataFrame(), {})
        >>> found.verdict, found.sentence()
        ('fails', 'reuse fails: it loses 0.092 [0.092, 0.106, n=40] of identity, and 0.03 is ...')
    """

    model: str
    method: str
    metric: str
    test: NonInferiority
    arms: tuple[ArmCost, ...]
    controls: tuple[Against, ...]
    left_out: Mapping[str, str]
    scores: pd.DataFrame
    table: pd.DataFrame
    provenance: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """ "passes", "fails" or "cannot tell"."""
        return self.test.verdict

    def sentence(self) -> str:
        """The verdict in one sentence, with what to do where it cannot be told."""
        test = self.test
        loss = f"{self._loss()} of {self.metric}"
        if test.verdict == "passes":
            return f"{self.method} passes: it loses {loss}, and {test.limit} is allowed."
        if test.verdict == "fails":
            return f"{self.method} fails: it loses {loss}, and {test.limit} is allowed."
        because = f", since {test.reason}" if test.reason else ""
        told = f"{self.method}: cannot tell{'' if test.final else ' yet'}{because}; it loses {loss}"
        told += f", and {test.limit} is allowed. "
        if test.needed is None:
            return told + "No number of subjects up to 100,000 would probably decide it."
        if test.needed <= test.planned:
            more = test.needed - test.subjects
            return told + f"About {more} more subjects would probably decide it."
        return told + f"A new gate on about {test.needed:,} subjects would probably decide it."

    def _loss(self) -> str:
        test, percent = self.test, self.test.limit.relative
        scale = 100 if percent else 1
        text = interval_text(
            scale * test.loss, scale * test.low, scale * test.high, test.subjects, 1 if percent
            else 3,
        )  # fmt: skip
        return text.replace(" [", " % [", 1) if percent else text

    def control_sentences(self) -> list[str]:
        """What is known of every control, one sentence each."""
        found = []
        for each in self.controls:
            shown = interval_text(each.difference, each.low, each.high, self.test.subjects)
            found.append(
                f"{each.control}: the method {each.words} ({shown}, p {p_value(each.p_holm)})."
            )
        return found + [f"{name}: left out, {why}." for name, why in self.left_out.items()]

    def rows(self) -> list[Mapping[str, Any]]:
        """The table of the arms, ready for Markdown or a report."""
        against = {each.control: each for each in self.controls}
        rows: list[Mapping[str, Any]] = []
        for arm in self.arms:
            row = {
                "arm": arm.arm,
                "size": arm.size,
                "TFLOP": f"{arm.flop / 1e12:.4g}",
                "of full": f"{arm.share:.1%}",
                self.metric: interval_text(arm.score, arm.low, arm.high, self.test.subjects),
                "method minus arm": "-",
                "p (Holm)": "-",
            }
            if arm.arm in against:
                each = against[arm.arm]
                row["method minus arm"] = interval_text(each.difference, each.low, each.high)
                row["p (Holm)"] = p_value(each.p_holm)
            rows.append(row)
        return rows

    def summary(self) -> dict[str, Any]:
        """The headline: verdict, loss with interval, subjects, look, work, and the controls."""
        test = self.test
        work = {each.arm: each.share for each in self.arms}
        return {
            "verdict": test.verdict,
            "sentence": self.sentence(),
            "loss": test.loss,
            "low": test.low,
            "high": test.high,
            "limit": str(test.limit),
            "subjects": test.subjects,
            "planned": test.planned,
            "look": f"{test.look} of {len(test.looks)}",
            "alpha_spent": test.spent,
            "needed": test.needed,
            "flop_of_full": work.get(self.method),
            "controls": {each.control: each.words for each in self.controls},
        }

    def to_dict(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return finite(
            {
                "model": self.model,
                "method": self.method,
                "metric": self.metric,
                **self.summary(),
                "test": self.test.to_dict(),
                "arms": [asdict(each) for each in self.arms],
                "against_controls": [asdict(each) for each in self.controls],
                "left_out": dict(self.left_out),
            }
        )

    def plot(self, *, axes: Any = None) -> Any:
        """Draw the verdict and every arm's score against its work, `figures.plot_gate`."""
        # by name, as figures lie above studies
        return importlib.import_module("recast_probe.figures").plot_gate(self, axes=axes)

    def save(self, folder: str | Path, files: Sequence[Path] = ()) -> Path:
        """Write the table of runs, and `gate.json` with every number and the provenance.

        Args:
            folder: one that exists.
            files: more that lie in it, whose digests are to be kept.

        Raises:
            InputError: the folder does not exist.
        """
        folder = Path(folder)
        written = [*save_table(self.table, folder / "runs-table", self.provenance), *files]
        facts = {**self.to_dict(), "provenance": finite(dict(self.provenance))}
        return write_json(
            folder / "gate.json", sealed({**facts, "files": digests(written, folder)}, "Gate")
        )

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), str(value)) for name, value in self.summary().items()]
        return html_table(self.sentence(), rows)


def finite(values: Any) -> Any:
    """The same with None for NaN and infinity, and lists for tuples, as strict JSON needs."""
    if isinstance(values, Mapping):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    if isinstance(values, float) and values in (float("inf"), float("-inf")):
        return None
    return without_nan(values)
