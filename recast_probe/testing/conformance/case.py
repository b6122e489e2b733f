"""A pipeline to examine, with what its runs are called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe._utils.seeding import seeded
from recast_probe.interventions import Intervention, Recast
from recast_probe.probe import Probe
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.result import RunResult
from recast_probe.runs.verification import patches
from recast_probe.testing.images import assert_same_image

STEPS = 3
SEED = 5
GUIDANCE = {"true_cfg_scale": 3.0, "negative_prompt": "blurry"}


@dataclass(frozen=True)
class Case:
    """A pipeline to test against what the package promises.

    Attributes:
        name: of the case, as tables call it.
        build: makes the pipeline in float32; a tiny one, since every property takes several runs.
        images: reference images; the first alone where one is asked for.
        settings: of every call of the pipeline, such as height and width.
        guidance: settings that make a step of two calls (true classifier-free guidance).
        prompts: two that differ.
        of_generation: the generation's part of the latents that the scheduler steps; by default all
            of them.
        refuses: what the model cannot do: by property, a part of the sentence in which it refuses.
            A refusal that is not announced here fails, and so does one that no longer comes.
        reasons: what a table says in the place of such a part: by the part, a whole sentence.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline, tiny_image
        >>> case = Case("mine", build=build_tiny_pipeline, images=[tiny_image()])
        >>> case.probe.family.name
        'flux-kontext'
    """

    name: str
    build: Callable[[], Any]
    images: Sequence[Image.Image]
    settings: Mapping[str, Any] = field(default_factory=dict)
    guidance: Mapping[str, Any] = field(default_factory=lambda: dict(GUIDANCE))
    prompts: tuple[str, str] = ("a red fox", "snow")
    of_generation: Callable[[torch.Tensor], torch.Tensor] = torch.clone
    refuses: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def probe(self) -> Probe:
        """A probe of the pipeline, built once; every property leaves it as it was."""
        pipe = self.build()
        pipe.set_progress_bar_config(disable=True)
        return Probe(pipe, name=self.name)

    @cached_property
    def runs(self) -> Runs:
        """Its runs as they are."""
        return Runs(self)

    @cached_property
    def guided_runs(self) -> Runs:
        """Runs with true classifier-free guidance, which a model may refuse."""
        return Runs(self, more=self.guidance)

    @property
    def changed_runs(self) -> Runs:
        """Runs of both branches where it has two, since what acts must act in both."""
        return self.runs if "true guidance" in self.refuses else self.guided_runs

    @cached_property
    def reference_tokens(self) -> int:
        """Reference tokens of a run with one image."""
        return self.probe.layout(self.image, self.prompt, **self.settings).reference_tokens

    def reason(self, name: str) -> str:
        """Why the model refuses a property that ``refuses`` names."""
        announced = self.refuses[name]
        return self.reasons.get(announced, announced)

    @property
    def recast(self) -> Recast:
        """The method, with a third of the reference tokens."""
        return Recast(self.reference_tokens // 3 + 1, blocks="all")

    @property
    def image(self) -> Image.Image:
        """The reference image where there is one."""
        return self.images[0]

    @property
    def prompt(self) -> str:
        """The prompt where there is one."""
        return self.prompts[0]


@dataclass(frozen=True)
class Made:
    """What a run made.

    Attributes:
        images: one a prompt, uint8 (height, width, channel), or (layer, height, width, channel).
        latents: after every step, float (step, prompt, token, channel).
        result: of the probe; None for a run of the pipeline alone.
    """

    images: list[np.ndarray]
    latents: torch.Tensor
    result: RunResult | None = None

    @property
    def profiles(self) -> tuple[AttentionProfile, ...]:
        """Of the probe's run, one a prompt."""
        assert self.result is not None, "A run of the pipeline alone has no profiles."
        return self.result.profiles


