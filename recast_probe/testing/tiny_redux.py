"""A tiny random FLUX.1 Redux, built from configs in a second.

The transformer and the text encoders are those of ``testing.tiny``. The prior has a SigLIP vision
model for images of 34 x 34 pixels with patches of 8, so a reference has 4 x 4 tokens, and the last
2 pixels at the right and at the bottom are in none of them, as in the published one (384 and 14).
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FluxPipeline, FluxPriorReduxPipeline
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from recast_probe.pipelines.flux.redux_pipeline import FluxReduxPipeline
from recast_probe.testing import tiny

IMAGE_SIDE, PATCH = 34, 8
GRID = (4, 4)
IMAGE_WIDTH = 32


def build_both(seed: int = 0) -> tuple[FluxPriorReduxPipeline, FluxPipeline]:
    """Prior and pipeline, with the same text encoders.

    Examples:
        >>> [type(each).__name__ for each in build_both()]
        ['FluxPriorReduxPipeline', 'FluxPipeline']
    """
    parts = tiny.build_tiny_pipeline(seed).components
    text = {name: each for name, each in parts.items() if name.startswith(("text", "token"))}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=IMAGE_WIDTH,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=IMAGE_SIDE,
                patch_size=PATCH,
            )
        )
        width = parts["transformer"].config.joint_attention_dim
        embedder = ReduxImageEncoder(redux_dim=IMAGE_WIDTH, txt_in_features=width)
        # stronger than the default initialisation, so that the reference shows in the image
        with torch.no_grad():
            embedder.redux_up.weight.mul_(4)
            embedder.redux_down.weight.mul_(4)
    processor = SiglipImageProcessorPil(size={"height": IMAGE_SIDE, "width": IMAGE_SIDE})
    prior = FluxPriorReduxPipeline(encoder.eval(), processor, embedder.eval(), **text)
    pipeline = FluxPipeline(**{n: each for n, each in parts.items() if each is not None})
    for each in (prior, pipeline):
        each.set_progress_bar_config(disable=True)
    return prior, pipeline


def build_tiny_pipeline(seed: int = 0) -> FluxReduxPipeline:
    """``build_both(seed)`` in one pipeline, on the CPU in float32.

    Examples:
        >>> type(build_tiny_pipeline()).__name__
        'FluxReduxPipeline'
    """
    pipeline = FluxReduxPipeline.from_pipelines(*build_both(seed))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(folder: Path, seed: int = 0) -> Path:
    """Save ``build_tiny_pipeline(seed)`` into ``folder``, all parts in one."""
    build_tiny_pipeline(seed).save_pretrained(folder, safe_serialization=True)
    return folder
