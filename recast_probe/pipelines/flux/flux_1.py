"""What the pipelines of FLUX.1 have in common: text encoders and what they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from recast_probe.errors import InputError
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.flux.base import LONGEST_PROMPT, Flux, truncated


class Flux1(Flux):
    """Shared by the families of FLUX.1; not a family itself."""

    parts: tuple[str, ...] = ("transformer", "vae", "scheduler", "image_processor")
    text_parts = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
    texts: Mapping[str, TextInput] = {
        "conditional": TextInput(
            ("prompt", "prompt_2"), "prompt_embeds", pooled="pooled_prompt_embeds"
        ),
        "unconditional": TextInput(
            ("negative_prompt", "negative_prompt_2"),
            "negative_prompt_embeds",
            pooled="negative_pooled_prompt_embeds",
        ),
    }

    def longest_sequence(self) -> int | None:
        return LONGEST_PROMPT

    def longest_prompt(self) -> int:
        """Text tokens of a prompt, which is padded to this length."""
        if self.pipe.tokenizer_2 is None:  # the text is given as embeddings
            return LONGEST_PROMPT
        return min(int(self.pipe.tokenizer_2.model_max_length), LONGEST_PROMPT)

    def text_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of the call that are about text and follow from the model.

        Raises:
            InputError: embeddings of prompt and negative prompt that the pipeline does not take
                together.
        """
        given = [self.given_embeddings(overrides, name) for name in self.texts]
        shapes = [tuple(each.shape) for each in given if each is not None]
        if len(set(shapes)) > 1 and len(self.branch_names(overrides)) > 1:
            raise InputError(
                f"prompt_embeds {shapes[0]} and negative_prompt_embeds {shapes[1]} must have the "
                "same shape in this pipeline; fill up the shorter ones as pipe.encode_prompt does."
            )
        return {"max_sequence_length": self.longest_prompt()}

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer: Any = self.transformer
        tokens = transformer.x_embedder(self.generation_rows(inputs["hidden_states"], layout))
        clocks = [inputs["timestep"], inputs.get("guidance")]
        # the transformer takes both a thousandfold
        times = [each.to(tokens.dtype) * 1000 for each in clocks if each is not None]
        embedding = transformer.time_text_embed(*times, inputs["pooled_projections"])
        blocks = (getattr(transformer, stack) for _, stack in self.stacks)
        first = next(block for stack in blocks for block in stack)
        norm = first.norm1 if hasattr(first, "norm1") else first.norm
        return norm(tokens, emb=embedding)[0]

    def padding_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self.check_prompts_known(arguments)
        found = {}
        for branch in self.branch_names(arguments):
            _, (_, prompts) = self._read(arguments, branch)
            # as in the pipeline; T5 reads a prompt with padding and no mask
            tokens = self.pipe.tokenizer_2(
                prompts,
                padding="max_length",
                max_length=arguments["max_sequence_length"],
                truncation=True,
                return_attention_mask=True,
            )
            found[branch] = np.asarray(tokens["attention_mask"]) == 0
        return found

    def text_words(
        self, prompt: str, tokens: int, arguments: Mapping[str, Any]
    ) -> tuple[str, ...] | None:
        tokenizer = self.pipe.tokenizer_2
        if tokenizer is None or arguments.get("prompt_2"):
            return None
        _, (_, (text,)) = self._read({"prompt": prompt}, "conditional")
        ids = tokenizer(text, padding="max_length", max_length=tokens, truncation=True)["input_ids"]
        words = tokenizer.convert_ids_to_tokens(ids)
        # sentencepiece marks the space before a word
        return tuple(word.replace("\u2581", " ") for word in words)

    def cut_off(self, arguments: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        found = []
        for branch in self.encoded_branches(arguments):
            read = self._read(arguments, branch)
            lengths = (self.pipe.tokenizer_max_length, arguments["max_sequence_length"])
            names = ("tokenizer", "tokenizer_2")
            for name, (argument, prompts), length in zip(names, read, lengths, strict=True):
                lost = truncated(getattr(self.pipe, name), prompts, length)
                found += [(argument, name, number, count) for number, count in lost]
        return found

    def _read(self, arguments: Mapping[str, Any], branch: str) -> list[tuple[str, list[str]]]:
        """What each of the two tokenizers reads: the argument and its prompts."""
        first, second = self.texts[branch].prompts
        found = []
        for name, tokenizer in (
            (first, self.pipe.tokenizer),
            (second if arguments.get(second) else first, self.pipe.tokenizer_2),
        ):
            given = arguments[name]
            prompts = [given] if isinstance(given, str) else list(given)
            if hasattr(self.pipe, "maybe_convert_prompt"):  # learned words of textual inversion
                prompts = self.pipe.maybe_convert_prompt(prompts, tokenizer)
            found.append((name, prompts))
        return found

    def _encode(self, arguments: Mapping[str, Any], branch: str) -> torch.Tensor:
        first, second = self.texts[branch].prompts
        return self.pipe.encode_prompt(
            prompt=arguments[first],
            prompt_2=arguments.get(second),
            max_sequence_length=arguments["max_sequence_length"],
        )[0]
