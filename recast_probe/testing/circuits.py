"""Planted circuits: tiny models in which the reference takes one known path to the image.

All weights of the attention are set by hand, in the two double-stream blocks, where text and image
tokens have projections and gates of their own; what the values carry stays random. The
single-stream blocks change nothing. A query sees one group of keys and, to within exp(-20), no
other:

- text against image tokens, by keys of opposite sign in the slowest rotary dimension;
- reference against generation tokens, which share all weights, by the first rotary pair of the
  image axis: a reference token is image 1, so its key is turned by one radian. A query at that
  angle meets it, and misses the others by it.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FluxKontextPipeline

from recast_probe.testing import tiny
from recast_probe.testing.planted_attention import blocks, still

SLOW = 8  # the slowest rotary pair of the row axis
IMAGE = 0  # the fastest rotary pair of the image axis, dimensions 0 and 1
STRENGTH = 50.0  # times 1 - cos(1) = 0.46 is the gap between logits


@torch.no_grad()
def plant_looks(attention: Any, image: list[str], text: list[str]) -> None:
    """Let each head's image queries and text queries see one group: "text" or "reference"."""
    size, double = tiny.HEAD_DIMENSION, hasattr(attention, "add_q_proj")
    angle = torch.tensor(1.0)

    def query(group: str) -> torch.Tensor:
        vector = torch.zeros(size)
        if group == "text":
            vector[SLOW] = 1.0
        else:
            # turned by one radian more, to where the keys of the reference are
            vector[IMAGE], vector[IMAGE + 1] = angle.cos(), angle.sin()
        return vector

    def key(of_text: bool) -> torch.Tensor:
        vector = torch.zeros(size)
        vector[SLOW] = 1.0 if of_text else -1.0
        vector[IMAGE] = 1.0
        return vector

    gain = STRENGTH * 2**0.5 / size**0.5
    sides = [(attention.to_q, attention.norm_q, image, attention.to_k, attention.norm_k, False)]
    if double:
        sides.append(
            (
                attention.add_q_proj,
                attention.norm_added_q,
                text,
                attention.add_k_proj,
                attention.norm_added_k,
                True,
            )
        )
    for to_q, norm_q, looks, to_k, norm_k, of_text in sides:
        for projection in (to_q, to_k):
            projection.weight.zero_()
        to_q.bias.copy_(torch.cat([query(group) for group in looks]))
        to_k.bias.copy_(key(of_text).repeat(tiny.HEADS))
        norm_q.weight.fill_(gain)
        norm_k.weight.fill_(1.0)


@torch.no_grad()
def open_gate(norm: Any, strength: float = 3.0) -> None:
    """Let the attention output of a stream through, the same in every step."""
    width = norm.linear.out_features // 6
    norm.linear.bias[2 * width : 3 * width] = strength


def circuit(path: str, head: int = 1, seed: int = 3) -> FluxKontextPipeline:
    """A tiny pipeline whose image depends on the reference by one path alone.

    Args:
        path: "direct": in block 1, generation tokens read the reference, text tokens nothing of it;
            "text": text tokens read the reference in block 0, generation tokens the text in block
            1; "head": as "direct", in one head of block 1 alone.
        head: of "head".
    """
    pipe = tiny.build_tiny_pipeline(seed=seed)
    still(pipe.transformer)
    for block in blocks(pipe.transformer):
        everywhere = ["text"] * tiny.HEADS
        plant_looks(block.attn, everywhere, everywhere)
    first, second = pipe.transformer.transformer_blocks
    open_gate(second.norm1)
    if path == "direct":
        plant_looks(second.attn, ["reference"] * tiny.HEADS, ["text"] * tiny.HEADS)
    elif path == "text":
        plant_looks(first.attn, ["text"] * tiny.HEADS, ["reference"] * tiny.HEADS)
        open_gate(first.norm1_context)
    else:
        looks = ["reference" if each == head else "text" for each in range(tiny.HEADS)]
        plant_looks(second.attn, looks, ["text"] * tiny.HEADS)
    return pipe
