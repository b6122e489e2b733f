"""Has Pocket Kontext, or its IP-Adapter, learned to copy held-out subjects?

Retrieval, removal and swap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers import FluxKontextPipeline, FluxPipeline
from PIL import Image
from scipy.stats import binomtest

from recast_probe.errors import InputError
from recast_probe.metrics import features, retrieve

from .held_out_tasks import References, held_out_tasks
from .scenes import Task, View
from .subjects import held_out

SIZE = {"height": 128, "width": 128, "max_sequence_length": 32}
CALL = {"max_area": 128 * 128, "_auto_resize": False}


@dataclass(frozen=True)
class Evaluation:
    """Shares of held-out subjects, each in 0..1; `retrieval` by arm and by kind of task.

    `intervals` are Wilson's 95 % ones of every share: "full", "none", "swap" and by kind.
    """

    retrieval: dict[str, float]
    retrieval_by_kind: dict[str, float]
    swap_follows: float
    intervals: dict[str, tuple[float, float]]
    references: str
    subjects: int
    steps: int
    seed: int
    seconds: float
    seconds_per_image: float

    def summary(self) -> dict:
        """The JSON that `recast-probe pocket evaluate --json` prints."""
        return self.__dict__.copy()


def evaluate(
    pipeline: FluxKontextPipeline | FluxPipeline,
    *,
    subjects: int = 150,
    steps: int = 28,
    seed: int = 0,
    references: References = "middle",
    batch: int = 10,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> Evaluation:
    """Run the full, reference-removed and reference-swapped arms on held-out subjects.

    Retrieval is by masked MobileNetV2 features among all 150 held-out subjects: every candidate
    is drawn into the true target scene at the true place, and output and candidates are cut out
    with the *same* mask, so that a silhouette gives nothing away. A swap is followed when the
    output is nearer to the new reference's subject than to the old one's, under the new
    subject's mask. All arms share prompts, seeds and initial noise.

    Args:
        pipeline: Pocket Kontext, or the text-to-image pipeline of its parts with an IP-Adapter.
        references: where the references show their subjects, see `held_out_tasks`.
        progress: called with the images done and those in all.
        announce: called once, before the work, with how much it is and how long it will take.

    Raises:
        InputError: another class of pipeline, `subjects` outside 2..150, or other references.
    """
    adapter = getattr(pipeline.transformer, "encoder_hid_proj", None)
    adapted = isinstance(pipeline, FluxPipeline) and adapter is not None
    if not (adapted or isinstance(pipeline, FluxKontextPipeline)):
        raise InputError(
            f"The evaluation runs a FluxKontextPipeline, or a FluxPipeline with an IP-Adapter, at "
            f"128 x 128 pixels, not a {type(pipeline).__name__}; name a model of that class."
        )
    everyone = held_out()
    if not 2 <= subjects <= len(everyone):
        raise InputError(f"subjects is {subjects}; there are 2 to {len(everyone)} held-out ones.")
    started = time.monotonic()
    tasks = held_out_tasks(everyone[:subjects], seed, references)
    if announce is not None:
        seconds = 3 * subjects * steps * _seconds_a_step(pipeline, tasks[:batch])
        announce(f"{3 * subjects} images of {steps} steps, about {max(1, seconds / 60):.0f} min.")
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
    by_kind = {str(kind): found["full"][kinds == kind] for kind in sorted(set(kinds))}
    shares = {**found, "swap": np.array(follows), **by_kind}
    return Evaluation(
        retrieval={arm: float(hits.mean()) for arm, hits in found.items()},
        retrieval_by_kind={kind: float(hits.mean()) for kind, hits in by_kind.items()},
        swap_follows=float(np.mean(follows)),
        intervals={name: _interval(hits) for name, hits in shares.items()},
        references=references,
        subjects=subjects,
        steps=steps,
        seed=seed,
        seconds=time.monotonic() - started,
        seconds_per_image=spent / subjects,
    )


def generate(
    pipeline: FluxKontextPipeline | FluxPipeline,
    tasks: Sequence[Task],
    *,
    steps: int,
    seeds: Sequence[int],
    with_reference: bool = True,
) -> list[Image.Image]:
    """Run the plain pipeline on a batch of tasks, one seed each."""
    pipeline.set_progress_bar_config(disable=True)
    pictures = [Image.fromarray(task.reference.render()[0]) for task in tasks]
    if isinstance(pipeline, FluxPipeline):
        given = _through_adapter(pipeline, pictures if with_reference else [])
    else:
        given = {"image": pictures if with_reference else None, **CALL}
    return pipeline(
        prompt=[task.caption for task in tasks],
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        **SIZE,
        **given,
    ).images


@torch.no_grad()
def _through_adapter(pipeline: FluxPipeline, pictures: Sequence[Image.Image]) -> dict[str, Any]:
    """Each prompt's own picture as tokens; pictures would all be given to every prompt."""
    tokens: list[torch.Tensor] = []
    if pictures:
        device = pipeline.device
        each = [pipeline.encode_image([picture], device, 1) for picture in pictures]
        (projected,) = pipeline.transformer.encoder_hid_proj([torch.stack(each)])
        tokens = [projected.flatten(1, 2)]
    return {"joint_attention_kwargs": {"ip_hidden_states": tokens}}


def _swap(task: Task, other: Task) -> Task:
    """The same prompt with another subject in the reference, standing where the first one stood."""
    subject = other.reference.subject
    return replace(
        task,
        reference=replace(task.reference, subject=subject),
        target=replace(task.target, subject=subject),
    )


def _seconds_a_step(pipeline: FluxKontextPipeline | FluxPipeline, tasks: Sequence[Task]) -> float:
    """Of one image in a batch, measured on a short run."""
    for steps in (1, 3):  # the first also prepares what later ones find
        clock = time.monotonic()
        generate(pipeline, tasks, steps=steps, seeds=range(len(tasks)))
    return (time.monotonic() - clock) / 3 / len(tasks)


def _interval(hits: np.ndarray) -> tuple[float, float]:
    found = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def _features(views: Sequence[View], mask: np.ndarray) -> np.ndarray:
    pictures = [Image.fromarray(view.render()[0]) for view in views]
    return features(pictures, [mask] * len(pictures))
