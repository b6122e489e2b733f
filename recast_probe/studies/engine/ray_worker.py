"""What runs in a worker of Ray: it holds `perform` with its probe, and runs units as they come."""

from __future__ import annotations

import os
import pickle
import platform
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recast_probe.errors import InputError
from recast_probe.studies.engine.same_numbers import numeric_facts, use_settings
from recast_probe.studies.engine.sending import received
from recast_probe.studies.engine.unit_runs import HeldElsewhereError, run_missing, settings_of
from recast_probe.studies.store import Store, differences

SEEN_WITHIN_SECONDS = 10.0


@dataclass(frozen=True)
class Workplace:
    """Where the work is done, and how the program that asked for it computes.

    Attributes:
        folder: of the store.
        settings: of the store.
        directory: the program's working directory, so that relative paths mean the same.
        numeric: of `numeric_settings`.
        facts: of `numeric_facts`.
        cuda: whether models run on a GPU.
    """

    folder: Path
    settings: dict[str, Any]
    directory: Path
    numeric: dict[str, Any]
    facts: dict[str, Any]
    cuda: bool


class Worker:
    """Becomes an actor of Ray. Answers are tuples that begin with a word; see `open` and `run`."""

    def open(self, place: Workplace, mark: str, perform: bytes) -> tuple:
        """("ready", host, process number), or ("failed", error as `packed` gives it).

        Args:
            mark: a file that was just made in the store's folder.
            perform: of `run_study`, as `sent` gives it.
        """
        try:
            _check_shared(place, mark)
            use_settings(place.numeric)
            if other := differences(numeric_facts(place.cuda), place.facts):
                name, (here, there) = next(iter(other.items()))
                raise InputError(
                    f"The worker on {platform.node()} differs in {', '.join(other)} ({name} is "
                    f"{here} there and {there} here), so its numbers would be others."
                )
            self.store = Store(place.folder, place.settings)
            self.perform = received(perform)
            self.decided: dict[str, Any] = {}
        except Exception as error:
            return "failed", packed(error)
        return "ready", platform.node(), os.getpid()

    def run(self, unit: bytes, arms: Sequence[str]) -> Iterator[tuple]:
        """("stored", arm, values) for each run that has its record, and one of these at last:
        ("done", warnings), ("held",) where another process is at the unit, ("memory", text) after
        an error for want of memory, ("failed", error as `packed` gives it).
        """
        with warnings.catch_warnings(record=True) as told:
            try:
                if new := [arm for arm in arms if arm not in self.decided]:
                    self.decided |= settings_of(self.perform, new)
                for arm, values in run_missing(
                    received(unit), arms, self.perform, self.store, self.decided
                ):
                    yield "stored", arm, values
            except HeldElsewhereError:
                yield ("held",)
            except (MemoryError, torch.OutOfMemoryError) as error:
                yield "memory", f"{type(error).__name__}: {error}"
            except Exception as error:
                yield "failed", packed(error)
            else:
                yield "done", [(each.category, str(each.message)) for each in told]


def packed(error: Exception) -> bytes:
    """An error with its traceback as a note, for another process."""
    error.add_note(f"In a worker on {platform.node()}:\n{traceback.format_exc()}")
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # of a class that only the worker knows, or that cannot be made again
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content


def _check_shared(place: Workplace, mark: str) -> None:
    """Refuse a machine that sees another folder, or none, under the same name."""
    needed = (
        f"All machines need one shared file system: the worker on {platform.node()} does not see "
    )
    deadline = time.monotonic() + SEEN_WITHIN_SECONDS
    # a network file system may take a moment to tell of a new file
    while not (place.folder / mark).is_file():
        if time.monotonic() > deadline:
            raise InputError(f"{needed}the files of this machine in {place.folder}.")
        time.sleep(0.1)
    try:
        os.chdir(place.directory)
    except OSError as error:
        raise InputError(
            f"{needed}the working directory {place.directory} ({error.strerror})."
        ) from error
