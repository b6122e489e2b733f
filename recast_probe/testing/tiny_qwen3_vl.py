"""A tiny random Qwen3-VL, which reads a prompt together with pictures."""

from __future__ import annotations

from typing import Any

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from recast_probe.testing.tiny_qwen import WithoutVideos, build_tokenizer, reader_settings


class ImageProcessor(WithoutVideos, Qwen3VLProcessor, ProcessorMixin):
    """Qwen3VLProcessor without videos.

    diffusers saves it under this module's name and finds it there again, once this is imported. It
    looks for ProcessorMixin by its name here too.
    """


def build_text_encoder(tokenizer: Any) -> Qwen3VLForConditionalGeneration:
    """A random Qwen3-VL of two layers that reads the tokens of a tokenizer.

    Examples:
        >>> build_text_encoder(build_tokenizer()).config.text_config.num_hidden_layers
        2
    """
    settings = reader_settings(
        tokenizer,
        {"num_hidden_layers": 2, "head_dim": 16},
        {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    )
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(**settings))


def read_parts() -> dict[str, Any]:
    """What reads the prompt and the pictures, 4 to 8 tokens each: tokenizer, processor and text
    encoder.

    Examples:
        >>> sorted(read_parts())
        ['processor', 'text_encoder', 'tokenizer']
    """
    tokenizer = build_tokenizer()
    tokenizer.padding_side = "right"
    sides = {"shortest_edge": 4 * 32 * 32, "longest_edge": 8 * 32 * 32}
    processor = ImageProcessor(
        image_processor=Qwen2VLImageProcessorPil(patch_size=16, size=sides), tokenizer=tokenizer
    )
    text_encoder = build_text_encoder(tokenizer).eval()
    return {"tokenizer": tokenizer, "processor": processor, "text_encoder": text_encoder}
