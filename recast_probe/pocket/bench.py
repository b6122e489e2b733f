"""PocketBench: editing tasks on held-out subjects, with the true answer to each.

The categories mirror KontextBench's. Of every subject there is one reference picture, which all
its prompts share, except where the reference's style is the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from recast_probe.errors import InputError

from .backgrounds import choose
from .held_out_tasks import References, check_references
from .scenes import (
    COLUMNS,
    ROWS,
    SIZES,
    STYLES,
    TINTS,
    Placement,
    View,
    background_caption,
    middle_placement,
    new_scene_caption,
    spot_off_centre,
)
from .subjects import Subject, held_out

CATEGORIES = ("background change", "character reference", "local edit", "style reference")


@dataclass(frozen=True, eq=False)
class BenchCase:
    """One prompt for one held-out subject.

    Attributes:
        subject: its name, unique in the benchmark.
        prompt: the instruction; subjects are called "the subject", so only the reference tells
            which it is (in "style reference" another subject is named instead).
        category: one of `CATEGORIES`.
        reference, target: what the model is given, and the true answer, 128 x 128.
        reference_mask, target_mask: where the subject is in each, bool (128, 128).
        seed: of the whole run; the same for all arms.
    """

    subject: str
    prompt: str
    category: str
    reference: Image.Image
    reference_mask: np.ndarray
    target: Image.Image
    target_mask: np.ndarray
    seed: int


def pocket_bench(
    subjects: int = 150,
    prompts: int = 3,
    categories: Sequence[str] = CATEGORIES[:3],
    seed: int = 0,
    references: References = "middle",
) -> list[BenchCase]:
    """The benchmark, the same for the same arguments.

    Args:
        subjects: how many of the 150 held-out ones.
        prompts: prompts for each, in different scenes; the categories take turns.
        categories: some of `CATEGORIES`.
        references: "middle": the subject is in the middle of its reference, medium or large, as
            in KontextBench and DreamBench++, and a "character reference" puts it to another spot
            in the same size. "anywhere": it stands at any spot and is moved and resized.

    Raises:
        InputError: a number out of range, an unknown category or other references.
    """
    check_references(references)
    everyone = held_out()
    if not 1 <= subjects <= len(everyone) or prompts < 1:
        raise InputError(
            f"PocketBench has 1 to {len(everyone)} subjects with at least 1 prompt each, got "
            f"{subjects} and {prompts}."
        )
    unknown = [name for name in categories if name not in CATEGORIES]
    if unknown or not categories:
        raise InputError(
            f"categories={list(categories)!r}: choose some of {', '.join(CATEGORIES)}."
        )
    cases = []
    for index, subject in enumerate(everyone[:subjects]):
        rng = np.random.default_rng((seed, index))
        here = middle_placement(rng) if references == "middle" else _placement(rng)
        reference = View(subject, here[0], choose(rng), _seed(rng))
        for number in range(prompts):
            category = categories[number % len(categories)]
            noise = ((seed * 1_000_003 + index) * 1_009 + number) % 2**31
            cases.append(_case(reference, category, everyone, rng, noise, references))
    return cases


def _case(
    reference: View,
    category: str,
    everyone: Sequence[Subject],
    rng: np.random.Generator,
    seed: int,
    references: References,
) -> BenchCase:
    place = choose(rng)
    while place == reference.place:
        place = choose(rng)
    scene = replace(reference, place=place, place_seed=_seed(rng))
    if category == "background change":
        target, prompt = scene, background_caption("the subject", place, rng)
    elif category == "character reference":
        placement, size, spot = _moved(reference.placement, rng, references)
        target = replace(scene, placement=placement)
        prompt = new_scene_caption("the subject", place, size, spot, rng)
    elif category == "local edit":
        tint = str(rng.choice(TINTS))
        target, prompt = replace(reference, tint=tint), f"paint the subject {tint}"
    else:
        style = str(rng.choice(STYLES))
        others = [each for each in everyone if each is not reference.subject]
        other = others[int(rng.integers(len(others)))]
        placement, size, spot = _placement(rng)
        reference = replace(reference, style=style)
        target = replace(scene, subject=other, placement=placement, style=style)
        prompt = f"a {other.name} in this style, on {place}, {size}, {spot}"
    given, given_alpha = reference.render()
    wanted, wanted_alpha = target.render()
    return BenchCase(
        subject=f"{reference.subject.name} ({reference.subject.key})",
        prompt=prompt,
        category=category,
        reference=Image.fromarray(given),
        reference_mask=given_alpha > 0.5,
        target=Image.fromarray(wanted),
        target_mask=wanted_alpha > 0.5,
        seed=seed,
    )


def _moved(
    here: Placement, rng: np.random.Generator, references: References
) -> tuple[Placement, str, str]:
    if references == "anywhere":
        return _placement(rng)
    size = next(name for name, side in SIZES.items() if side == here.side)
    row, column = spot_off_centre(rng)
    return Placement.named(size, row, column), size, f"{row} {column}"


def _placement(rng: np.random.Generator) -> tuple[Placement, str, str]:
    size = str(rng.choice(["medium", "large"]))
    row, column = str(rng.choice(ROWS)), str(rng.choice(COLUMNS))
    return Placement.named(size, row, column), size, f"{row} {column}"


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
