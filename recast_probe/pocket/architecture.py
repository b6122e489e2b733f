"""Pocket Kontext: FLUX.1 Kontext's architecture at a size that trains and runs on a laptop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from .text import TEXT_TOKENS, load_tokenizers

PIXELS = 128
TOKEN_PIXELS = 8


@dataclass(frozen=True)
class PocketConfig:
    """Sizes of a Pocket Kontext. Attention width is `heads * head_dim`."""

    double_blocks: int = 2
    single_blocks: int = 6
    heads: int = 4
    head_dim: int = 32
    rotary_axes: tuple[int, int, int] = (4, 14, 14)
    latent_channels: int = 8
    text_width: int = 96
    pooled_width: int = 64
    text_layers: int = 2


STANDARD = PocketConfig()


def build_autoencoder(config: PocketConfig) -> AutoencoderKL:
    """A small KL autoencoder: 4 x 4 pixels to one latent position; a token is 2 x 2 of those."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=PIXELS,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=True,
        use_post_quant_conv=True,
    )


def build_transformer(config: PocketConfig) -> FluxTransformer2DModel:
    """The transformer, with FLUX's block types, guidance embedding and rotary positions."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * config.latent_channels,
        num_layers=config.double_blocks,
        num_single_layers=config.single_blocks,
        attention_head_dim=config.head_dim,
        num_attention_heads=config.heads,
        joint_attention_dim=config.text_width,
        pooled_projection_dim=config.pooled_width,
        guidance_embeds=True,
        axes_dims_rope=config.rotary_axes,
    )


def build_text_encoders(
    config: PocketConfig, tokenizers: Path
) -> tuple[CLIPTextModel, T5EncoderModel]:
    """Small text encoders for the tokenizers in that folder; trained with the transformer."""
    clip_tokenizer, t5_tokenizer = load_tokenizers(tokenizers)
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_tokenizer),
            hidden_size=config.pooled_width,
            intermediate_size=2 * config.pooled_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=4,
            max_position_embeddings=TEXT_TOKENS,
            bos_token_id=clip_tokenizer.bos_token_id,
            eos_token_id=clip_tokenizer.eos_token_id,
            pad_token_id=clip_tokenizer.pad_token_id,
            projection_dim=config.pooled_width,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer),
            d_model=config.text_width,
            d_kv=config.text_width // 4,
            d_ff=2 * config.text_width,
            num_layers=config.text_layers,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=t5_tokenizer.pad_token_id,
            eos_token_id=t5_tokenizer.eos_token_id,
            decoder_start_token_id=t5_tokenizer.pad_token_id,
        )
    )
    return clip.eval(), t5.eval()


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1 Kontext's scheduler settings: dynamic shifting between 256 and 4,096 tokens."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def assemble(
    autoencoder: AutoencoderKL,
    transformer: FluxTransformer2DModel,
    clip: CLIPTextModel,
    t5: T5EncoderModel,
    tokenizers: Path,
) -> FluxKontextPipeline:
    """The unmodified diffusers pipeline around these parts."""
    clip_tokenizer, t5_tokenizer = load_tokenizers(tokenizers)
    return FluxKontextPipeline(
        scheduler=build_scheduler(),
        vae=autoencoder,
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
        transformer=transformer,
    )


def position_ids(rows: int, columns: int, image: int) -> torch.Tensor:
    """Rotary ids (rows * columns, 3): image index (0 generation, 1 reference), row, column."""
    ids = torch.zeros(rows, columns, 3)
    ids[..., 0] = image
    ids[..., 1] = torch.arange(rows)[:, None]
    ids[..., 2] = torch.arange(columns)
    return ids.reshape(-1, 3)


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(batch, channels, 2 * rows, 2 * columns) to tokens (batch, rows * columns, 4 * channels)."""
    batch, channels, height, width = latents.shape
    return FluxKontextPipeline._pack_latents(latents, batch, channels, height, width)
