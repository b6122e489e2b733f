"""What a study's module says of itself, so that it can be run by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recast_probe.probe import Probe


def _nothing(chosen: Any) -> None:
    pass


@dataclass(frozen=True)
class Recipe:
    """A study: its options, what is checked before a model is loaded, and what is done with it.

    Attributes:
        run: from the options and the probe to what was found; prints it and writes it to `--out`.
        sizes: default and quick subjects, prompts and steps, where they are not the usual ones.
        options: of this study alone, as `add_argument` takes them.
        prepare: completes and checks the options.
        benchmark: whether it runs on cases of a benchmark, or of your own pictures.
        metrics: whether it takes `--metrics`.
        engines: whether its runs can be made on Ray and in shards.
        needs: what every case must have: "reference_mask", "target_mask", "target".
        arms: whether it takes arms of your own, `--arm`.
    """

    run: Callable[[Any, Probe], dict[str, Any]]
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prepare: Callable[[Any], None] = _nothing
    benchmark: bool = True
    metrics: bool = False
    arms: bool = False
    engines: bool = True
    needs: Sequence[str] = ()
