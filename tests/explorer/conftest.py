"""One run of a tiny pipeline with its profile and its maps, and pages made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recast_probe.explorer import record_run
from recast_probe.probe import Probe
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.runs.result import RunResult

PROMPT = "a fox"
QUIET: dict[str, Any] = {"steps": 3, "progress": False}


@pytest.fixture(scope="session")
def recorded(probe, image) -> tuple[RunResult, AttentionMaps]:
    """Every head by itself, and what is given to the text."""
    return record_run(probe, image, PROMPT, mean_over=(), **QUIET)


@pytest.fixture(scope="session")
def result(recorded) -> RunResult:
    return recorded[0]


@pytest.fixture(scope="session")
def maps(recorded) -> AttentionMaps:
    return recorded[1]


@pytest.fixture(scope="session")
def pocket_run() -> tuple[Probe, Any, RunResult, AttentionMaps]:
    """Pocket's own picture, a few steps."""
    from recast_probe import pocket

    probe, sample = Probe.pocket(), pocket.samples()[2]
    found = record_run(probe, sample.image, sample.prompts[0], 3, progress=False)
    return probe, sample, *found


@pytest.fixture
def mask() -> np.ndarray:
    """The left half of the reference's tokens."""
    inside = np.zeros((4, 4), bool)
    inside[:, :2] = True
    return inside
