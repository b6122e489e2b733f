"""Where in a run a token group decides: a sweep of patches over blocks and steps."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

from recast_probe._utils.checks import check_indices
from recast_probe._utils.provenance import versions
from recast_probe._utils.text_format import memory, spans
from recast_probe.blocks import select_blocks
from recast_probe.content.description import described
from recast_probe.errors import InputError
from recast_probe.experiments.block_groups import windows
from recast_probe.images.loading import ImageSources, image_digest, load_images
from recast_probe.interventions import Intervention, Patch, Record
from recast_probe.interventions.places import checked_what
from recast_probe.interventions.record import LIMIT
from recast_probe.probe import Probe
from recast_probe.profiles.activations import Activations
from recast_probe.studies.engine import Outcome, Unit, run_study
from recast_probe.studies.store import Record as Stored
from recast_probe.studies.store import Store

Score = Callable[[Image.Image], float]
ARM = "patched"


@dataclass(frozen=True)
class Cost:
    """What a sweep takes.

    Attributes:
        runs: all runs of it: one for every window, and the two whole runs.
        left: those that were not there already.
        bytes: of the recorded activations, exact.
        seconds_per_run: of the first whole run.

    Examples:
        >>> print(Cost(runs=12, left=10, bytes=4096, seconds_per_run=1.5))
        12 runs, 10 of them still to do: about 15 s at 1.50 s a run, and 4.1 kB of activations.
    """

    runs: int
    left: int
    bytes: int
    seconds_per_run: float

    @property
    def seconds(self) -> float:
        """Estimated time of the runs that are left."""
        return self.left * self.seconds_per_run

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.left} of them still to do: about {self.seconds:.0f} s at "
            f"{self.seconds_per_run:.2f} s a run, and {memory(self.bytes)} of activations."
        )


@dataclass(frozen=True, eq=False)
class CausalMap:
    """What patching each window of blocks and steps did to the image.

    Attributes:
        data: dimensions (block, step), labelled by windows such as "0-1". "shift" is how far the
            image went from its own run to the source run: d / (d + e), d and e being the mean
            absolute pixel distances to the two; 0 for its own image, 1 for the source's. For each
            score ``name``: "name", as it is, and "name share", scaled so that its own run has 0
            and the source run 1 (it may lie outside; NaN where the two runs score alike).
        base, source: the two whole runs' images.
        whole: by score, (own run, source run).
        cost: of the sweep when it began.
        selection: what was patched, in words.
        settings: of the sweep, ready for JSON.

    Examples:
        >>> from PIL import Image
        >>> black, white = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "white")
        >>> data, whole = measured([black, white], black, white, ["0-1"], ["0", "1"], {})
        >>> found = CausalMap(data, black, white, whole, Cost(4, 0, 0, 1.0), "keys", {})
        >>> found.table()["shift"].tolist()
        [0.0, 1.0]
    """

    data: xr.Dataset
    base: Image.Image
    source: Image.Image
    whole: Mapping[str, tuple[float, float]]
    cost: Cost
    selection: str
    settings: Mapping[str, Any]

    def table(self) -> pd.DataFrame:
        """One row a window: block, step and all values."""
        return self.data.to_dataframe().reset_index()

    def _repr_html_(self) -> str:
        return self.data._repr_html_()


def causal_map(
    probe: Probe,
    image: ImageSources | None,
    prompt: str,
    source_image: ImageSources | None,
    source_prompt: str | None = None,
    *,
    what: str | tuple[str, ...] = ("keys", "values"),
    tokens: str = "reference",
    indices: Sequence[int] | None = None,
    blocks: Any = "all",
    map_steps: int | Sequence[int] | None = None,
    block_window: int | None = 1,
    step_window: int | None = 1,
    scores: Mapping[str, Score] | None = None,
    steps: int = 28,
    seed: int = 0,
    folder: str | Path | None = None,
    limit: int = LIMIT,
    progress: bool = True,
    **pipeline_arguments: Any,
) -> CausalMap:
    """Patch activations of a source run into a run, window by window, and see what it does.

    Keys and values of the reference show where the rest of the sequence reads it. The residual
    stream of a group shows what it has become by then: a patch at one block is felt by all later
    blocks of the step. Both whole runs and every patched one start from the same noise.

    Args:
        image, prompt: of the run that is patched.
        source_image, source_prompt: of the run that activations come from; by default the same
            prompt.
        what, tokens, indices: what is patched; see ``Patch``.
        blocks, map_steps: which blocks and steps are swept; None for all steps.
        block_window, step_window: neighbours that are patched together; None for all together.
        scores: by name, functions of a generated image, such as the source subject's identity.
        folder: keeps every image as it is made, so that a sweep that was cut short can be resumed;
            None keeps nothing.
        limit: most bytes of activations.
        progress: print the cost (runs, seconds, memory) on standard error when the first run has
            been timed, and show a bar.

    Raises:
        InputError: settings that do not fit, runs that do not differ, or a folder with another
            sweep.
        VerificationError: a check of exactness failed during a run.
        KeyboardInterrupt: after Ctrl-C; with a folder, make the same call again to resume.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> other, settings = tiny.tiny_image(seed=1), {"blocks": [0, 4], "step_window": None}
        >>> found = causal_map(probe, image, "a cat", other, **settings, steps=2, progress=False)
        >>> dict(found.data.sizes), found.cost.runs
        ({'block': 2, 'step': 1}, 4)
    """
    if not isinstance(prompt, str) or not isinstance(source_prompt, str | None):
        raise InputError("A causal map is of one prompt; make one for each of them.")
    source_prompt = prompt if source_prompt is None else source_prompt
    chosen = None if indices is None else tuple(indices)
    block_windows = windows(select_blocks(blocks, probe.block_kinds), block_window)
    step_windows = windows(check_indices("steps", map_steps, steps), step_window)
    record = Record(what, tokens, chosen, blocks, map_steps, limit)
    settings = {
        "model": probe.name,
        **probe.identity(),
        "versions": versions(),
        "images": [_digests(probe, each) for each in (image, source_image)],
        "prompts": [prompt, source_prompt],
        "what": list(checked_what(what)),
        "tokens": tokens,
        "indices": "all" if chosen is None else list(chosen),
        "steps": steps,
        "seed": seed,
        "arguments": described(pipeline_arguments, strict=folder is not None),
    }
    if settings["images"][0] == settings["images"][1] and prompt == source_prompt:
        raise InputError("The source run is the run itself; give another image or prompt.")
    sweep = _Sweep(
        probe,
        (image, prompt),
        (source_image, source_prompt),
        record,
        {"steps": steps, "seed": seed, **pipeline_arguments},
    )
    units = [
        Unit({"blocks": spans(b), "steps": spans(s)}, (b, s))
        for b in block_windows
        for s in step_windows
    ]
    needed = probe.recording_bytes(record, source_image, source_prompt, steps, **pipeline_arguments)
    record.check_limit(needed)
    with _folder(folder) as place:
        store = Store(place, settings)
        base = sweep.whole(store, "base")
        missing = [unit for unit in units if store.load({**unit.labels, "arm": ARM}) is None]
        known = store.load({"run": "source"}) is not None
        left = len(missing) + int(bool(missing) or not known)
        cost = Cost(len(units) + 2, left, needed, float(base.values["seconds"]))
        if progress:
            print(cost, file=sys.stderr)
        source = sweep.whole(store, "source", again=bool(missing))
        run_study(units, [ARM], sweep, store, progress=progress)
        own, other = base.image(), source.image()
        if np.array_equal(np.asarray(own), np.asarray(other)):
            raise InputError("The source run makes the same image, so there is nothing to trace.")
        images = [_stored(store, unit).image() for unit in units]
    labels = ([spans(b) for b in block_windows], [spans(s) for s in step_windows])
    data, whole = measured(images, own, other, *labels, scores or {})
    selection = (
        f"{', '.join(checked_what(what))} of {len(chosen) if chosen else 'all'} {tokens} tokens, "
        f"{probe.name}, {steps} steps, seed {seed}"
    )
    return CausalMap(data, own, other, whole, cost, selection, settings)


def measured(
    images: Sequence[Image.Image],
    base: Image.Image,
    source: Image.Image,
    blocks: Sequence[str],
    steps: Sequence[str],
    scores: Mapping[str, Score],
) -> tuple[xr.Dataset, dict[str, tuple[float, float]]]:
    """The values of `CausalMap.data` and `.whole`, from images in the order (block, step).

    Raises:
        InputError: a score that is not a finite number.

    Examples:
        >>> black, white = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "white")
        >>> grey = Image.new("RGB", (8, 8), (51, 51, 51))
        >>> measured([grey], black, white, ["0"], ["0"], {})[0]["shift"].values
        array([[0.2]])
    """
    shape, coords = (len(blocks), len(steps)), {"block": list(blocks), "step": list(steps)}
    shift = [_shift(image, base, source) for image in images]
    values: dict[str, Any] = {"shift": shift}
    whole: dict[str, tuple[float, float]] = {}
    for name, score in scores.items():
        found = np.array([float(score(each)) for each in (base, source, *images)])
        if not np.isfinite(found).all():
            raise InputError(f"The score {name!r} is not a finite number for every image.")
        start, end = whole[name] = (float(found[0]), float(found[1]))
        values[name] = found[2:]
        far = start != end
        values[f"{name} share"] = (
            (found[2:] - start) / (end - start) if far else np.full(len(images), np.nan)
        )
    arrays = {
        name: (("block", "step"), np.reshape(np.asarray(each, np.float64), shape))
        for name, each in values.items()
    }
    return xr.Dataset(arrays, coords), whole


def _shift(image: Image.Image, base: Image.Image, source: Image.Image) -> float:
    here, own, other = (np.asarray(each, np.float64) for each in (image, base, source))
    near, far = np.abs(here - own).mean(), np.abs(here - other).mean()
    return float(near / (near + far))


class _Sweep:
    """The runs of one map; also what `run_study` performs."""

    def __init__(
        self,
        probe: Probe,
        base: tuple[Any, str],
        source: tuple[Any, str],
        record: Record,
        settings: dict[str, Any],
    ) -> None:
        self.probe, self.record, self.settings = probe, record, settings
        self._given = {"base": base, "source": source}
        self._activations: Activations | None = None

    def whole(self, store: Store, name: str, again: bool = False) -> Stored:
        """One of the two whole runs; `again` if what it records is needed."""
        stored = store.load({"run": name})
        if stored is not None and not again:
            return stored
        with store.claim({"run": name}, wait=True):
            stored = store.load({"run": name})
            if stored is not None and not again:
                return stored
            result = self._run(name, [self.record] if name == "source" else [])
            self._activations = result.activations
            if stored is not None:
                return stored
            values, files = {"seconds": result.seconds}, {".png": result.image.save}
            return store.save({"run": name}, values, files, result.provenance)

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        blocks, steps = unit.payload
        assert self._activations is not None
        result = self._run("base", [Patch(self._activations, blocks=blocks, steps=steps)])
        values, files = {"seconds": result.seconds}, {".png": result.image.save}
        yield Outcome(arms[0], values, files, result.provenance)

    def _run(self, name: str, interventions: Sequence[Intervention]) -> Any:
        image, prompt = self._given[name]
        return self.probe.generate(
            image, prompt, interventions=interventions, progress=False, **self.settings
        )


@contextmanager
def _folder(folder: str | Path | None) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def _digests(probe: Probe, image: ImageSources | None) -> list[str]:
    alpha = probe.family.reads_alpha
    loaded = [] if image is None else load_images(image, alpha=alpha)
    return [image_digest(each) for each in loaded]


def _stored(store: Store, unit: Unit) -> Stored:
    record = store.load({**unit.labels, "arm": ARM})
    if record is None:
        raise InputError(f"The image of {dict(unit.labels)} was changed while the sweep ran.")
    return record
