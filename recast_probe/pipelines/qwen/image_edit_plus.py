"""Qwen-Image-Edit Plus (2509 and later): several references, each a picture in the text as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from recast_probe.pipelines.qwen.image_edit import QwenImageEdit


class QwenImageEditPlus(QwenImageEdit):
    """``QwenImageEditPlusPipeline`` of diffusers: the references are one or several pictures, which
    the text has seen too.

    The output has the aspect ratio of the last reference unless it is given a height and a width.

    Examples:
        >>> from recast_probe.testing.tiny_qwen import build_tiny_pipeline
        >>> QwenImageEditPlus(build_tiny_pipeline(plus=True)).block_kinds
        ['double', 'double', 'double']
    """

    name = "qwen-image-edit-plus"
    pipelines = ("QwenImageEditPlusPipeline",)
    measure = -1

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {"image": list(images)} | self._output_size(images, arguments) if images else {}

    def references(self, arguments: Mapping[str, Any]) -> list[Image.Image]:
        return list(arguments.get("image", ()))

    def pictures(self, images: Sequence[Image.Image]) -> tuple[str, list[tuple[int, int]]]:
        named = (
            f"Picture {number}: <|vision_start|><|image_pad|><|vision_end|>"
            for number in range(1, len(images) + 1)
        )
        return "".join(named), [_size_for_text(image) for image in images]

    def scaled_for_text(self, images: Sequence[Image.Image]) -> Any:
        sizes = [_size_for_text(image) for image in images]
        return [
            self.pipe.image_processor.resize(image, height, width)
            for image, (width, height) in zip(images, sizes, strict=True)
        ]


def _size_for_text(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels to which the pipeline scales a picture for Qwen2.5-VL."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import (
        CONDITION_IMAGE_SIZE,
        calculate_dimensions,
    )

    return calculate_dimensions(CONDITION_IMAGE_SIZE, image.width / image.height)
