"""DINOv2: cosine of class tokens (Oquab et al., 2024), the paper's "DINO"."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from recast_probe.metrics.metric_types import EncoderMetric, Images, Masks
from recast_probe.metrics.preparation import Preparation, in_batches
from recast_probe.metrics.pretrained import load_part, model_facts, source_name

SOURCE = "facebook/dinov2-base"
FILES: tuple[str, ...] = ("config.json", "model.safetensors", "preprocessor_config.json")


class DINOv2(EncoderMetric):
    """Cosine of the normalised class tokens of the last layer.

    Whole images are prepared as published: shortest edge to 256 (bicubic), centre crop of 224,
    ImageNet's mean and deviation. The numbers of one model size are not those of another.

    Args:
        source: a repository on the hub or a folder of one, with a `Dinov2Model`.
        device: where it runs, in float32.

    Raises:
        MissingWeightsError: the weights are not here and cannot be downloaded.
        InputError: they are damaged or of another model.
    """

    name = "dinov2"

    def __init__(self, source: str | Path = SOURCE, device: str = "cpu") -> None:
        self.source, self.device = str(source), device
        self.model, self.prepare = _load(self.source, device)

    def embed(self, images: Images, masks: Masks = None) -> np.ndarray:
        """Class tokens (n, width), float32, not of length one."""
        values = self.prepare(images, masks)
        tokens = in_batches(lambda part: self.model(part).pooler_output, values, self.device)
        return tokens.numpy()

    def provenance(self) -> dict[str, Any]:
        """The repository or folder, digests of its model, and how pictures are prepared."""
        return {
            "metric": self.name,
            "source": source_name(self.source),
            **model_facts(self.model),
            "preparation": self.prepare.provenance(),
        }


@lru_cache(maxsize=4)
def _load(source: str, device: str) -> tuple[Any, Preparation]:
    from transformers import BitImageProcessorPil, Dinov2Model

    model = load_part(Dinov2Model, DINOv2.name, source, FILES)
    processor = load_part(BitImageProcessorPil, DINOv2.name, source, FILES)
    return model.to(device), Preparation(processor)
