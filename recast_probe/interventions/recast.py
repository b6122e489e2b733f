"""ReCAST in one run: profile one full step, rank, prune in the steps after it (Section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recast_probe._utils.checks import check_int
from recast_probe._utils.text_format import spans
from recast_probe.blocks import group_of, select_blocks
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention, RunContext, RunHook, StepContext
from recast_probe.interventions.needs import Needs, Selection
from recast_probe.interventions.prune import (
    budget_facts,
    check_budget,
    ranked_budget,
    tokens_at,
    tokens_kept,
)
from recast_probe.interventions.similarity import SimilarityRecorder
from recast_probe.layout import TokenLayout
from recast_probe.selection.mass import MassShare
from recast_probe.selection.rankings import Ranking, cosine, cross_image, self_attention

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family

QUERIES = {"cross-image": "generation", "self-attention": "reference"}
RANKINGS = (*QUERIES, "cosine")
RankingFunction = Callable[..., Ranking]


@dataclass(frozen=True)
class Recast(Intervention):
    """Rank the reference tokens by what one step shows of them, then prune.

    Steps up to and including ``profile_step`` run with the full sequence. The profiling is part of
    that step and not an extra pass.

    Attributes:
        budget: how many tokens stay in each later step: 64, 0.25, "25%", "eq4:16:64", or another
            budget of ``recast_probe.budget``, or a ``MassShare`` of the ranking that the run makes.
        blocks: blocks whose scores are averaged (Eq. 3); "paper" is the paper's own choice.
        profile_step: the first step that is profiled.
        ranking: "cross-image" (Eq. 3), "self-attention" (attention among reference tokens, as
            Attn-Prune after FastV) or "cosine" (see ``Similarity``); or a function like
            ``rank.cross_image``, called with the profile of the step, ``blocks`` and ``steps``.
        every: rank again every so many steps. A step that ranks again runs with the full
            reference, so that tokens that were dropped can come back. None ranks once.
        worst_first: keep the worst tokens: a control that should lower the quality.

    Raises:
        InputError: a setting out of its range. When the run is prepared: no reference, several
            prompts, or a budget or block that it does not have.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> settings = {"steps": 3, "progress": False}
        >>> recast = Recast(4, blocks="all")
        >>> result = probe.generate(tiny.tiny_image(), "a cat", interventions=[recast], **settings)
        >>> result.reference_tokens_per_step, result.ranking.tokens
        ((16, 4, 4), 16)
    """

    budget: Any
    blocks: Any = "paper"
    profile_step: int = 0
    ranking: str | RankingFunction = "cross-image"
    every: int | None = None
    worst_first: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", ranked_budget(self.budget, ranked=True))
        object.__setattr__(self, "profile_step", check_int("profile_step", self.profile_step, 0))
        if not callable(self.ranking) and self.ranking not in RANKINGS:
            raise InputError(
                f"ranking must be one of {RANKINGS} or a function, not {self.ranking!r}."
            )
        if self.every is not None and check_int("every", self.every, 1) < 2:
            raise InputError(
                f"every={self.every}: ranking again in every step would never prune; give 2 or "
                "more, or None to rank once."
            )
        if isinstance(self.budget, MassShare) and (self.ranking == "cosine" or self.worst_first):
            raise InputError(
                f"{self.budget!r} needs a ranking by attention, best first: cosines and reversed "
                "scores have no mass."
            )

    @property
    def queries(self) -> str | None:
        """The token group whose attention the ranking reads; None where it reads cosines."""
        return "generation" if callable(self.ranking) else QUERIES.get(self.ranking)

    def ranking_steps(self, run: RunContext) -> list[int]:
        """The full steps that are profiled. A last step is not: nothing would follow it."""
        steps = list(range(self.profile_step, run.steps, self.every or run.steps))
        return steps[:1] + [step for step in steps[1:] if step < run.steps - 1]

    def prepare(self, run: RunContext) -> None:
        if not run.reference_tokens:
            raise InputError("There are no reference tokens to rank; give a reference image.")
        if self.profile_step >= run.steps:
            raise InputError(
                f"profile_step={self.profile_step} is outside the run: steps are 0 to "
                f"{run.steps - 1}."
            )
        if run.prompts != 1:
            raise InputError(
                f"Recast ranks the tokens for one prompt, but {run.prompts} run in one batch and "
                "share their token positions; run the prompts one by one."
            )
        select_blocks(self.blocks, run.block_kinds)
        check_budget(self.budget, run, self.profile_step + 1)

    def needs(self, run: RunContext) -> Needs:
        profiled = self.ranking_steps(run)
        drops = set(range(self.profile_step + 1, run.steps)).difference(profiled)
        if not isinstance(self.budget, MassShare):
            full = run.reference_tokens
            drops = {s for s in drops if tokens_at(self.budget, s, run) < full}
        queries = self.queries
        # attention is recorded by the run, hidden states are read by the intervention
        return Needs(
            full_reference=profiled,
            drops=drops,
            once="rank the tokens",
            records=None
            if queries is None
            else Selection(
                # a function may look at all that there is
                self.blocks,
                profiled,
                queries=queries,
                scores_only=not callable(self.ranking),
            ),
            reads=profiled if queries is None else (),
            reference_rows=profiled if queries is None else (),
        )

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[RunHook]:
        if self.queries is not None:
            yield RecastHook(self, run)
            return
        recorder = SimilarityRecorder(run, self.blocks, self.ranking_steps(run))
        with recorder.watching(family):
            yield RecastHook(self, run, recorder)


class RecastHook(RunHook):
    """Makes the ranking of one run, and keeps its best tokens."""

    def __init__(
        self, settings: Recast, run: RunContext, cosines: SimilarityRecorder | None = None
    ) -> None:
        self._settings, self._run, self._cosines = settings, run, cosines
        self._ranking: Ranking | None = None

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        if self._cosines is not None:
            self._cosines.begin_call(step, branch, layout)

    def reference_tokens(self, step: StepContext) -> np.ndarray | None:
        settings, run = self._settings, step.run
        profiled = settings.ranking_steps(run)
        if step.step <= settings.profile_step or step.step in profiled:
            return None
        last = max(each for each in profiled if each < step.step)
        if self._ranking is None or last == step.step - 1:
            self._ranking = self._rank(step, last)
        return self._ranking.top(tokens_kept(settings.budget, self._ranking, step.step, run))

    def _rank(self, step: StepContext, profiled: int) -> Ranking:
        blocks = self._settings.blocks
        if self._cosines is not None:
            group, numbers = group_of(blocks, step.run.block_kinds), spans(self._cosines.blocks)
            text = f"{group} ({numbers})" if group else numbers
            found = cosine(self._cosines.found[profiled][0], text, profiled)
        else:
            given = self._settings.ranking
            named = {"cross-image": cross_image, "self-attention": self_attention}
            rank = given if callable(given) else named[given]
            found = rank(step.profile(), blocks=blocks, steps=profiled)
            tokens = step.run.reference_tokens
            if not isinstance(found, Ranking) or found.tokens != tokens:
                raise InputError(
                    f"The ranking function gave {found!r}, where a Ranking of {tokens} reference "
                    "tokens is needed."
                )
        return found.reversed() if self._settings.worst_first else found

    def facts(self) -> dict[str, Any]:
        return budget_facts(self._settings.budget, self._run)

    def result(self, provenance: dict[str, Any]) -> Ranking | None:
        return self._ranking
