"""Identity lost against time saved: `python -m benchmarks.quality`.

`accelerate`, the caches of diffusers and of cache-dit, and fewer steps make the same images of
Pocket Kontext's held-out subjects on the plain pipeline, from the same noise, one after the other
for every subject. Time is the full run's over a way's, subject by subject, in seconds of one
processor core, which other programs hardly change; identity is the way's minus the full run's. Both
have paired intervals over subjects.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

import recast_probe as rp
from benchmarks.command import finish, parse_for_cpu, parser
from benchmarks.peers import first_block_cache, mag_cache, open_context
from benchmarks.timing import Row
from recast_probe._utils.ending import run_program
from recast_probe.figures.style import INK, PALETTE, chart, house_style
from recast_probe.metrics import IdentityScorer
from recast_probe.pocket.bench import BenchCase, pocket_bench
from recast_probe.studies import compare, means
from recast_probe.studies.scored_area import scored_area

FULL = "full"
USUAL_STEPS = 28
FEWER = (20, 14, 10)  # of these
THRESHOLDS = (0.08, 0.16, 0.24)


@dataclass(frozen=True)
class Way:
    """A way to save work.

    Attributes:
        applied: given the pipeline and the number of steps, a context in which images are made.
        steps: of the run, where they are fewer.
        leaves_traces: the pipeline is not as it was afterwards, so it gets one of its own.
    """

    applied: Callable[[Any, int], AbstractContextManager[Any]]
    steps: int | None = None
    leaves_traces: bool = False


def ways(tokens: int, steps: int) -> dict[str, Way]:
    """Every way by name, its kind before the colon.

    Args:
        tokens: of the reference.
        steps: of the full run.
    """
    fewer = dict.fromkeys(max(1, round(count * steps / USUAL_STEPS)) for count in FEWER)

    def accelerated(*method: Any) -> Way:
        return Way(lambda pipe, steps: rp.accelerate(pipe, *method))

    def first_block(threshold: float) -> Way:
        return Way(
            lambda pipe, steps: open_context(pipe, first_block_cache(pipe, steps, threshold))
        )

    return {
        FULL: Way(lambda pipe, steps: nullcontext()),
        **{
            f"fewer steps: {count}": Way(lambda pipe, steps: nullcontext(), count)
            for count in fewer
        },
        "accelerate: as it is": accelerated(),
        "accelerate: and 5 of 7 steps": accelerated("reuse+step-cache"),
        **{
            f"accelerate: ReCAST, {tokens // part} tokens": accelerated("recast", tokens // part)
            for part in (2, 4)
        },
        "MagCache: FLUX's ratios": Way(mag_cache),
        **{f"FirstBlockCache: {each}": first_block(each) for each in THRESHOLDS},
        **{
            f"cache-dit F1B0: {each}": Way(
                lambda pipe, steps, each=each: _cache_dit(pipe, steps, each), leaves_traces=True
            )
            for each in THRESHOLDS
        },
    }


@contextmanager
def _cache_dit(pipe: Any, steps: int, threshold: float) -> Iterator[None]:
    """The first block is computed, and the others where it changed by more than the threshold."""
    module = importlib.import_module("cache_dit")
    module.enable_cache(
        pipe,
        cache_config=module.DBCacheConfig(
            Fn_compute_blocks=1, Bn_compute_blocks=0, residual_diff_threshold=threshold
        ),
    )
    try:
        yield
    finally:
        module.disable_cache(pipe)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Make every image, then print what each way loses and gains."""
    found = parser(__doc__, repeats=None)
    found.add_argument("--subjects", type=int, default=20)
    found.add_argument("--steps", type=int, default=28)
    found.add_argument("--figure", type=Path, help="write the picture into this file")
    options = parse_for_cpu(found, arguments)
    torch.set_num_threads(1)
    cases = pocket_bench(options.subjects, prompts=1, seed=options.seed)
    probe = rp.Probe.pocket()
    probe.pipe.set_progress_bar_config(disable=True)
    chosen = ways(probe.layout(cases[0].reference).reference_tokens, options.steps)
    failed: dict[str, str] = {}
    bench = Bench(probe, options.steps)
    for name in list(chosen):  # a turn that warms up
        try:
            bench.make(cases[0], name, chosen[name])
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"[:500]
            del chosen[name]
    table = measure(bench, cases, chosen)
    rows = summary(table, options.seed)
    if options.figure:
        picture = draw(rows, len(cases))
        options.figure.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(options.figure)
    rows |= {name: {"error": why} for name, why in failed.items()}
    facts = {"model": probe.name, "cases": len(cases), "failed": failed, "arms": rows}
    return finish(options, facts, FULL)


