"""How far keys and values of the reference move away from those of earlier steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recast_probe.diagnostics.drift import Drift
from recast_probe.interventions.drift import RecordDrift
from recast_probe.runs.call import make_call
from recast_probe.runs.execute import run

if TYPE_CHECKING:
    from recast_probe.images.loading import ImageSources
    from recast_probe.probe import Probe


def drift(
    probe: Probe,
    image: ImageSources,
    prompt: str | None,
    steps: int = 28,
    seed: int = 0,
    sources: int | Sequence[int] = 0,
    progress: bool = True,
    **pipeline_arguments: Any,
) -> Drift:
    """How far keys and values of the reference move away from those of earlier steps.

    One run with the full reference, whose image is the plain one. See ``RecordDrift`` for what is
    compared, and for the memory.

    Args:
        steps: denoising steps of the run.
        seed: of the whole run.
        sources: indices of the steps whose keys and values are kept.
        progress: show a progress bar.
        pipeline_arguments: anything else that the pipeline takes.

    Raises:
        InputError: as ``Probe.generate``; nothing has run.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> found = drift(probe, image, "a cat", steps=2, progress=False)
        >>> found
        Drift(mean relative error: key 0.71..., value 0.68..., output 0.35...; unnamed, from step 0)
    """
    request = make_call(probe.family, image, prompt, steps, seed, pipeline_arguments)
    recording = RecordDrift(sources)  # type: ignore[arg-type]
    result = run(probe.family, request, interventions=(recording,), progress=progress)
    return Drift.build(
        result.outcomes[0], request.schedule.timesteps, probe.block_kinds, probe.name
    )
