"""Running the missing arms of a study; what is done, or being done elsewhere, is not repeated."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd
from tqdm import tqdm

from recast_probe.errors import InputError
from recast_probe.studies.store import Record, Store, Writer

Item = TypeVar("Item")
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Unit:
    """What all arms are run on, in pairs.

    Attributes:
        labels: columns of the table, such as subject, prompt and category; they name the unit.
        payload: whatever `perform` needs.

    Examples:
        >>> unit = Unit({"subject": "fox", "prompt": "in snow"})
        >>> unit.labels["subject"]
        'fox'
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

    Examples:
        >>> Outcome("recast", {"dinov2": 0.8}).values
        {'dinov2': 0.8}
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

    Units are run in their order. Several processes may work on one store: each takes units that
    no other process works on, and all end with the same table.

    Args:
        perform: yields an outcome for each of the asked arms of a unit. It gets all missing arms
            at once, so that they can share work, and each outcome is stored as it comes.
        progress: a bar on standard error.

    Returns:
        One row a run: the unit's labels, "arm", the values. After Ctrl-C the outcomes so far are in
        the store; the same call resumes there.

    Raises:
        InputError: two units of one name, or an outcome that was not asked for or did not come.

    Examples:
        >>> import tempfile
        >>> units = [Unit({"subject": each, "prompt": "in snow"}) for each in ("fox", "hen")]
        >>> def perform(unit, arms):
        ...     return [Outcome(arm, {"length": len(unit.labels["subject"])}) for arm in arms]
        >>> with tempfile.TemporaryDirectory() as place:
        ...     table = run_study(units, ["full"], perform, Store(place, {}), progress=False)
        >>> table.columns.to_list(), len(table)
        (['subject', 'prompt', 'arm', 'length'], 2)
    """
    names = [tuple(unit.labels.items()) for unit in units]
    if len(set(names)) < len(names) or not names or not arms:
        raise InputError("A study needs arms, and units with names of their own.")
    total = len(units) * len(arms)
    bar = tqdm(total=total, disable=not progress, desc="Runs", file=sys.stderr)
    found: dict[int, dict[str, Record | None]] = {}
    counted: dict[int, int] = dict.fromkeys(range(len(units)), 0)

    def count(number: int) -> None:
        done = sum(record is not None for record in found[number].values())
        bar.update(done - counted[number])
        counted[number] = done

    def work(number: int) -> bool:
        """The missing arms of one unit; False if another process is at them."""
        unit = units[number]

        def look() -> list[str]:
            records = found[number] = {arm: store.load(record_key(unit, arm)) for arm in arms}
            count(number)
            return [arm for arm in arms if records[arm] is None]

        if not look():
            return True
        with store.claim(record_key(unit)) as ours:
            # another process may just have finished
            missing = look() if ours else []
            for outcome in perform(unit, missing) if missing else ():
                if outcome.arm not in missing:
                    raise InputError(f"The arm {outcome.arm!r} was not asked for.")
                found[number][outcome.arm] = store.save(
                    record_key(unit, outcome.arm), outcome.values, outcome.files, outcome.provenance
                )
                count(number)
        return ours

    try:
        in_turns(range(len(units)), work, store.folder)
    except KeyboardInterrupt:
        bar.close()
        print(
            f"Interrupted: {sum(counted.values())} of {total} runs are in {store.folder}. The same "
            "command goes on from there.",
            file=sys.stderr,
        )
        raise
    finally:
        bar.close()
    rows: list[dict[str, Any]] = []
    for number, unit in enumerate(units):
        for arm, record in found[number].items():
            if record is None:
                raise InputError(f"No outcome came for {dict(unit.labels)}, arm {arm!r}.")
            rows.append({**unit.labels, "arm": arm, **record.values})
    return pd.DataFrame(rows)


def in_turns(items: Iterable[Item], work: Callable[[Item], bool], folder: object) -> None:
    """Do all the work; items that another process holds come last.

    Args:
        work: does an item's work and says True, or False while another process is at it. It is
            asked again until it says True.
        folder: where the other process works, for the user to know.
    """
    left, told = list(items), False
    while left:
        busy = [item for item in left if not work(item)]
        if len(busy) == len(left):
            if not told:
                print(f"Another process works in {folder}; waiting for it.", file=sys.stderr)
                told = True
            time.sleep(POLL_SECONDS)
        left = busy


def record_key(unit: Unit, arm: str | None = None) -> dict[str, str]:
    """The key of a run in its store: the unit's labels, and the arm; or the unit alone."""
    key = {name: str(label) for name, label in unit.labels.items()}
    return key if arm is None else {**key, "arm": arm}