@dataclass(frozen=True)
class Runs:
    """Runs of a case that differ in the named settings alone.

    Attributes:
        case: whose they are.
        image, prompt: the case's own by default; several in a list.
        more: settings of the pipeline besides the case's.
        probe: another one than the case's.
    """

    case: Case
    image: Any = None
    prompt: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)
    probe_of: Probe | None = None

    @property
    def probe(self) -> Probe:
        """What is run."""
        return self.probe_of or self.case.probe

    @property
    def settings(self) -> dict[str, Any]:
        """Of every call."""
        return {**self.case.settings, **self.more}

    @property
    def call(self) -> dict[str, Any]:
        """Arguments of the probe's methods."""
        return {
            "image": self.case.image if self.image is None else self.image,
            "prompt": self.case.prompt if self.prompt is None else self.prompt,
            "steps": STEPS,
            "seed": SEED,
            **self.settings,
        }

    def images_of(self, output: Any) -> Any:
        """The images, or lists of layers or frames, of what the pipeline gives."""
        return getattr(output, self.probe.family.output_name)

    @cached_property
    def alone(self) -> Made:
        """What ``plain`` makes, made once, at any time before."""
        return self.plain()

    @cached_property
    def profiled(self) -> Made:
        """What a profiled run makes, made once."""
        return self.made(profile=True)

    def plain(self) -> Made:
        """The pipeline alone."""
        arguments = self.probe.pipeline_arguments(**self.call)
        # a pipeline may draw from torch's global random state besides its generators
        with steps_of(self.probe.pipe) as seen, seeded(SEED, self.probe.pipe):
            images = self.images_of(self.probe.pipe(**arguments))
        return self._made(images, seen)

    def made(self, *interventions: Intervention, **settings: Any) -> Made:
        """The probe's run with these interventions."""
        with steps_of(self.probe.pipe) as seen:
            result = self.probe.generate(
                **self.call, interventions=interventions, progress=False, **settings
            )
        images = result.layers or result.images
        return self._made(images, seen, result)

    def _made(
        self, images: Sequence[Any], seen: list[torch.Tensor], result: RunResult | None = None
    ) -> Made:
        latents = torch.stack([self.case.of_generation(each) for each in seen])
        return Made([np.asarray(image) for image in images], latents, result)

    def state(self) -> tuple[Any, ...]:
        """All that a run could leave behind on the pipeline, for comparison."""
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry

        family, pipe = self.probe.family, self.probe.pipe
        transformer = family.transformer
        processors = [id(family.processor_of(call)) for call in family.attention_calls()]
        return (
            patches(transformer),
            processors,
            dict(_AttentionBackendRegistry._backends),
            sorted(vars(pipe)),
            dict(getattr(pipe, "_progress_bar_config", {})),
        )


@contextmanager
def steps_of(pipe: Any, stop: bool = False) -> Iterator[list[torch.Tensor]]:
    """The latents that the pipeline's scheduler makes in each step, while inside.

    Not every pipeline takes a ``callback_on_step_end``.

    Args:
        stop: raise KeyboardInterrupt after the first step.
    """
    seen: list[torch.Tensor] = []
    scheduler = pipe.scheduler
    kind = type(scheduler)

    class Watched(kind):  # type: ignore[valid-type,misc]
        def step(self, *given: Any, **named: Any) -> Any:
            made = super().step(*given, **named)
            if self is scheduler:  # a copy rehearses the schedule
                seen.append(made[0].clone())
                if stop:
                    raise KeyboardInterrupt
            return made

    Watched.__name__ = kind.__name__
    scheduler.__class__ = Watched
    try:
        yield seen
    finally:
        scheduler.__class__ = kind


def assert_same(found: Made, expected: Made) -> None:
    """The same images and, in every step, the same latents, bit for bit."""
    for one, other in zip(found.images, expected.images, strict=True):
        assert_same_image(one, other)
    assert torch.equal(found.latents, expected.latents), (
        f"The latents differ by up to {distance(found, expected):.2g}, though the images do not."
    )


def assert_close(found: Made, expected: Made, whole: Made) -> None:
    """Equal as numbers, not as bits, and by far not equal to the whole run."""
    error, effect = distance(found, expected), distance(found, whole)
    assert effect > 1e-3, f"The latents are those of the whole run to within {effect:.2g}."
    assert error < 1e-3 * effect, (
        f"The latents differ by up to {error:.2g} from what they should be, and by {effect:.2g} "
        "from those of the whole run."
    )


def distance(found: Made, other: Made) -> float:
    """Largest difference of a latent in any step."""
    return float((found.latents.double() - other.latents.double()).abs().max())
