"""From pictures to what an encoder takes: its own transform, or the subject cut out for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recast_probe.content.description import described
from recast_probe.errors import InputError
from recast_probe.metrics.masking import Mask, isolate
from recast_probe.metrics.metric_types import Images, Masks, one_mask_each

PADDING = 0.15


class Preparation:
    """The transform of a transformers image processor, and its masked variant.

    A whole image goes through the processor as it is published: shortest edge resized, centre
    cropped, normalised. A masked one is cut out as `isolate` does it, straight to the size that
    the encoder takes and on the encoder's own mean, so that everything around the subject becomes
    zero; a centre crop would cut into the subject there.

    Args:
        processor: a transformers image processor of the PIL kind, which needs no torchvision.

    Raises:
        InputError: the processor does not make square images of one size.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        target = processor.crop_size if processor.do_center_crop else processor.size
        if target.height is None or target.height != target.width:
            raise InputError(f"The image processor makes no square images of one size: {target}.")
        self.size = int(target.height)
        self.mean = np.asarray(processor.image_mean, np.float32)
        self.deviation = np.asarray(processor.image_std, np.float32)

    def __call__(self, images: Images, masks: Masks = None) -> Tensor:
        """Pixel values (n, 3, size, size), float32."""
        prepared = [
            self._whole(image) if mask is None else self._subject(image, mask)
            for image, mask in zip(images, one_mask_each(images, masks), strict=True)
        ]
        if not prepared:
            return torch.zeros((0, 3, self.size, self.size))
        return torch.from_numpy(np.stack(prepared))

    def provenance(self) -> dict[str, Any]:
        """The processor's settings, ready for JSON."""
        return described(self.processor.to_dict())

    def _whole(self, image: Image.Image) -> np.ndarray:
        if not isinstance(image, Image.Image):
            raise InputError(f"Expected a PIL image, got {type(image).__name__}.")
        values = self.processor(image.convert("RGB"), return_tensors="np")["pixel_values"][0]
        return np.asarray(values, np.float32)

    def _subject(self, image: Image.Image, mask: Mask) -> np.ndarray:
        subject = isolate(image, mask, self.size, PADDING, self.mean)
        return np.moveaxis((subject - self.mean) / self.deviation, -1, 0)


@torch.inference_mode()
def in_batches(
    network: Callable[[Tensor], Tensor], values: Tensor, device: Any = "cpu", batch: int = 16
) -> Tensor:
    """The network's rows for all values, a batch at a time, as float32 on the CPU."""
    rows = [network(part.to(device)).float().cpu() for part in values.split(batch) if len(part)]
    return torch.cat(rows) if rows else torch.zeros((0, 0))
