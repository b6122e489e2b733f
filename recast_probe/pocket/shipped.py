"""The 24 held-out sample references that ship with the package."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from . import backgrounds
from .scenes import COLUMNS, ROWS, Placement, View
from .subjects import held_out

SAMPLES = Path(__file__).parent / "samples"
COUNT = 24


@dataclass(frozen=True, eq=False)
class Sample:
    """A reference picture of a held-out subject, with its true mask and prompts to try.

    Every prompt keeps the subject where it is, so `target_masks[i]`, bool (128, 128), says where
    the subject should stand in the output for `prompts[i]`.
    """

    name: str
    subject: str
    image: Image.Image
    mask: np.ndarray
    prompts: tuple[str, ...]
    target_masks: tuple[np.ndarray, ...]


@lru_cache(maxsize=1)
def samples() -> tuple[Sample, ...]:
    """All shipped samples, in a fixed order."""
    loaded = []
    for entry in json.loads((SAMPLES / "samples.json").read_text()):
        image = Image.open(SAMPLES / f"{entry['name']}.png").convert("RGB")
        mask = np.asarray(Image.open(SAMPLES / f"{entry['name']}.mask.png")) > 127
        prompts = tuple(entry["prompts"])
        loaded.append(
            Sample(entry["name"], entry["subject"], image, mask, prompts, (mask,) * len(prompts))
        )
    return tuple(loaded)


def write_samples(folder: Path = SAMPLES, seed: int = 2026) -> None:
    """Draw the samples again: 24 held-out subjects on photographs and walls."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    places = [*backgrounds.PHOTOS, "the sky", "snow", "sand", "a blue wall", "a yellow wall"]
    for index, subject in enumerate(held_out()[:COUNT]):
        rng = np.random.default_rng((seed, index))
        place, *others = (str(p) for p in rng.choice(places, 4, replace=False))
        placement = Placement.named(
            str(rng.choice(["medium", "large"])), str(rng.choice(ROWS)), str(rng.choice(COLUMNS))
        )
        view = View(subject, placement, place, int(rng.integers(2**31)))
        pixels, alpha = view.render()
        name = f"{index:02d}-{re.sub('[^a-z0-9]+', '-', subject.name)}"
        Image.fromarray(pixels).save(folder / f"{name}.png", optimize=True)
        mask = ((alpha > 0.5) * 255).astype(np.uint8)
        Image.fromarray(mask).save(folder / f"{name}.mask.png", optimize=True)
        prompts = [
            f"keep the {subject.name} where it is, "
            f"{'in front of' if 'wall' in p or p == 'the sky' else 'on'} {p}"
            for p in others
        ]
        entries.append({"name": name, "subject": subject.name, "place": place, "prompts": prompts})
    text = json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
    (folder / "samples.json").write_text(text)
