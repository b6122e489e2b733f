"""What the pipelines of FLUX.1 and FLUX.2 have in common: blocks, sizes and position ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.pipelines.position_ids import raster_grids
from recast_probe.pipelines.transformer import TransformerFamily

LONGEST_PROMPT = 512
MEGAPIXEL = 1024 * 1024


def truncated(tokenizer: Any, prompts: list[str], length: int) -> list[tuple[int, int]]:
    """Number and lost tokens of each prompt that a tokenizer cuts to this length."""
    # verbose=False: the tokenizer would warn of a length that nothing is given
    found = tokenizer(prompts, truncation=False, verbose=False)["input_ids"]
    return [(n, len(ids) - length) for n, ids in enumerate(found) if len(ids) > length]


class Flux(TransformerFamily):
    """Shared by the families of FLUX.1 and FLUX.2; not a family itself."""

    leaves_flow_sigmas = True
    stacks = (("double", "transformer_blocks"), ("single", "single_transformer_blocks"))

    def image_side(self) -> int:
        """Side in pixels of the square images that the model was made for."""
        side = getattr(self.pipe.vae.config, "sample_size", None)
        return side if isinstance(side, int) and side > 0 else 1024

    def default_side(self) -> int:
        """Side in pixels of an output without a given size: at one megapixel the pipeline's own
        default, for a smaller model that of the images it was made for."""
        side = self.image_side()
        if side * side == MEGAPIXEL:
            return int(self.pipe.default_sample_size * self.pipe.vae_scale_factor)
        return side

    def check_one_token(self, image: Image.Image) -> None:
        """Raise InputError where a reference has a side below that of a token."""
        pixels = self.token_pixels()
        if min(image.size) < pixels:
            raise InputError(
                f"The reference image is {image.width} x {image.height} pixels, smaller than one "
                f"token ({pixels} x {pixels} pixels); give a larger one."
            )

    def output_grid(self, arguments: Mapping[str, Any]) -> Grid:
        """Generation tokens of an output of ``height`` by ``width`` pixels.

        Raises:
            InputError: none fits.
        """
        pixels = self.token_pixels()
        rows, columns = arguments["height"] // pixels, arguments["width"] // pixels
        if min(rows, columns) < 1:
            raise InputError(
                f"height={arguments['height']}, width={arguments['width']} give {rows} x {columns} "
                f"generation tokens; choose at least {pixels} x {pixels} pixels."
            )
        return Grid(rows, columns)

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        """Grids of the images that the image position ids stand for, generation first.

        Raises:
            VerificationError: the position ids are not raster grids.
        """
        return raster_grids(inputs["img_ids"], self.name)
