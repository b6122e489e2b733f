"""Where a subject swap is decided: keys and values of another subject, by block and step.

For each pair of held-out subjects the reference shows either one or the other in the same place on
the same background; prompt and noise are the same. The map says how far patching a window of
blocks and steps moves the image from the first subject's to the second's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.experiments.causal_map import CausalMap, causal_map
from recast_probe.figures import plot_causal_map
from recast_probe.images.loading import fit_mask
from recast_probe.metrics import IdentityScorer
from recast_probe.pocket.backgrounds import choose
from recast_probe.pocket.scenes import COLUMNS, ROWS, Placement, View, background_caption
from recast_probe.pocket.subjects import held_out
from recast_probe.probe import Probe
from recast_probe.recipes.page import Page, Section
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish, open_store
from recast_probe.studies import Outcome, Unit, markdown, run_study
from recast_probe.studies.engine.options import end_of_shard, engine_options
from recast_probe.studies.resampling import bootstrap

WHAT = ("keys", "values")
SHARE = "identity share"


@dataclass(frozen=True, eq=False)
class Swap:
    """Two subjects in one place.

    Attributes:
        names: of the subjects.
        images: the references.
        masks: bool (128, 128), where the subject is in each.
        prompt: keeps the subject where it is, on another background.
    """

    names: tuple[str, str]
    images: tuple[Image.Image, Image.Image]
    masks: tuple[np.ndarray, np.ndarray]
    prompt: str
    seed: int

    def identity(self) -> Callable[[Image.Image], float]:
        """Identity of the second subject minus that of the first, masked MobileNetV2 cosines."""
        scorer, both = IdentityScorer(), self.masks[0] | self.masks[1]

        def score(image: Image.Image) -> float:
            mask = fit_mask(both, image)
            first, second = (
                scorer.score(image, mask, reference, own)["mobilenet"]
                for reference, own in zip(self.images, self.masks, strict=True)
            )
            return second - first

        return score


def swaps(count: int, seed: int) -> list[Swap]:
    """The first held-out subjects in pairs, the same for the same arguments."""
    everyone, found = held_out(), []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        place, scene = choose(rng), choose(rng)
        while scene == place:
            scene = choose(rng)
        placement = Placement.named("large", str(rng.choice(ROWS)), str(rng.choice(COLUMNS)))
        first = View(everyone[2 * number], placement, place, int(rng.integers(2**31)))
        pair = (first, replace(first, subject=everyone[2 * number + 1]))
        rendered = [view.render() for view in pair]
        found.append(
            Swap(
                (pair[0].subject.name, pair[1].subject.name),
                (Image.fromarray(rendered[0][0]), Image.fromarray(rendered[1][0])),
                (rendered[0][1] > 0.5, rendered[1][1] > 0.5),
                background_caption("the subject", scene, rng),
                int(rng.integers(2**31)),
            )
        )
    return found


def prepare(chosen: Any) -> None:
    """Check that there are as many pairs of subjects.

    Raises:
        InputError: there are not.
    """
    pairs = len(held_out()) // 2
    if chosen.subjects > pairs:
        raise InputError(
            f"--subjects {chosen.subjects} are as many swaps of two held-out subjects, and there "
            f"are {pairs} pairs: give --subjects {pairs} or fewer."
        )


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Sweep what is missing, print the table, write everything to --out."""
    window = max(1, chosen.steps // 8)
    store = open_store(chosen, probe, what=WHAT, step_window=window)
    maps: dict[str, CausalMap] = {}

    def sweep(unit: Unit) -> CausalMap:
        swap: Swap = unit.payload
        name = unit.labels["subject"]
        if name not in maps:
            maps[name] = causal_map(
                probe,
                swap.images[0],
                swap.prompt,
                swap.images[1],
                what=WHAT,
                step_window=window,
                scores={"identity": swap.identity()},
                steps=chosen.steps,
                seed=swap.seed,
                folder=chosen.out / "maps" / unit.labels["number"],
            )
        return maps[name]

    def perform(unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        found = sweep(unit)
        cost = {"runs": found.cost.runs, "seconds": found.cost.runs * found.cost.seconds_per_run}
        own, other = found.whole["identity"]
        cells = {
            f"{name} block {row['block']} step {row['step']}": float(row[name])
            for row in found.table().to_dict("records")
            for name in ("shift", SHARE)
        }
        yield Outcome(arms[0], cost | {"identity own": own, "identity source": other} | cells)

    units = [
        Unit({"number": str(number), "subject": " for ".join(swap.names[::-1])}, swap)
        for number, swap in enumerate(swaps(chosen.subjects, chosen.seed))
    ]
    table = run_study(units, ["map"], perform, store, progress=False, **engine_options(chosen))
    end_of_shard(chosen, store)
    first = sweep(units[0])
    blocks, steps = (first.data[name].values.tolist() for name in ("block", "step"))

    def mean(name: str) -> xr.DataArray:
        cells = [[table[f"{name} block {b} step {s}"].mean() for s in steps] for b in blocks]
        return xr.DataArray(cells, {"block": blocks, "step": steps}, ("block", "step"))

    rows = []
    for kind, names in (("block", blocks), ("step", steps)):
        for each in names:
            others = steps if kind == "block" else blocks
            row = {"patched": f"{kind} {each}"}
            for name in ("shift", SHARE):
                pairs = [(each, o) if kind == "block" else (o, each) for o in others]
                values = table[[f"{name} block {b} step {s}" for b, s in pairs]].mean(axis=1)
                interval = bootstrap([np.array([v]) for v in values], seed=chosen.seed)
                row[name] = str(interval)
            rows.append(row)
    print(markdown(rows))
    totals = {
        "maps": len(table),
        "runs_a_map": int(table["runs"].iloc[0]),
        "seconds_a_map": float(table["seconds"].mean()),
        "activation_bytes": first.cost.bytes,
    }
    print(
        f"\n{totals['maps']} maps, each of {totals['runs_a_map']} runs, "
        f"about {totals['seconds_a_map']:.0f} s."
    )
    chart = plot_causal_map(
        {"Pixels": mean("shift"), "Identity": mean(SHARE)},
        selection=(
            f"{' and '.join(WHAT)} of all reference tokens, {probe.name}, {chosen.steps} steps; "
            f"mean of {len(table)} subject swaps"
        ),
        title="Where a swap of the subject is decided",
    )
    page = Page(
        "Where is a swap of the subject decided?",
        [
            Section(
                text=f"Of all reference tokens, {' and '.join(WHAT)} are taken from a run with "
                f"another subject, one block and {window} of {chosen.steps} steps at a time; "
                f"{totals['maps']} maps of {totals['runs_a_map']} runs. Shift is how far the image "
                "moves to that of the other run, in pixels; the identity share is how far its "
                "identity does. 1 would be all the way.",
                rows=rows,
                figure="causal_map",
                alt="Causal map over blocks and steps",
            )
        ],
    )
    summary = {"table": rows, "cost": totals}
    finish(chosen, store, {"maps": table}, summary, {"causal_map": chart}, page)
    return {"table": rows, "cost": totals}


RECIPE = Recipe(
    run, {"subjects": (6, 2), "prompts": (1, 1), "steps": (16, 4)}, prepare=prepare, benchmark=False
)
