"""Plans from words, as the command line and the benchmarks' tables name them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from recast_probe.cost_model.plan import RunPlan
from recast_probe.errors import InputError
from recast_probe.selection.budget_language import as_budget, budget_of

WORDS = {
    "none": "no reference token in any step",
    "prune=BUDGET": "so many reference tokens from step 1 on: 600, 0.25, 25%, eq4:256:1024:2",
    "eq4:MIN:MAX:GAMMA": "short for prune=eq4:MIN:MAX:GAMMA, which is Eq. 4; GAMMA is 2 if left "
    "out, and all three the paper's if none is given",
    "reuse=K:N": "the reference's keys and values of step K - 1 from step K on, 1 if left out, and "
    "computed again every N steps, never if left out",
    "compute=K": "K steps computed, evenly spread, the others skipped",
    "fp8": "linear layers in 8 bits, which changes the model",
    "read=I": "attention to the reference read in step I, step 0 if left out",
}


def planned(plan: RunPlan, words: Sequence[str]) -> RunPlan:
    """A plan changed by each of these words, in any order.

    Args:
        words: such as "prune=600", "prune=25%", "reuse", "compute=20"; see `WORDS`.

    Raises:
        InputError: a word that is not known, or numbers that do not fit the run.
    """
    # what drops tokens comes first, so that "reuse" and "read" see the budget
    order = list(WORDS)
    names = [word.name for word in map(_Word, words)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} was asked for more than once.")
    if len({"none", "prune", "eq4"} & set(names)) > 1:
        raise InputError(f"Only one of none, prune and eq4 can be counted, not {', '.join(words)}.")
    if "compute" in names and any(word.refreshes for word in map(_Word, words)):
        raise InputError(
            "Which steps are skipped depends on those that compute keys and values again, so "
            "compute cannot be counted beside such a reuse; leave one out."
        )
    for word in sorted(map(_Word, words), key=lambda each: order.index(each.key)):
        plan = word.done_to(plan)
    return plan


def paper_rows(reference: int) -> dict[str, list[str]]:
    """The rows that a table of bounds begins with, by name, for so many reference tokens."""
    rows: dict[str, list[str]] = {"full": []}
    for part in (2, 4, 8, 16):
        if reference // part:
            rows[f"prune to {reference // part:,}"] = [f"prune={reference // part}"]
    rows["no reference"] = ["none"]
    rows["ReCAST (Eq. 4)"] = ["eq4"]
    rows["reuse, all tokens"] = ["reuse"]
    rows["reuse, again every 4 steps"] = ["reuse=1:4"]
    rows["reuse with Eq. 4"] = ["reuse", "eq4"]
    for steps in (24, 20, 16):
        rows[f"reuse with Eq. 4, {steps} steps"] = ["reuse", "eq4", f"compute={steps}"]
    return rows


class _Word:
    """One word with its numbers."""

    def __init__(self, text: str) -> None:
        self.text = text
        said = text.strip()
        self.name, _, rest = said.partition("=")
        if said.startswith("eq4"):
            self.name, rest = "eq4", said.replace("=", ":", 1)
        keys = [key for key in WORDS if re.split("[=:]", key)[0] == self.name]
        if not keys:
            raise InputError(f"There is no {text[:60]!r}; there is {', '.join(WORDS)}.")
        self.key = keys[0]
        self.budget = as_budget(rest) if self.name in ("prune", "eq4") else None
        parts = [] if self.budget is not None else [part for part in rest.split(":") if part]
        if not all(re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", part) for part in parts):
            raise InputError(f"{text[:60]!r} should read {self.key}.")
        self.numbers = [float(part) for part in parts]

    @property
    def refreshes(self) -> bool:
        """It computes keys and values again in some steps."""
        return self.name == "reuse" and len(self.numbers) > 1

    def done_to(self, plan: RunPlan) -> RunPlan:
        if self.name == "none":
            return plan.keep(0, start=0)
        if self.name == "fp8":
            return plan.in_float8()
        if self.budget is not None:
            budget = budget_of(self.budget, plan.reference)
            steps = len(plan.steps)
            return plan.keep([budget.tokens_at(step, steps) for step in range(steps)])
        if self.name == "reuse":
            return self._reuse(plan)
        if self.name == "compute":
            return plan.compute(self._whole(None))
        step = self._whole(0)
        if not 0 <= step < len(plan.steps):
            raise InputError(f"{self.text!r} is outside the run's {len(plan.steps)} steps.")
        return plan.read(step)

    def _reuse(self, plan: RunPlan) -> RunPlan:
        if len(self.numbers) < 2:
            return plan.reuse(self._whole(1))
        start, every, *more = self.numbers
        if more or start != int(start) or every != int(every) or every < 1:
            raise InputError(f"{self.text!r} should read {self.key}, with whole numbers from 1 on.")
        again = range(int(start) - 1, len(plan.steps), int(every))
        return plan.reuse(int(start), again)

    def _whole(self, default: int | None) -> int:
        if not self.numbers and default is not None:
            return default
        if len(self.numbers) != 1 or self.numbers[0] != int(self.numbers[0]):
            raise InputError(f"{self.text!r} should read {self.key}, with a whole number.")
        return int(self.numbers[0])
