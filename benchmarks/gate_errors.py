"""How often a gate's verdict is wrong: `python -m benchmarks.gate_errors`.

Studies are simulated whose loss is known: the limit, half of it, and twice. The table is that of
docs/gate.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np

from recast_probe._utils.ending import run_program
from recast_probe.studies.gate.group_sequential import schedule
from recast_probe.studies.gate.noninferiority import non_inferiority
from recast_probe.studies.tables import markdown

LIMIT, ADDED = 0.03, 0.3
TIMES = (1.0, 0.5, 2.0)

Draw = Callable[[np.random.Generator, int, float], np.ndarray]


def _rare(rng: np.random.Generator, count: int, loss: float) -> np.ndarray:
    """Nearly nothing is lost, but now and then all that the reference adds."""
    fails = rng.random(count) < loss / ADDED
    return np.where(fails, ADDED * rng.uniform(0.8, 1.2, count), rng.normal(0, 0.005, count))


# losses (subject,) of this mean
KINDS: dict[str, Draw] = {
    "normal": lambda rng, n, loss: rng.normal(loss, 0.06, n),
    "skewed (beta)": lambda rng, n, loss: rng.beta(0.6, 8, n) / (0.6 / 8.6) * loss,
    "skewed (exponential)": lambda rng, n, loss: rng.exponential(loss, n),
    "skewed (lognormal)": lambda rng, n, loss: loss * rng.lognormal(-0.5, 1, n),
    "rare failures": _rare,
}


def rates(
    kind: str,
    times: float,
    subjects: int,
    studies: int,
    failure: float | None = ADDED,
    seed: int = 0,
) -> dict[str, float]:
    """Shares of the studies that pass and fail, and the mean number of subjects.

    Scores of the full run are Beta(12, 3), and the loss is `times` the limit.
    """
    rng = np.random.default_rng(seed)
    looks = schedule(subjects)
    found = []
    for _ in range(studies):
        full = rng.beta(12, 3, subjects)
        method = full - KINDS[kind](rng, subjects, times * LIMIT)
        found.append(non_inferiority(full, method, LIMIT, looks, failure=failure))
    verdicts = [each.verdict for each in found]
    shares = {name: verdicts.count(name) / studies for name in ("passes", "fails")}
    return shares | {"subjects": float(np.mean([each.subjects for each in found]))}


def rows(studies: int) -> Iterator[dict[str, str]]:
    """One row a kind of losses and number of subjects."""
    for kind in KINDS:
        for subjects in (60, 150):
            row = {"losses": kind, "at most": f"{subjects}"}
            for times in TIMES:
                each = rates(kind, times, subjects, studies)
                text = f"{each['passes']:.1%}, {each['fails']:.1%} ({each['subjects']:.0f})"
                row[f"loses {times:g} x the limit"] = text
            plain = rates(kind, 1.0, subjects, studies, failure=None)
            yield row | {"passes at the limit without the allowance": f"{plain['passes']:.1%}"}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_errors", description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    print(markdown(list(rows(parser.parse_args().studies))))


if __name__ == "__main__":
    run_program(main, "gate_errors")
