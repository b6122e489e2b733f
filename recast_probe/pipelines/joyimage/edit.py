"""JoyImage Edit: one reference, of the output's size.

Guidance is a second call. The reference's latents are drawn from what the autoencoder gives, by
torch's global random state and for all prompts of a batch at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.joyimage.base import JoyImage


def shown_part(image: Image.Image, height: int, width: int) -> tuple[float, float, float, float]:
    """What is left of an image that is scaled to cover a size, and cut to it around the middle."""
    scale = max(height / image.height, width / image.width)
    across, down = width / (scale * image.width), height / (scale * image.height)
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


class JoyImageEdit(JoyImage):
    """``JoyImageEditPipeline`` of diffusers: the reference is the picture to edit.

    Examples:
        >>> from recast_probe.testing.tiny_joyimage import build_tiny_pipeline
        >>> JoyImageEdit(build_tiny_pipeline()).block_kinds
        ['double', 'double', 'double']
    """

    name = "joyimage-edit"
    pipelines = ("JoyImageEditPipeline",)
    processors: ClassVar[dict[str, str]] = {"double": "JoyImageAttnProcessor"}
    reference_first = True

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        prompts = self.count_prompts(arguments)
        if prompts > 1:
            raise InputError(
                f"{type(self.pipe).__name__} runs one prompt at a time, not {prompts}: in a batch "
                "the reference's latents are drawn for all of them at once; call the probe for "
                "each of them."
            )
        return super().predict_layout(image, arguments)

    def crop_box(
        self, image: Image.Image, arguments: Mapping[str, Any]
    ) -> tuple[float, float, float, float]:
        size = self.pipe.vae_image_processor.get_default_height_width(
            image, arguments.get("height"), arguments.get("width")
        )
        return shown_part(image, *size)

    def latents_shape(self, prompts: int, layout: TokenLayout) -> tuple[int, ...]:
        config, grid = self.pipe.transformer.config, layout.generation
        _, rows, columns = config.patch_size
        return prompts, 1, config.in_channels, 1, grid.rows * rows, grid.columns * columns

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        _, images, _, _, height, width = inputs["hidden_states"].shape
        _, rows, columns = self.pipe.transformer.config.patch_size
        return [Grid(height // rows, width // columns)] * images

    def generation_patches(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        return inputs["hidden_states"][:, -1]
