"""A run recorded for the explorer in one go: image, profile and maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recast_probe.images.loading import ImageSources
from recast_probe.probe import Probe
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.runs.attention_maps import MEMORY_LIMIT, attention_maps
from recast_probe.runs.call import make_call
from recast_probe.runs.result import RunResult


def record_run(
    probe: Probe,
    image: ImageSources,
    prompt: str,
    steps: int = 28,
    seed: int = 0,
    *,
    queries: Any = None,
    blocks: Any = "all",
    profile_steps: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
    mean_over: Sequence[str] = ("head",),
    text: bool = True,
    max_bytes: int = MEMORY_LIMIT,
    progress: bool = True,
    **pipeline_arguments: Any,
) -> tuple[RunResult, AttentionMaps]:
    """One run with its image, its profile and its maps.

    The arguments are those of ``Probe.attention_maps``. Text is left out where the model has no
    text tokens, and of the profile's mass table only what generation tokens give is read.

    Raises:
        InputError: an argument that cannot be used; nothing has run.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> result, maps = record_run(
        ...     rp.Probe.tiny("flux-kontext"), tiny.tiny_image(), "a cat", 2, progress=False
        ... )
        >>> result.image.size, maps.data.dims
        ((64, 64), ('step', 'block', 'query', 'token'))
    """
    request = make_call(probe.family, image, prompt, steps, seed, dict(pipeline_arguments))
    maps, result = attention_maps(
        probe.family,
        request,
        queries,
        group="generation",
        blocks=blocks,
        profile_steps=profile_steps,
        heads=heads,
        mean_over=mean_over,
        interventions=(),
        max_bytes=max_bytes,
        progress=progress,
        text=text and request.layout.text > 0,
        image=True,
    )
    return result, maps
