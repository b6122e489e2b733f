"""Arms of one comparison, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def alternate(
    arms: Mapping[str, Callable[[], object]], repeats: int, device: str, base: str
) -> dict[str, dict[str, float]]:
    """Run every arm once a turn, `repeats` turns after one that warms up.

    Returns:
        By arm: median and interquartile range in seconds, and the ratio of its median to `base`'s.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats + 1):
        for name, arm in arms.items():
            _wait(device)
            started = time.perf_counter()
            arm()
            _wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    middle = statistics.median(seconds[base])
    return {
        name: {
            "median_seconds": statistics.median(times),
            "interquartile_seconds": _interquartile(times),
            "ratio": statistics.median(times) / middle,
        }
        for name, times in seconds.items()
    }


def print_rows(rows: Mapping[str, Mapping[str, float]], base: str) -> None:
    """One line an arm."""
    for name, row in rows.items():
        print(f"{name:28} {row['median_seconds']:8.3f} s  {row['ratio']:6.2f} x {base}")


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _interquartile(times: list[float]) -> float:
    first, _, third = statistics.quantiles(times, n=4) if len(times) > 1 else (0.0, 0.0, 0.0)
    return third - first
