"""A tiny FLUX.1 with an IP-Adapter, in the formats in which the real ones are published.

The base is the transformer of ``testing.tiny`` in a ``FluxPipeline``. The adapter is one
safetensors file with the names that XLabs gives its tensors: 4 image tokens for each image, keys
and values for each of the 2 double-stream blocks. The image encoder is a CLIP vision model in a
folder of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import FluxPipeline
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from recast_probe.testing import tiny

TOKENS = 4
TEXT_WIDTH = 32
IMAGE_WIDTH = 24
WEIGHTS = "ip_adapter.safetensors"


@dataclass(frozen=True)
class Folders:
    """Where the three parts lie."""

    base: Path
    adapter: Path
    image_encoder: Path


def adapter_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of an adapter under their published names."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    width = tiny.HEADS * tiny.HEAD_DIMENSION
    found = {
        "ip_adapter_proj_model.proj.weight": random(TOKENS * TEXT_WIDTH, IMAGE_WIDTH),
        "ip_adapter_proj_model.proj.bias": random(TOKENS * TEXT_WIDTH, scale=0.1),
        "ip_adapter_proj_model.norm.weight": torch.ones(TEXT_WIDTH),
        "ip_adapter_proj_model.norm.bias": torch.zeros(TEXT_WIDTH),
    }
    for block in range(tiny.DOUBLE_BLOCKS):
        for part in ("k", "v"):
            name = f"double_blocks.{block}.processor.ip_adapter_double_stream_{part}_proj"
            found[f"{name}.weight"] = random(width, TEXT_WIDTH, scale=0.3)
            found[f"{name}.bias"] = random(width, scale=0.1)
    return found


def build_image_encoder(seed: int = 0) -> CLIPVisionModelWithProjection:
    """A random CLIP vision model for images of 32 x 32 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=32,
                patch_size=8,
                projection_dim=IMAGE_WIDTH,
            )
        ).eval()


def build_tiny_pipeline(seed: int = 0) -> FluxPipeline:
    """The pipeline with its adapter, put together in memory.

    Examples:
        >>> type(build_tiny_pipeline()).__name__
        'FluxPipeline'
    """
    parts = tiny.build_tiny_pipeline(seed).components
    pipeline = FluxPipeline(**parts | {"image_encoder": build_image_encoder(seed)})
    adapter: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, value in adapter_weights(seed).items():
        _, _, rest = name.partition(".")
        for part in ("k", "v"):
            rest = rest.replace(f"processor.ip_adapter_double_stream_{part}_proj", f"to_{part}_ip")
        adapter["image_proj" if "proj_model" in name else "ip_adapter"][rest] = value
    pipeline.load_ip_adapter(adapter, weight_name=WEIGHTS)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_all(folder: Path, seed: int = 0) -> Folders:
    """Write base, adapter and image encoder below ``folder``."""
    found = Folders(folder / "base", folder / "adapter", folder / "image_encoder")
    FluxPipeline(**tiny.build_tiny_pipeline(seed).components).save_pretrained(found.base)
    found.adapter.mkdir()
    save_file(adapter_weights(seed), found.adapter / WEIGHTS)
    build_image_encoder(seed).save_pretrained(found.image_encoder)
    return found


def load(folders: Folders, **settings: object) -> FluxPipeline:
    """The pipeline by the way that diffusers documents."""
    pipeline = FluxPipeline.from_pretrained(folders.base)
    pipeline.load_ip_adapter(
        str(folders.adapter),
        weight_name=WEIGHTS,
        image_encoder_pretrained_model_name_or_path=str(folders.image_encoder),
        image_encoder_dtype=torch.float32,
        **settings,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
