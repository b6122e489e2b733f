"""Benchmarks by name, all loaded in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from recast_probe.datasets.case import Case
from recast_probe.datasets.dreambench import dreambench
from recast_probe.datasets.dreambooth import dreambooth
from recast_probe.datasets.folder import folder
from recast_probe.datasets.kontextbench import kontextbench
from recast_probe.errors import InputError
from recast_probe.masks import MaskFinder
from recast_probe.pocket.bench import pocket_bench

_LOADERS: dict[str, Callable[..., Sequence[Case]]] = {
    "kontextbench": kontextbench,
    "dreambench": dreambench,
    "dreambooth": dreambooth,
    "folder": folder,
}
BENCHMARKS = ("pocket", *_LOADERS)


def load_benchmark(
    name: str,
    path: str | Path | None = None,
    *,
    subjects: int | None = None,
    prompts: int | None = None,
    seed: int = 0,
    masks: MaskFinder | None = None,
) -> list[Case]:
    """The cases of a benchmark.

    Args:
        name: one of `BENCHMARKS`.
        path: where it lies; None for what needs no path: PocketBench, which ships with the
            package, KontextBench and DreamBench++, which are fetched from the hub.
        subjects, prompts: how many references, and prompts for each; None for all there are (of
            PocketBench's prompts, which never end, 3).
        seed: from which noise seeds are drawn where the benchmark gives none.
        masks: finds masks where the benchmark gives none; see `recast_probe.masks`.

    Raises:
        InputError: an unknown name, a path where none belongs, and as the loaders say.

    Examples:
        >>> len(load_benchmark("pocket", subjects=2, prompts=3))
        6
    """
    if name == "pocket":
        if path is not None:
            raise InputError("PocketBench ships with the package; leave the path of its data out.")
        numbers = 150 if subjects is None else subjects, 3 if prompts is None else prompts
        return list(pocket_bench(*numbers, seed=seed))
    if name not in _LOADERS:
        raise InputError(f"There is no benchmark {name!r}; there is {', '.join(BENCHMARKS)}.")
    return list(_LOADERS[name](path, subjects=subjects, prompts=prompts, seed=seed, masks=masks))


def named_benchmark(text: str) -> tuple[str, str | None]:
    """Name and path for `load_benchmark` from one text: NAME, NAME=PATH, or the path of your own
    table of pictures or of the folder that holds it.

    Examples:
        >>> named_benchmark("dreambooth=data/dreambooth"), named_benchmark("photos/table.csv")
        (('dreambooth', 'data/dreambooth'), ('folder', 'photos/table.csv'))
    """
    name, _, path = text.partition("=")
    if name not in BENCHMARKS or name == "folder":
        return "folder", text
    return name, path or None
