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
from recast_probe.interventions.run_needs import check_dispatched, check_queries
from recast_probe.interventions.token_groups import base_group
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import Family
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.runs.call import PipelineCall
from recast_probe.runs.execute import run
from recast_probe.runs.recording_plan import Selection
from recast_probe.runs.result import RunResult
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
    text: bool = False,
    image: bool = False,
) -> tuple[AttentionMaps, RunResult]:
    """Where each of the chosen tokens looks in the reference; see ``Probe.attention_maps``.

    Args:
        image: finish the run, so that its result has the image.

    Returns:
        The maps, and the run's result with a profile of the same selection.

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
    if text and not request.layout.text:
        raise InputError(f"{family.name} attends to its text elsewhere; leave text= out.")
    tokens = chosen_tokens(queries, group, request.layout)
    check_queries("A map of single tokens", base_group(group), family)
    recording = RecordRows(
        tokens,
        group,
        {
            "step": check_indices("profile_steps", profile_steps, len(request.schedule)),
            "block": select_blocks(blocks, family.block_kinds),
            "head": check_indices("heads", heads, family.heads),
        },
        tuple(mean_over),
        text,
    )
    needed = recording.nbytes(request.layout)
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
        stop_early=not image,
    )
    return result.outcomes[-1].maps(result.profiles[0]), result


def chosen_tokens(queries: Any, group: str, layout: TokenLayout) -> np.ndarray:
    """Indices of query tokens within their group, int64, ascending.

    Args:
        queries: None for all; an index or several; places of an image's token grid as a list of
            tuples (row, column); or, for an image group, a mask of its image as an array, bool or
            0..1, on the token grid or at any finer size: tokens inside by more than half.

    Raises:
        InputError: nothing chosen, an index or place outside, or places for text tokens.

    Examples:
        >>> from recast_probe.layout import Grid
        >>> layout = TokenLayout(3, Grid(2, 4), (Grid(3, 3),))
        >>> chosen_tokens([(1, 0), (0, 3)], "generation", layout)
        array([3, 4])
        >>> chosen_tokens([7, 2], "generation", layout)
        array([2, 7])
    """
    span = layout.span(group)
    size = span.stop - span.start
    if _are_places(queries):
        grid = _one_grid("A place (row, column)", group, layout)
        outside = [
            (int(row), int(column))
            for row, column in queries
            if not (0 <= row < grid.rows and 0 <= column < grid.columns)
        ]
        if outside:
            raise InputError(
                f"queries holds the place {outside[0]}, and the {group} tokens are "
                f"{grid} (row, column), counted from 0."
            )
        queries = [row * grid.columns + column for row, column in queries]
    elif np.ndim(queries) == 2:
        queries = np.flatnonzero(
            mask_to_grid(np.asarray(queries), _one_grid("A mask", group, layout))
        )
    chosen = check_indices("queries", queries, size, of=f"{group} tokens")
    return np.array(chosen, np.int64)


def _are_places(queries: Any) -> bool:
    """Tuples of two whole numbers; arrays and lists of lists are masks."""
    pairs = isinstance(queries, list | tuple) and queries
    return bool(pairs) and all(
        isinstance(each, tuple)
        and len(each) == 2
        and all(isinstance(at, int | np.integer) and not isinstance(at, bool) for at in each)
        for each in queries
    )


def _one_grid(what: str, group: str, layout: TokenLayout) -> Grid:
    """The grid of a group that is one image."""
    grids = {"generation": (layout.generation,), "reference": layout.references}
    if sum(grid.layers for grid in grids.get(group, ())) != 1:
        raise InputError(
            f"{what} chooses tokens of one image, not {group} tokens"
            f"{f' of {layout.generation}' if group == 'generation' else ''}; give indices."
        )
    return grids[group][0]
