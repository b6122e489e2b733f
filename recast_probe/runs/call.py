"""Turns what a user asks for into the arguments of one pipeline call, or says what is wrong."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from recast_probe._utils.checks import check_int
from recast_probe._utils.compat import execution_device
from recast_probe._utils.seeding import seeded
from recast_probe.errors import InputError
from recast_probe.images.loading import ImageSources
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import Family, Schedule
from recast_probe.runs.call_values import as_references, check_values
from recast_probe.runs.text_inputs import (
    check_encoders,
    check_latents,
    check_texts,
    given_prompts,
)

# decided by the probe's own parameters
RESERVED = {
    "self": "",
    "image": "image",
    "prompt": "prompt",
    "num_inference_steps": "steps",
    "generator": "seed",
    "num_images_per_prompt": "several calls with different seeds",
    "output_type": "",
    "return_dict": "",
}


@dataclass(frozen=True)
class PipelineCall:
    """One pipeline call, checked.

    Attributes:
        prompts: one per batch item; None where the text is given as embeddings.
        images: the references as they are handed to the pipeline.
        seed: of the whole run; the noise of every batch item.
        arguments: keyword arguments of the pipeline call, without the generator.
        layout: predicted token layout.
        schedule: predicted steps.
        given_sizes: width and height of the references as they were given.
        remarks: arguments that act otherwise than one might expect, in sentences.
    """

    prompts: tuple[str | None, ...]
    images: tuple[Image.Image, ...]
    seed: int
    arguments: dict[str, Any]
    layout: TokenLayout
    schedule: Schedule
    given_sizes: tuple[tuple[int, int], ...] = ()
    remarks: tuple[str, ...] = ()

    def run(self, pipeline: Any) -> Any:
        """What the pipeline gives when it is called so; all that is random follows from the seed,
        and torch's global random states stay as they were."""
        with seeded(self.seed, pipeline):
            return pipeline(**self.pipeline_arguments())

    def pipeline_arguments(self) -> dict[str, Any]:
        """The keyword arguments with fresh generators: each batch item starts from the same noise.

        The generators live on the CPU, so the noise is the same on every device.
        """
        generators = [torch.Generator("cpu").manual_seed(self.seed) for _ in self.prompts]
        # a pipeline may write into a dictionary that it is given
        own = {name: dict(v) for name, v in self.arguments.items() if isinstance(v, dict)}
        return {
            **self.arguments,
            **own,
            "generator": generators[0] if len(generators) == 1 else generators,
        }


def _check_names(family: Family, overrides: Mapping[str, Any]) -> None:
    reserved = RESERVED | dict(family.reserved)
    known = inspect.signature(type(family.pipe).__call__).parameters
    for name in overrides:
        if name in reserved:
            instead = f"; use {reserved[name]} of the probe" if reserved[name] else ""
            raise InputError(f"The pipeline argument {name!r} is set by the probe{instead}.")
        if name not in known:
            choices = ", ".join(sorted(set(known) - set(reserved) - set(family.unserved)))
            raise InputError(
                f"{type(family.pipe).__name__} takes no argument {name!r}. It takes {choices}."
            )
        if name in family.unserved:
            raise InputError(f"{name} {family.unserved[name]}; leave it out.")


