"""One editing task for each held-out subject, in the domain that was trained or a harder one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from recast_probe.errors import InputError

from .backgrounds import choose
from .scenes import (
    COLUMNS,
    ROWS,
    Placement,
    Task,
    View,
    background_caption,
    middle_placement,
    new_scene_caption,
    spot_off_centre,
)
from .subjects import Subject

References = Literal["middle", "anywhere"]
REFERENCES: tuple[References, ...] = get_args(References)


def held_out_tasks(
    subjects: Sequence[Subject], seed: int, references: References = "middle"
) -> list[Task]:
    """One task a subject, half of them in place on a new background, half in a new scene.

    Captions say "the subject", never its name, so that only the reference can tell which it is.

    Args:
        seed: decides scenes and captions.
        references: "middle": the reference shows its subject in the middle, medium or large, and
            in a new scene it stands at one of the eight other spots in the same size, as in
            training. "anywhere": it stands at any of the nine spots and is moved and resized.

    Raises:
        InputError: other references.
    """
    check_references(references)
    tasks = []
    for index, subject in enumerate(subjects):
        rng = np.random.default_rng((seed, index))
        place, new_place = choose(rng), choose(rng)
        while new_place == place:
            new_place = choose(rng)
        seeds = [int(s) for s in rng.integers(0, 2**31, 2)]
        if references == "middle":
            placement, size = middle_placement(rng)
            row, column = spot_off_centre(rng)
        else:
            placement = Placement.named(*_spot(rng))
            size, row, column = _spot(rng)
        reference = View(subject, placement, place, seeds[0])
        target = replace(reference, place=new_place, place_seed=seeds[1])
        if index % 2 == 0:
            caption = background_caption("the subject", new_place, rng)
        else:
            target = replace(target, placement=Placement.named(size, row, column))
            caption = new_scene_caption("the subject", new_place, size, f"{row} {column}", rng)
        tasks.append(Task("new scene" if index % 2 else "background", reference, target, caption))
    return tasks


def check_references(references: str) -> None:
    """Refuse all but `REFERENCES`.

    Raises:
        InputError: other references.
    """
    if references not in REFERENCES:
        raise InputError(f"references={references!r}: choose {' or '.join(REFERENCES)}.")


def _spot(rng: np.random.Generator) -> tuple[str, str, str]:
    size = str(rng.choice(["medium", "large"]))
    return size, str(rng.choice(ROWS)), str(rng.choice(COLUMNS))
