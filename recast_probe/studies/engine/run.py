"""Running the missing arms of a study; what is done, or being done elsewhere, is not repeated."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import pandas as pd
from tqdm import tqdm

from recast_probe.errors import InputError
from recast_probe.studies.engine.shard import check_shard, share_of
from recast_probe.studies.engine.unit_runs import (
    HeldElsewhereError,
    Outcome,
    Perform,
    Unit,
    Values,
    record_key,
    run_missing,
    settings_of,
    stored_values,
)
from recast_probe.studies.store import Store

if TYPE_CHECKING:
    from recast_probe.studies.engine.ray_engine import RaySettings

__all__ = ["Engine", "Outcome", "Perform", "Unit", "in_turns", "record_key", "run_study"]

Item = TypeVar("Item")
Engine = Literal["local", "ray"]
ENGINES: tuple[str, ...] = get_args(Engine)
POLL_SECONDS = 0.2


def run_study(
    units: Sequence[Unit],
    arms: Sequence[str],
    perform: Perform,
    store: Store,
    *,
    progress: bool = True,
    engine: Engine = "local",
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    shard: tuple[int, int] | None = None,
) -> pd.DataFrame:
    """Run every missing arm of every unit, and return the whole table.

    Units are run in their order. Several processes may work on one store: each takes units that
    no other process works on, and all end with the same table, which does not depend on the engine
    or on the number of workers. What is in the store already is read, and starts no worker.

    With `engine="ray"` the units are run by workers of Ray, on this machine or on a cluster. Each
    worker gets `perform` once, and opens every probe in it anew, as it was opened here; one that
    turns out to be another is refused. The store's folder and the working directory must be on a
    file system that all machines share. A worker that dies (killed, out of memory) is replaced, and
    its unit is run again, up to three times; then the others go on, and the call ends with a
    `WorkerLostError` that names what is missing. When this process ends, however it ends, so do its
    workers.

    Args:
        perform: yields an outcome for each of the asked arms of a unit. It gets all missing arms
            at once, so that they can share work, and each outcome is stored as it comes. If it has
            a method `arm_settings(arms)`, that says by arm what decides its runs beyond the
            store's settings: they are kept with each run, and runs of others are refused.
        progress: a bar on standard error.
        engine: "local" runs the units here, one after the other.
        workers: how many of Ray; by default one for each GPU, or one where there is none.
        gpus_per_worker: of each, may be a fraction; by default 1 if a probe is on CUDA, else 0.
        address: of a running Ray cluster, "auto" for the one of this machine. By default what
            RAY_ADDRESS says, or a Ray of its own for this call, on this machine.
        shard: (i, n) runs the i-th of n shares of the units, counted from 1. Shares are by
            position: unit i, i + n, i + 2 n, ...

    Returns:
        One row a run: the unit's labels, "arm", the values. Of a shard it has only its rows, and
        `table.attrs["shard"]` says which it is, such as "3/8"; the same call without a shard gives
        the whole table. After Ctrl-C the outcomes so far are in the store; the same call resumes
        there, on either engine.

    Raises:
        InputError: two units of one name, an outcome that was not asked for or did not come, runs
            in the store that were made with other settings, or an engine that cannot be had so.
        WorkerLostError: runs are missing since workers died at them again and again.

    Examples:
        >>> import tempfile
        >>> units = [Unit({"subject": each, "prompt": "in snow"}) for each in ("fox", "hen")]
        >>> def perform(unit, arms):
        ...     return [Outcome(arm, {"length": len(unit.labels["subject"])}) for arm in arms]
        >>> with tempfile.TemporaryDirectory() as place:
        ...     store = Store(place, {})
        ...     part = run_study(units, ["full"], perform, store, progress=False, shard=(1, 2))
        ...     table = run_study(units, ["full"], perform, store, progress=False)
        >>> part.attrs["shard"], len(part)
        ('1/2', 1)
        >>> table.columns.to_list(), len(table)
        (['subject', 'prompt', 'arm', 'length'], 2)
    """
    names = [tuple(unit.labels.items()) for unit in units]
    if len(set(names)) < len(names) or not names or not arms:
        raise InputError("A study needs arms, and units with names of their own.")
    settings = _checked(engine, workers, gpus_per_worker, address)
    part = None if shard is None else check_shard(shard)
    columns = [*units[0].labels, "arm"]
    units = list(units) if part is None else share_of(units, part)
    total, decided = len(units) * len(arms), settings_of(perform, arms)
    bar = tqdm(total=total, disable=not progress, desc="Runs", file=sys.stderr)
    found: list[dict[str, Values | None]] = []

    def missing(number: int) -> list[str]:
        return [arm for arm, values in found[number].items() if values is None]

    def tell(number: int, arm: str, values: Values) -> None:
        bar.update(found[number][arm] is None)
        found[number][arm] = values

    def work(number: int) -> bool:
        """The missing arms of one unit; False if another process is at them."""
        try:
            asked = units[number], missing(number)
            with closing(run_missing(*asked, perform, store, decided)) as runs:
                for arm, values in runs:
                    tell(number, arm, values)
        except HeldElsewhereError:
            return False
        return True

    try:
        for unit in units:
            found.append(stored_values(unit, arms, store, decided))
            bar.update(sum(values is not None for values in found[-1].values()))
        left = [number for number in range(len(units)) if missing(number)]
        _forget_what_was_there(bar)
        if left and settings is not None:
            from recast_probe.studies.engine.ray_engine import run_on_ray

            asked = {number: (units[number], missing(number)) for number in left}
            run_on_ray(asked, perform, store, tell, settings)
        else:
            in_turns(left, work, store.folder)
    except KeyboardInterrupt:
        bar.close()
        done = sum(len(each) for each in found) - sum(len(missing(i)) for i in range(len(found)))
        print(
            f"Interrupted: {done} of {total} runs are in {store.folder}. The same command goes on "
            "from there.",
            file=sys.stderr,
        )
        raise
    finally:
        bar.close()
    rows = _rows(units, arms, found)
    # of more shards than units, some have none
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)
    if part is not None:
        table.attrs["shard"] = "{}/{}".format(*part)
    return table


def _checked(
    engine: str, workers: int | None, gpus_per_worker: float | None, address: str | None
) -> RaySettings | None:
    """The settings of Ray; None for the local engine."""
    if engine not in ENGINES:
        raise InputError(f"There is no engine {engine!r}; there is {', '.join(ENGINES)}.")
    if engine == "ray":
        from recast_probe.studies.engine.ray_engine import RaySettings

        return RaySettings.checked(workers, gpus_per_worker, address)
    given = {"workers": workers, "gpus_per_worker": gpus_per_worker, "address": address}
    if ignored := [f"{name}={value!r}" for name, value in given.items() if value is not None]:
        raise InputError(
            f"{', '.join(ignored)} is for the engine 'ray', and this one is {engine!r}. To use "
            "more of one machine without Ray, run the same command several times at once."
        )
    return None


def _forget_what_was_there(bar: tqdm) -> None:
    """The time left follows from runs that are made from now on."""
    done = bar.n
    bar.reset()
    bar.initial = bar.n = done
    bar.refresh()


def _rows(
    units: Sequence[Unit], arms: Sequence[str], found: Sequence[dict[str, Values | None]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for unit, values_of in zip(units, found, strict=True):
        for arm in arms:
            values = values_of[arm]
            if values is None:
                raise InputError(f"No outcome came for {dict(unit.labels)}, arm {arm!r}.")
            rows.append({**unit.labels, "arm": arm, **values})
    return rows


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
