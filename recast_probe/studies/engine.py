"""Running what a study still lacks, in a fixed order; what is done is never done again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from tqdm import tqdm

from recast_probe.errors import InputError
from recast_probe.studies.store import Store, Writer


@dataclass(frozen=True)
class Unit:
    """What all arms are run on, in pairs.

    Attributes:
        labels: columns of the table, such as subject, prompt and category; they name the unit.
        payload: whatever `perform` needs.
    """

    labels: Mapping[str, str]
    payload: Any = None


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        arm: its arm.
        values: columns of the table.
        files: by suffix, a function that writes to a path.
        provenance: how it was made.
    """

    arm: str
    values: Mapping[str, Any]
    files: Mapping[str, Writer] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


Perform = Callable[[Unit, Sequence[str]], Iterable[Outcome]]


def run_study(
    units: Sequence[Unit],
    arms: Sequence[str],
    perform: Perform,
    store: Store,
    *,
    progress: bool = True,
) -> pd.DataFrame:
    """Run every missing arm of every unit, and return the whole table.

    Args:
        perform: yields an outcome for each of the asked arms of a unit. It gets all missing arms
            at once, so that they can share work, and each outcome is stored as it comes.
        progress: a bar on standard error.

    Returns:
        One row a run: the unit's labels, "arm", the values. After Ctrl-C the outcomes so far are in
        the store, and the same call goes on from there.

    Raises:
        InputError: two units of one name, or an outcome that was not asked for or did not come.
    """
    names = [tuple(unit.labels.items()) for unit in units]
    if len(set(names)) < len(names) or not names or not arms:
        raise InputError("A study needs arms, and units with names of their own.")
    total, done = len(units) * len(arms), 0
    bar = tqdm(total=total, disable=not progress, desc="Runs", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    try:
        for unit in units:
            found = {arm: store.load(record_key(unit, arm)) for arm in arms}
            missing = [arm for arm in arms if found[arm] is None]
            done += len(arms) - len(missing)
            bar.update(len(arms) - len(missing))
            for outcome in perform(unit, missing) if missing else ():
                if outcome.arm not in missing:
                    raise InputError(f"The arm {outcome.arm!r} was not asked for.")
                found[outcome.arm] = store.save(
                    record_key(unit, outcome.arm), outcome.values, outcome.files, outcome.provenance
                )
                done += 1
                bar.update()
            for arm, record in found.items():
                if record is None:
                    raise InputError(f"No outcome came for {dict(unit.labels)}, arm {arm!r}.")
                rows.append({**unit.labels, "arm": arm, **record.values})
    except KeyboardInterrupt:
        bar.close()
        print(
            f"Interrupted: {done} of {total} runs are in {store.folder}. The same command goes on "
            "from there.",
            file=sys.stderr,
        )
        raise
    finally:
        bar.close()
    return pd.DataFrame(rows)


def record_key(unit: Unit, arm: str) -> dict[str, str]:
    """What names a run in its store: the unit's labels, and the arm."""
    return {**{name: str(label) for name, label in unit.labels.items()}, "arm": arm}
