"""FLUX.1 Kontext that repaints a part of its reference: blocks and sequence are Kontext's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.flux.kontext import FluxKontext
from recast_probe.pipelines.inpainting import UNSERVED, Inpainting


class FluxKontextInpaint(Inpainting, FluxKontext):
    """``FluxKontextInpaintPipeline`` of diffusers: the reference is the picture of which a masked
    part is repainted.

    Examples:
        >>> from recast_probe.testing.tiny import build_inpaint_pipeline
        >>> FluxKontextInpaint(build_inpaint_pipeline()).call_arguments({})["strength"]
        1.0
    """

    name = "flux-kontext-inpaint"
    pipelines = ("FluxKontextInpaintPipeline",)
    unserved: Mapping[str, str] = {
        **UNSERVED,
        "image_reference": "gives the reference tokens to another picture than the one that is "
        "repainted, and a result names one reference",
    }

    def reference_grids(self, arguments: Mapping[str, Any]) -> list[Grid]:
        return [self._reference_grid(arguments["image"], arguments)]

    def latents_shape(self, prompts: int, layout: TokenLayout) -> tuple[int, ...]:
        """As in ``Family``; not packed yet."""
        grid, channels = layout.generation, int(self.pipe.transformer.config.in_channels) // 4
        return prompts, channels, 2 * grid.rows, 2 * grid.columns
