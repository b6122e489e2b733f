"""FLOP of a run with token-wise feature caching, with or without pruning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from recast_probe.cost_model.caching_work import full_step_work
from recast_probe.cost_model.config import TransformerConfig
from recast_probe.cost_model.plan import RunPlan, StepPlan
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout

if TYPE_CHECKING:  # it is torch's, which takes seconds to import
    from recast_probe.selection.fresh_tokens import FreshShare


def cached_run_work(
    config: TransformerConfig,
    text: int,
    generation: int,
    reference_per_step: Sequence[int],
    full_steps: Collection[int],
    fresh: Mapping[str, float],
    *,
    pool: str | None = "stream",
) -> float:
    """FLOP of a run in which some steps are computed whole and the others come from the cache.

    Embedders, output and modulation run in every step. Attention is read in each full step that a
    cached one follows.

    Args:
        reference_per_step: reference tokens in each step.
        full_steps: steps that are computed whole, the first one among them.
        fresh: share of generation tokens recomputed in a cached step, by kind of block.
        pool: ``TokenCache.pool``; None where tokens are not chosen by attention.

    Raises:
        InputError: no steps, a first step from the cache, or no share for a kind of block.

    Examples:
        >>> config, fresh = rp.cost_model.flux_kontext_dev(), {"double": 0.1, "single": 0.1}
        >>> whole = cached_run_work(config, 512, 4096, [4096] * 4, range(4), fresh)
        >>> round(whole / cached_run_work(config, 512, 4096, [4096] * 4, [0], fresh), 2)
        3.26
    """
    counts = list(reference_per_step)
    if not counts or 0 not in full_steps:
        raise InputError("A run has at least one step, and its first one is computed whole.")
    steps = tuple(StepPlan(count) for count in counts)
    plan = RunPlan(text, generation, max(counts), steps).cache_tokens(full_steps, fresh)
    total = plan.work(config).total
    if pool is None:
        return total
    kinds = ["double"] * config.double_blocks + ["single"] * config.single_blocks
    for step, count in enumerate(counts[:-1]):
        if step in full_steps and step + 1 not in full_steps:
            layout = _layout(text, generation, count)
            total += full_step_work(layout, kinds, config.width, pool).readout
    return total


def mean_fresh(share: FreshShare, config: TransformerConfig, steps: int) -> dict[str, float]:
    """Mean share of fresh tokens by kind of block, over all layers and steps.

    It is the share of the generation tokens where fresh places fall evenly on all tokens of a pool.

    Examples:
        >>> from recast_probe.selection.fresh_tokens import FreshShare
        >>> shares = mean_fresh(FreshShare(mean=0.1), rp.cost_model.flux_kontext_dev(), steps=4)
        >>> {kind: round(share, 3) for kind, share in shares.items()}
        {'double': 0.047, 'single': 0.13}
    """
    depths = {"double": config.double_blocks, "single": config.single_blocks}
    return {
        kind: sum(
            share.at(kind, layer, depth, step, steps)
            for layer in range(depth)
            for step in range(steps)
        )
        / (depth * steps)
        for kind, depth in depths.items()
        if depth
    }


def _layout(text: int, generation: int, reference: int) -> TokenLayout:
    return TokenLayout(text, Grid(1, generation), (Grid(1, reference),) if reference else ())
