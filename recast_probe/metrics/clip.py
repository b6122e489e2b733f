"""CLIP-I and CLIP-T: cosines in the joint space of images and texts (Radford et al., 2021)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recast_probe.content.digest import content_digest
from recast_probe.errors import InputError
from recast_probe.metrics.encoder import cosine
from recast_probe.metrics.metric_types import EncoderMetric, Images, Masks, TextMetric
from recast_probe.metrics.preparation import Preparation, in_batches
from recast_probe.metrics.pretrained import load_part, model_facts, source_name

# OpenAI's model that is published as safetensors; FLUX.1 encodes prompts with its text half.
SOURCE = "openai/clip-vit-large-patch14"
FILES: tuple[str, ...] = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
)


class ClipModel:
    """A CLIP model with its image processor and tokenizer.

    Args:
        source: a repository on the hub or a folder of one, with a `CLIPModel`.
        device: where it runs, in float32.
        name: the metric that asks, for messages.

    Raises:
        MissingWeightsError: the weights are not here and cannot be downloaded.
        InputError: they are damaged or of another model.
    """

    def __init__(self, source: str, device: str, name: str) -> None:
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        self.source, self.device = source, device
        self.model = load_part(CLIPModel, name, source, FILES).to(device)
        self.prepare = Preparation(load_part(CLIPImageProcessorPil, name, source, FILES))
        self.tokenizer = load_part(CLIPTokenizer, name, source, FILES)

    def images(self, images: Images, masks: Masks = None) -> np.ndarray:
        """Projected image features (n, d), float32.

        Whole images are prepared as published: shortest edge to 224 (bicubic), centre crop of 224,
        CLIP's own mean and deviation.
        """
        values = self.prepare(images, masks)

        def network(part: Tensor) -> Tensor:
            return _projected(self.model.get_image_features(pixel_values=part))

        return in_batches(network, values, self.device).numpy()

    @torch.inference_mode()
    def text(self, prompt: str) -> np.ndarray:
        """Projected text features (1, d), float32; a warning where a prompt is too long for CLIP.

        Raises InputError for an empty prompt.
        """
        if not prompt.strip():
            raise InputError("The prompt is empty; CLIP-T needs a text to compare the image with.")
        longest = self.model.config.text_config.max_position_embeddings
        whole = len(self.tokenizer(prompt)["input_ids"])
        if whole > longest:
            warnings.warn(
                f"CLIP reads {longest} tokens and this prompt has {whole}; the rest of "
                f"{prompt[:40]!r}... plays no part in CLIP-T.",
                stacklevel=3,
            )
        tokens = self.tokenizer(prompt, truncation=True, max_length=longest, return_tensors="pt")
        found = self.model.get_text_features(**tokens.to(self.device))
        return _projected(found).float().cpu().numpy()

    def provenance(self, name: str) -> dict[str, Any]:
        """The repository or folder, digests of its model and tokenizer, and how pictures are
        prepared."""
        return {
            "metric": name,
            "source": source_name(self.source),
            **model_facts(self.model),
            "preparation": self.prepare.provenance(),
            "tokenizer": content_digest(self.tokenizer),
        }


class ClipI(EncoderMetric):
    """Cosine of the projected features of two images; see `ClipModel`."""

    name = "clip-i"

    def __init__(self, source: str | Path = SOURCE, device: str = "cpu") -> None:
        self.source = str(source)
        self.clip = load_clip(self.source, device, self.name)

    def embed(self, images: Images, masks: Masks = None) -> np.ndarray:
        """Projected image features (n, d), float32, not of length one."""
        return self.clip.images(images, masks)

    def provenance(self) -> dict[str, Any]:
        """See `ClipModel.provenance`."""
        return self.clip.provenance(self.name)


class ClipT(TextMetric):
    """Cosine of the projected features of a whole image and a text; see `ClipModel`.

    The plain cosine, as the paper's numbers; CLIPScore would be 2.5 times its positive part.
    """

    name = "clip-t"

    def __init__(self, source: str | Path = SOURCE, device: str = "cpu") -> None:
        self.source = str(source)
        self.clip = load_clip(self.source, device, self.name)

    def score_text(self, image: Image.Image, prompt: str) -> float:
        """Cosine in [-1, 1]; matching pairs of the published models are near 0.2 to 0.35."""
        return float(cosine(self.clip.images([image]), self.clip.text(prompt))[0, 0])

    def provenance(self) -> dict[str, Any]:
        """See `ClipModel.provenance`."""
        return self.clip.provenance(self.name)


_LOADED: dict[tuple[str, str], ClipModel] = {}


def load_clip(source: str, device: str, name: str) -> ClipModel:
    """The model of a source, loaded once for CLIP-I and CLIP-T; see `ClipModel`."""
    if (source, device) not in _LOADED:
        _LOADED[source, device] = ClipModel(source, device, name)
    return _LOADED[source, device]


def _projected(found: Any) -> Tensor:
    """What the projection returns: a tensor, or in newer transformers an output with one."""
    return found if isinstance(found, Tensor) else found.pooler_output
