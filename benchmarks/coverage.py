"""How often intervals hold the truth: `python -m benchmarks.coverage`.

Studies are simulated whose truth is known, of several kinds of data and numbers of subjects, and
every interval is asked. The table is that of docs/statistics.md.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from recast_probe._utils.ending import run_program
from recast_probe.diagnostics import (
    Interval,
    mean_interval,
    mean_of_pairs,
    ratio_interval,
    sign_flip_p_value,
    spearman_interval,
)
from recast_probe.files.atomic import write_json
from recast_probe.studies.tables import markdown

COUNTS = (4, 5, 8, 12, 24, 50)
SHARE, COSINE = (0.0, 1.0), (-1.0, 1.0)
DRAWS = 999
MANY = 300_000
TOKENS = 48

Draw = Callable[[np.random.Generator, int], np.ndarray]


class Kind(NamedTuple):
    """A kind of data: values (subject,) or (subject, prompt), and the limits of one of them."""

    draw: Draw
    limits: tuple[float, float] | None


def _auroc(rng: np.random.Generator, count: int) -> np.ndarray:
    """Near 1, with a tail: now and then a subject is missed by far."""
    missed = 1 + 4 * (rng.random(count) < 0.06)
    return 1 - np.minimum(rng.beta(0.6, 14, count) * missed, 0.95)


def _failures(rng: np.random.Generator, count: int) -> np.ndarray:
    """One in ten fails."""
    fails = rng.random(count) < 0.1
    return np.where(fails, rng.uniform(0.3, 0.6, count), rng.uniform(0.95, 1, count))


def _prompts(rng: np.random.Generator, count: int) -> np.ndarray:
    """Lognormal subjects of 3 prompts each."""
    return rng.lognormal(0, 1, (count, 1)) * rng.lognormal(0, 0.3, (count, 3))


def _outliers(rng: np.random.Generator, count: int) -> np.ndarray:
    """Correlations of which 8 % are far off."""
    return np.clip(rng.normal(0.85, 0.12, count) - 1.3 * (rng.random(count) < 0.08), -1, 1)


KINDS: dict[str, Kind] = {
    "normal": Kind(lambda rng, n: rng.normal(0, 1, n), None),
    "exponential": Kind(lambda rng, n: rng.exponential(1, n), None),
    "lognormal, 3 prompts": Kind(_prompts, None),
    "small differences": Kind(lambda rng, n: rng.laplace(0.02, 0.05, n), None),
    "10 % fail, no limits": Kind(_failures, None),
    "AUROC-like": Kind(_auroc, SHARE),
    "10 % fail": Kind(_failures, SHARE),
    "correlations, 8 % far off": Kind(_outliers, COSINE),
    "ties (0, 1/2, 1)": Kind(
        lambda rng, n: rng.choice([0, 0.5, 1], size=n, p=[0.1, 0.3, 0.6]), SHARE
    ),
    "yes or no, 80 %": Kind(lambda rng, n: (rng.random(n) < 0.8) * 1.0, SHARE),
    "shares near 2/3": Kind(lambda rng, n: rng.beta(4, 2, n), SHARE),
}


@functools.cache
def _truth(draw: Draw) -> float:
    return float(draw(np.random.default_rng(99), MANY).mean())


def studies(kind: Kind, count: int, number: int, seed: int) -> Iterator[tuple[Interval, float]]:
    """Intervals of simulated means, each with the truth."""
    truth = _truth(kind.draw)
    rng = np.random.default_rng(seed)
    for study in range(number):
        groups = list(np.reshape(kind.draw(rng, count), (count, -1)))
        yield mean_interval(groups, within=kind.limits, draws=DRAWS, seed=study), truth


def ratios(count: int, number: int, seed: int) -> Iterator[tuple[Interval, float]]:
    """Retention: a paired ratio of means, of 1 to 4 prompts a subject."""
    rng = np.random.default_rng(seed)
    for study in range(number):
        sizes = rng.integers(1, 5, count)
        full = [0.6 + rng.normal(0, 0.1) + rng.normal(0, 0.1, size) for size in sizes]
        pruned = [0.9 * each + rng.normal(0, 0.05, each.shape) for each in full]
        yield ratio_interval(pruned, full, draws=DRAWS, seed=study), 0.9


def _rankings(rng: np.random.Generator, count: int) -> np.ndarray:
    """Correlations (ranking, ranking) of rankings that share what is common to all."""
    common = np.random.default_rng(5).normal(size=TOKENS)
    noise = rng.lognormal(0, 0.5, (count, 1)) * rng.normal(size=(count, TOKENS))
    return np.corrcoef(stats.rankdata(common + noise, axis=-1))


@functools.cache
def _agreement() -> float:
    whole = _rankings(np.random.default_rng(99), 1500)
    return float(whole[np.triu_indices(len(whole), 1)].mean())


def rankings(count: int, number: int, seed: int) -> Iterator[tuple[Interval, float]]:
    """Mean Spearman correlation over the pairs of rankings."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        yield mean_of_pairs(_rankings(rng, count)), _agreement()


