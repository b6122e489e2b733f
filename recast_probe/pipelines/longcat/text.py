"""Text tokens of LongCat-Image-Edit: a picture of the reference, then the prompt, filled up.

The pipeline cuts a prompt at its quotation marks, and what is quoted into characters, each of which
is a token or several.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recast_probe.errors import InputError
from recast_probe.pipelines.qwen.text import vision_tokens_of


def prompt_words(pipeline: Any, prompt: str) -> list[int]:
    """Vocabulary indices of a prompt, without padding.

    Raises:
        InputError: a prompt that the pipeline cannot read, or reads as another one.
    """
    from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import split_quotation

    parts = split_quotation(prompt)
    read = "".join(part for part, _ in parts)
    if read != prompt:
        raise InputError(
            f"{type(pipeline).__name__} takes words with an apostrophe for one another and would "
            f"read the prompt {prompt!r} as {read!r}; write the apostrophe as \u2019."
        )
    words: list[int] = []
    for part, quoted in parts:
        for piece in part if quoted else [part]:
            words += pipeline.tokenizer(piece, add_special_tokens=False)["input_ids"]
    if len(words) > pipeline.tokenizer_max_length:
        raise InputError(
            f"The prompt {prompt[:40]!r}... has {len(words)} tokens, and {type(pipeline).__name__} "
            f"takes at most {pipeline.tokenizer_max_length}; shorten it."
        )
    return words


def text_ids(pipeline: Any, prompt: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What stands at the positions that become text tokens.

    Args:
        size: (width, height) of the picture as the pipeline hands it to Qwen2.5-VL.

    Returns:
        Vocabulary indices, int64 (text token,), and which of them are padding, bool (text token,).

    Raises:
        InputError: a prompt or a picture that cannot be read.
    """
    tokenizer, image = pipeline.tokenizer, pipeline.image_token
    patches = vision_tokens_of(pipeline.image_processor_vl, size)
    template = pipeline.prompt_template_encode_prefix.replace(image, image * patches)
    opening = tokenizer(template, add_special_tokens=False)["input_ids"]
    opening = opening[opening.index(tokenizer.convert_tokens_to_ids("<|vision_start|>")) :]
    words = prompt_words(pipeline, prompt)
    padding = [tokenizer.pad_token_id] * (pipeline.tokenizer_max_length - len(words))
    left = tokenizer.padding_side == "left"
    parts = [padding, words] if left else [words, padding]
    filled = np.repeat([left, not left], [len(part) for part in parts])
    ids = np.asarray([*opening, *parts[0], *parts[1]], np.int64)
    return ids, np.concatenate([np.zeros(len(opening), bool), filled])
