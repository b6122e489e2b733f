"""Pipelines that repaint a part of their reference: what their families share.

Blocks and sequence are those of the model that edits whole images. Four things differ:

- ``mask_image`` says what is repainted (white). After every step the pipeline puts the reference's
  own latents back elsewhere, so a run without reference **tokens** still has the reference in it.
- The output has the size of the reference; a height and a width have no effect.
- ``strength`` leaves out the first steps of the schedule: the run begins at the reference with
  noise added. Step 0 of a profile is the first step that is made.
- ``latents``, where a pipeline takes them, are the initial noise; a run begins at them as they are,
  whatever the strength.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from recast_probe._utils.checks import check_finite
from recast_probe.errors import InputError
from recast_probe.images.loading import MaskSource, check_same_shape, read_mask
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import Schedule
from recast_probe.pipelines.flow_schedule import USUAL
from recast_probe.pipelines.transformer import TransformerFamily

SIZES = ("height", "width", "max_area")
UNSERVED = {
    **dict.fromkeys(SIZES, "has no effect, since the output has the size of the image"),
    "padding_mask_crop": "cuts out a part of the image, and its reference tokens would be laid "
    "over the whole",
}
"""Arguments that no such pipeline can be used with, each with the reason."""


def mask_picture(source: MaskSource) -> Image.Image:
    """A mask as pipelines take one, grey and white inside; it is read by the rule of
    ``mask_values``.

    Raises:
        InputError: it cannot be read.

    Examples:
        >>> mask_picture(np.eye(2)).getpixel((0, 0))
        255
    """
    return Image.fromarray(np.rint(read_mask(source) * 255).astype(np.uint8))


class Inpainting(TransformerFamily):
    """Goes before the family of the model that edits whole images; not a family itself."""

    needs_reference = True
    unserved: Mapping[str, str] = UNSERVED

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """As for the whole image, without a size; the mask is read by the rule of ``mask_values``.

        Raises:
            InputError: a mask that cannot be read, or a strength that is not above 0 and at most 1.
        """
        given = super().call_arguments(overrides)  # type: ignore[safe-super]
        found = {"strength": self.call_default("strength"), **given}
        strength = check_finite("strength", found["strength"])
        if not 0 < strength <= 1:
            raise InputError(f"strength must be above 0 and at most 1, not {strength:g}.")
        if "mask_image" in found:
            found["mask_image"] = mask_picture(found["mask_image"])
        return {name: value for name, value in found.items() if name not in SIZES}

    def prepare_references(
        self, images: Sequence[Image.Image], overrides: Mapping[str, Any]
    ) -> tuple[Image.Image, ...]:
        """As for the whole image; the pipeline scales the mask to the image that is repainted,
        which is the first one.

        Raises:
            InputError: there is no mask, or one of another aspect ratio; or an image that the
                pipeline does not take.
        """
        if images:
            if "mask_image" not in overrides:
                raise InputError(
                    f"{type(self.pipe).__name__} needs mask_image, which is white where the image "
                    "is to be repainted; give a picture, a path or an array (height, width)."
                )
            check_same_shape(read_mask(overrides["mask_image"]), images[0])
        return super().prepare_references(images, overrides)

    @abstractmethod
    def reference_grids(self, arguments: Mapping[str, Any]) -> list[Grid]:
        """Tokens of every reference among the arguments of a call, the repainted one first."""

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        if image is None:
            raise InputError(f"{self.name} has no layout without a reference; give one.")
        grids = self.reference_grids(arguments)
        text = self.text_tokens(arguments, "conditional")
        return TokenLayout(text=text, generation=grids[0], references=tuple(grids))

    def predict_schedule(self, layout: TokenLayout, arguments: Mapping[str, Any]) -> Schedule:
        """The last steps of the whole schedule, as many as the strength leaves.

        Raises:
            InputError: none, or the scheduler cannot put the image back.
        """
        if not hasattr(self.pipe.scheduler, "scale_noise"):
            raise InputError(
                f"{type(self.pipe.scheduler).__name__} has no scale_noise, by which "
                f"{type(self.pipe).__name__} puts the image back; set another scheduler, such as "
                f"{USUAL}."
            )
        whole = super().predict_schedule(layout, arguments)
        steps, strength = len(whole), arguments["strength"]
        # as in get_timesteps of the pipelines
        first = int(max(steps - min(steps * strength, steps), 0))
        if first == steps:
            raise InputError(f"strength={strength:g} leaves none of {steps} steps; raise one.")
        return replace(whole, timesteps=whole.timesteps[first:], sigmas=whole.sigmas[first:])

    def call_facts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        # of the whole schedule, of which a strength below 1 leaves the last steps
        steps = {"num_inference_steps": arguments["num_inference_steps"]}
        return {**super().call_facts(arguments), **steps}
