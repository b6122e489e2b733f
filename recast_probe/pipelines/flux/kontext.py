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
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.flux.base import MEGAPIXEL
from recast_probe.pipelines.flux.cached_blocks import FLUX_BLOCKS
from recast_probe.pipelines.flux.flux_1 import Flux1
from recast_probe.pipelines.flux.sequence import FluxSequence


class FluxKontext(FluxSequence, Flux1):
    """``FluxKontextPipeline`` of diffusers: the reference is the picture to edit.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> FluxKontext(build_tiny_pipeline()).block_kinds
        ['double', 'double', 'single', 'single', 'single']
    """

    name = "flux-kontext"
    pipelines = ("FluxKontextPipeline",)
    leaves_flow_sigmas = False
    processors: ClassVar[dict[str, str]] = dict.fromkeys(("double", "single"), "FluxAttnProcessor")
    cached_types = FLUX_BLOCKS
    remedy = "IP-Adapter processors cannot be traced, call pipe.unload_ip_adapter() first"

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """As in ``Family``. At one megapixel these are the pipeline's own defaults; a smaller model
        has its own area in place of one megapixel, and no list of preferred sizes."""
        adapters = sorted(name for name in overrides if "ip_adapter" in name)
        if adapters:
            raise InputError(
                f"{adapters[0]} needs an IP-Adapter, and a {type(self.pipe).__name__} with one "
                "cannot be probed; leave it out."
            )
        side = self.image_side()
        # height and width give the aspect ratio only, so one that is left out matters
        default = self.default_side()
        return {
            "height": default,
            "width": default,
            "max_area": side * side,
            **self.text_arguments(overrides),
            "_auto_resize": side * side == MEGAPIXEL,
            **overrides,
        }

    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """Scale the reference to the model's area, where the pipeline does not do so by itself.

        At one megapixel the pipeline resizes to Kontext's own list of preferred sizes, so the image
        stays as it is. A smaller model has no such list: the image is scaled to the model's area,
        with the aspect ratio kept to a token, whatever the output's size. Who passes
        ``_auto_resize`` decides by himself.

        Raises:
            InputError: smaller than one token.
        """
        self.check_one_token(image)
        if "_auto_resize" in overrides or self.call_arguments({})["_auto_resize"]:
            return image
        area, aspect_ratio = self.image_side() ** 2, image.width / image.height
        multiple = self.token_pixels()
        width = round((area * aspect_ratio) ** 0.5) // multiple
        height = round((area / aspect_ratio) ** 0.5) // multiple
        size = (max(width, 1) * multiple, max(height, 1) * multiple)
        if size == image.size:
            return image
        return self.pipe.image_processor.resize(image, size[1], size[0])

    def _reference_grid(self, image: Image.Image, arguments: Mapping[str, Any]) -> Grid:
        from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

        height, width = self.pipe.image_processor.get_default_height_width(image)
        if arguments["_auto_resize"]:
            _, width, height = min(
                (abs(width / height - preferred_width / preferred_height), *size)
                for size in PREFERRED_KONTEXT_RESOLUTIONS
                for preferred_width, preferred_height in [size]
            )
        multiple = self.token_pixels()
        return Grid(rows=height // multiple, columns=width // multiple)

    def _generation_grid(self, arguments: Mapping[str, Any]) -> Grid:
        # as in FluxKontextPipeline.__call__: height and width give the aspect ratio only
        area, multiple = arguments["max_area"], self.token_pixels()
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
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        references = () if image is None else (self._reference_grid(image, arguments),)
        return TokenLayout(
            text=self.text_tokens(arguments, "conditional"),
            generation=self._generation_grid(arguments),
            references=references,
        )
