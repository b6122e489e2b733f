"""Diagnostics of many stored profiles against a plain loop: `python -m benchmarks.diagnostics`.

Profiles of random scores are written in the project's own format, as many and as large as the
options say (100 pairs of 28 steps, 57 blocks and 4,096 tokens are 2.6 GB of scores), and surveyed
from disk. The plain loop does the same with numpy's sort, scipy's entropy, spearmanr and
kendalltau, one call a row or pair of rows, on the first few of them; both are timed on those, and
their values compared.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.command import finish, parse_for_cpu, parser
from recast_probe._utils.ending import run_program
from recast_probe._utils.memory import peak_memory
from recast_probe.diagnostics.survey import survey
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile

PLAIN = "plain loop"
FRACTION = 0.25


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Write profiles, survey them, and hold time and values against the plain loop."""
    found = parser(__doc__)
    found.add_argument("--pairs", type=int, default=100)
    found.add_argument("--steps", type=int, default=28)
    found.add_argument("--blocks", type=int, default=57)
    found.add_argument("--side", type=int, default=64, help="tokens along a side")
    found.add_argument("--plain-pairs", type=int, default=4, help="pairs that the loop does too")
    found.add_argument("--folder", type=Path, help="where the profiles lie or are written")
    options = parse_for_cpu(found, arguments)
    with _folder(options.folder) as folder:
        paths = written(folder, options)
        few = paths[: max(2, min(options.plain_pairs, len(paths)))]
        rows: dict[str, dict[str, Any]] = {}
        with peak_memory("cpu") as peak:
            started = time.perf_counter()
            loop = plain(few)
            taken = time.perf_counter() - started
        rows[PLAIN] = _row([taken], peak, len(few))
        times = []
        for _ in range(options.repeats):
            with peak_memory("cpu") as peak:
                started = time.perf_counter()
                ours = surveyed(few)
                times.append(time.perf_counter() - started)
        rows["survey of the same"] = _row(times, peak, len(few))
        with peak_memory("cpu") as peak:
            started = time.perf_counter()
            whole = surveyed(paths)
            taken = time.perf_counter() - started
        rows["survey of all"] = _row([taken], peak, len(paths))
        size = sum(path.stat().st_size for path in paths)
    middle = rows[PLAIN]["median_seconds"] / len(few)
    for row in rows.values():
        # by the pair: pairs of rankings make the loop's share of each grow with their number
        row["speed_up"] = middle / (row["median_seconds"] / row["pairs"])
        row["ratio"] = 1 / row["speed_up"]
    tokens = options.side**2
    facts = {
        "scores_bytes": 4 * options.pairs * options.steps * options.blocks * tokens,
        "file_bytes": size,
        "largest_difference": max(float(np.max(np.abs(ours[name] - loop[name]))) for name in loop),
        "spearman_of_all": float(whole["spearman"][np.triu_indices(len(paths), 1)].mean()),
        "arms": rows,
    }
    return finish(options, facts, PLAIN)


def written(folder: Path, options: Any) -> list[Path]:
    """Profile files of random scores that agree somewhat; those that are there stay."""
    grid = Grid(options.side, options.side)
    layout = TokenLayout(512, grid, (grid,))
    shared = np.random.default_rng(options.seed).gamma(1.0, size=grid.size)
    paths = []
    for pair in range(options.pairs):
        path = folder / f"pair-{pair:03d}.nc"
        paths.append(path)
        if path.exists():
            continue
        rng = np.random.default_rng((options.seed, pair))
        shape = (1, options.steps, options.blocks, 1)
        score = rng.gamma(0.5, size=(*shape, grid.size)) * shared
        score *= 0.4 / score.sum(-1, keepdims=True)
        AttentionProfile.build(
            score=score,
            mass=np.full((*shape, 3, 3), 1 / 3),
            conditional_entropy=np.full(shape, np.log2(grid.size) / 2),
            steps=range(options.steps),
            timesteps=np.linspace(1000, 1, options.steps),
            sigmas=np.linspace(1, 0.001, options.steps),
            blocks=range(options.blocks),
            block_kinds=["single"] * options.blocks,
            heads=[0],
            layout=layout,
            provenance={"synthetic": True, "seed": options.seed, "pair": pair},
        ).save(path)
    return paths


def surveyed(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """The toolkit's way: one file in memory at a time."""
    found = survey((AttentionProfile.load(path) for path in paths), fraction=FRACTION)
    return {
        "top_share": found.top_share.values,
        "gini": found.gini.values,
        "marginal": found.marginal.values,
        "spearman": found.stability.spearman.values,
        "kendall": found.stability.kendall.values,
        "block_spearman": found.block_spearman.values,
    }


def plain(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """The obvious way: a call a row, and a call a pair of rankings."""
    rows: dict[str, list[float]] = {"top_share": [], "gini": [], "marginal": []}
    means, per_block = [], []
    shape: tuple[int, ...] = ()
    for path in paths:
        score = AttentionProfile.load(path).score.values[:, :, 0].astype(np.float64)
        shape, tokens = score.shape[:2], score.shape[-1]
        for row in score.reshape(-1, tokens):
            ordered = np.sort(row)
            top = ordered[-round(FRACTION * tokens) :].sum()
            rows["top_share"].append(top / ordered.sum())
            order = 2 * np.arange(1, tokens + 1) - tokens - 1
            rows["gini"].append((order * ordered).sum() / (tokens * ordered.sum()))
            rows["marginal"].append(float(stats.entropy(row, base=2)))
        per_block.append(score.mean(0))
        means.append(score.mean((0, 1)))
    count, couples = len(paths), list(itertools.combinations(range(len(paths)), 2))
    spearman, kendall = np.eye(count), np.eye(count)
    for a, b in couples:
        spearman[a, b] = spearman[b, a] = stats.spearmanr(means[a], means[b]).statistic
        kendall[a, b] = kendall[b, a] = stats.kendalltau(means[a], means[b]).statistic
    by_block = [
        np.mean([stats.spearmanr(per_block[a][i], per_block[b][i]).statistic for a, b in couples])
        for i in range(shape[1])
    ]
    found = {name: np.reshape(values, (count, *shape)) for name, values in rows.items()}
    return found | {"spearman": spearman, "kendall": kendall, "block_spearman": np.array(by_block)}


def _row(times: list[float], peak: Any, pairs: int) -> dict[str, Any]:
    spread = float(np.subtract(*np.percentile(times, [75, 25])))
    return {
        "pairs": pairs,
        "median_seconds": float(np.median(times)),
        "interquartile_seconds": spread,
        "peak_memory_bytes": peak.total,
        "extra_memory_bytes": peak.extra,
    }


@contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


if __name__ == "__main__":
    run_program(main, "diagnostics")
