"""Token-wise feature caching of the generation tokens (ToCa: Zou et al., ICLR 2025)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recast_probe._utils.checks import whole_number
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention, RunContext
from recast_probe.interventions.token_cache_run import CachedRun
from recast_probe.selection.fresh_tokens import FreshShare, full_steps

if TYPE_CHECKING:
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
            the same MLP (generation and reference in double-stream blocks, text as well in
            single-stream ones), or "generation". The share is that of the pool.
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

    needs_reference_rows: ClassVar[bool] = True
    caches: ClassVar[bool] = True
    SCORES: ClassVar[tuple[str, ...]] = ("attention", "key_norm", "value_norm", "random")
    POOLS: ClassVar[tuple[str, ...]] = ("stream", "generation")

    def __post_init__(self) -> None:
        for name, least in (("interval", 1), ("first_full", 1), ("spread_window", 1), ("seed", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
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

    def unrecordable_steps(self, run: RunContext) -> set[int]:
        return set(range(run.steps)) - set(self.full_steps(run.steps))

    def reading_steps(self, run: RunContext) -> set[int]:
        if self.score != "attention":
            return set()
        cached = self.unrecordable_steps(run)
        return {step for step in self.full_steps(run.steps) if step + 1 in cached}

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[CachedRun]:
        cache = CachedRun(self, run)
        with family.cached_blocks(cache):
            try:
                yield cache
            finally:
                cache.clear()

    def describe(self) -> dict[str, Any]:
        return {"name": "TokenCache", **asdict(self)}
