"""A tiny random LongCat-Image-Edit in the diffusers layout, built from configs in seconds.

Every part is of the same class as in the published models, only smaller: 2 double-stream and 3
single-stream blocks of 2 heads. The pipeline scales every reference to one megapixel whatever the
model, so the VAE halves it six times: a token stands for 128 x 128 pixels, and a square reference
has 8 x 8 tokens.
"""

from __future__ import annotations

import torch
from diffusers import LongCatImageEditPipeline, LongCatImageTransformer2DModel

from recast_probe.testing.tiny_parts import flux_autoencoder, flux_scheduler, strengthen
from recast_probe.testing.tiny_qwen import TEXT_WIDTH, read_parts

DOUBLE_BLOCKS = 2
SINGLE_BLOCKS = 3
BLOCKS = DOUBLE_BLOCKS + SINGLE_BLOCKS
HEADS = 2
HEAD_DIMENSION = 16
PROMPT_TOKENS = 32
TOKEN_PIXELS = 128
LEVELS = 7


def build_tiny_pipeline(seed: int = 0) -> LongCatImageEditPipeline:
    """A random pipeline on the CPU in float32; the same seed gives the same weights.

    Its prompts are filled up to 32 tokens, and not to 512.

    Examples:
        >>> len(build_tiny_pipeline().transformer.single_transformer_blocks)
        3
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        read = read_parts()
        # at one megapixel, so it is narrow: it would take most of a run's time
        vae = flux_autoencoder(LEVELS, 2, 16, layers=0)
        transformer = LongCatImageTransformer2DModel(
            in_channels=64,
            num_layers=DOUBLE_BLOCKS,
            num_single_layers=SINGLE_BLOCKS,
            attention_head_dim=HEAD_DIMENSION,
            num_attention_heads=HEADS,
            joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH,
            axes_dims_rope=[4, 6, 6],
        )
        strengthen(transformer)
    pipeline = LongCatImageEditPipeline(
        scheduler=flux_scheduler(),
        vae=vae.eval(),
        text_encoder=read["text_encoder"],
        tokenizer=read["tokenizer"],
        text_processor=read["processor"],
        transformer=transformer.eval(),
    )
    pipeline.tokenizer_max_length = PROMPT_TOKENS
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
