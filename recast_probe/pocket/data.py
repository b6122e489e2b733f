"""Training batches: composed tasks, encoded once and used a few times with fresh noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from .architecture import TOKEN_PIXELS, pack
from .autoencoder import to_tensor
from .scenes import sample_task
from .subjects import Subject


@dataclass
class Batch:
    """Latent tokens (batch, tokens, values), foreground share of each target token, captions."""

    reference: torch.Tensor
    target: torch.Tensor
    foreground: torch.Tensor
    captions: list[str]


class TaskStream(IterableDataset):
    """An endless stream of rendered tasks at `pixels` x `pixels`, different in every worker."""

    def __init__(self, subjects: list[Subject], pixels: int, seed: int) -> None:
        self.subjects, self.pixels, self.seed = subjects, pixels, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            task = sample_task(self.subjects, rng)
            reference, _ = task.reference.render()
            target, mask = task.target.render()
            pictures = torch.stack([to_tensor(reference), to_tensor(target)])
            pictures = functional.interpolate(pictures, size=(self.pixels,) * 2, mode="area")
            side = self.pixels // TOKEN_PIXELS
            share = functional.adaptive_avg_pool2d(torch.from_numpy(mask)[None], (side, side))
            yield pictures[0], pictures[1], share.flatten(), task.caption


class LatentPool:
    """Encoded tasks, each drawn about `reuse` times before it is replaced.

    Composing and encoding cost more than a step of the small grid on a CPU; fresh noise and
    timesteps make a task worth seeing again.
    """

    def __init__(
        self,
        autoencoder: AutoencoderKL,
        subjects: list[Subject],
        *,
        pixels: int,
        batch: int,
        capacity: int,
        reuse: int,
        seed: int,
        workers: int,
        device: str,
    ) -> None:
        loader = DataLoader(
            TaskStream(subjects, pixels, seed),
            batch_size=batch,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self._tasks = iter(loader)
        self._autoencoder, self._device = autoencoder, device
        self._rng = np.random.default_rng((seed, 1))
        self._batches: list[Batch] = []
        self._capacity, self._reuse, self._draws = max(1, capacity // batch), reuse, 0

    def draw(self) -> Batch:
        """A batch mixed from the whole pool."""
        if len(self._batches) < min(8, self._capacity) or self._draws % self._reuse == 0:
            self._refill()
        self._draws += 1
        size = len(self._batches[0].captions)
        picks = [
            divmod(int(i), size) for i in self._rng.integers(len(self._batches) * size, size=size)
        ]

        def mixed(field: str) -> torch.Tensor:
            return torch.stack([getattr(self._batches[b], field)[i] for b, i in picks])

        captions = [self._batches[b].captions[i] for b, i in picks]
        return Batch(mixed("reference"), mixed("target"), mixed("foreground"), captions)

    @torch.no_grad()
    def _refill(self) -> None:
        reference, target, foreground, captions = next(self._tasks)
        pictures = torch.cat([reference, target]).to(self._device)
        latents = self._autoencoder.encode(pictures).latent_dist.mean.float()
        references, targets = pack(latents).chunk(2)
        self._batches.append(
            Batch(references, targets, foreground.to(self._device), list(captions))
        )
        if len(self._batches) > self._capacity:
            self._batches.pop(int(self._rng.integers(len(self._batches) // 2)))