def correlations(
    heads: int, count: int, number: int, seed: int
) -> Iterator[tuple[Interval, float]]:
    """Spearman of 0.5 between blocks whose heads share 60 % of their variance."""
    rho = 0.5
    lower = np.linalg.cholesky([[1, rho], [rho, 1]])
    truth = 6 / np.pi * float(np.arcsin(rho / 2))
    rng = np.random.default_rng(seed)
    block = np.repeat(np.arange(count), heads)
    for _ in range(number):
        own = rng.normal(size=(count, heads, 2)) @ lower.T
        shared = rng.normal(size=(count, 1, 2)) @ lower.T
        values = own if heads == 1 else 0.6**0.5 * shared + 0.4**0.5 * own
        yield spearman_interval(values[..., 0], values[..., 1], block), truth


def summary(found: Iterator[tuple[Interval, float]]) -> dict[str, Any]:
    """Shares of the studies: covered (of those that were told), cannot tell; the mean width."""
    pairs = list(found)
    told = [(each, truth) for each, truth in pairs if not each.cannot_tell]
    covered = [each.low <= truth + 1e-9 and truth - 1e-9 <= each.high for each, truth in told]
    return {
        "covered": float(np.mean(covered)) if told else None,
        "cannot_tell": 1 - len(told) / len(pairs),
        "width": float(np.mean([each.high - each.low for each, _ in told])) if told else None,
    }


def levels(number: int, seed: int) -> list[dict[str, Any]]:
    """How often sign flips give p <= 0.05 where the mean difference is 0."""
    kinds: dict[str, Draw] = {
        "symmetric (normal)": lambda rng, n: rng.normal(0, 1, n),
        "many ties": lambda rng, n: rng.choice([-1.0, 0, 0, 0, 1], size=n),
        "mean 0, but skewed (exponential - 1)": lambda rng, n: rng.exponential(1, n) - 1,
    }
    rows = []
    for name, draw in kinds.items():
        row: dict[str, Any] = {"differences": name}
        for count in COUNTS:
            rng = np.random.default_rng(seed)
            found = [
                sign_flip_p_value(list(draw(rng, count)[:, None]), draws=DRAWS)
                for _ in range(number)
            ]
            row[f"n = {count}"] = f"{np.mean(np.array(found) <= 0.05):.1%}"
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Simulate, and print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="of every kind and number")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="of subjects")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the numbers into this JSON file as well")
    options = parser.parse_args(arguments)
    number, seed = options.studies, options.seed

    asked: dict[str, Callable[[int], Iterator[tuple[Interval, float]]]] = {
        f"mean: {name}": lambda n, kind=kind: studies(kind, n, number, seed)  # type: ignore[misc]
        for name, kind in KINDS.items()
    }
    asked["ratio: retention"] = lambda n: ratios(n, number, seed)
    asked["pairs: rankings"] = lambda n: rankings(n, number, seed)
    asked["Spearman: 1 head a block"] = lambda n: correlations(1, n, number, seed)
    asked["Spearman: 4 heads a block"] = lambda n: correlations(4, n, number, seed)

    numbers: dict[str, dict[int, dict[str, Any]]] = {}
    rows = []
    for name, of in asked.items():
        numbers[name] = {count: summary(of(count)) for count in options.counts}
        words = {f"n = {n}": _words(found) for n, found in numbers[name].items()}
        rows.append({"interval: data": name, **words})
    flips = levels(number, seed)
    print(markdown(rows), end="\n\n")
    print(markdown(flips))
    result = {"studies": number, "seed": seed, "coverage": numbers, "sign_flips": flips}
    if options.out:
        write_json(options.out, result)
    return result


def _words(found: dict[str, Any]) -> str:
    """ "95 % (0.31)", or "95 %, 7 % cannot tell (0.31)"."""
    if found["covered"] is None:
        return "cannot tell"
    silent = f", {found['cannot_tell']:.0%} cannot tell" if found["cannot_tell"] >= 0.005 else ""
    return f"{found['covered']:.0%}{silent} ({found['width']:.2f})"


if __name__ == "__main__":
    run_program(main, "coverage")
