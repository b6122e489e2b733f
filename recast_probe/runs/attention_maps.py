"""Recording the attention of chosen tokens, row by row, during a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recast_probe._utils.checks import check_indices
from recast_probe.blocks import select_blocks
from recast_probe.diagnostics import mask_to_grid
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.run_needs import check_dispatched
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import Family
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.runs.call import PipelineCall
from recast_probe.runs.execute import run
from recast_probe.runs.recording_plan import Selection
from recast_probe.runs.row_recorder import RecordRows

AVERAGED = ("step", "block", "head")
MEMORY_LIMIT = 4 * 10**9


def attention_maps(
    family: Family,
    request: PipelineCall,
    queries: Any,
    *,
    group: str,
    blocks: Any,
    profile_steps: int | Sequence[int] | None,
    heads: int | Sequence[int] | None,
    mean_over: Sequence[str],
    interventions: Sequence[Intervention],
    max_bytes: int,
    progress: bool,
) -> AttentionMaps:
    """Where each of the chosen tokens looks in the reference; see ``Probe.attention_maps``.

    Raises:
        InputError: several prompts, an argument that cannot be used, or more memory than
            ``max_bytes``; nothing has run.
        UnsupportedPipelineError: attention beside the blocks' own, as of an IP-Adapter.
    """
    if len(request.prompts) > 1:
        raise InputError("Attention maps are made of one prompt; call it for each of them.")
    unknown = [name for name in mean_over if name not in AVERAGED]
    if unknown:
        raise InputError(f"mean_over holds some of {AVERAGED}, not {unknown[0]!r}.")
    check_dispatched("A map of single tokens", family)
    tokens = chosen_tokens(queries, group, request.layout)
    recording = RecordRows(
        tokens,
        group,
        {
            "step": check_indices("profile_steps", profile_steps, len(request.schedule)),
            "block": select_blocks(blocks, family.block_kinds),
            "head": check_indices("heads", heads, family.heads),
        },
        tuple(mean_over),
    )
    needed = recording.nbytes(request.layout.reference_tokens)
    if needed > max_bytes:
        raise InputError(
            f"These maps need {needed / 1e9:.2g} GB, and max_bytes is "
            f"{max_bytes / 1e9:.2g} GB: choose fewer queries, blocks, steps or heads, or "
            'average while they are made, as with mean_over=("head",).'
        )
    result = run(
        family,
        request,
        interventions=(*interventions, recording),
        selection=Selection(blocks, profile_steps, heads),
        mass_table="queried",
        progress=progress,
        stop_early=True,
    )
    return result.outcomes[-1].maps(result.profiles[0])


def chosen_tokens(queries: Any, group: str, layout: TokenLayout) -> np.ndarray:
    """Indices of query tokens within their group, int64, ascending.

    Args:
        queries: None for all; an index or several; or, for an image group, a mask of its image,
            bool or 0..1, on the token grid or at any finer size: tokens inside by more than half.

    Raises:
        InputError: nothing chosen, an index outside, or a mask for text tokens.
    """
    span = layout.span(group)
    size = span.stop - span.start
    if np.ndim(queries) == 2:
        grids = {"generation": (layout.generation,), "reference": layout.references}
        if len(grids.get(group, ())) != 1:
            raise InputError(f"A mask chooses tokens of one image, not {group} tokens.")
        queries = np.flatnonzero(mask_to_grid(np.asarray(queries), grids[group][0]))
    chosen = check_indices("queries", queries, size, of=f"{group} tokens")
    return np.array(chosen, np.int64)
