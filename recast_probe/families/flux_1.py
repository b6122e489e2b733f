"""What the pipelines of FLUX.1 have in common: text encoders, schedule and branches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from recast_probe.families.flow_schedule import calculated_shift
from recast_probe.families.flux import LONGEST_PROMPT, Flux
from recast_probe.layout import TokenLayout


class Flux1(Flux):
    """Shared by the families of FLUX.1; no family of its own."""

    parts: tuple[str, ...] = ("transformer", "vae", "scheduler", "tokenizer_2", "image_processor")

    def shift(self, scheduler: Any, tokens: int, steps: int) -> float:
        return calculated_shift(scheduler, tokens)

    def longest_prompt(self, pipeline: Any) -> int:
        """Text tokens of a prompt, which is padded to this length."""
        return min(int(pipeline.tokenizer_2.model_max_length), LONGEST_PROMPT)

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
