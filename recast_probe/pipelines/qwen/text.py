"""Text tokens of Qwen-Image-Edit: the prompt, and the pictures as a language model sees them.

Qwen2.5-VL reads the prompt and the reference images together. What it makes of each position after
a fixed opening becomes a text token, so some text tokens stand for patches of the references, and
all those after them have read these: the vision tokens. Their number follows the size of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recast_probe._utils.text_format import spans

IMAGE = "<|image_pad|>"


def text_token_ids(pipeline: Any, prompt: str, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Vocabulary indices of the positions that become text tokens, int64 (text token,).

    Args:
        prompt: what the pipeline puts into its template, placeholders of the pictures included.
        sizes: (width, height) of each picture as the pipeline hands it to Qwen2.5-VL.
    """
    processor = pipeline.processor
    vision = processor.image_processor
    text = pipeline.prompt_template_encode.format(prompt)
    opening, *rest = text.split(IMAGE)
    counts = [
        vision.get_number_of_image_patches(height, width, {}) // vision.merge_size**2
        for width, height in sizes
    ]
    parts = [opening]
    # a placeholder that a user wrote into the prompt stays, and the run's layout will not fit
    for place, part in enumerate(rest):
        parts += [IMAGE * (counts[place] if place < len(counts) else 1), part]
    ids = processor.tokenizer(["".join(parts)])["input_ids"][0]
    return np.asarray(ids[pipeline.prompt_template_encode_start_idx :], np.int64)


def vision_token_mask(pipeline: Any, ids: np.ndarray) -> np.ndarray:
    """Which of these positions stand for a patch of a picture, bool (text token,)."""
    return ids == int(pipeline.text_encoder.config.image_token_id)


def text_facts(pipeline: Any, ids: np.ndarray) -> dict[str, Any]:
    """Number of text tokens and which of them are vision tokens, ready for JSON."""
    vision = np.flatnonzero(vision_token_mask(pipeline, ids))
    return {"tokens": len(ids), "vision_tokens": spans(vision.tolist())}
