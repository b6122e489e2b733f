"""What the pipelines of FLUX.1 have in common: parts, schedule, branches and position ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.families.base import AttentionCall, Family, Schedule
from recast_probe.families.compiled import refuse_compiled
from recast_probe.families.flow_schedule import shifted_schedule
from recast_probe.layout import Grid, TokenLayout

LONGEST_PROMPT = 512


class Flux(Family):
    """Shared by the families of FLUX.1; no family of its own."""

    parts: tuple[str, ...] = ("transformer", "vae", "scheduler", "tokenizer_2", "image_processor")
    stacks = (("double", "transformer_blocks"), ("single", "single_transformer_blocks"))

    def check(self, pipeline: Any) -> None:
        missing = [part for part in self.parts if getattr(pipeline, part, None) is None]
        if not missing:
            missing = self.lacking(pipeline)
        if missing:
            raise UnsupportedPipelineError(
                f"{type(pipeline).__name__} lacks what {self.name} is expected to have: "
                f"{'; '.join(missing)}."
            )

    def lacking(self, pipeline: Any) -> list[str]:
        """What the transformer should have and has not."""
        transformer = self.transformer(pipeline)
        return [
            f"transformer.{stack}"
            for _, stack in self.stacks
            if not isinstance(getattr(transformer, stack, None), torch.nn.ModuleList)
        ]

    def check_traceable(self, pipeline: Any) -> None:
        refuse_compiled(pipeline)

    def block_places(self, pipeline: Any) -> Iterator[tuple[str, str, int]]:
        """Kind, stack and index in the stack of every block, in the order in which they run."""
        for kind, stack in self.stacks:
            for index in range(len(getattr(self.transformer(pipeline), stack))):
                yield kind, stack, index

    def processor_of(self, pipeline: Any, call: AttentionCall) -> Any:
        """The attention processor of a block."""
        module = self.transformer(pipeline).get_submodule(call.module)
        return getattr(module, "processor", None)

    def transformer(self, pipeline: Any) -> torch.nn.Module:
        return pipeline.transformer

    def heads(self, pipeline: Any) -> int:
        return int(pipeline.transformer.config.num_attention_heads)

    def width(self, pipeline: Any) -> int:
        return self.heads(pipeline) * int(pipeline.transformer.config.attention_head_dim)

    def image_side(self, pipeline: Any) -> int:
        """Side in pixels of the square images that the model was made for."""
        side = getattr(pipeline.vae.config, "sample_size", None)
        return side if isinstance(side, int) and side > 0 else 1024

    def longest_prompt(self, pipeline: Any) -> int:
        """Text tokens of a prompt, which is padded to this length."""
        return min(int(pipeline.tokenizer_2.model_max_length), LONGEST_PROMPT)

    def token_pixels(self, pipeline: Any) -> int:
        """Side in pixels of the square that one token stands for."""
        return int(pipeline.vae_scale_factor) * 2

    def block_lists(self, pipeline: Any) -> list[tuple[torch.nn.Module, str]]:
        return [(self.transformer(pipeline), stack) for _, stack in self.stacks]

    def modulated_input(
        self, pipeline: Any, inputs: Mapping[str, Any], layout: TokenLayout
    ) -> torch.Tensor:
        transformer: Any = self.transformer(pipeline)
        tokens = transformer.x_embedder(inputs["hidden_states"][:, : layout.generation.size])
        clocks = [inputs["timestep"], inputs.get("guidance")]
        # the transformer takes both a thousandfold
        times = [each.to(tokens.dtype) * 1000 for each in clocks if each is not None]
        embedding = transformer.time_text_embed(*times, inputs["pooled_projections"])
        blocks = (getattr(transformer, stack) for _, stack in self.stacks)
        first = next(block for stack in blocks for block in stack)
        norm = first.norm1 if hasattr(first, "norm1") else first.norm
        return norm(tokens, emb=embedding)[0]

    def predict_schedule(
        self, pipeline: Any, layout: TokenLayout, arguments: Mapping[str, Any]
    ) -> Schedule:
        return shifted_schedule(pipeline, layout.generation.size, arguments)

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

    def padding_tokens(self, pipeline: Any, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        found = {}
        names = ("prompt", "negative_prompt")
        for branch, name in zip(self.branch_names(arguments), names, strict=False):
            prompt = arguments.get(f"{name}_2") or arguments[name]
            prompts = [prompt] if isinstance(prompt, str) else list(prompt)
            if hasattr(pipeline, "maybe_convert_prompt"):  # learned words of textual inversion
                prompts = pipeline.maybe_convert_prompt(prompts, pipeline.tokenizer_2)
            # as in the pipeline; T5 reads a prompt with padding and no mask
            tokens = pipeline.tokenizer_2(
                prompts,
                padding="max_length",
                max_length=arguments["max_sequence_length"],
                truncation=True,
                return_attention_mask=True,
            )
            found[branch] = np.asarray(tokens["attention_mask"]) == 0
        return found

    def _encode(self, pipeline: Any, arguments: Mapping[str, Any], name: str) -> torch.Tensor:
        with torch.no_grad():
            embeddings, _, _ = pipeline.encode_prompt(
                prompt=arguments[name],
                prompt_2=arguments.get(f"{name}_2"),
                max_sequence_length=arguments["max_sequence_length"],
            )
        return embeddings

    def observed_timestep(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["timestep"].detach().double().cpu() * 1000

    def observed_embedding(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["encoder_hidden_states"]

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        """Grids of the images that the image position ids stand for, generation first.

        Raises:
            VerificationError: the position ids are not raster grids.
        """
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
        return grids
