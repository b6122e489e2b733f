"""What one run of a TokenCache remembers: features, importance and ages, by branch and block."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recast_probe.interventions.base import Attachment, RunContext
from recast_probe.layout import TokenLayout
from recast_probe.selection.fresh_tokens import (
    attention_received,
    best_tokens,
    caching_score,
    grown_older,
    random_importance,
    token_count,
    with_spread_bonus,
)

if TYPE_CHECKING:
    from recast_probe.attention.readout import Readout
    from recast_probe.interventions.token_cache import TokenCache

NOTHING = torch.empty(0)


@dataclass
class Features:
    """What is kept of one block in one branch.

    Attributes:
        attention: (batch, generation token, width), attention's output.
        output: the same shape, what the block's MLP (double-stream) or last projection
            (single-stream) gave; renewed token by token.
        importance: (batch, pool token), from the last full step.
        age: int64 (batch, pool token), cached steps since a token was fresh.
        groups: token groups of the pool, in order.
        layout: tokens of the last full step.
    """

    groups: tuple[str, ...]
    layout: TokenLayout
    attention: Tensor = NOTHING
    output: Tensor = NOTHING
    importance: Tensor = NOTHING
    age: Tensor = NOTHING

    @property
    def sizes(self) -> list[int]:
        """Tokens of each group of the pool."""
        spans = [self.layout.span(group) for group in self.groups]
        return [span.stop - span.start for span in spans]

    @property
    def generation(self) -> slice:
        """Places of the generation tokens in the pool."""
        place = self.groups.index("generation")
        sizes = self.sizes
        return slice(sum(sizes[:place]), sum(sizes[: place + 1]))


class CachedRun(Attachment):
    """The caches of one run, and the answers to what its blocks ask in each call.

    Attributes:
        layout: tokens of the transformer call that runs.
        norms: "key_norm" or "value_norm" where the blocks shall hand these to ``store_norms``.
    """

    def __init__(self, settings: TokenCache, run: RunContext) -> None:
        self.settings = settings
        self.steps = run.steps
        self.kinds = list(run.block_kinds)
        self.full = settings.full_steps(run.steps)
        self.layout = run.layout
        self.norms = settings.score if settings.score.endswith("_norm") else ""
        self._step, self._branch = -1, ""
        self._features: dict[tuple[str, int], Features] = {}
        self._seen: list[int] = []
        # share of generation tokens computed, by step and by kind of block
        self._by_step: dict[int, list[float]] = defaultdict(list)
        self._by_kind: dict[str, list[float]] = defaultdict(list)

    @property
    def cached(self) -> bool:
        """True in a step that uses the cache."""
        return self._step not in self.full

    @property
    def storing(self) -> bool:
        """True in a full step that a cached one follows."""
        following = self._step + 1
        return not self.cached and following < self.steps and following not in self.full

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        self._step, self._branch, self.layout = step, branch, layout
        if step not in self._seen:
            self._seen.append(step)
        if self.storing:
            for block in range(len(self.kinds)):
                self._features[branch, block] = Features(self._pool(block), layout)

    def _pool(self, block: int) -> tuple[str, ...]:
        """Groups that compete for the fresh places of a block."""
        if self.settings.pool == "generation":
            return ("generation",)
        groups = self.layout.groups if self.kinds[block] == "single" else self.layout.groups[1:]
        return tuple(group for group in groups if _size(self.layout, group))

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
        return self._features[self._branch, block]

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
        """Keep the lengths of keys or values: (batch, token), last the image's tokens, before them
        the text's where the block has one stream."""
        features = self.features(block)
        text = norms.shape[1] - self.layout.total + self.layout.text
        start = {"text": 0, "generation": text, "reference": text + self.layout.generation.size}
        parts = zip(features.groups, features.sizes, strict=True)
        features.importance = torch.cat(
            [norms[:, start[group] : start[group] + size] for group, size in parts], dim=1
        )

    def fresh(self, block: int) -> list[Tensor]:
        """Generation tokens that this block computes anew in this call, and count them as fresh.

        Returns:
            For each item of the batch, int64 (tokens,), indices of generation tokens.
        """
        settings, features, kind = self.settings, self.features(block), self.kinds[block]
        batch, tokens = features.age.shape
        importance = features.importance
        if settings.score == "random":
            importance = random_importance(batch, tokens, settings.seed, self._step, block)
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
        share = settings.share.at(kind, layer, depth, self._step, self.steps)
        chosen = best_tokens(score, token_count(share, tokens))
        features.age = grown_older(features.age, chosen)
        rows = list(chosen)
        if len(features.groups) > 1:
            rows = [row[(row >= place.start) & (row < place.stop)] - place.start for row in chosen]
        for row in rows:
            computed = len(row) / features.layout.generation.size
            self._by_step[self._step].append(computed)
            self._by_kind[kind].append(computed)
        return rows

    def clear(self) -> None:
        """Let go of all tensors."""
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
