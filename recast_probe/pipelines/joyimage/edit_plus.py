"""JoyImage Edit Plus: several references of sizes of their own, guidance in one batch.

Under guidance the negative prompt and the prompt are rows of one transformer call. Texts of
different lengths are filled up, and a mask hides the padding from every query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.joyimage.base import JoyImage
from recast_probe.pipelines.joyimage.edit import shown_part
from recast_probe.pipelines.position_ids import grids_of_shapes


class JoyImageEditPlus(JoyImage):
    """``JoyImageEditPlusPipeline`` of diffusers: the references are any number of pictures.

    The output has the aspect ratio of the last reference unless it is given a height and a width.

    Examples:
        >>> from recast_probe.testing.tiny_joyimage import build_tiny_pipeline
        >>> JoyImageEditPlus(build_tiny_pipeline(plus=True)).batched
        ('unconditional', 'conditional')
    """

    name = "joyimage-edit-plus"
    pipelines = ("JoyImageEditPlusPipeline",)
    processors: ClassVar[dict[str, str]] = {"double": "JoyImageEditPlusAttnProcessor"}
    reserved: Mapping[str, str] = {"images": "image"}
    unserved: Mapping[str, str] = {
        **JoyImage.unserved,
        "prompt_embeds": "fails in the pipeline, which reads a prompt all the same",
    }
    batched = ("unconditional", "conditional")

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        side = getattr(getattr(self.pipe.processor, "tokenizer", None), "padding_side", "right")
        if side != "right" and self.count_prompts(arguments) > 1:
            raise InputError(
                "The tokenizer fills shorter prompts up on the left, where the pipeline cuts off "
                "its opening, so prompts in a batch would not be read as each is alone; set "
                'pipe.processor.tokenizer.padding_side = "right".'
            )
        return super().predict_layout(image, arguments)

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {"images": [list(images)] * self.count_prompts(arguments)} if images else {}

    def crop_box(
        self, image: Image.Image, arguments: Mapping[str, Any]
    ) -> tuple[float, float, float, float]:
        return shown_part(image, *self.pipe.image_processor.get_default_height_width(image))

    def latents_shape(self, prompts: int, layout: TokenLayout) -> tuple[int, ...]:
        config, grid = self.pipe.transformer.config, layout.generation
        _, rows, columns = config.patch_size
        return prompts, config.in_channels, 1, grid.rows * rows, grid.columns * columns

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        return grids_of_shapes(inputs["shape_list"], inputs, self.name)

    def generation_patches(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        return inputs["hidden_states"][:, : layout.generation.size].flatten(0, 1)
