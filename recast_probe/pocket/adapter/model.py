"""What is trained: image encoder, projection and the blocks' keys and values; all else is fixed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import nn

from recast_probe.pocket.data import Batch, LatentPool
from recast_probe.pocket.flow import FOREGROUND_WEIGHT, FlowModel

from .views import normalised, window_pixels

BLOCKS = ("image_encoder.vision_model.encoder.layers.",)  # whose matrices Muon has
HELD_BACK = 0.1  # of the mean variance
NO_IMAGE: dict[str, Any] = {"ip_hidden_states": []}  # the adapter adds nothing


class WindowPool(LatentPool):
    """Batches with the windows of their references; at 128 pixels only."""

    def windows_of(self, pictures: torch.Tensor) -> torch.Tensor:
        return window_pixels(pictures)


class AdapterModel(nn.Module):
    """The trained parts of a pipeline with an adapter; its state is theirs alone.

    Args:
        grey: latent tokens (1, tokens, values) of a picture that shows nothing.
    """

    def __init__(self, pipeline: FluxPipeline, grey: torch.Tensor) -> None:
        super().__init__()
        self._grey = grey
        for part in (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2):
            part.requires_grad_(False)
        transformer = pipeline.transformer
        self.image_encoder = pipeline.image_encoder
        (self.projection,) = transformer.encoder_hid_proj.image_projection_layers
        self.processors = nn.ModuleList(b.attn.processor for b in transformer.transformer_blocks)
        self.requires_grad_(True)
        # in a list, they are no part of the state
        self._frozen: list[Any] = [FlowModel.of(pipeline), _double_blocks(transformer)]

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

    def imitation_loss(self, batch: Batch, *, generator: torch.Generator) -> torch.Tensor:
        """How much of what a reference does to the double-stream blocks the adapter does not do.

        What it does is the change of the generation tokens after them, from a grey picture as
        reference to this one: what any reference does would mislead the blocks that come after,
        which see none. Squared, relative to the change's own size (1 for an adapter that adds
        nothing); foreground tokens weigh more.
        """
        state = generator.get_state()

        def after(reference: torch.Tensor | None, options: dict[str, Any]) -> torch.Tensor:
            generator.set_state(state)  # the same noise, times and guidance
            shown = batch if reference is None else replace(batch, reference=reference)
            given, _ = self._frozen[0].inputs(
                shown, with_reference=reference is not None, generator=generator
            )
            return self._after_double_blocks(given, batch.target.shape[1], options)

        with torch.no_grad():
            grey = self._grey.expand_as(batch.reference)
            change = after(batch.reference, NO_IMAGE) - after(grey, NO_IMAGE)
            wanted = after(None, NO_IMAGE) + change
        weights = (1 + FOREGROUND_WEIGHT * batch.foreground)[..., None]
        error = (after(None, self._shown(batch)) - wanted).square() * weights
        return error.mean() / (change.square() * weights).mean()

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

    def _after_double_blocks(
        self, given: Mapping[str, torch.Tensor], tokens: int, options: dict[str, Any]
    ) -> torch.Tensor:
        """Generation tokens (batch, tokens, width), float32."""
        _, double = self._frozen
        kept: list[torch.Tensor] = []
        hook = double.transformer_blocks[-1].register_forward_hook(
            lambda _, __, output: kept.append(output[1])
        )
        try:
            double(**given, joint_attention_kwargs=options, return_dict=False)
        finally:
            hook.remove()
        return kept[0][:, :tokens].float()


def _double_blocks(transformer: nn.Module) -> nn.Module:
    """The transformer without its single-stream blocks; all other parts are its own."""
    found = copy.copy(transformer)
    found._modules = {**transformer._modules, "single_transformer_blocks": nn.ModuleList()}
    return found