class Bench:
    """Pipelines that make the images of one comparison."""

    def __init__(self, probe: rp.Probe, steps: int) -> None:
        self.probe, self.steps = probe, steps
        self._own: dict[str, Any] = {}

    def make(self, case: BenchCase, name: str, way: Way) -> tuple[Image.Image, float]:
        """An image, and the processor's seconds of the pipeline's call."""
        pipe, count = self.probe.pipe, self.steps
        if way.leaves_traces:
            if name not in self._own:
                self._own[name] = rp.Probe.pocket().pipe
                self._own[name].set_progress_bar_config(disable=True)
            pipe = self._own[name]
        if way.steps is not None:
            count = way.steps
        call = self.probe.pipeline_arguments(case.reference, case.prompt, count, case.seed)
        with torch.no_grad(), way.applied(pipe, count):
            started = time.process_time()
            image = pipe(**call).images[0]
            return image, time.process_time() - started


def measure(bench: Bench, cases: Sequence[BenchCase], chosen: dict[str, Way]) -> pd.DataFrame:
    """A row for each case and way: identity, seconds, and the full run's seconds over these."""
    scorer, rows = IdentityScorer(), []
    for case in cases:
        made = {name: bench.make(case, name, way) for name, way in chosen.items()}
        full, base = made[FULL]
        for name, (image, seconds) in made.items():
            area = scored_area(case, image, full, None)
            score = scorer.score(image, area.output, area.picture, area.wanted)
            rows.append(
                {
                    "subject": case.subject,
                    "prompt": case.prompt,
                    "arm": name,
                    "identity": score["mobilenet"],
                    "seconds": seconds,
                    "speed_up": base / seconds,
                }
            )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, seed: int) -> dict[str, Row]:
    """By way: seconds, speed-up and lost identity, the last two with 95 % intervals."""
    faster, lost = means(table, "speed_up", seed=seed), compare(table, "identity", FULL, seed=seed)
    rows: dict[str, Row] = {}
    for name, group in table.groupby("arm", sort=False):
        seconds = group["seconds"]
        rows[str(name)] = {
            "median_seconds": float(seconds.median()),
            "interquartile_seconds": float(seconds.quantile(0.75) - seconds.quantile(0.25)),
            "speed_up": float(faster.loc[name, "mean"]),
            "speed_up_interval": [float(faster.loc[name, end]) for end in ("low", "high")],
        }
        if name != FULL:
            difference = lost.loc[name, ["difference", "low", "high"]]
            rows[str(name)]["identity_minus_full"] = [float(each) for each in difference]
    return rows


def draw(rows: Mapping[str, Row], subjects: int) -> Figure:
    """Identity minus the full run's against the speed-up; a colour a kind."""
    kinds = dict.fromkeys(name.partition(":")[0] for name in rows if name != FULL)
    with house_style():
        figure = chart(
            8.4,
            4.4,
            title="What a speed-up costs in identity",
            note="Means with paired 95 % intervals over subjects; further right and higher is "
            "better.",
            selection=f"Pocket Kontext, {subjects} subjects, plain pipeline",
        )
        axes = figure.subplots()
        for number, (kind, colour) in enumerate(zip(kinds, PALETTE, strict=False)):
            own = {n: row for n, row in rows.items() if n.partition(":")[0] == kind}
            speed = np.array([row["speed_up"] for row in own.values()])
            ends = np.array([row["speed_up_interval"] for row in own.values()]).T
            lost, low, high = np.array([row["identity_minus_full"] for row in own.values()]).T
            axes.errorbar(
                speed,
                lost,
                yerr=np.stack([lost - low, high - lost]),
                xerr=np.stack([speed - ends[0], ends[1] - speed]),
                fmt="o",
                color=colour,
                label=kind,
                elinewidth=0.9,
            )
            for name, x, y in zip(own, speed, lost, strict=True):
                axes.annotate(
                    name.partition(": ")[2],
                    (x, y),
                    (4, -9 if number % 2 else 4),
                    textcoords="offset points",
                    size=7,
                    color=colour,
                )
        axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="Speed-up in processor time", ylabel="Identity minus the full run's")
        axes.xaxis.set_major_formatter("{x:g}x")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


if __name__ == "__main__":
    run_program(main, "quality")
