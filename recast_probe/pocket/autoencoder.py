"""Training of the small autoencoder, and the normalisation of its latents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from .scenes import sample_task
from .subjects import Subject

CROP = 64
LATENT_NOISE = 0.05


def train_autoencoder(
    autoencoder: AutoencoderKL,
    subjects: list[Subject],
    *,
    steps: int,
    batch: int = 4,
    learning_rate: float = 2e-3,
    joint_from: float = 0.5,
    seed: int = 0,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> None:
    """Fit reconstruction of 64-pixel crops of scenes, then normalise the latents in place.

    Until `joint_from` of the steps, encoder and decoder are fitted apart, to and from the
    whitened principal components of 4 x 4 pixel patches: a start that took joint training ten
    times as long to find. After that they are trained together, the latents held near it. A
    small fixed latent noise (standard deviation 0.05) makes the decoder tolerant.
    """
    torch.manual_seed(seed)
    autoencoder.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(
        autoencoder.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=steps, pct_start=0.02
    )
    crops = _crops(subjects, np.random.default_rng(seed))
    latent_channels = autoencoder.config.latent_channels
    sample = torch.stack([next(crops) for _ in range(600)])
    mean, basis = (part.to(device) for part in _principal_components(sample, latent_channels))
    started, smoothed = time.monotonic(), None
    for step in range(steps):
        pixels = torch.stack([next(crops) for _ in range(batch)]).to(device)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        components = functional.conv2d(functional.pixel_unshuffle(pixels, 4) - mean, basis)
        posterior = autoencoder.encode(pixels).latent_dist
        joint = step >= joint_from * steps
        latents = posterior.mean if joint else components
        noise = LATENT_NOISE * torch.randn_like(latents)
        error = autoencoder.decode(latents + noise).sample - pixels
        square = error.square().mean()
        anchor = (posterior.mean - components).square().mean()
        spread = (posterior.logvar - 2 * np.log(LATENT_NOISE)).square().mean()
        fit = 3 * square + (0.1 * error.abs().mean() if joint else 0)
        loss = fit + (0.02 if joint else 1.0) * anchor + 1e-3 * spread
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        smoothed = square.item() if smoothed is None else 0.98 * smoothed + 0.02 * square.item()
        if step % 100 == 0 or step == steps - 1:
            log(
                f"autoencoder {step}/{steps}: PSNR {10 * np.log10(4 / smoothed):.2f} dB, "
                f"{time.monotonic() - started:.0f} s"
            )
    autoencoder.eval()
    normalise_latents(autoencoder, subjects, seed=seed, device=device)


def _principal_components(pictures: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (1, 48, 1, 1) and whitening filters (count, 48, 1, 1) of 4 x 4 x 3 patches."""
    patches = functional.pixel_unshuffle(pictures, 4).permute(0, 2, 3, 1).flatten(0, 2)
    mean = patches.mean(0)
    covariance = torch.cov((patches - mean).T.double())
    values, vectors = torch.linalg.eigh(covariance)
    whitening = (vectors[:, -count:] / values[-count:].sqrt()).T.float()
    return mean[None, :, None, None], whitening[:, :, None, None]


@torch.no_grad()
def normalise_latents(
    autoencoder: AutoencoderKL,
    subjects: list[Subject],
    *,
    seed: int = 0,
    device: str = "cpu",
    pictures: int = 128,
) -> None:
    """Give every latent channel mean 0 and variance 1, folded into the two 1 x 1 convolutions.

    The autoencoder's function is unchanged; the flow model sees channels of equal weight.
    """
    rng = np.random.default_rng(seed + 1)
    pixels = torch.stack([to_tensor(_picture(subjects, rng)) for _ in range(pictures)])
    latents = torch.cat(
        [autoencoder.encode(part.to(device)).latent_dist.mean for part in pixels.split(16)]
    )
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = mean.shape[0]
    encode, decode = autoencoder.quant_conv, autoencoder.post_quant_conv
    encode.weight[:channels] /= deviation[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / deviation
    encode.bias[channels:] -= 2 * deviation.log()
    decode.bias += (decode.weight[..., 0, 0] * mean).sum(1)
    decode.weight *= deviation[None, :, None, None]


@torch.no_grad()
def reconstruction_psnr(autoencoder: AutoencoderKL, pictures: list[np.ndarray]) -> float:
    """Peak signal-to-noise ratio in dB over uint8 pictures."""
    pixels = torch.stack([to_tensor(picture) for picture in pictures])
    restored = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mean).sample
    return float(10 * torch.log10(4 / functional.mse_loss(restored.clamp(-1, 1), pixels)))


def to_tensor(picture: np.ndarray) -> torch.Tensor:
    """uint8 (height, width, 3) to float32 (3, height, width) in -1..1, as the pipeline does."""
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1


def _picture(subjects: list[Subject], rng: np.random.Generator) -> np.ndarray:
    task = sample_task(subjects, rng)
    return (task.target if rng.random() < 0.5 else task.reference).render()[0]


def _crops(subjects: list[Subject], rng: np.random.Generator) -> Iterator[torch.Tensor]:
    while True:
        pixels = to_tensor(_picture(subjects, rng))
        for _ in range(2):
            top, left = (int(edge) for edge in rng.integers(0, pixels.shape[1] - CROP + 1, 2))
            yield pixels[:, top : top + CROP, left : left + CROP]
        small = functional.interpolate(pixels[None], scale_factor=0.5, mode="area")[0]
        yield small
