"""FLUX.1 Kontext: reference latents appended to the generation latents, attended in every block.

Inside attention the sequence is [text; generation; reference] in double-stream and single-stream
blocks alike. ``img_ids`` holds (image, row, column) of each image token: image 0 is the generation,
1 and up are references.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from PIL import Image

from recast_probe.errors import InputError
from recast_probe.families.cached_blocks import CachedBlock
from recast_probe.families.flux_1 import Flux1
from recast_probe.families.flux_cached_blocks import CachedFluxDoubleBlock, CachedFluxSingleBlock
from recast_probe.families.flux_processor import HookedFluxProcessor
from recast_probe.families.flux_sequence import FluxSequence
from recast_probe.layout import Grid, TokenLayout

KONTEXT_AREA = 1024 * 1024


class FluxKontext(FluxSequence, Flux1):
    """``FluxKontextPipeline`` of diffusers, of any size."""

    name = "flux-kontext"
    pipelines = ("FluxKontextPipeline",)
    processors: ClassVar[dict[str, str]] = dict.fromkeys(("double", "single"), "FluxAttnProcessor")
    cached_types: ClassVar[dict[str, type[CachedBlock]]] = {
        "double": CachedFluxDoubleBlock,
        "single": CachedFluxSingleBlock,
    }
    remedy = "IP-Adapter processors cannot be traced, call pipe.unload_ip_adapter() first"

    def hooked_processor(self, processor: Any) -> HookedFluxProcessor:
        return HookedFluxProcessor(processor)

    def call_arguments(self, pipeline: Any, overrides: Mapping[str, Any]) -> dict[str, Any]:
        side = self.image_side(pipeline)
        area = overrides.get("max_area", side * side)
        square = round(area**0.5)
        return {
            "height": square,
            "width": square,
            "max_area": area,
            "max_sequence_length": self.longest_prompt(pipeline),
            "_auto_resize": area == KONTEXT_AREA,
            **overrides,
        }

    def prepare_reference(
        self, pipeline: Any, image: Image.Image, overrides: Mapping[str, Any]
    ) -> Image.Image:
        """Scale the reference to the model's area, where the pipeline does not do so by itself.

        At one megapixel the pipeline resizes to Kontext's own list of preferred sizes, so the image
        stays as it is. A smaller model has no such list: the image is scaled to the model's area,
        with the aspect ratio kept to a token. Who passes ``_auto_resize`` decides by himself.
        """
        arguments = self.call_arguments(pipeline, overrides)
        if arguments["_auto_resize"] or "_auto_resize" in overrides:
            return image
        aspect_ratio = image.width / image.height
        multiple = self.token_pixels(pipeline)
        width = round((arguments["max_area"] * aspect_ratio) ** 0.5) // multiple
        height = round((arguments["max_area"] / aspect_ratio) ** 0.5) // multiple
        size = (max(width, 1) * multiple, max(height, 1) * multiple)
        if size == image.size:
            return image
        return pipeline.image_processor.resize(image, size[1], size[0])

    def _reference_grid(
        self, pipeline: Any, image: Image.Image, arguments: Mapping[str, Any]
    ) -> Grid:
        from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

        height, width = pipeline.image_processor.get_default_height_width(image)
        if arguments["_auto_resize"]:
            _, width, height = min(
                (abs(width / height - preferred_width / preferred_height), *size)
                for size in PREFERRED_KONTEXT_RESOLUTIONS
                for preferred_width, preferred_height in [size]
            )
        multiple = self.token_pixels(pipeline)
        if min(width, height) < multiple:
            raise InputError(
                f"The reference image is {image.width} x {image.height} pixels, smaller than one "
                f"token ({multiple} x {multiple} pixels); give a larger one."
            )
        return Grid(rows=height // multiple, columns=width // multiple)

    def _generation_grid(self, pipeline: Any, arguments: Mapping[str, Any]) -> Grid:
        # as in FluxKontextPipeline.__call__: height and width give the aspect ratio only
        area, multiple = arguments["max_area"], self.token_pixels(pipeline)
        aspect_ratio = arguments["width"] / arguments["height"]
        rows = round((area / aspect_ratio) ** 0.5) // multiple
        columns = round((area * aspect_ratio) ** 0.5) // multiple
        if min(rows, columns) < 1:
            raise InputError(
                f"height={arguments['height']}, width={arguments['width']} at max_area={area} give "
                f"{rows} x {columns} generation tokens; choose a larger or squarer output."
            )
        return Grid(rows=rows, columns=columns)

    def predict_layout(
        self, pipeline: Any, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        references = () if image is None else (self._reference_grid(pipeline, image, arguments),)
        return TokenLayout(
            text=arguments["max_sequence_length"],
            generation=self._generation_grid(pipeline, arguments),
            references=references,
        )
