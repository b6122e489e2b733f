"""Text tokens that Qwen2.5-VL makes: the prompt, and the pictures as a language model sees them.

Qwen2.5-VL reads the prompt and the reference images together. What it makes of each position after
a fixed opening becomes a text token, so some text tokens stand for patches of the references, and
all those after them have read these: the vision tokens. Their number follows the size of the image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from recast_probe._utils.text_format import spans
from recast_probe.errors import InputError
from recast_probe.pipelines.transformer import TransformerFamily

IMAGE = "<|image_pad|>"


class ReadsOnePrompt(TransformerFamily):
    """Shared by families whose text is what Qwen2.5-VL makes of one prompt, of a length of its own;
    not a family itself."""

    needs_reference = True

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        return {self.guided_by: self.call_default(self.guided_by), **overrides}

    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """The image as it is: the pipeline scales it itself."""
        return image

    @abstractmethod
    def prompt_ids(self, prompt: str, arguments: Mapping[str, Any]) -> np.ndarray:
        """Vocabulary indices of the positions that become text tokens, int64 (text token,).

        Args:
            prompt: of one branch.
            arguments: of the call, with its references.
        """

    def longest_text(self, arguments: Mapping[str, Any]) -> int | None:
        """Text tokens beyond which the pipeline cuts a text off; None where it does not."""
        return None

    def prompt_of(self, arguments: Mapping[str, Any], branch: str) -> str:
        """The one prompt of a branch.

        Raises:
            InputError: there are several.
        """
        (name,) = self.texts[branch].prompts
        given = arguments[name]
        prompts = [given] if isinstance(given, str) else list(given)
        if len(prompts) > 1:
            raise InputError(
                f"{type(self.pipe).__name__} runs one prompt at a time, not {len(prompts)}; call "
                "the probe for each of them."
            )
        return prompts[0]

    def branch_ids(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """``prompt_ids`` by branch.

        Raises:
            InputError: the text is given as embeddings.
        """
        self.check_prompts_known(arguments)
        names = self.branch_names(arguments)
        return {branch: self._ids(arguments, branch) for branch in names}

    def _ids(self, arguments: Mapping[str, Any], branch: str) -> np.ndarray:
        longest = self.longest_text(arguments)
        return self.prompt_ids(self.prompt_of(arguments, branch), arguments)[:longest]

    def text_tokens(self, arguments: Mapping[str, Any], branch: str) -> int:
        given = self.given_embeddings(arguments, branch)
        if given is None:
            return len(self._ids(arguments, branch))
        tokens, longest = given.shape[1], self.longest_text(arguments)
        if longest is not None and tokens > longest:
            raise InputError(
                f"{self.texts[branch].embeddings} has {tokens} text tokens, and the pipeline cuts "
                f"off all beyond {longest}; cut them off, or raise max_sequence_length."
            )
        return tokens

    def cut_off(self, arguments: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        longest = self.longest_text(arguments)
        if longest is None:
            return []
        whole = {
            self.texts[branch].prompts[0]: self.prompt_ids(
                self.prompt_of(arguments, branch), arguments
            )
            for branch in self.encoded_branches(arguments)
        }
        return [
            (name, "tokenizer", 0, len(ids) - longest)
            for name, ids in whole.items()
            if len(ids) > longest
        ]

    def padding_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        # a prompt that runs alone is not filled up
        return {
            branch: np.zeros((1, len(ids)), bool)
            for branch, ids in self.branch_ids(arguments).items()
        }

    def call_facts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        names = self.branch_names(arguments)
        return {"text": {name: {"tokens": self.text_tokens(arguments, name)} for name in names}}


class ReadsPictures(ReadsOnePrompt):
    """Shared by families whose text is what Qwen2.5-VL makes of one prompt and its pictures; not a
    family itself."""

    def vision_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {
            branch: vision_token_mask(self.pipe, ids)[None]
            for branch, ids in self.branch_ids(arguments).items()
        }

    def call_facts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        found = super().call_facts(arguments)
        # of embeddings that are given it is not known which are vision tokens
        for branch in self.encoded_branches(arguments):
            vision = vision_token_mask(self.pipe, self._ids(arguments, branch))
            found["text"][branch]["vision_tokens"] = spans(np.flatnonzero(vision).tolist())
        return found


def text_token_ids(pipeline: Any, prompt: str, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Vocabulary indices of the positions that become text tokens, int64 (text token,).

    Args:
        prompt: what the pipeline puts into its template, placeholders of the pictures included.
        sizes: (width, height) of each picture as the pipeline hands it to Qwen2.5-VL.
    """
    processor = pipeline.processor
    text = pipeline.prompt_template_encode.format(prompt)
    opening, *rest = text.split(IMAGE)
    counts = [vision_tokens_of(processor.image_processor, size) for size in sizes]
    parts = [opening]
    # a placeholder that a user wrote into the prompt stays, and the run's layout will not fit
    for place, part in enumerate(rest):
        parts += [IMAGE * (counts[place] if place < len(counts) else 1), part]
    ids = processor.tokenizer(["".join(parts)])["input_ids"][0]
    return np.asarray(ids[pipeline.prompt_template_encode_start_idx :], np.int64)


def vision_tokens_of(image_processor: Any, size: tuple[int, int]) -> int:
    """Positions that Qwen2.5-VL's image processor makes of a picture of (width, height) pixels.

    Raises:
        InputError: the picture is too long for it.
    """
    width, height = size
    try:
        patches = image_processor.get_number_of_image_patches(height, width, {})
    except ValueError as error:
        raise InputError(
            f"Qwen2.5-VL reads no picture of {width} x {height} pixels ({error}); crop the image."
        ) from error
    return patches // image_processor.merge_size**2


def vision_token_mask(pipeline: Any, ids: np.ndarray) -> np.ndarray:
    """Which of these positions stand for a patch of a picture, bool (text token,)."""
    return ids == int(pipeline.text_encoder.config.image_token_id)
