"""FLUX.1 Redux: tokens of a reference stand among the states of the text, behind its own.

SigLIP cuts the reference, squeezed to a square, into patches, and Redux makes one token of each. A
token has read the whole image in SigLIP; its place is that of its patch. The transformer takes them
for text: they have no rotary positions, and go through the text's half of double-stream blocks.
Inside attention the order is [text; reference; generation].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image

from recast_probe._utils.checks import check_finite
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.among_text import AmongText
from recast_probe.pipelines.cached_blocks import CachedBlock
from recast_probe.pipelines.flux.cached_blocks import (
    CachedFluxDoubleBlock,
    CachedReduxSingleBlock,
)
from recast_probe.pipelines.flux.flux_1 import Flux1
from recast_probe.pipelines.flux.kontext import FluxKontext
from recast_probe.pipelines.flux.sequence import FluxSequence

SCALES = ("prompt_embeds_scale", "pooled_prompt_embeds_scale")


class FluxRedux(AmongText, FluxSequence, Flux1):
    """``FluxReduxPipeline``, diffusers' prior of FLUX.1 Redux with its ``FluxPipeline``: the
    reference is a picture to vary, whose tokens stand among the text's.

    Examples:
        >>> from recast_probe.testing.tiny_redux import build_tiny_pipeline
        >>> str(FluxRedux(build_tiny_pipeline()).grid)
        '4 x 4'
    """

    name = "flux-redux"
    pipelines = ("FluxReduxPipeline",)
    parts = (*Flux1.parts, "image_encoder", "feature_extractor", "image_embedder")
    processors: ClassVar[dict[str, str]] = FluxKontext.processors
    cached_types: ClassVar[dict[str, type[CachedBlock]]] = {
        "double": CachedFluxDoubleBlock,
        "single": CachedReduxSingleBlock,
    }
    remedy = "IP-Adapter processors cannot be traced, build the pipeline anew without one"

    @classmethod
    def pipeline_class(cls, name: str) -> Any:
        from recast_probe.pipelines.flux.redux_pipeline import FluxReduxPipeline

        return FluxReduxPipeline

    def lacking(self) -> list[str]:
        config, extractor = self.pipe.image_encoder.config, self.pipe.feature_extractor
        side = getattr(config, "image_size", None)
        if not (isinstance(side, int) and isinstance(getattr(config, "patch_size", None), int)):
            return ["image_encoder (SiglipVisionModel, of square images and patches)"]
        if dict(extractor.size) != {"height": side, "width": side}:
            return [f"feature_extractor (size {side} x {side}, as image_encoder takes it)"]
        if getattr(extractor, "do_center_crop", None):
            return ["feature_extractor (without do_center_crop, as published)"]
        return super().lacking()

    @property
    def grid(self) -> Grid:
        """Tokens of the reference, of whatever size it is."""
        config = self.pipe.image_encoder.config
        patches = config.image_size // config.patch_size
        return Grid(patches, patches)

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """As in ``Family``.

        Raises:
            InputError: a scale that is not finite.
        """
        for name in set(SCALES) & set(overrides):
            check_finite(name, overrides[name])
        side = self.default_side()
        return {"height": side, "width": side, **self.text_arguments(overrides), **overrides}

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """As in ``Family``.

        Raises:
            InputError: several images, or texts of guidance that differ in their number of tokens.
        """
        found = super().reference_arguments(images, arguments)
        counts = [self.text_tokens(arguments, name) for name in self.branch_names(arguments)]
        if found and len(set(counts)) > 1:
            raise InputError(
                f"The prompt has {counts[0]} text tokens and the negative prompt {counts[1]}, and "
                "with a reference this pipeline takes as many; set max_sequence_length, or give "
                "embeddings of one length."
            )
        return found

    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """The image as it is: SigLIP's own preprocessing squeezes it to a square."""
        return image

    def crop_box(
        self, image: Image.Image, arguments: Mapping[str, Any]
    ) -> tuple[float, float, float, float]:
        # what is left of the square beside whole patches is cut off
        config = self.pipe.image_encoder.config
        seen = self.grid.rows * config.patch_size / config.image_size
        return 0.0, 0.0, seen, seen

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        references = () if image is None else (self.grid,)
        text = self.text_tokens(arguments, "conditional")
        return TokenLayout(text, self.output_grid(arguments), references)

    def branch_embeddings(self, arguments: Mapping[str, Any]) -> dict[str, torch.Tensor | None]:
        scale = float(arguments.get(SCALES[0], 1)) if "image" in arguments else 1.0
        found = super().branch_embeddings(arguments)
        return {name: None if each is None else each * scale for name, each in found.items()}

    def tokens_among_text(self) -> int:
        return int(self.pipe.image_tokens)

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        (generation,) = self.image_grids(inputs)
        references = (self.grid,) if self.tokens_among_text() else ()
        return TokenLayout(self.observed_text(inputs), generation, references)
