"""A tiny random LTX-Video pipeline in the diffusers layout, built from configs.

Every part is of the same class as in the real model, only smaller: 3 blocks, 2 heads, 4 x 4 tokens
a frame of 64 x 64 pixels, and a frame of tokens for the first picture and for every 4 after it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXVideoTransformer3DModel,
)

from recast_probe.testing import tiny
from recast_probe.testing.tiny_parts import strengthen, t5_encoder

BLOCKS = 3
CHANNELS = 8
TEXT_WIDTH = 32
FRAMES = 9
SETTINGS = {
    "height": tiny.SIZE,
    "width": tiny.SIZE,
    "num_frames": FRAMES,
    "frame_index": FRAMES - 1,
    "guidance_scale": 1.0,
    "max_sequence_length": tiny.TEXT_TOKENS,
}
"""Of a call whose video has 3 frames of tokens, with the reference at the last picture."""


def _vae() -> AutoencoderKLLTXVideo:
    scaled, layers = (True, True, False, False), (1, 1, 1, 1, 1)
    vae = AutoencoderKLLTXVideo(
        latent_channels=CHANNELS,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=layers,
        decoder_layers_per_block=layers,
        spatio_temporal_scaling=scaled,
        decoder_spatio_temporal_scaling=scaled,
        timestep_conditioning=True,
    )
    # statistics that are not those of a fresh layer
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 2)
    return vae.eval()


def build_tiny_pipeline(seed: int = 0) -> LTXConditionPipeline:
    """A random pipeline on the CPU in float32; the same seed gives the same weights.

    Examples:
        >>> pipe = build_tiny_pipeline()
        >>> pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio
        (16, 4)
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny.letter_tokenizer()
        text_encoder = t5_encoder(tokenizer, TEXT_WIDTH)
        vae = _vae()
        transformer = LTXVideoTransformer3DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_attention_heads=tiny.HEADS,
            attention_head_dim=tiny.HEAD_DIMENSION,
            cross_attention_dim=tiny.HEADS * tiny.HEAD_DIMENSION,
            num_layers=BLOCKS,
            caption_channels=TEXT_WIDTH,
        )
        strengthen(transformer)
    pipeline = LTXConditionPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(folder: Path, seed: int = 0) -> Path:
    """Save ``build_tiny_pipeline(seed)`` into ``folder`` as a diffusers repository."""
    build_tiny_pipeline(seed).save_pretrained(folder, safe_serialization=True)
    return folder
