"""A tiny random FLUX.1 Kontext in the diffusers layout, built from configs in a second.

It is loaded by the unmodified ``FluxKontextPipeline.from_pretrained``; every part is of the same
class as in the real model, only smaller: 2 double-stream and 3 single-stream blocks, 2 heads,
64 x 64 pixels (4 x 4 generation tokens and as many reference tokens for a square image).
"""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxKontextInpaintPipeline, FluxKontextPipeline, FluxTransformer2DModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.models.t5.tokenization_t5 import T5Tokenizer

from recast_probe.testing.tiny_parts import (
    flux_autoencoder,
    flux_scheduler,
    strengthen,
    t5_encoder,
)

DOUBLE_BLOCKS = 2
SINGLE_BLOCKS = 3
BLOCKS = DOUBLE_BLOCKS + SINGLE_BLOCKS
HEADS = 2
HEAD_DIMENSION = 16
TEXT_TOKENS = 12
SIZE = 64
TOKEN_PIXELS = 16


def _clip_tokenizer() -> CLIPTokenizer:
    letters = list(string.ascii_lowercase + string.digits)
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=16
    )


def letter_tokenizer() -> T5Tokenizer:
    """Letters and digits as tokens; a prompt has ``TEXT_TOKENS``."""
    pieces = ["\u2581", *string.ascii_lowercase, *string.digits]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(piece, -2.0) for piece in pieces]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=TEXT_TOKENS)


def build_tiny_pipeline(seed: int = 0, guidance_embeds: bool = True) -> FluxKontextPipeline:
    """A random pipeline on the CPU in float32; the same seed gives the same weights.

    Examples:
        >>> len(build_tiny_pipeline().transformer.single_transformer_blocks)
        3
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip_tokenizer, t5_tokenizer = _clip_tokenizer(), letter_tokenizer()
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip_tokenizer),
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=16,
                bos_token_id=0,
                eos_token_id=1,
                pad_token_id=1,
            )
        )
        text_encoder_2 = t5_encoder(t5_tokenizer, 32)
        vae = flux_autoencoder(4, 8, 4, sample_size=SIZE)
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=DOUBLE_BLOCKS,
            num_single_layers=SINGLE_BLOCKS,
            attention_head_dim=HEAD_DIMENSION,
            num_attention_heads=HEADS,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        )
        strengthen(transformer)
        scheduler = flux_scheduler()
    pipeline = FluxKontextPipeline(
        scheduler=scheduler,
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=clip_tokenizer,
        text_encoder_2=text_encoder_2.eval(),
        tokenizer_2=t5_tokenizer,
        transformer=transformer.eval(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_inpaint_pipeline(seed: int = 0) -> FluxKontextInpaintPipeline:
    """``build_tiny_pipeline(seed)`` as the pipeline that repaints a part of an image."""
    pipeline = FluxKontextInpaintPipeline(**build_tiny_pipeline(seed).components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(folder: Path, seed: int = 0) -> Path:
    """Save ``build_tiny_pipeline(seed)`` into ``folder`` as a diffusers repository."""
    build_tiny_pipeline(seed).save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_image(width: int = SIZE, height: int = SIZE, seed: int = 0) -> Image.Image:
    """A random RGB image with smooth large patches.

    Examples:
        >>> tiny_image(96, 64).size
        (96, 64)
    """
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def tiny_mask(width: int = SIZE, height: int = SIZE) -> Image.Image:
    """A mask that is white in the left five eighths, so that its edge runs through tokens."""
    mask = Image.new("L", (width, height))
    mask.paste(255, (0, 0, width * 5 // 8, height))
    return mask
