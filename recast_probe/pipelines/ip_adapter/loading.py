"""Loading an IP-Adapter into a FluxPipeline: safetensors only, for the image encoder too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recast_probe.errors import InputError
from recast_probe.files.input_files import is_file, is_folder
from recast_probe.pipelines.whole_weights import load_whole

WEIGHTS = "ip_adapter.safetensors"
IMAGE_ENCODER = "openai/clip-vit-large-patch14"


class IPAdapter:
    """An adapter and its image encoder, by where they are.

    Args:
        source: a repository on the Hugging Face hub or a folder with ``ip_adapter.safetensors``,
            or a safetensors file of another name.
        image_encoder: a repository or folder with a CLIP vision model; the one of the published
            adapters by default.

    Raises:
        InputError: a file that is not a safetensors file, or a folder without the weights.
    """

    def __init__(self, source: str | Path, image_encoder: str | Path | None = None) -> None:
        self.source, self.weights = str(source), WEIGHTS
        self.image_encoder = str(image_encoder or IMAGE_ENCODER)
        path = Path(source)
        if is_file(path):
            if path.suffix != ".safetensors":
                raise InputError(
                    f"The IP-Adapter {self.source!r} is no safetensors file, and other formats "
                    "can run code when they are read; convert it first."
                )
            self.source, self.weights = str(path.parent), path.name
        elif is_folder(path) and not is_file(path / WEIGHTS):
            raise InputError(
                f"The folder {self.source!r} has no {WEIGHTS}; give the path of the safetensors "
                "file if it has another name."
            )

    def load_into(self, pipeline: Any) -> None:
        """Load encoder and adapter in the dtype of the pipeline's transformer.

        Raises:
            InputError: not found, offline, not safetensors, or made for another model.
        """
        from transformers import CLIPVisionModelWithProjection

        try:
            encoder = load_whole(
                CLIPVisionModelWithProjection, self.image_encoder, dtype=pipeline.transformer.dtype
            )
        except InputError:
            raise
        except Exception as error:  # the hub client raises a different class for every cause
            raise InputError(
                f"The image encoder {self.image_encoder!r} could not be loaded: {error}\nGive a "
                "folder or repository with a CLIP vision model in safetensors; to download one, "
                "be online once."
            ) from error
        pipeline.register_modules(image_encoder=encoder.to(pipeline.device).eval())
        try:
            # the encoder is there already, so diffusers does not load another one
            pipeline.load_ip_adapter(
                self.source,
                weight_name=self.weights,
                image_encoder_pretrained_model_name_or_path=None,
            )
        except Exception as error:
            raise InputError(
                f"The IP-Adapter {self.source!r} ({self.weights}) could not be loaded: {error}\n"
                "It must be a FLUX IP-Adapter in the format of XLabs, for a transformer of this "
                "width and number of double-stream blocks; to download one, be online once."
            ) from error
