"""A tiny random Qwen-Image 2.1 pipeline in the diffusers layout, built from configs in seconds.

Every part is of the same class as in the published model, only smaller: 3 single-stream blocks of
2 heads. The pipeline takes a token for 16 x 16 pixels and a patch of the language model for 2 x 2
tokens, whatever the parts are, so the autoencoder halves an image four times here as well; small
images come from a small ``output_resolution``. The tokenizer is that of ``tiny_qwen``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from recast_probe.testing.tiny_parts import strengthen
from recast_probe.testing.tiny_qwen import TEXT_WIDTH, build_scheduler, build_tokenizer
from recast_probe.testing.tiny_qwen3_vl import ImageProcessor, build_text_encoder

BLOCKS = 3
HEADS = 2
HEAD_DIMENSION = 16
TOKEN_PIXELS = 16
SIZE = {"output_resolution": 64, "height": 64, "width": 96}
GENERATION = (4, 6)
CHANNELS = 8
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content[0].text }}<|im_end|>\n{% endfor %}"
)


def build_tiny_pipeline(
    seed: int = 0, sample_sigmas: list[float] | None = None
) -> QwenImage21Pipeline:
    """A random pipeline on the CPU in float32; the same seed gives the same weights.

    Examples:
        >>> build_tiny_pipeline().transformer.config.num_layers
        3
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        processor = ImageProcessor(
            image_processor=Qwen2VLImageProcessorPil(
                patch_size=16, size={"shortest_edge": 48 * 48, "longest_edge": 1024 * 1024}
            ),
            tokenizer=tokenizer,
            chat_template=TEMPLATE,
        )
        text_encoder = build_text_encoder(tokenizer)
        vae = AutoencoderKLQwenImage21(
            base_dim=4,
            decoder_base_dim=4,
            z_dim=CHANNELS,
            dim_mult=[1, 1, 1, 1, 1],
            num_res_blocks=0,
            temperal_downsample=[False] * 4,
            latents_mean=[0.1, -0.1, 0.2, 0.0] * 2,
            latents_std=[1.0, 0.9, 1.1, 1.2] * 2,
        )
        transformer = QwenImage21Transformer2DModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            num_layers=BLOCKS,
            attention_head_dim=HEAD_DIMENSION,
            num_attention_heads=HEADS,
            context_in_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 6, 6),
        )
        strengthen(transformer, vary_norms=True)
        strengthen(vae.decoder.conv_out, 8)
    pipeline = QwenImage21Pipeline(
        scheduler=build_scheduler(),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        processor=processor,
        transformer=transformer.eval(),
        sample_sigmas=sample_sigmas,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(folder: Path, **settings: Any) -> Path:
    """Save ``build_tiny_pipeline`` into ``folder`` as a diffusers repository."""
    build_tiny_pipeline(**settings).save_pretrained(folder, safe_serialization=True)
    return folder
