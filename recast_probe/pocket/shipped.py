"""The 24 held-out sample references that ship with the package."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from recast_probe._utils.markup import html_table
from recast_probe._utils.notebook_picture import html_picture, together

from . import backgrounds
from .scenes import Placement, View, at, middle_placement, spot_off_centre
from .subjects import held_out

SAMPLES = Path(__file__).parent / "samples"
COUNT = 24
IN_PLACE, MOVED = "in place", "moved"
KINDS = (IN_PLACE, MOVED, IN_PLACE, MOVED)


@dataclass(frozen=True, eq=False)
class Sample:
    """A reference picture of a held-out subject, with its true mask and prompts to try.

    The subject is in the middle of the reference, medium or large. Four prompts take turns:
    `kinds[i]` is "in place" where `prompts[i]` keeps the subject where it is before another
    background, and "moved" where it puts it to another spot, too, in the same size.
    `target_masks[i]`, bool (128, 128), says where the subject should then stand in the output.

    Examples:
        >>> sample = samples()[0]
        >>> sample.image.size, sample.mask.shape, sample.kinds[:2]
        ((128, 128), (128, 128), ('in place', 'moved'))
    """

    name: str
    subject: str
    image: Image.Image
    mask: np.ndarray
    prompts: tuple[str, ...]
    target_masks: tuple[np.ndarray, ...]
    kinds: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Sample({self.name!r}, {self.subject}, {len(self.prompts)} prompts)"

    def _repr_html_(self) -> str:
        dimmed = np.where(self.mask[..., None], np.asarray(self.image), 0)
        pictures = (
            html_picture(self.image, self.subject),
            html_picture(Image.fromarray(dimmed.astype(np.uint8)), "its mask"),
        )
        prompts = [
            (number, *each)
            for number, each in enumerate(zip(self.prompts, self.kinds, strict=True))
        ]
        return together(*pictures, html_table(repr(self), prompts, ("", "prompt", "subject")))


@lru_cache(maxsize=1)
def samples() -> tuple[Sample, ...]:
    """All shipped samples, in a fixed order.

    Examples:
        >>> len(samples())
        24
    """
    loaded = []
    for entry in json.loads((SAMPLES / "samples.json").read_text()):
        image = Image.open(SAMPLES / f"{entry['name']}.png").convert("RGB")
        mask = np.asarray(Image.open(SAMPLES / f"{entry['name']}.mask.png")) > 127
        targets = entry["targets"]
        loaded.append(
            Sample(
                entry["name"],
                entry["subject"],
                image,
                mask,
                prompts=tuple(each["prompt"] for each in targets),
                # of the same size, it stays inside the picture
                target_masks=tuple(np.roll(mask, each["shift"], (0, 1)) for each in targets),
                kinds=tuple(each["kind"] for each in targets),
            )
        )
    return tuple(loaded)


def write_samples(folder: Path = SAMPLES, seed: int = 2026) -> None:
    """Draw the samples again: the first 24 held-out subjects on photographs and walls."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for index, (subject, view, targets) in enumerate(drawn(seed)):
        name = f"{index:02d}-{re.sub('[^a-z0-9]+', '-', subject)}"
        pixels, alpha = view.render()
        Image.fromarray(pixels).save(folder / f"{name}.png", optimize=True)
        mask = ((alpha > 0.5) * 255).astype(np.uint8)
        Image.fromarray(mask).save(folder / f"{name}.mask.png", optimize=True)
        here = view.placement
        entries.append(
            {
                "name": name,
                "subject": subject,
                "place": view.place,
                "targets": [
                    {
                        "kind": kind,
                        "prompt": prompt,
                        "place": target.place,
                        "shift": [
                            target.placement.top - here.top,
                            target.placement.left - here.left,
                        ],
                    }
                    for kind, (prompt, target) in zip(KINDS, targets, strict=True)
                ],
            }
        )
    text = json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
    (folder / "samples.json").write_text(text)


def drawn(seed: int = 2026) -> Iterator[tuple[str, View, list[tuple[str, View]]]]:
    """Each sample's subject, its reference, and its prompts with their true answers."""
    places = [*backgrounds.PHOTOS, "the sky", "snow", "sand", "a blue wall", "a yellow wall"]
    for index, subject in enumerate(held_out()[:COUNT]):
        rng = np.random.default_rng((seed, index))
        place, *others = (str(p) for p in rng.choice(places, 1 + len(KINDS), replace=False))
        placement, size = middle_placement(rng)
        view = View(subject, placement, place, int(rng.integers(2**31)))
        targets = []
        for kind, new in zip(KINDS, others, strict=True):
            target = replace(view, place=new, place_seed=int(rng.integers(2**31)))
            if kind == IN_PLACE:
                prompt = f"keep the {subject.name} where it is, {at(new)}"
            else:
                row, column = spot_off_centre(rng)
                target = replace(target, placement=Placement.named(size, row, column))
                prompt = f"move the {subject.name} to the {row} {column}, {size}, {at(new)}"
            targets.append((prompt, target))
        yield subject.name, view, targets
