"""The model that is trained: transformer and text encoders as one, and its flow-matching loss."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxKontextPipeline, FluxPipeline, FluxTransformer2DModel
from torch import nn

from . import architecture
from .architecture import PocketConfig, position_ids
from .cpu_attention import WrittenOutAttention
from .data import Batch
from .text import TEXT_TOKENS, load_tokenizers

FOREGROUND_WEIGHT = 2.0


class FlowModel(nn.Module):
    """The transformer and both text encoders, trained as one."""

    def __init__(self, config: PocketConfig, tokenizers: Path) -> None:
        super().__init__()
        self.transformer = architecture.build_transformer(config)
        self.clip, self.t5 = architecture.build_text_encoders(config, tokenizers)
        self.clip_tokenizer, self.t5_tokenizer = load_tokenizers(tokenizers)
        _initialise(self.transformer)

    @classmethod
    def of(cls, pipeline: FluxPipeline | FluxKontextPipeline) -> FlowModel:
        """The trained parts of a pipeline; they are the pipeline's own, not copies."""
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.transformer = pipeline.transformer
        model.clip, model.t5 = pipeline.text_encoder, pipeline.text_encoder_2
        model.clip_tokenizer, model.t5_tokenizer = pipeline.tokenizer, pipeline.tokenizer_2
        return model

    def encode_text(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled CLIP state and padded, unmasked T5 states, exactly as the pipeline makes them."""
        device = self.transformer.device
        ids = [
            tokenizer(
                captions,
                padding="max_length",
                max_length=TEXT_TOKENS,
                truncation=True,
                return_tensors="pt",
            ).input_ids.to(device)
            for tokenizer in (self.clip_tokenizer, self.t5_tokenizer)
        ]
        return self.clip(ids[0]).pooler_output, self.t5(ids[1])[0]

    def inputs(
        self, batch: Batch, *, with_reference: bool, generator: torch.Generator
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The transformer's inputs at logit-normal times, and the noise in them."""
        target = batch.target
        size, tokens, _ = target.shape
        side, device = math.isqrt(tokens), target.device
        noise = torch.randn(target.shape, generator=generator).to(device)
        logits = torch.randn(size, generator=generator) + 0.4
        time_ = torch.sigmoid(logits).to(device)
        noisy = target + time_[:, None, None] * (noise - target)
        pooled, text = self.encode_text(batch.captions)
        ids = [position_ids(side, side, image) for image in (0, 1)]
        found = {
            "hidden_states": torch.cat([noisy, batch.reference], 1) if with_reference else noisy,
            "timestep": time_,
            "guidance": (1 + 4 * torch.rand(size, generator=generator)).to(device),
            "pooled_projections": pooled,
            "encoder_hidden_states": text,
            "txt_ids": torch.zeros(TEXT_TOKENS, 3, device=device),
            "img_ids": torch.cat(ids if with_reference else ids[:1]).to(device),
        }
        return found, noise

    def velocity_loss(
        self,
        batch: Batch,
        *,
        with_reference: bool,
        generator: torch.Generator,
        joint_attention_kwargs: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """Mean squared velocity error at logit-normal times; foreground tokens weigh more.

        Args:
            joint_attention_kwargs: for the processors of the transformer's attention.
        """
        given, noise = self.inputs(batch, with_reference=with_reference, generator=generator)
        predicted = self.transformer(
            **given, joint_attention_kwargs=joint_attention_kwargs, return_dict=False
        )[0][:, : batch.target.shape[1]]
        error = (predicted.float() - (noise - batch.target)).square().mean(-1)
        return (error * (1 + FOREGROUND_WEIGHT * batch.foreground)).mean()


@contextlib.contextmanager
def arithmetic(device: str, precision: torch.dtype) -> Iterator[None]:
    """Autocast to `precision`; in half precision on a CPU with attention written out."""
    kind = torch.device(device).type
    with torch.autocast(kind, precision, enabled=precision != torch.float32):
        if kind == "cpu" and precision == torch.bfloat16:
            with WrittenOutAttention():
                yield
        else:
            yield


def _initialise(transformer: FluxTransformer2DModel) -> None:
    """Xavier weights; modulations and the output start at zero, so blocks start as identity."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith(("norm1.linear", "norm1_context.linear", "norm.linear")):
                nn.init.zeros_(module.weight)
    for module in (transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(module.weight)
