"""Which tokens a caching method recomputes (ToCa: Zou et al., ICLR 2025, arXiv 2410.05317).

Tensors and numbers only. The rules are those of the method's published FLUX variant: full steps at
a fixed interval, a share of fresh tokens that falls with depth, and a score of importance and age.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from recast_probe.attention.readout import PairStatistics
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout

# the published factors are written for FLUX.1's stacks, with layer / 27 in both
PUBLISHED_DEPTH = {"double": 19, "single": 38}
PUBLISHED_LAST_LAYER = 27


def full_steps(steps: int, interval: int, first: int = 3, slope: float = 0.0) -> tuple[int, ...]:
    """Steps in which everything is computed; all others use the cache.

    The first steps are full, and after a full step comes another one `interval` steps later. With a
    slope the interval follows the step i of the last full one, as interval / (1 - slope + 2 slope
    i / steps), rounded.

    Args:
        steps: denoising steps of the run.
        interval: 1 makes every step full.
        first: full steps at the beginning, at least 1.
        slope: above -1 and below 1; positive: shorter intervals towards the end.
    """
    full: list[int] = []
    following = 0
    for step in range(steps):
        if step < first or step == following:
            full.append(step)
            factor = 1 - slope + 2 * slope * step / steps
            following = step + max(1, round(interval / factor))
    return tuple(full)


@dataclass(frozen=True)
class FreshShare:
    """The share of tokens recomputed in a cached step, by block and step.

    share = mean * (1 + layer_slope - 2 layer_slope layer / 27) * (1 -+ stream_slope)
    * (1 - step_slope + 2 step_slope step / steps), between 0 and 1; minus for double-stream blocks,
    plus for single-stream ones. The layer is counted within its stack; in a model of another depth
    than FLUX.1 (19 and 38) it is scaled to that depth. The defaults are the published ones.

    Attributes:
        mean: the share before the factors.
        layer_slope: more in early blocks and less in late ones.
        stream_slope: less in double-stream and more in single-stream blocks.
        step_slope: less in early steps and more in late ones.

    Raises:
        InputError: a mean outside 0..1, or a slope outside -1..1.

    Examples:
        >>> FreshShare.constant(0.2).at("single", layer=0, depth=38, step=5, steps=28)
        0.2
        >>> round(FreshShare().at("double", layer=0, depth=19, step=5, steps=28), 3)
        0.06
    """

    mean: float = 0.1
    layer_slope: float = 0.5
    stream_slope: float = 0.6
    step_slope: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.mean <= 1:
            raise InputError(f"The share of fresh tokens lies between 0 and 1, not {self.mean}.")
        for name in ("layer_slope", "stream_slope", "step_slope"):
            if not -1 <= getattr(self, name) <= 1:
                raise InputError(f"{name} lies between -1 and 1, not {getattr(self, name)}.")

    @classmethod
    def constant(cls, share: float) -> FreshShare:
        """The same share in every block and step."""
        return cls(share, layer_slope=0.0, stream_slope=0.0, step_slope=0.0)

    def describe(self) -> dict[str, float]:
        """The settings, ready for JSON."""
        return asdict(self)

    def at(self, kind: str, layer: int, depth: int, step: int, steps: int) -> float:
        """The share in one block and step.

        Args:
            kind: "double" or "single".
            layer: index within the stack of that kind.
            depth: number of blocks in that stack.
            step, steps: step index, and steps of the run.
        """
        position = layer * PUBLISHED_DEPTH[kind] / depth / PUBLISHED_LAST_LAYER
        by_layer = 1 + self.layer_slope - 2 * self.layer_slope * position
        by_stream = 1 + (self.stream_slope if kind == "single" else -self.stream_slope)
        by_step = 1 - self.step_slope + 2 * self.step_slope * step / steps
        return min(max(self.mean * by_layer * by_stream * by_step, 0.0), 1.0)


def token_count(share: float, tokens: int) -> int:
    """`share` of the tokens, rounded down; a share that is whole but for rounding counts whole."""
    return min(tokens, int(share * tokens + 1e-6))


def attention_received(
    statistics: Mapping[tuple[str, str], PairStatistics],
    layout: TokenLayout,
    keys: tuple[str, ...],
) -> Tensor:
    """Attention on each key, mean over all heads and over all queries of the sequence.

    This is the mean over rows of softmax(Q K^T), put together from readouts by token group.

    Args:
        statistics: by (query group, key group), for every query group that has tokens.
        layout: tokens of the sequence.
        keys: key groups, in order.

    Returns:
        float32 (batch, keys).
    """
    parts = []
    for key in keys:
        total: Tensor | None = None
        for query in layout.groups:
            span = layout.span(query)
            if span.stop > span.start:
                received = statistics[query, key].score.mean(1) * (span.stop - span.start)
                total = received if total is None else total + received
        assert total is not None
        parts.append(total / layout.total)
    return torch.cat(parts, dim=-1)


def random_importance(batch: int, tokens: int, seed: int, step: int, block: int) -> Tensor:
    """Uniform in 0..1, float32 (batch, tokens); the same in every branch and on every device."""
    state = np.random.SeedSequence([seed, step, block]).generate_state(1, np.uint64)[0]
    generator = torch.Generator("cpu").manual_seed(int(state >> np.uint64(1)))
    return torch.rand(1, tokens, generator=generator).expand(batch, tokens)


def caching_score(importance: Tensor, age: Tensor, interval: int, age_weight: float) -> Tensor:
    """How much a token is worth computing: importance / |importance| + weight * age / interval.

    Args:
        importance: (batch, tokens); its 2-norm is taken over the tokens.
        age: int (batch, tokens), cached steps since the token was computed last.
    """
    unit = torch.nn.functional.normalize(importance.float(), dim=-1)
    return unit + age_weight * age / interval


def with_spread_bonus(score: Tensor, grid: Grid, bonus: float, window: int) -> Tensor:
    """The best token of every window of the grid gets `bonus` times its own score on top.

    Args:
        score: (batch, tokens of the grid), not negative.
        window: side of the windows; those at the right and lower edge may be smaller.
    """
    rows, columns = (-(-side // window) * window for side in (grid.rows, grid.columns))
    padded = score.new_full((len(score), rows, columns), -torch.inf)
    padded[:, : grid.rows, : grid.columns] = score.reshape(-1, grid.rows, grid.columns)
    windows = padded.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    shape = windows.shape
    flat = windows.flatten(3)
    best, where = flat.max(-1, keepdim=True)
    raised = flat.scatter(-1, where, best * (1 + bonus)).view(shape).transpose(2, 3)
    raised = raised.reshape(-1, rows, columns)
    return raised[:, : grid.rows, : grid.columns].reshape(score.shape)


def best_tokens(score: Tensor, count: int) -> Tensor:
    """Indices of the `count` best tokens, int64 (batch, count), best first; the lower index wins
    a tie."""
    return score.argsort(dim=-1, descending=True, stable=True)[:, :count]


def grown_older(age: Tensor, fresh: Tensor) -> Tensor:
    """Ages after a step: 0 for the tokens at `fresh` (batch, count), one more for the others."""
    return (age + 1).scatter(1, fresh, 0)
