"""What is trained: image encoder, projection and the blocks' keys and values; all else is fixed."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FluxPipeline
from torch import nn

from recast_probe.pocket.data import Batch, LatentPool
from recast_probe.pocket.flow import FlowModel

from .views import normalised, window_pixels

BLOCKS = ("image_encoder.vision_model.encoder.layers.",)  # whose matrices Muon has
HELD_BACK = 0.1  # of the mean variance
NO_IMAGE: dict[str, Any] = {"ip_hidden_states": []}  # the adapter adds nothing


class WindowPool(LatentPool):
    """Batches with the windows of their references; at 128 pixels only."""

    def windows_of(self, pictures: torch.Tensor) -> torch.Tensor:
        return window_pixels(pictures)


class AdapterModel(nn.Module):
    """The trained parts of a pipeline with an adapter; its state is theirs alone."""

    def __init__(self, pipeline: FluxPipeline) -> None:
        super().__init__()
        for part in (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2):
            part.requires_grad_(False)
        transformer = pipeline.transformer
        self.image_encoder = pipeline.image_encoder
        (self.projection,) = transformer.encoder_hid_proj.image_projection_layers
        self.processors = nn.ModuleList(b.attn.processor for b in transformer.transformer_blocks)
        self.requires_grad_(True)
        # in a list, they are no part of the state
        self._frozen = [FlowModel.of(pipeline)]

    def velocity_loss(
        self, batch: Batch, *, generator: torch.Generator, with_image: bool = True
    ) -> torch.Tensor:
        """Error of the frozen transformer without references, and with the adapter's tokens.

        Args:
            batch: a `WindowPool`'s.
            generator: of noise, times and guidance.
            with_image: otherwise the adapter adds nothing.
        """
        return self._frozen[0].velocity_loss(
            batch,
            with_reference=False,
            generator=generator,
            joint_attention_kwargs=self._shown(batch) if with_image else NO_IMAGE,
        )

    @torch.no_grad()
    def whiten(self, windows: torch.Tensor) -> None:
        """Begin with tokens that differ from window to window and from picture to picture.

        The encoder's random weights give all windows nearly one embedding: nine tenths of it are
        the same. The projection takes that part away and gives the rest equal variance, as far as
        it stands out: small directions are held back.

        Args:
            windows: of pictures to begin with, uint8 (batch, windows, 3, 32, 32).
        """
        found = self.image_encoder(normalised(windows.flatten(0, 1))).image_embeds.double()
        values, vectors = torch.linalg.eigh(torch.cov(found.T))
        scale = (values + HELD_BACK * values.mean()).rsqrt()
        whitening = (vectors * scale) @ vectors.T
        layer = self.projection.image_embeds
        layer.weight.copy_(layer.weight.double() @ whitening)
        layer.bias.copy_(-layer.weight.double() @ found.mean(0))

    def _shown(self, batch: Batch) -> dict[str, Any]:
        pixels: torch.Tensor = batch.windows  # type: ignore[assignment]
        count, windows = pixels.shape[:2]
        embeddings = self.image_encoder(normalised(pixels.flatten(0, 1))).image_embeds
        return {"ip_adapter_image_embeds": [embeddings.view(count, windows, -1)]}
