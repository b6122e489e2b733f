"""The adapter's parts: a small CLIP vision model, and the tensors that diffusers loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import FluxKontextPipeline, FluxPipeline
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from .views import WINDOW, Views

TOKENS = 4  # of each image; diffusers' loader knows no other number at this width
PROJECTION = "ip_adapter_proj_model"
STREAM = "processor.ip_adapter_double_stream"


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the image encoder; `embedding` is the width of what it gives for a window."""

    width: int = 192
    layers: int = 2
    heads: int = 6
    patch: int = 16
    embedding: int = 192


STANDARD = AdapterConfig()


def build_image_encoder(config: AdapterConfig) -> CLIPVisionModelWithProjection:
    """A CLIP vision model for windows of 32 x 32 pixels, with random weights."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=2 * config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            image_size=WINDOW,
            patch_size=config.patch,
            projection_dim=config.embedding,
        )
    ).eval()


def first_weights(base: FluxKontextPipeline, config: AdapterConfig) -> dict[str, torch.Tensor]:
    """An adapter's tensors under the names that XLabs publishes them with.

    Values begin at zero, so that training begins with the transformer as it is.
    """
    sizes = base.transformer.config
    text, width = sizes.joint_attention_dim, sizes.num_attention_heads * sizes.attention_head_dim

    def xavier(rows: int, columns: int) -> torch.Tensor:
        return nn.init.xavier_uniform_(torch.empty(rows, columns))

    found = {
        f"{PROJECTION}.proj.weight": xavier(TOKENS * text, config.embedding),
        f"{PROJECTION}.proj.bias": torch.zeros(TOKENS * text),
        f"{PROJECTION}.norm.weight": torch.ones(text),
        f"{PROJECTION}.norm.bias": torch.zeros(text),
    }
    for block in range(sizes.num_layers):
        for part, weight in (("k", xavier(width, text)), ("v", torch.zeros(width, text))):
            name = f"double_blocks.{block}.{STREAM}_{part}_proj"
            found |= {f"{name}.weight": weight, f"{name}.bias": torch.zeros(width)}
    return found


def with_adapter(
    base: FluxKontextPipeline,
    encoder: CLIPVisionModelWithProjection,
    weights: Mapping[str, torch.Tensor],
) -> FluxPipeline:
    """The plain text-to-image pipeline of the base's parts, with the adapter loaded by diffusers.

    Its transformer is the base's own, which has the adapter's processors afterwards.
    """
    parts = base.components | {"image_encoder": encoder, "feature_extractor": Views()}
    pipeline = FluxPipeline(**parts)
    named: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in weights.items():
        group, _, rest = name.partition(".")
        for part in ("k", "v"):
            rest = rest.replace(f"{STREAM}_{part}_proj", f"to_{part}_ip")
        named["image_proj" if group == PROJECTION else "ip_adapter"][rest] = value
    pipeline.load_ip_adapter(named, weight_name="")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def adapter_weights(pipeline: FluxPipeline) -> dict[str, torch.Tensor]:
    """The tensors of a pipeline's adapter, named as `first_weights` names them."""
    (layer,) = pipeline.transformer.encoder_hid_proj.image_projection_layers
    found = {
        f"{PROJECTION}.{name.replace('image_embeds', 'proj')}": value
        for name, value in layer.state_dict().items()
    }
    for index, block in enumerate(pipeline.transformer.transformer_blocks):
        for part in ("k", "v"):
            (projection,) = getattr(block.attn.processor, f"to_{part}_ip")
            for name, value in projection.state_dict().items():
                found[f"double_blocks.{index}.{STREAM}_{part}_proj.{name}"] = value
    return found
