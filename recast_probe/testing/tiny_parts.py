"""Parts that several tiny pipelines are built of, with random weights."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from transformers import T5Config, T5EncoderModel
from transformers.models.t5.tokenization_t5 import T5Tokenizer


@torch.no_grad()
def strengthen(transformer: torch.nn.Module, factor: float = 2, vary_norms: bool = False) -> None:
    """Multiply weights by a factor, so that reference and prompt show in the image.

    Args:
        vary_norms: also make no two norms and biases alike.

    Examples:
        >>> layer = torch.nn.Linear(2, 2)
        >>> before = layer.weight.detach().clone()
        >>> strengthen(layer)
        >>> torch.equal(layer.weight, 2 * before)
        True
    """
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            parameter.mul_(factor)
        elif vary_norms:
            parameter.add_(0.2 * torch.randn_like(parameter))


def flux_autoencoder(
    levels: int, width: int, latents: int, layers: int = 1, **settings: Any
) -> AutoencoderKL:
    """FLUX.1's kind of autoencoder, which halves an image once less than it has levels.

    Args:
        layers: of each level; the decoder has one more.

    Examples:
        >>> flux_autoencoder(4, 8, 4).config.latent_channels
        4
    """
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(width,) * levels,
        layers_per_block=layers,
        latent_channels=latents,
        norm_num_groups=min(4, width),
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        **settings,
    )


def flux_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1's schedule, which is shifted by the number of generation tokens.

    Examples:
        >>> flux_scheduler().config.max_shift
        1.15
    """
    return FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def t5_encoder(tokenizer: T5Tokenizer, width: int) -> T5EncoderModel:
    """A T5 of one layer that reads a tokenizer's tokens.

    Examples:
        >>> from recast_probe.testing.tiny import letter_tokenizer
        >>> t5_encoder(letter_tokenizer(), 32).config.num_layers
        1
    """
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=16,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )
