"""FLUX.2 klein that repaints a part of its reference: blocks and sequence are klein's.

The image that is repainted is always the first reference. A second one may follow, of any size; its
tokens stand after those of the first, as a second reference of klein would. The pipeline takes it
by another argument and one at a time: several would be cut to the size of the first of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.pipelines.flux2.klein import Flux2Klein
from recast_probe.pipelines.inpainting import Inpainting

IMAGES = ("image", "image_reference")


class Flux2KleinInpaint(Inpainting, Flux2Klein):
    """``Flux2KleinInpaintPipeline`` of diffusers, distilled or not: the first reference is the
    picture of which a masked part is repainted.

    Examples:
        >>> from recast_probe.testing.tiny_flux2 import build_klein_inpaint
        >>> Flux2KleinInpaint(build_klein_inpaint()).call_arguments({})["strength"]
        0.8
    """

    name = "flux2-klein-inpaint"
    pipelines = ("Flux2KleinInpaintPipeline",)
    reserved: Mapping[str, str] = {"image_reference": "image=[repainted, reference]"}

    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """The image as it is: the pipeline itself scales it down.

        Raises:
            InputError: smaller than one token; this pipeline sets no other limits.
        """
        self.check_one_token(image)
        return image

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        if len(images) > len(IMAGES):
            raise InputError(
                f"{self.name} takes the image that is repainted and one reference besides, not "
                f"{len(images)} images."
            )
        return dict(zip(IMAGES, images, strict=False))

    def reference_grids(self, arguments: Mapping[str, Any]) -> list[Grid]:
        return [self._reference_grid(arguments[name]) for name in IMAGES if name in arguments]

    def crop_box(
        self, image: Image.Image, arguments: Mapping[str, Any]
    ) -> tuple[float, float, float, float]:
        """As in ``Family``, for the image that is repainted: it is scaled to whole tokens, and
        nothing is cut off."""
        return 0.0, 0.0, 1.0, 1.0
