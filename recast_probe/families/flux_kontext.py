"""FLUX.1 Kontext: reference latents appended to the generation latents, attended in every block.

Inside attention the sequence is [text; generation; reference] in double-stream and single-stream
blocks alike. ``img_ids`` holds (image, row, column) of each image token: image 0 is the generation,
1 and up are references.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.families.base import AttentionCall
from recast_probe.families.feature_cache import FeatureCache
from recast_probe.families.flux import Flux
from recast_probe.families.flux_cached_blocks import cached_blocks
from recast_probe.families.flux_processor import HookedFluxProcessor
from recast_probe.layout import Grid, TokenLayout
from recast_probe.selection.merging import Groups

KONTEXT_AREA = 1024 * 1024


class FluxKontext(Flux):
    """``FluxKontextPipeline`` of diffusers, of any size."""

    name = "flux-kontext"
    pipelines = ("FluxKontextPipeline",)
    operations = ("self_processor_0", "dispatch_attention_fn_0")
    processor = "FluxAttnProcessor"

    def lacking(self, pipeline: Any) -> list[str]:
        if any(
            isinstance(getattr(module, "processor", None), HookedFluxProcessor)
            for module in self.transformer(pipeline).modules()
        ):
            raise UnsupportedPipelineError(
                "The pipeline is accelerated already; call restore() of what accelerate() gave, "
                "or leave its with block first."
            )
        return super().lacking(pipeline) or [
            f"transformer.{call.module}.processor ({self.processor}; IP-Adapter processors "
            "cannot be traced, call pipe.unload_ip_adapter() first)"
            for call in self.attention_calls(pipeline)
            if type(self.processor_of(pipeline, call)).__name__ != self.processor
        ]

    def hooked_processor(self, processor: Any) -> HookedFluxProcessor:
        return HookedFluxProcessor(processor)

    def attention_calls(self, pipeline: Any) -> list[AttentionCall]:
        return [
            AttentionCall(kind, f"{stack}.{index}.attn", self.operations)
            for kind, stack, index in self.block_places(pipeline)
        ]

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

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        generation, *references = self.image_grids(inputs)
        return TokenLayout(
            text=int(inputs["encoder_hidden_states"].shape[1]),
            generation=generation,
            references=tuple(references),
        )

    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        hidden_states, positions = inputs["hidden_states"], inputs["img_ids"]
        generation = layout.generation.size
        index = torch.cat(
            [torch.arange(generation), generation + torch.as_tensor(np.asarray(kept, np.int64))]
        ).to(hidden_states.device)
        return {
            **inputs,
            "hidden_states": hidden_states.index_select(1, index),
            "img_ids": positions.index_select(positions.ndim - 2, index.to(positions.device)),
        }

    def block_modules(self, pipeline: Any) -> list[torch.nn.Module]:
        transformer = self.transformer(pipeline)
        return [
            getattr(transformer, stack)[index] for _, stack, index in self.block_places(pipeline)
        ]

    def reference_features(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        return inputs["hidden_states"][:, layout.generation.size :]

    def merge_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, groups: Groups, *, proportional: bool
    ) -> dict[str, Any]:
        generation = inputs["hidden_states"][:, : layout.generation.size]
        merged = groups.mean(self.reference_features(inputs, layout))
        edited = self.keep_reference_tokens(inputs, layout, groups.kept.numpy())
        edited["hidden_states"] = torch.cat([generation, merged], dim=1)
        if proportional and len(groups.kept) < len(groups.group):
            options = dict(inputs.get("joint_attention_kwargs") or {})
            if options.get("attention_mask") is not None:
                raise InputError(
                    "Merged reference tokens are weighted through the attention mask, but "
                    "joint_attention_kwargs holds an attention_mask already; leave it out, or "
                    "choose proportional=False."
                )
            present = layout.text + layout.generation.size
            weight = torch.zeros(present + len(groups.kept))
            weight[present:] = groups.sizes.float().log()
            options["attention_mask"] = weight.to(merged)[None, None, None]
            edited["joint_attention_kwargs"] = options
        return edited

    def cached_blocks(self, pipeline: Any, cache: FeatureCache) -> AbstractContextManager[None]:
        stacks = [(kind, getattr(pipeline.transformer, stack)) for kind, stack in self.stacks]
        return cached_blocks([(kind, block) for kind, stack in stacks for block in stack], cache)
