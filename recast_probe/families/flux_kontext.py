"""FLUX.1 Kontext: reference latents appended to the generation latents, attended in every block.

Inside attention the sequence is [text; generation; reference] in double-stream and single-stream
blocks alike. ``img_ids`` holds (image, row, column) of each image token: image 0 is the generation,
1 and up are references.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.families.base import AttentionCall, Family, Schedule
from recast_probe.families.feature_cache import FeatureCache
from recast_probe.families.flux_cached_blocks import cached_blocks
from recast_probe.layout import Grid, TokenLayout
from recast_probe.selection.merging import Groups

KONTEXT_AREA = 1024 * 1024
LONGEST_PROMPT = 512


class FluxKontext(Family):
    """``FluxKontextPipeline`` of diffusers, of any size."""

    name = "flux-kontext"
    pipelines = ("FluxKontextPipeline",)
    parts = ("transformer", "vae", "scheduler", "tokenizer_2", "image_processor")
    stacks = (("double", "transformer_blocks"), ("single", "single_transformer_blocks"))
    operations = ("self_processor_0", "dispatch_attention_fn_0")
    processor = "FluxAttnProcessor"

    def check(self, pipeline: Any) -> None:
        missing = [part for part in self.parts if getattr(pipeline, part, None) is None]
        if not missing:
            transformer = self.transformer(pipeline)
            if hasattr(transformer, "_orig_mod") or any(
                getattr(module, "_compiled_call_impl", None) is not None
                for module in transformer.modules()
            ):
                raise UnsupportedPipelineError(
                    "The transformer is compiled with torch.compile, and a compiled block cannot "
                    "be traced. Probe the pipeline before compiling it."
                )
            missing = [
                f"transformer.{stack}"
                for _, stack in self.stacks
                if not isinstance(getattr(transformer, stack, None), torch.nn.ModuleList)
            ]
        if not missing:
            missing = [
                f"transformer.{call.module}.processor ({self.processor}; IP-Adapter processors "
                "cannot be traced, call pipe.unload_ip_adapter() first)"
                for call in self.attention_calls(pipeline)
                if type(self._processor(pipeline, call)).__name__ != self.processor
            ]
        if missing:
            raise UnsupportedPipelineError(
                f"{type(pipeline).__name__} lacks what {self.name} is expected to have: "
                f"{'; '.join(missing)}."
            )

    def _processor(self, pipeline: Any, call: AttentionCall) -> Any:
        module = self.transformer(pipeline).get_submodule(call.module)
        return getattr(module, "processor", None)

    def transformer(self, pipeline: Any) -> torch.nn.Module:
        return pipeline.transformer

    def attention_calls(self, pipeline: Any) -> list[AttentionCall]:
        transformer = self.transformer(pipeline)
        return [
            AttentionCall(kind, f"{stack}.{index}.attn", self.operations)
            for kind, stack in self.stacks
            for index in range(len(getattr(transformer, stack)))
        ]

    def heads(self, pipeline: Any) -> int:
        return int(pipeline.transformer.config.num_attention_heads)

    def call_arguments(self, pipeline: Any, overrides: Mapping[str, Any]) -> dict[str, Any]:
        side = getattr(pipeline.vae.config, "sample_size", None)
        side = side if isinstance(side, int) and side > 0 else 1024
        area = overrides.get("max_area", side * side)
        longest = min(int(pipeline.tokenizer_2.model_max_length), LONGEST_PROMPT)
        square = round(area**0.5)
        return {
            "height": square,
            "width": square,
            "max_area": area,
            "max_sequence_length": longest,
            "_auto_resize": area == KONTEXT_AREA,
            **overrides,
        }

    def _multiple(self, pipeline: Any) -> int:
        return int(pipeline.vae_scale_factor) * 2

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
        multiple = self._multiple(pipeline)
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
        multiple = self._multiple(pipeline)
        if min(width, height) < multiple:
            raise InputError(
                f"The reference image is {image.width} x {image.height} pixels, smaller than one "
                f"token ({multiple} x {multiple} pixels); give a larger one."
            )
        return Grid(rows=height // multiple, columns=width // multiple)

    def _generation_grid(self, pipeline: Any, arguments: Mapping[str, Any]) -> Grid:
        # as in FluxKontextPipeline.__call__: height and width give the aspect ratio only
        area, multiple = arguments["max_area"], self._multiple(pipeline)
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

    def predict_schedule(
        self, pipeline: Any, layout: TokenLayout, arguments: Mapping[str, Any]
    ) -> Schedule:
        from diffusers.pipelines.flux.pipeline_flux_kontext import (
            calculate_shift,
            retrieve_timesteps,
        )

        scheduler = copy.deepcopy(pipeline.scheduler)
        config = scheduler.config
        steps = arguments["num_inference_steps"]
        sigmas = arguments.get("sigmas")
        shift = calculate_shift(
            layout.generation.size,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        timesteps, _ = retrieve_timesteps(
            scheduler,
            steps,
            "cpu",
            sigmas=np.linspace(1.0, 1 / steps, steps).tolist() if sigmas is None else list(sigmas),
            mu=shift,
        )
        count = len(timesteps)
        return Schedule(
            timesteps=np.asarray(timesteps, dtype=np.float64),
            sigmas=np.asarray(scheduler.sigmas[:count], dtype=np.float64),
        )

    def branch_names(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        guided = (arguments.get("true_cfg_scale") or 1.0) > 1
        if not guided or arguments.get("negative_prompt") is None:
            return ("conditional",)
        return ("conditional", "unconditional")

    def branch_embeddings(
        self, pipeline: Any, arguments: Mapping[str, Any]
    ) -> dict[str, torch.Tensor | None]:
        names = self.branch_names(arguments)
        if len(names) == 1:
            return {names[0]: None}
        return {
            name: self._encode(pipeline, arguments, argument)
            for name, argument in zip(names, ("prompt", "negative_prompt"), strict=True)
        }

    def _encode(self, pipeline: Any, arguments: Mapping[str, Any], name: str) -> torch.Tensor:
        with torch.no_grad():
            embeddings, _, _ = pipeline.encode_prompt(
                prompt=arguments[name],
                prompt_2=arguments.get(f"{name}_2"),
                max_sequence_length=arguments["max_sequence_length"],
            )
        return embeddings

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        positions = inputs["img_ids"]
        positions = positions[0] if positions.ndim == 3 else positions
        positions = positions.detach().float().cpu().numpy().round().astype(np.int64)
        images, counts = np.unique(positions[:, 0], return_counts=True)
        grids, start = [], 0
        for count in counts:
            part = positions[start : start + count]
            rows, columns = (part[:, axis].max() - part[:, axis].min() + 1 for axis in (1, 2))
            raster = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
            found = part[:, 1:] - part[:, 1:].min(axis=0)
            if np.ptp(part[:, 0]) or found.shape != raster.shape or (found != raster).any():
                raise VerificationError(
                    "The transformer's image position ids are not raster grids one after the other "
                    f"(images {images.tolist()}, {counts.tolist()} tokens); this pipeline does not "
                    f"lay out tokens as {self.name} does."
                )
            grids.append(Grid(rows=int(rows), columns=int(columns)))
            start += count
        return TokenLayout(
            text=int(inputs["encoder_hidden_states"].shape[1]),
            generation=grids[0],
            references=tuple(grids[1:]),
        )

    def observed_timestep(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["timestep"].detach().double().cpu() * 1000

    def observed_embedding(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["encoder_hidden_states"]

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
