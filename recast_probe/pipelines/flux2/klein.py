"""FLUX.2 klein: FLUX.2 with another text encoder, and guidance by a second call of the transformer.

A model that is not distilled is called twice a step where ``guidance_scale`` is above 1, with the
prompt and then with the empty one; both calls hold the reference. A distilled one is called once,
whatever the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recast_probe.errors import InputError
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.flux2.flux2 import Flux2


class Flux2Klein(Flux2):
    """``Flux2KleinPipeline`` of diffusers, distilled or not: the references are as in FLUX.2.

    Examples:
        >>> from recast_probe.testing.tiny_flux2 import build_klein
        >>> Flux2Klein(build_klein()).branch_names({"guidance_scale": 4.0})
        ('conditional', 'unconditional')
    """

    name = "flux2-klein"
    pipelines = ("Flux2KleinPipeline",)
    texts: Mapping[str, TextInput] = {
        **Flux2.texts,
        # the pipeline's negative prompt is the empty one
        "unconditional": TextInput((), "negative_prompt_embeds"),
    }
    guided_by = "guidance_scale"

    def branch_names(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        distilled = self.pipe.config.is_distilled
        return ("conditional",) if distilled else super().branch_names(arguments)

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        arguments = super().call_arguments(overrides)
        if len(self.branch_names(arguments)) == 1:
            return arguments
        given, negative = (arguments.get(text.embeddings) for text in self.texts.values())
        if given is not None and negative is None and len(given) > 1:
            raise InputError(
                f"The pipeline makes one negative embedding for the {len(given)} prompts of "
                "prompt_embeds; give negative_prompt_embeds, or guidance_scale=1."
            )
        return arguments

    def facts(self) -> dict[str, Any]:
        return {"distilled": bool(self.pipe.config.is_distilled)}

    def _padding(self, prompts: list[str], length: int) -> np.ndarray:
        """Bool (prompt, text token), as ``Flux2KleinPipeline`` makes its tokens."""
        found = []
        for prompt in prompts:
            tokens = self.pipe.tokenizer(
                self._templated(prompt),
                padding="max_length",
                truncation=True,
                max_length=length,
            )
            found.append(np.asarray(tokens["attention_mask"]) == 0)
        return np.stack(found)

    def _length(self, prompt: str) -> int:
        text = self._templated(prompt)
        return len(self.pipe.tokenizer(text, verbose=False)["input_ids"])

    def _templated(self, prompt: str) -> str:
        return self.pipe.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
