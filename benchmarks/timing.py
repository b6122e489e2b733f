"""Arms of one comparison, timed in turns in one process, each next to its bound."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from recast_probe._utils.memory import peak_memory

Row = dict[str, Any]


def alternate(
    arms: Mapping[str, Callable[[], object]],
    repeats: int,
    device: str,
    base: str,
    least_work: Mapping[str, float] | None = None,
    may_fail: bool = False,
) -> dict[str, Row]:
    """Run every arm once a turn, `repeats` turns after one that warms up.

    Args:
        arms: an arm that returns a float says how many of its seconds count.
        least_work: by arm, the least work that it can be done with, in any unit (FLOP, those in 8
            bits counted half). The bound of an arm's speed-up is the base's over its own.
        may_fail: an arm that raises in the warm-up gets a row with its error and is left out.

    Returns:
        By arm: median and interquartile range in seconds, peak memory in bytes, the ratio of its
        seconds to `base`'s (the middle of the turns, since a machine's speed drifts), its speed-up;
        where its work is known, the bound, the share of the bound that was reached, and whether it
        lies above the bound, which only a slower base explains.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    rows: dict[str, Row] = {name: {} for name in arms}
    for turn in range(repeats + 1):
        gc.collect()
        for name, arm in arms.items():
            if "error" in rows[name]:
                continue
            try:
                with peak_memory(device) as peak:
                    _wait(device)
                    started = time.perf_counter()
                    counted = arm()
                    _wait(device)
                    taken = time.perf_counter() - started
            except Exception as error:
                if not may_fail or turn:
                    raise
                rows[name]["error"] = f"{type(error).__name__}: {error}"[:500]
                continue
            if turn:
                seconds[name].append(counted if isinstance(counted, float) else taken)
                for part, value in (("peak", peak.total), ("extra", peak.extra)):
                    known = rows[name].get(f"{part}_memory_bytes")
                    rows[name][f"{part}_memory_bytes"] = (
                        value if known is None or value is None else max(known, value)
                    )
    for name, times in seconds.items():
        if times:
            rows[name] |= {
                "seconds": times,
                "median_seconds": statistics.median(times),
                "interquartile_seconds": _interquartile(times),
            }
    add_speed_ups(rows, base, least_work or {})
    return rows


def add_speed_ups(rows: dict[str, Row], base: str, least_work: Mapping[str, float]) -> None:
    """Write ratios, speed-ups and what the bounds say of them into the rows."""
    if "seconds" not in rows[base]:
        raise RuntimeError(f"The base {base!r} failed: {rows[base].get('error')}")
    for name, row in rows.items():
        if "seconds" not in row:
            continue
        turns = zip(row["seconds"], rows[base]["seconds"], strict=True)
        row["ratio"] = statistics.median(own / other for own, other in turns)
        row["speed_up"] = 1 / row["ratio"]
        if name in least_work and base in least_work:
            row["bound"] = least_work[base] / least_work[name]
            row["share_of_bound"] = row["speed_up"] / row["bound"]
            row["above_bound"] = row["speed_up"] > row["bound"]


def print_rows(rows: Mapping[str, Row], base: str) -> None:
    """One line an arm."""
    print(f"{'':34} {'median':>10} {'+- IQR':>8} {'speed-up':>8} {'bound':>7} {'reached':>8}")
    for name, row in rows.items():
        if "median_seconds" not in row:
            print(f"{name:34} {row.get('error', row.get('left_out', 'did not run'))}")
            continue
        line = f"{name:34} {row['median_seconds']:8.4f} s {row['interquartile_seconds']:8.4f}"
        line += f" {row['speed_up']:7.3f}x"
        if "bound" in row:
            line += f" {row['bound']:6.3f}x {row['share_of_bound']:8.1%}"
        else:
            line += " " * 17
        if row.get("peak_memory_bytes") is not None:
            line += f" {row['peak_memory_bytes'] / 2**20:8.0f} MiB"
        print(line + ("  ABOVE ITS BOUND" if row.get("above_bound") else ""))
    print(f"speed-ups are over {base!r}; memory is the peak of the device or of the process")


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _interquartile(times: list[float]) -> float:
    """Within the range of the times, however few they are."""
    if len(times) < 2:
        return 0.0
    first, _, third = statistics.quantiles(times, n=4, method="inclusive")
    return third - first
