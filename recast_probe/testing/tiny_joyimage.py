"""Tiny random JoyImage Edit and Edit Plus in the diffusers layout, built from configs in seconds.

Every part is of the same class as in the published models, only smaller: 3 double-stream blocks of
2 heads. The pipelines make about a megapixel whatever the model, with sides that are multiples of
64, so the VAE takes patches of 16 x 16 pixels and halves once: a token stands for 64 x 64 pixels,
and a square image has 16 x 16 tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    JoyImageEditPipeline,
    JoyImageEditPlusPipeline,
    JoyImageEditPlusTransformer3DModel,
    JoyImageEditTransformer3DModel,
)

from recast_probe.testing.tiny_parts import strengthen
from recast_probe.testing.tiny_qwen import TEXT_WIDTH
from recast_probe.testing.tiny_qwen3_vl import read_parts

BLOCKS = 3
HEADS = 2
HEAD_DIMENSION = 16
CHANNELS = 4
PATCH = 16
TOKEN_PIXELS = 64
SIZE = {"height": 512, "width": 768}
GENERATION = 8 * 12


def build_tiny_pipeline(
    plus: bool = False, seed: int = 0
) -> JoyImageEditPipeline | JoyImageEditPlusPipeline:
    """A random pipeline on the CPU in float32; the same seed gives the same weights.

    Examples:
        >>> type(build_tiny_pipeline(plus=True)).__name__
        'JoyImageEditPlusPipeline'
    """
    kind = JoyImageEditPlusTransformer3DModel if plus else JoyImageEditTransformer3DModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(
            base_dim=2,
            z_dim=CHANNELS,
            dim_mult=[1, 1],
            num_res_blocks=0,
            temperal_downsample=[False],
            latents_mean=[0.1, -0.1, 0.2, 0.0],
            latents_std=[1.0, 0.9, 1.1, 1.2],
            scale_factor_spatial=32,
            patch_size=PATCH,
            in_channels=3 * PATCH**2,
            out_channels=3 * PATCH**2,
        )
        transformer = kind(
            in_channels=CHANNELS,
            hidden_size=HEADS * HEAD_DIMENSION,
            num_attention_heads=HEADS,
            text_dim=TEXT_WIDTH,
            num_layers=BLOCKS,
            rope_dim_list=[4, 6, 6],
        )
        strengthen(transformer, 3)
        with torch.no_grad():
            vae.decoder.conv_in.weight.mul_(10)
            for convolution in (vae.encoder.conv_in, vae.encoder.conv_out, vae.quant_conv):
                convolution.weight.mul_(3)
        parts: dict[str, Any] = {
            **read_parts(),
            "vae": vae.eval(),
            "transformer": transformer.eval(),
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.5),
        }
    pipeline = (JoyImageEditPlusPipeline if plus else JoyImageEditPipeline)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(folder: Path, plus: bool = False, **settings: Any) -> Path:
    """Save ``build_tiny_pipeline`` into ``folder`` as a diffusers repository."""
    build_tiny_pipeline(plus, **settings).save_pretrained(folder, safe_serialization=True)
    return folder
