"""How much of a full step's work a cached step of token-wise caching does, in FLUX.1's blocks.

What a run of any model costs says `caching.cached_run_work`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recast_probe.layout import TokenLayout

# multiplications and additions per token and squared width: query, key, value and output
# projections 8 together, MLP 16; a single-stream block's output projection takes both its inputs
BLOCK_LINEAR = 24
FRESH_LINEAR = {"double": 16, "single": 18}


@dataclass(frozen=True)
class StepWork:
    """Floating-point operations of one step's blocks, a multiply-add counted as two.

    Attributes:
        linear: projections and MLPs of the tokens; modulation acts on one vector and is left out.
        attention: query-key products and weighted sums of values.
        readout: query-key products done once more to read the importance of the tokens.
    """

    linear: float
    attention: float
    readout: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.linear + self.attention + self.readout


def full_step_work(
    layout: TokenLayout,
    block_kinds: Sequence[str],
    width: int,
    pool: str | None = None,
) -> StepWork:
    """The work of a step that computes everything.

    Args:
        layout: tokens of the step.
        block_kinds: "double" or "single" for every block.
        width: width of the hidden states.
        pool: ``TokenCache.pool`` where attention is read in this step; None where it is not.
    """
    blocks, tokens = len(block_kinds), layout.total
    columns = 0 if pool is None else sum(_read_keys(layout, kind, pool) for kind in block_kinds)
    return StepWork(
        linear=BLOCK_LINEAR * width**2 * blocks * tokens,
        attention=4 * blocks * tokens**2 * width,
        readout=2 * tokens * columns * width,
    )


def cached_step_work(
    layout: TokenLayout,
    block_kinds: Sequence[str],
    width: int,
    fresh: Mapping[str, float],
) -> StepWork:
    """The work of a step that takes attention from the cache.

    Args:
        fresh: share of generation tokens recomputed, by kind of block; a run reports it as
            ``fresh_generation_share``.
    """
    tokens = layout.generation.size
    per_block = (FRESH_LINEAR[kind] * width**2 * fresh[kind] * tokens for kind in block_kinds)
    return StepWork(linear=sum(per_block), attention=0.0)


def cached_step_share(
    layout: TokenLayout, block_kinds: Sequence[str], width: int, fresh: Mapping[str, float]
) -> dict[str, float]:
    """What a cached step does of a full step's "linear", "attention" and "total" work, 0 to 1.

    Args:
        layout: tokens of the step.
        block_kinds: "double" or "single" for every block.
        width: width of the hidden states.
        fresh: share of generation tokens recomputed, by kind of block.
    """
    full = full_step_work(layout, block_kinds, width)
    cached = cached_step_work(layout, block_kinds, width, fresh)
    return {
        "linear": cached.linear / full.linear,
        "attention": cached.attention / full.attention,
        "total": cached.total / full.total,
    }


def _read_keys(layout: TokenLayout, kind: str, pool: str) -> int:
    """Keys whose probabilities are computed: all but the largest group that is not in the pool."""
    sizes = {
        "text": layout.text,
        "generation": layout.generation.size,
        "reference": layout.reference_tokens,
    }
    if pool == "generation":
        unread = {"text", "reference"}
    else:
        unread = {"text"} if kind == "double" else set()
    return layout.total - max((sizes[group] for group in unread), default=0)
