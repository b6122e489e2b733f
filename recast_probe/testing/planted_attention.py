"""Attention planted by hand in the weights of a tiny FLUX.1 Kontext.

The transformer is set so that a token's hidden state is constant over the blocks and says only
whether it is "bright": LayerNorm then makes it +c or -c times one direction. Every query is the
same vector; keys are + or - that vector. It lies in the slowest rotary dimension, so positions
have no influence. A bright reference token then gets exactly exp(2 * LOGIT) times the attention of
a dark one, in every block, head and step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe.testing import tiny

LOGIT = 1.0
SLOW = 8  # the slowest rotary pair of the row axis is dimensions 8 and 9 of a head
FAST = (4, 10)  # the fastest pairs of the row axis and of the column axis


@torch.no_grad()
def still(transformer: torch.nn.Module) -> None:
    """No block changes the hidden states: modulation gives shift 0, scale 0, gate 0."""
    for name, parameter in transformer.named_parameters():
        if ".linear." in name and ".norm" in name:
            parameter.zero_()


@torch.no_grad()
def plant_queries(attention: Any, heads: int, logit: float, dimensions: Sequence[int]) -> None:
    """All queries equal, whatever the token; logits of q and an equal key are ``logit``."""
    size = tiny.HEAD_DIMENSION
    vector = torch.zeros(size)
    vector[list(dimensions)] = 1.0
    gain = logit / size**0.5  # RMSNorm makes q and k of length sqrt(size); the scale is size**-0.5
    pairs = [(attention.to_q, attention.norm_q)]
    if hasattr(attention, "add_q_proj"):
        pairs.append((attention.add_q_proj, attention.norm_added_q))
    for projection, norm in pairs:
        projection.weight.zero_()
        projection.bias.copy_(vector.repeat(heads))
        norm.weight.fill_(gain)


def blocks(transformer: Any) -> list[Any]:
    """All blocks, in the order in which they run."""
    return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]


@torch.no_grad()
def reference_latents(pipe: Any, image: Image.Image) -> torch.Tensor:
    """(tokens, channels) of the reference, as the pipeline packs them."""
    pixels = pipe.image_processor.preprocess(image, *image.size[::-1])
    latents = pipe._encode_vae_image(pixels, torch.Generator())
    channels, height, width = latents.shape[1:]
    return pipe._pack_latents(latents, 1, channels, height, width)[0]


@torch.no_grad()
def plant_targets(pipe: Any, image: Image.Image, target: np.ndarray) -> None:
    """Make the reference tokens of ``target`` bright and all others dark."""
    transformer = pipe.transformer
    still(transformer)
    latents = reference_latents(pipe, image).double()
    wanted = torch.as_tensor(target.reshape(-1)).double() * 2 - 1
    with_one = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    solution = torch.linalg.lstsq(with_one, wanted, driver="gelsd").solution
    brightness = with_one @ solution
    assert (brightness.sign() == wanted).all()
    assert brightness.abs().min() > 0.2
    embedder = transformer.x_embedder
    embedder.weight.zero_()
    embedder.bias.zero_()
    for row, sign in ((0, 1.0), (1, -1.0)):
        embedder.weight[row] = sign * solution[:-1].float() * 100
        embedder.bias[row] = sign * solution[-1].float() * 100
    transformer.context_embedder.weight.zero_()
    transformer.context_embedder.bias.zero_()
    transformer.context_embedder.bias[:2] = torch.tensor([-1.0, 1.0])
    for block in blocks(transformer):
        attention = block.attn
        plant_queries(attention, tiny.HEADS, LOGIT, [SLOW])
        keys = [(attention.to_k, attention.norm_k)]
        if hasattr(attention, "add_k_proj"):
            keys.append((attention.add_k_proj, attention.norm_added_k))
        for projection, norm in keys:
            projection.weight.zero_()
            projection.bias.zero_()
            for head in range(tiny.HEADS):
                projection.weight[head * tiny.HEAD_DIMENSION + SLOW, 0] = 1.0
                projection.weight[head * tiny.HEAD_DIMENSION + SLOW, 1] = -1.0
            norm.weight.fill_(1.0)
