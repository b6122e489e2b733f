"""Qwen-Image-Edit that repaints a part of its reference: blocks and sequence are those of editing.

The reference is scaled to one megapixel and the output has that size. Its latents are drawn from
what the autoencoder gives, with the same generator as the noise after them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.pipelines.inpainting import UNSERVED, Inpainting
from recast_probe.pipelines.qwen.image_edit import QwenImageEdit


class QwenImageEditInpaint(Inpainting, QwenImageEdit):
    """``QwenImageEditInpaintPipeline`` of diffusers: the reference is the picture of which a masked
    part is repainted, which the text has seen too.

    Examples:
        >>> from recast_probe.testing.tiny_qwen import build_inpaint_pipeline
        >>> QwenImageEditInpaint(build_inpaint_pipeline()).call_arguments({})["strength"]
        0.6
    """

    name = "qwen-image-edit-inpaint"
    pipelines = ("QwenImageEditInpaintPipeline",)
    unserved: Mapping[str, str] = {
        **UNSERVED,
        "latents": "cannot be given, since the pipeline unpacks it as start, noise and image and "
        "fails",
        "masked_image_latents": "has no effect, since no step reads it",
    }

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """As in ``Inpainting``.

        Raises:
            InputError: embeddings of several prompts besides.
        """
        given = self.given_embeddings(overrides, "conditional")
        if given is not None and len(given) > 1:
            raise InputError(
                f"{type(self.pipe).__name__} runs one prompt at a time, not the {len(given)} of "
                "prompt_embeds: in a batch the image's latents are drawn for the first of them "
                "alone; call the probe for each of them."
            )
        return super().call_arguments(overrides)

    def _output_size(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, int]:
        return {}  # the pipeline computes it

    def reference_grids(self, arguments: Mapping[str, Any]) -> list[Grid]:
        return [self.grid_of(self.reference_size(each)) for each in self.references(arguments)]
