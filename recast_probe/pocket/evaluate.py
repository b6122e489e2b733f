"""Has Pocket Kontext learned to copy held-out subjects? Retrieval, removal and swap."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import FluxKontextPipeline
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.metrics import features, retrieve

from .backgrounds import choose
from .scenes import (
    COLUMNS,
    ROWS,
    Placement,
    Task,
    View,
    background_caption,
    new_scene_caption,
)
from .subjects import Subject, held_out

CALL = {"max_area": 128 * 128, "_auto_resize": False, "max_sequence_length": 32}


@dataclass(frozen=True)
class Evaluation:
    """Shares of held-out subjects, each in 0..1; `retrieval` by arm and by kind of task."""

    retrieval: dict[str, float]
    retrieval_by_kind: dict[str, float]
    swap_follows: float
    subjects: int
    steps: int
    seed: int
    seconds: float
    seconds_per_image: float

    def summary(self) -> dict:
        """The JSON that `recast-probe pocket evaluate --json` prints."""
        return self.__dict__.copy()


def held_out_tasks(subjects: Sequence[Subject], seed: int) -> list[Task]:
    """One task a subject, half of them in place on a new background, half in a new scene.

    Captions say "the subject", never its name, so that only the reference can tell which it is.
    """
    tasks = []
    for index, subject in enumerate(subjects):
        rng = np.random.default_rng((seed, index))
        place, new_place = choose(rng), choose(rng)
        while new_place == place:
            new_place = choose(rng)
        seeds = [int(s) for s in rng.integers(0, 2**31, 2)]
        (size, row, column), (new_size, new_row, new_column) = (_spot(rng), _spot(rng))
        reference = View(subject, Placement.named(size, row, column), place, seeds[0])
        target = replace(reference, place=new_place, place_seed=seeds[1])
        if index % 2 == 0:
            caption = background_caption("the subject", new_place, rng)
        else:
            target = replace(target, placement=Placement.named(new_size, new_row, new_column))
            spot = f"{new_row} {new_column}"
            caption = new_scene_caption("the subject", new_place, new_size, spot, rng)
        tasks.append(Task("new scene" if index % 2 else "background", reference, target, caption))
    return tasks


def evaluate(
    pipeline: FluxKontextPipeline,
    *,
    subjects: int = 150,
    steps: int = 28,
    seed: int = 0,
    batch: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run the full, reference-removed and reference-swapped arms on held-out subjects.

    Retrieval is by masked MobileNetV2 features among all 150 held-out subjects: every candidate
    is drawn into the true target scene at the true place, and output and candidates are cut out
    with the *same* mask, so that a silhouette gives nothing away. A swap is followed when the
    output is nearer to the new reference's subject than to the old one's, under the new
    subject's mask. All arms share prompts, seeds and initial noise.

    Raises:
        InputError: `subjects` outside 2..150.
    """
    everyone = held_out()
    if not 2 <= subjects <= len(everyone):
        raise InputError(f"subjects is {subjects}; there are 2 to {len(everyone)} held-out ones.")
    started = time.monotonic()
    tasks = held_out_tasks(everyone[:subjects], seed)
    swapped = [_swap(task, tasks[(i + 1) % subjects]) for i, task in enumerate(tasks)]
    arms = {"full": tasks, "none": tasks, "swap": swapped}
    outputs: dict[str, list[Image.Image]] = {arm: [] for arm in arms}
    spent = 0.0
    for number, (arm, chosen) in enumerate(arms.items()):
        for first in range(0, subjects, batch):
            clock = time.monotonic()
            part = chosen[first : first + batch]
            outputs[arm] += generate(
                pipeline,
                part,
                steps=steps,
                seeds=[seed * 100_003 + first + i for i in range(len(part))],
                with_reference=arm != "none",
            )
            spent += time.monotonic() - clock if arm == "full" else 0
            if progress is not None:
                progress(number * subjects + min(first + batch, subjects), 3 * subjects)
    found = {"full": np.zeros(subjects, bool), "none": np.zeros(subjects, bool)}
    for index, task in enumerate(tasks):
        scene = replace(task.target, style=None)
        mask = scene.render()[1] > 0.5
        gallery = _features([replace(scene, subject=other) for other in everyone], mask)
        for arm, hits in found.items():
            query = features([outputs[arm][index]], [mask])
            hits[index] = retrieve(query, gallery, np.array([index]))[0] == 1
    follows = []
    for index, task in enumerate(swapped):
        mask = task.target.render()[1] > 0.5
        old = replace(task.target, subject=tasks[index].target.subject)
        gallery = _features([task.target, old], mask)
        query = features([outputs["swap"][index]], [mask])
        follows.append(retrieve(query, gallery, np.array([0]))[0] == 1)
    kinds = np.array([task.kind for task in tasks])
    return Evaluation(
        retrieval={arm: float(hits.mean()) for arm, hits in found.items()},
        retrieval_by_kind={str(k): float(found["full"][kinds == k].mean()) for k in set(kinds)},
        swap_follows=float(np.mean(follows)),
        subjects=subjects,
        steps=steps,
        seed=seed,
        seconds=time.monotonic() - started,
        seconds_per_image=spent / subjects,
    )


def generate(
    pipeline: FluxKontextPipeline,
    tasks: Sequence[Task],
    *,
    steps: int,
    seeds: Sequence[int],
    with_reference: bool = True,
) -> list[Image.Image]:
    """Run the plain pipeline on a batch of tasks, one seed each."""
    pipeline.set_progress_bar_config(disable=True)
    pictures = [Image.fromarray(task.reference.render()[0]) for task in tasks]
    return pipeline(
        image=pictures if with_reference else None,
        prompt=[task.caption for task in tasks],
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        height=128,
        width=128,
        **CALL,
    ).images


def _swap(task: Task, other: Task) -> Task:
    """The same prompt with another subject in the reference, standing where the first one stood."""
    subject = other.reference.subject
    return replace(
        task,
        reference=replace(task.reference, subject=subject),
        target=replace(task.target, subject=subject),
    )


def _features(views: Sequence[View], mask: np.ndarray) -> np.ndarray:
    pictures = [Image.fromarray(view.render()[0]) for view in views]
    return features(pictures, [mask] * len(pictures))


def _spot(rng: np.random.Generator) -> tuple[str, str, str]:
    size = str(rng.choice(["medium", "large"]))
    return size, str(rng.choice(ROWS)), str(rng.choice(COLUMNS))
