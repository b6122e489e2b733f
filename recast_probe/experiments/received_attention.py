"""How much attention each token of the sequence receives in one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention, as_interventions
from recast_probe.layout import GROUPS
from recast_probe.profiles.received import ReceivedAttention
from recast_probe.runs.call import make_call
from recast_probe.runs.execute import run
from recast_probe.runs.received_recorder import ReceivedRecorder, RecordReceived
from recast_probe.runs.recording_plan import Selection
from recast_probe.runs.text_inputs import check_one_prompt

if TYPE_CHECKING:
    from recast_probe.images.loading import ImageSources
    from recast_probe.probe import Probe


def received_attention(
    probe: Probe,
    image: ImageSources,
    prompt: str | None,
    steps: int = 28,
    seed: int = 0,
    *,
    queries: str = "generation",
    blocks: Any = "all",
    profile_steps: int | Sequence[int] | None = None,
    interventions: Intervention | Sequence[Intervention] = (),
    progress: bool = True,
    **pipeline_arguments: Any,
) -> ReceivedAttention:
    """What every text, generation and reference token gets from the queries of one group.

    The run stops after the last recorded step. It costs little more than a profile: sums over the
    queries are read for all keys, never the matrix of queries and keys. ``sinks`` takes it.

    Args:
        queries: "generation", "text" or "reference": whose attention is received.
        interventions: what is done to the run; the attention is that of the changed run.

    The other arguments are those of ``Probe.profile``.

    Raises:
        InputError: an argument that cannot be used, several prompts, or no reference.
        UnsupportedPipelineError: queries that the family does not compute in every step, or
            attention beside the blocks' own, as of an IP-Adapter.
        VerificationError: a check of exactness failed during the run.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> found = received_attention(probe, image, "a cat", steps=2, progress=False)
        >>> float(found.per_token().sum().round(4))
        1.0
    """
    if queries not in GROUPS:
        raise InputError(f"queries is one of {', '.join(GROUPS)}, not {queries!r}.")
    check_one_prompt("Received attention is recorded of", prompt, pipeline_arguments)
    request = make_call(probe.family, image, prompt, steps, seed, pipeline_arguments)
    result = run(
        probe.family,
        request,
        interventions=(
            *as_interventions(interventions),
            RecordReceived(queries, blocks, profile_steps),
        ),
        selection=Selection(blocks, profile_steps, queries=queries),
        mass_table="queried",
        progress=progress,
        stop_early=True,
    )
    recorder = result.outcomes[-1]
    assert isinstance(recorder, ReceivedRecorder)
    profile = result.profiles[0]
    return recorder.received(profile.selection_text(), profile.provenance)
