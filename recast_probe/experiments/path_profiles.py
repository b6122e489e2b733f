"""Two profiles of one run: what generation tokens and what text tokens see of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recast_probe._utils.checks import check_indices
from recast_probe.attention.readout import Readout
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.interventions.base import CallHook, Intervention, RunContext, as_interventions
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.call import make_call
from recast_probe.runs.execute import run
from recast_probe.runs.recorder import AttentionRecorder
from recast_probe.runs.recording_plan import Selection
from recast_probe.runs.text_inputs import check_one_prompt

if TYPE_CHECKING:
    from recast_probe.images.loading import ImageSources
    from recast_probe.probe import Probe


def path_profiles(
    probe: Probe,
    image: ImageSources,
    prompt: str | None,
    steps: int = 28,
    seed: int = 0,
    *,
    blocks: Any = "all",
    profile_steps: int | Sequence[int] | None = None,
    interventions: Intervention | Sequence[Intervention] = (),
    progress: bool = True,
    **pipeline_arguments: Any,
) -> tuple[AttentionProfile, AttentionProfile]:
    """Profiles with ``queries="generation"`` and ``queries="text"`` from a single run.

    The same as two calls of ``Probe.profile`` with whole mass tables, for little more than the
    cost of one; ``flow`` takes them. The run stops after the last recorded step.

    Args:
        interventions: what is done to the run, such as a ``Knockout``; the profiles are those of
            the changed attention.

    The other arguments are those of ``Probe.profile``.

    Raises:
        InputError: an argument that cannot be used, several prompts, or a family whose text tokens
            do not attend to the reference.
        VerificationError: a check of exactness failed during the run.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> generation, text = path_profiles(probe, image, "a cat", steps=2, progress=False)
        >>> rp.flow(generation, text)
        Flow(direct 0.34..., through the text 0.07..., ...; blocks 0-4, steps 0-1, all heads)
    """
    check_one_prompt("Two profiles are made of", prompt, pipeline_arguments)
    if "text" not in probe.family.query_groups:
        raise InputError(
            f"Attention of text tokens to the reference cannot be recorded in {probe.family.name}."
        )
    request = make_call(probe.family, image, prompt, steps, seed, pipeline_arguments)
    recorder = AttentionRecorder(
        blocks=select_blocks(blocks, probe.block_kinds),
        steps=check_indices("profile_steps", profile_steps, len(request.schedule)),
        heads=None,
        available_heads=probe.heads,
        branches=probe.family.branch_names(request.arguments),
        layout=request.layout,
        queries="text",
    )
    reading = TextReading(recorder)
    result = run(
        probe.family,
        request,
        interventions=(*as_interventions(interventions), reading),
        selection=Selection(blocks, profile_steps),
        progress=progress,
        stop_early=True,
    )
    recorder.check_complete()
    generation = result.profiles[0]
    facts = generation.provenance
    facts["recorded"] = {**facts["recorded"], "queries": "text"}
    (text,) = recorder.profiles(request.schedule, probe.block_kinds, [facts])
    return generation, text


class TextReading(Intervention):
    """Records what text tokens see of the reference, beside a run's own recording."""

    def __init__(self, recorder: AttentionRecorder) -> None:
        self.recorder = recorder

    def hook(self, run: RunContext) -> CallHook:
        return TextHook(self.recorder, run)


class TextHook(CallHook):
    """Adds what one run shows to a recorder."""

    def __init__(self, recorder: AttentionRecorder, run: RunContext) -> None:
        self._recorder, self._run = recorder, run

    def attention_pairs(self, block: int) -> Sequence[tuple[str, str]]:
        wanted = self.step in self._recorder.steps and block in self._recorder.blocks
        return (self._recorder.pair,) if wanted else ()

    def read_attention(self, block: int, readout: Readout) -> None:
        self._recorder.add(
            readout, branch=self.branch, step=self.step, block=block, kept=self._run.present
        )
