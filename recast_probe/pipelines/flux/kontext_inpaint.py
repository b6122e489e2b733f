"""FLUX.1 Kontext that repaints a part of its reference: blocks and sequence are Kontext's.

Four things differ from FLUX.1 Kontext:

- ``mask_image`` says what is repainted (white). After every step the pipeline puts the reference's
  own latents back elsewhere, so a run without reference **tokens** still has the reference in it.
- The output has the size of the reference; ``height``, ``width`` and ``max_area`` have no effect.
- ``strength`` leaves out the first steps of the schedule: the run begins at the reference with
  noise added. Step 0 of a profile is the first step that is made.
- ``latents`` is the initial noise before it is packed into tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from recast_probe._utils.checks import check_finite
from recast_probe.errors import InputError
from recast_probe.images.loading import check_same_shape, read_mask
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import Schedule
from recast_probe.pipelines.flow_schedule import USUAL
from recast_probe.pipelines.flux.kontext import FluxKontext

SIZES = ("height", "width", "max_area")
UNSERVED = {
    **dict.fromkeys(SIZES, "has no effect, since the output has the size of the image"),
    "image_reference": "gives the reference tokens to another picture than the one that is "
    "repainted, and a result names one reference",
    "padding_mask_crop": "cuts out a part of the image, and its reference tokens would be laid "
    "over the whole",
}
"""Arguments of the pipeline that cannot be used, each with the reason."""


class FluxKontextInpaint(FluxKontext):
    """``FluxKontextInpaintPipeline`` of diffusers, of any size."""

    name = "flux-kontext-inpaint"
    pipelines = ("FluxKontextInpaintPipeline",)
    needs_reference = True

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """As for Kontext, without a size; the mask is read by the rule of ``mask_values``.

        Raises:
            InputError: one of ``UNSERVED``, a mask that cannot be read, or a strength that is not
                above 0 and at most 1.
        """
        for name, reason in UNSERVED.items():
            if name in overrides:
                raise InputError(f"{name} {reason}; leave it out.")
        found = {"strength": 1.0, **super().call_arguments(overrides)}
        strength = check_finite("strength", found["strength"])
        if not 0 < strength <= 1:
            raise InputError(f"strength must be above 0 and at most 1, not {strength:g}.")
        if "mask_image" in found:
            values = np.rint(read_mask(found["mask_image"]) * 255).astype(np.uint8)
            found["mask_image"] = Image.fromarray(values)
        return {name: value for name, value in found.items() if name not in SIZES}

    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """As for Kontext; the pipeline scales the mask to the image.

        Raises:
            InputError: there is no mask, or one of another aspect ratio; or the image is smaller
                than one token.
        """
        if "mask_image" not in overrides:
            raise InputError(
                f"{type(self.pipe).__name__} needs mask_image, which is white where the image is "
                "to be repainted; give a picture, a path or an array (height, width)."
            )
        check_same_shape(read_mask(overrides["mask_image"]), image)
        return super().prepare_reference(image, overrides)

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        if image is None:
            raise InputError(f"{self.name} has no layout without a reference; give one.")
        grid = self._reference_grid(image, arguments)
        return TokenLayout(
            text=self.text_tokens(arguments, "conditional"), generation=grid, references=(grid,)
        )

    def latents_shape(self, prompts: int, layout: TokenLayout) -> tuple[int, ...]:
        grid, channels = layout.generation, int(self.pipe.transformer.config.in_channels) // 4
        return prompts, channels, 2 * grid.rows, 2 * grid.columns

    def predict_schedule(self, layout: TokenLayout, arguments: Mapping[str, Any]) -> Schedule:
        if not hasattr(self.pipe.scheduler, "scale_noise"):
            raise InputError(
                f"{type(self.pipe.scheduler).__name__} has no scale_noise, by which "
                f"{type(self.pipe).__name__} puts the image back; set another scheduler, such as "
                f"{USUAL}."
            )
        whole = super().predict_schedule(layout, arguments)
        steps, strength = len(whole), arguments["strength"]
        # as in FluxKontextInpaintPipeline.get_timesteps
        first = int(max(steps - min(steps * strength, steps), 0))
        if first == steps:
            raise InputError(f"strength={strength:g} leaves none of {steps} steps; raise one.")
        return replace(whole, timesteps=whole.timesteps[first:], sigmas=whole.sigmas[first:])

    def call_facts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        # of the whole schedule, of which a strength below 1 leaves the last steps
        return {"num_inference_steps": arguments["num_inference_steps"]}