def make_call(
    family: Family,
    image: ImageSources | None,
    prompt: str | Sequence[str] | None,
    steps: int,
    seed: int,
    overrides: Mapping[str, Any],
) -> PipelineCall:
    """Check what was asked for and predict the run.

    Args:
        prompt: None where ``overrides`` hold embeddings.
        overrides: further pipeline arguments; None means the pipeline's default.

    Raises:
        InputError: an argument that cannot be used; nothing has run.
        UnsupportedPipelineError: a component of the pipeline is missing.
    """
    family.check_parts()
    overrides = {name: value for name, value in overrides.items() if value is not None}
    _check_names(family, overrides)
    prompts = given_prompts(family, prompt, overrides)
    steps = check_int("steps", steps, 1)
    seed = check_int("seed", seed, 0)
    if seed >= 2**63:
        raise InputError(f"seed must be below 2 ** 63, not {seed}.")
    check_values(family, steps, overrides)
    if family.fixed_steps not in (None, steps) and "sigmas" not in overrides:
        raise InputError(
            f"The config of this {type(family.pipe).__name__} has sigmas for {family.fixed_steps} "
            f"steps, so steps={steps} would have no effect; ask for {family.fixed_steps}, or give "
            "sigmas."
        )
    check_texts(family, prompts, overrides)
    for name in set(family.image_arguments) & set(overrides):
        overrides[name] = as_references(overrides[name])
    arguments: dict[str, Any] = family.call_arguments(overrides)
    given = [] if image is None else as_references(image, alpha=family.reads_alpha)
    images = family.prepare_references(given, overrides)
    if not images and family.needs_reference:
        raise InputError(
            f"{type(family.pipe).__name__} makes no image without a reference; give one, and drop "
            "its tokens with WithoutReference()."
        )
    if prompt is not None:
        arguments["prompt"] = prompts[0] if len(prompts) == 1 else list(prompts)
    arguments |= family.reference_arguments(images, arguments)
    arguments["num_inference_steps"] = steps
    for text in family.texts.values():
        for name in text.prompts:
            if isinstance(arguments.get(name), str) and len(prompts) > 1:
                arguments[name] = [arguments[name]] * len(prompts)
        for name in arguments.keys() & {text.embeddings, text.pooled, text.mask}:
            # the pipelines leave embeddings where they are
            arguments[name] = arguments[name].to(execution_device(family.pipe))
    check_encoders(family, arguments)
    layout = family.predict_layout(images[0] if images else None, arguments)
    if "latents" in arguments:
        shape = family.latents_shape(len(prompts), layout)
        check_latents(arguments["latents"], shape)
    schedule = family.predict_schedule(layout, arguments)
    if schedule.stochastic and len(prompts) > 1:
        raise InputError(
            f"{type(family.pipe.scheduler).__name__} draws noise in its steps for a batch as a "
            f"whole, so the {len(prompts)} prompts would not have the noise that each has alone; "
            "call the probe for each of them."
        )
    return PipelineCall(
        prompts,
        images,
        seed,
        arguments,
        layout,
        schedule,
        tuple(each.size for each in given),
        _remarks(family, arguments, schedule, overrides),
    )


def _remarks(
    family: Family,
    arguments: Mapping[str, Any],
    schedule: Schedule,
    overrides: Mapping[str, Any],
) -> tuple[str, ...]:
    found = []
    for argument, tokenizer, number, lost in family.cut_off(arguments):
        found.append(
            f"{argument} {number} is too long for {tokenizer}: {lost} of its tokens are cut off."
        )
        warnings.warn(found[-1], UserWarning, stacklevel=4)
    for branch, text in family.texts.items():
        names = [name for name in (*text.prompts, text.embeddings) if name in arguments]
        if names and branch not in family.branch_names(arguments):
            found.append(f"{names[0]} has no effect, since guidance is off.")
    # the pipeline's own default goes without a word
    scale = overrides.get("true_cfg_scale")
    if isinstance(scale, int | float) and scale > 1 and len(family.branch_names(arguments)) < 2:
        found.append(
            f"true_cfg_scale={scale:g} has no effect without a negative prompt; give "
            'negative_prompt, which may be " ".'
        )
        warnings.warn(found[-1], UserWarning, stacklevel=4)
    own = family.leaves_flow_sigmas and family.pipe.scheduler.config.get("use_flow_sigmas")
    if own and "sigmas" in arguments:
        found.append("sigmas has no effect, since the scheduler has use_flow_sigmas.")
    if "latents" in arguments:
        found.append("The initial noise was given as latents and does not follow from the seed.")
    if schedule.stochastic:
        found.append(
            f"{type(family.pipe.scheduler).__name__} draws noise in its steps, which follows from "
            "the seed."
        )
    return tuple(found)
