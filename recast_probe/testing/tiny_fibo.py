"""A tiny random FIBO Edit in the diffusers layout, built from configs in a second.

Every part is of the same class as in the published model, only smaller: 2 double-stream and 3
single-stream blocks of 2 heads, 16 x 16 pixels a token. Prompts are JSON. An empty negative prompt
is read as one token of a fixed number, so the vocabulary has room for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    BriaFiboEditPipeline,
    BriaFiboTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast, SmolLM3Config, SmolLM3ForCausalLM

from recast_probe.testing.tiny_parts import strengthen

DOUBLE_BLOCKS = 2
SINGLE_BLOCKS = 3
HEADS = 2
HEAD_DIMENSION = 16
TEXT_WIDTH = 16
CHANNELS = 8
TOKEN_PIXELS = 16
SIZE = {"height": 64, "width": 64}
# what the pipeline has an empty prompt read as
EMPTY = 128000


def edit(instruction: str) -> str:
    """A prompt as the pipeline takes it.

    Examples:
        >>> edit("snow")
        '{"edit_instruction": "snow"}'
    """
    return json.dumps({"edit_instruction": instruction})


def _tokenizer() -> PreTrainedTokenizerFast:
    """Letters as tokens."""
    vocabulary = {"<pad>": 0}
    vocabulary |= {letter: n for n, letter in enumerate(sorted(ByteLevel.alphabet()), start=1)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", model_max_length=3000
    )


def build_tiny_pipeline(seed: int = 0, patched: bool = False) -> BriaFiboEditPipeline:
    """A random pipeline on the CPU in float32; the same seed gives the same weights.

    Args:
        patched: a token stands for 2 x 2 pixels of the latents, to be called with
            ``do_patching=True``.

    Examples:
        >>> len(build_tiny_pipeline().transformer.single_transformer_blocks)
        3
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = SmolLM3ForCausalLM(
            SmolLM3Config(
                vocab_size=EMPTY + 1,
                hidden_size=TEXT_WIDTH,
                intermediate_size=32,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=1,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=None,
                pad_token_id=0,
            )
        )
        vae = AutoencoderKLWan(
            base_dim=4,
            z_dim=CHANNELS,
            dim_mult=[1, 1, 1, 1, 1],
            num_res_blocks=0,
            temperal_downsample=[False] * 4,
            latents_mean=[0.1, -0.1, 0.2, 0.0] * 2,
            latents_std=[1.0, 0.9, 1.1, 1.2] * 2,
        )
        transformer = BriaFiboTransformer2DModel(
            in_channels=CHANNELS * (4 if patched else 1),
            num_layers=DOUBLE_BLOCKS,
            num_single_layers=SINGLE_BLOCKS,
            attention_head_dim=HEAD_DIMENSION,
            num_attention_heads=HEADS,
            joint_attention_dim=2 * TEXT_WIDTH,
            text_encoder_dim=TEXT_WIDTH,
            axes_dims_rope=[4, 6, 6],
        )
        strengthen(transformer)
        with torch.no_grad():
            text_encoder.model.embed_tokens.weight.mul_(20)
            vae.decoder.conv_out.weight.mul_(4)
            for convolution in (vae.encoder.conv_in, vae.encoder.conv_out, vae.quant_conv):
                convolution.weight.mul_(5)
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    parts: dict[str, Any] = {
        "transformer": transformer.eval(),
        "scheduler": scheduler,
        "vae": vae.eval(),
        "text_encoder": text_encoder.eval(),
        "tokenizer": _tokenizer(),
    }
    pipeline = BriaFiboEditPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(folder: Path, seed: int = 0) -> Path:
    """Save ``build_tiny_pipeline(seed)`` into ``folder`` as a diffusers repository."""
    build_tiny_pipeline(seed).save_pretrained(folder, safe_serialization=True)
    return folder
