"""Training batches: composed tasks, encoded once and used a few times with fresh noise."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from .architecture import TOKEN_PIXELS, pack
from .autoencoder import to_tensor
from .scenes import Task, sample_task
from .subjects import Subject

Draw = Callable[[Sequence[Subject], np.random.Generator], Task]
AT_ONCE = 8  # batches that are there before the first draw


@dataclass
class Batch:
    """Latent tokens (batch, tokens, values), foreground share of each target token, captions.

    `windows` of the references, uint8 (batch, windows, 3, height, width), are what an IP-Adapter
    sees of them.
    """

    reference: torch.Tensor
    target: torch.Tensor
    foreground: torch.Tensor
    captions: list[str]
    windows: torch.Tensor | None = None


class Tasks(Dataset):
    """Rendered tasks at `pixels` x `pixels`; each is decided by the seed and its number alone."""

    def __init__(
        self, subjects: list[Subject], pixels: int, seed: tuple[int, ...], draw: Draw = sample_task
    ) -> None:
        self.subjects, self.pixels, self.seed, self.draw = subjects, pixels, seed, draw

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]:
        task = self.draw(self.subjects, np.random.default_rng((*self.seed, number)))
        reference, _ = task.reference.render()
        target, mask = task.target.render()
        pictures = torch.stack([to_tensor(reference), to_tensor(target)])
        pictures = functional.interpolate(pictures, size=(self.pixels,) * 2, mode="area")
        return pictures[0], pictures[1], foreground_share(mask, self.pixels), task.caption


def foreground_share(mask: np.ndarray, pixels: int) -> torch.Tensor:
    """How much of each token (tokens,) a mask (height, width) covers in a picture of that side."""
    side = pixels // TOKEN_PIXELS
    share = functional.adaptive_avg_pool2d(torch.from_numpy(mask)[None], (side, side))
    return share.flatten()


class LatentPool:
    """Encoded tasks, each drawn about `reuse` times before it is replaced.

    Composing and encoding cost more than a step of the small grid on a CPU; fresh noise and
    timesteps make a task worth seeing again. What a draw gives is decided by the seed and the
    draw's number, so a pool that begins at draw `drawn` goes on as if it had made all before.

    Args:
        seed: whole numbers, not negative.
        capacity: tasks held at most.
        workers: processes that compose; 0 composes in this one. The draws are the same.
        task: draws a task.
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
        seed: tuple[int, ...],
        workers: int,
        device: str,
        drawn: int = 0,
        task: Draw = sample_task,
    ) -> None:
        self._autoencoder, self._device, self._seed = autoencoder, device, seed
        self._reuse, self._draws, self._batch = reuse, drawn, batch
        self._held: deque[Batch] = deque(maxlen=max(AT_ONCE, capacity // batch))
        self._made = max(0, self._wanted() - max(AT_ONCE, capacity // batch))
        loader = DataLoader(
            Tasks(subjects, pixels, (*seed, 0), task),
            batch_size=batch,
            sampler=range(self._made * batch, 2**62),
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self._tasks = iter(loader)

    def draw(self) -> Batch:
        """A batch mixed from the whole pool."""
        while self._made < self._wanted():
            self._refill()
        rng = np.random.default_rng((*self._seed, 1, self._draws))
        self._draws += 1
        numbers = rng.integers(len(self._held) * self._batch, size=self._batch)
        picks = [divmod(int(number), self._batch) for number in numbers]

        def mixed(field: str) -> torch.Tensor:
            return torch.stack([getattr(self._held[b], field)[i] for b, i in picks])

        captions = [self._held[b].captions[i] for b, i in picks]
        windows = None if self._held[0].windows is None else mixed("windows")
        return Batch(mixed("reference"), mixed("target"), mixed("foreground"), captions, windows)

    def _wanted(self) -> int:
        """Batches that are composed, in all, before the next draw."""
        return AT_ONCE + self._draws // self._reuse

    @torch.no_grad()
    def _refill(self) -> None:
        reference, target, foreground, captions = next(self._tasks)
        reference, target = reference.to(self._device), target.to(self._device)
        latents = self._autoencoder.encode(torch.cat([reference, target])).latent_dist.mean.float()
        references, targets = pack(latents).chunk(2)
        shares = foreground.to(self._device)
        windows = self.windows_of(reference)
        self._held.append(Batch(references, targets, shares, list(captions), windows))
        self._made += 1

    def windows_of(self, pictures: torch.Tensor) -> torch.Tensor | None:
        """What batches hold of the references (batch, 3, pixels, pixels) in -1..1 as windows."""
        return None
