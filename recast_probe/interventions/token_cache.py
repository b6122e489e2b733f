"""Token-wise feature caching of the generation tokens (ToCa: Zou et al., ICLR 2025)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from recast_probe._utils.checks import check_int
from recast_probe.errors import InputError
from recast_probe.interventions.base import CallHook, Intervention, RunContext
from recast_probe.interventions.cached_features import Features
from recast_probe.interventions.needs import Needs
from recast_probe.layout import TokenLayout
from recast_probe.selection.fresh_tokens import (
    FreshShare,
    attention_received,
    best_tokens,
    caching_score,
    full_steps,
    grown_older,
    random_importance,
    token_count,
    with_spread_bonus,
)

if TYPE_CHECKING:
    from recast_probe.attention.readout import Readout
    from recast_probe.pipelines.base import Family

PUBLISHED_SHARE = FreshShare()


@dataclass(frozen=True)
class TokenCache(Intervention):
    """Compute most steps for a few tokens only, and take the rest from the last full step.

    A full step computes everything. In a cached step no attention is computed: every token takes
    the attention output of the last full step, and only the chosen fresh tokens go through the MLP
    again, which also renews their cache. The defaults are those of ToCa's FLUX variant
    (arXiv 2410.05317, https://github.com/Shenyi-Z/ToCa).

    Two departures from the published code change no value. It projects the cached attention again
    in every cached step of a double-stream block; here the projected output is cached. It also
    updates text tokens (and would update reference tokens) in cached steps; here they are left
    alone, because without attention they cannot reach the generation tokens, and the next full step
    computes them anew. They still compete for the fresh places with ``pool="stream"``, as they do
    in the published code. The published code holds softmax(Q K^T) in memory; here the same scores
    are read from a streamed readout.

    Tokens may be pruned at the same time. Then a cached step uses what attention gave in the last
    full step, with the reference tokens of that step. Extra memory: two hidden states of the
    generation tokens for every block and branch.

    Attributes:
        interval: a full step comes this many steps after the last one; 1 makes all steps full.
        fresh_share: the share of tokens computed anew in a cached step: a ``FreshShare``, or a
            number for the same share in every block.
        score: what makes a token important: "attention" (the mean attention it gets from the whole
            sequence in the last full step), "key_norm" or "value_norm" (length of its key or value
            before normalisation, mean over heads), or "random" (drawn anew in every cached step).
        pool: who competes for the fresh places: "stream", as published, all tokens that go through
            the same MLP (in most models generation and reference in double-stream blocks, text as
            well in single-stream ones), or "generation". The share is that of the pool.
        first_full: full steps at the beginning.
        interval_slope: lets the interval change over the run; see ``full_steps``.
        age_weight: weight of the number of cached steps since a token was fresh; divided by
            ``interval``.
        spread_bonus: the best token of each window of the generation grid gets this share of its
            score on top, so that fresh tokens spread over the image. Off in the FLUX variant; 0.6
            with windows of 2 in the DiT variant.
        spread_window: side of these windows, in tokens.
        seed: of the "random" score.

    Raises:
        InputError: a setting out of its range.

    Examples:
        >>> TokenCache(interval=4, first_full=3).full_steps(12)
        (0, 1, 2, 6, 10)
    """

    interval: int = 4
    fresh_share: float | FreshShare = PUBLISHED_SHARE
    score: str = "attention"
    pool: str = "stream"
    first_full: int = 3
    interval_slope: float = 0.0
    age_weight: float = 0.25
    spread_bonus: float = 0.0
    spread_window: int = 4
    seed: int = 0

    SCORES: ClassVar[tuple[str, ...]] = ("attention", "key_norm", "value_norm", "random")
    POOLS: ClassVar[tuple[str, ...]] = ("stream", "generation")

    def __post_init__(self) -> None:
        for name, least in (("interval", 1), ("first_full", 1), ("spread_window", 1), ("seed", 0)):
            object.__setattr__(self, name, check_int(name, getattr(self, name), least))
        if not -1 < self.interval_slope < 1:
            raise InputError(f"interval_slope lies between -1 and 1, not {self.interval_slope}.")
        for name in ("age_weight", "spread_bonus"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, but is {getattr(self, name)}.")
        for name, choices in (("score", self.SCORES), ("pool", self.POOLS)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {choices}, not {getattr(self, name)!r}.")
        if not isinstance(self.fresh_share, FreshShare):
            object.__setattr__(self, "fresh_share", FreshShare.constant(self.fresh_share))

    @property
    def share(self) -> FreshShare:
        """``fresh_share``, also where a number was given."""
        assert isinstance(self.fresh_share, FreshShare)
        return self.fresh_share

    def full_steps(self, steps: int) -> tuple[int, ...]:
        """The full steps of a run of so many steps."""
        return full_steps(steps, self.interval, self.first_full, self.interval_slope)

    def needs(self, run: RunContext) -> Needs:
        every, full = range(run.steps), self.full_steps(run.steps)
        cached = set(every).difference(full)
        scored = [step for step in full if step + 1 in cached] if self.score == "attention" else []
        return Needs(reads=scored, reference_rows=every, unread=cached, once="skip the work")

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[CachedRun]:
        cache = CachedRun(self, run, family.image_stream)
        with family.cached_blocks(cache):
            try:
                yield cache
            finally:
                cache.clear()


class CachedRun(CallHook):
    """The caches of one run, and the answers to what its blocks ask in each call.

    Attributes:
        layout: tokens of the transformer call that runs.
        norms: "key_norm" or "value_norm" where the blocks shall hand these to ``store_norms``.
    """

    def __init__(
        self,
        settings: TokenCache,
        run: RunContext,
        image_stream: Sequence[str] = ("generation", "reference"),
    ) -> None:
        self.settings = settings
        self._image_stream = tuple(image_stream)
        self.steps = run.steps
        self.kinds = list(run.block_kinds)
        self.full = settings.full_steps(run.steps)
        self.layout = run.layout
        self.norms = settings.score if settings.score.endswith("_norm") else ""
        self._features: dict[tuple[str, int], Features] = {}
        self._seen: list[int] = []
        # share of generation tokens computed, by step and by kind of block
        self._by_step: dict[int, list[float]] = defaultdict(list)
        self._by_kind: dict[str, list[float]] = defaultdict(list)

    @property
    def cached(self) -> bool:
        """True in a step that uses the cache."""
        return self.step not in self.full

    @property
    def storing(self) -> bool:
        """True in a full step that a cached one follows."""
        following = self.step + 1
        return not self.cached and following < self.steps and following not in self.full

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        super().begin_call(step, branch, layout)
        self.layout = layout
        if step not in self._seen:
            self._seen.append(step)
        if self.storing:
            for block in range(len(self.kinds)):
                self._features[branch, block] = Features(self._pool(block), layout)

    def _pool(self, block: int) -> tuple[str, ...]:
        """Groups that compete for the fresh places of a block."""
        if self.settings.pool == "generation":
            return ("generation",)
        return tuple(group for group in self._stream(block) if _size(self.layout, group))

    def _stream(self, block: int) -> tuple[str, ...]:
        """Groups that go through the same MLP in a block."""
        return self.layout.groups if self.kinds[block] == "single" else self._image_stream

    def attention_pairs(self, block: int) -> Sequence[tuple[str, str]]:
        if self.settings.score != "attention" or not self.storing:
            return ()
        queries = [group for group in self.layout.groups if _size(self.layout, group)]
        return [(query, key) for query in queries for key in self._pool(block)]

    def read_attention(self, block: int, readout: Readout) -> None:
        features = self.features(block)
        features.importance = attention_received(readout.pairs, self.layout, features.groups)

    def features(self, block: int) -> Features:
        """What is kept of a block in the branch that runs."""
        return self._features[self.branch, block]

    def store_attention(self, block: int, attention: Tensor) -> None:
        """Keep attention's output of the generation tokens."""
        self.features(block).attention = attention.clone()

    def store_output(self, block: int, output: Tensor) -> None:
        """Keep the MLP's or last projection's output of the generation tokens."""
        features = self.features(block)
        features.output = output.clone()
        tokens = sum(features.sizes)
        features.age = torch.zeros(len(output), tokens, dtype=torch.int64, device=output.device)

    def store_norms(self, block: int, norms: Tensor) -> None:
        """Keep the lengths of keys or values: (batch, token), those of all tokens that go through
        the block's MLP, in canonical order."""
        features, stream = self.features(block), self._stream(block)
        sizes = [_size(self.layout, group) for group in stream]
        parts = dict(zip(stream, norms.split(sizes, dim=1), strict=True))
        features.importance = torch.cat([parts[group] for group in features.groups], dim=1)

    def fresh(self, block: int) -> list[Tensor]:
        """Generation tokens that this block computes anew in this call, and count them as fresh.

        Returns:
            For each item of the batch, int64 (tokens,), indices of generation tokens.
        """
        settings, features, kind = self.settings, self.features(block), self.kinds[block]
        batch, tokens = features.age.shape
        importance = features.importance
        if settings.score == "random":
            importance = random_importance(batch, tokens, settings.seed, self.step, block)
        score = caching_score(
            importance.to(features.age.device),
            features.age,
            settings.interval,
            settings.age_weight,
        )
        place = features.generation
        if settings.spread_bonus:
            score[:, place] = with_spread_bonus(
                score[:, place],
                features.layout.generation,
                settings.spread_bonus,
                settings.spread_window,
            )
        layer, depth = self.kinds[:block].count(kind), self.kinds.count(kind)
        share = settings.share.at(kind, layer, depth, self.step, self.steps)
        chosen = best_tokens(score, token_count(share, tokens))
        features.age = grown_older(features.age, chosen)
        rows = list(chosen)
        if len(features.groups) > 1:
            rows = [row[(row >= place.start) & (row < place.stop)] - place.start for row in chosen]
        for row in rows:
            computed = len(row) / features.layout.generation.size
            self._by_step[self.step].append(computed)
            self._by_kind[kind].append(computed)
        return rows

    def clear(self) -> None:
        self._features.clear()

    def facts(self) -> dict[str, Any]:
        shares = [float(np.mean(self._by_step.get(step, [1.0]))) for step in self._seen]
        return {
            "run": {
                "full_steps": [step for step in self._seen if step in self.full],
                "computed_generation_share": float(np.mean(shares)) if shares else 1.0,
                "computed_generation_share_per_step": shares,
                "fresh_generation_share": {
                    kind: float(np.mean(values)) for kind, values in self._by_kind.items()
                },
            }
        }


def _size(layout: TokenLayout, group: str) -> int:
    span = layout.span(group)
    return span.stop - span.start
