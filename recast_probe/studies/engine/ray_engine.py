"""A study on workers of Ray, which are replaced when they die."""

from __future__ import annotations

import os
import pickle
import platform
import sys
import tempfile
import time
import warnings
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recast_probe._utils.checks import check_finite, check_int
from recast_probe._utils.optional import need
from recast_probe.errors import InputError, WorkerLostError
from recast_probe.files.stray import temporary_prefix
from recast_probe.studies.engine.ray_cluster import connected, starts_own
from recast_probe.studies.engine.ray_worker import Worker, Workplace
from recast_probe.studies.engine.same_numbers import numeric_facts, numeric_settings
from recast_probe.studies.engine.sending import sent
from recast_probe.studies.engine.unit_runs import Perform, Tell, Unit, unit_name
from recast_probe.studies.store import Store

AGAIN = 3
"""So often a unit is run again after its worker died."""
POLL_SECONDS = 0.2
ROOM_SECONDS = 30.0
MARK_SECONDS = 60.0
END_SECONDS = 5.0
PURPOSE = "The engine 'ray'"


@dataclass(frozen=True)
class RaySettings:
    """How workers are had; see `run_study`."""

    workers: int | None = None
    gpus_per_worker: float | None = None
    address: str | None = None

    @classmethod
    def checked(
        cls, workers: int | None, gpus_per_worker: float | None, address: str | None
    ) -> RaySettings:
        """The settings.

        Raises:
            InputError: one that cannot be, or Ray is not installed.
        """
        if workers is not None:
            workers = check_int("workers", workers, 1)
        if gpus_per_worker is not None:
            each = gpus_per_worker = check_finite("gpus_per_worker", gpus_per_worker)
            if each < 0 or (each > 1 and each != int(each)):
                raise InputError(
                    f"gpus_per_worker must be a part of one GPU or a whole number, not {each!r}."
                )
        need("ray", PURPOSE)
        return cls(workers, gpus_per_worker, address)


def run_on_ray(
    asked: Mapping[int, tuple[Unit, Sequence[str]]],
    perform: Perform,
    store: Store,
    tell: Tell,
    settings: RaySettings,
) -> None:
    """Run units on workers.

    Args:
        asked: by number, each unit with the arms that it lacks.
        tell: is told of each run that is stored.

    Raises:
        InputError: there is no such cluster, `perform` cannot be sent, a worker differs from this
            process; also what `perform` raises, as any other of its errors.
        WorkerLostError: workers died again and again; all else was run.
    """
    ray = need("ray", PURPOSE)
    work = sent(perform, "What a study performs")
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = float("cuda" in work.devices)
    if not gpus and "cuda" in work.devices:
        raise InputError(
            "The probe is on CUDA, and workers with gpus_per_worker=0 have no GPU; give each 1, or "
            "a part of one."
        )
    own = starts_own(ray, settings.address)
    # what Ray tells of its machines goes to standard output otherwise, which is for results
    with connected(ray, settings.address, settings.workers), redirect_stdout(sys.stderr):
        there = ray.cluster_resources()
        workers = settings.workers or max(1, int(there.get("GPU", 0) / gpus) if gpus else 1)
        if own and gpus * workers > there.get("GPU", 0):
            raise InputError(
                f"workers={workers} with gpus_per_worker={gpus:g} need more GPUs than the "
                f"{there.get('GPU', 0):g} that Ray finds on this machine."
            )
        place = Workplace(
            store.folder.resolve(),
            store.settings,
            Path.cwd(),
            numeric_settings(),
            numeric_facts("cuda" in work.devices),
            "cuda" in work.devices,
        )
        crew = Crew(ray, asked, place, work.content, tell, workers, gpus)
        try:
            crew.work()
        finally:
            crew.end()


class Crew:
    """Workers of one study, and what each is at."""

    def __init__(
        self,
        ray: Any,
        asked: Mapping[int, tuple[Unit, Sequence[str]]],
        place: Workplace,
        perform: bytes,
        tell: Tell,
        workers: int,
        gpus: float,
    ) -> None:
        self.ray, self.asked, self.place, self.tell = ray, asked, place, tell
        self.workers = workers
        self.perform = ray.put(perform)
        self.kind = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(
            Worker
        )
        self.queue = deque(asked)
        self.held: dict[int, float] = {}  # units that others are at, and when to ask again
        self.opening: dict[Any, tuple[Any, Path]] = {}  # answer: worker, mark
        self.running: dict[Any, tuple[Any, int]] = {}  # answers: worker, unit
        self.idle: list[Any] = []
        self.processes: dict[Any, tuple[str, int]] = {}  # worker: host, process
        self.deaths: Counter[int] = Counter()
        self.unopened = 0  # workers in a row that died before they were ready
        self.given_up: dict[int, str] = {}
        self.began, self.told = time.monotonic(), set[str]()
        self.marked = self.began

    def work(self) -> None:
        """Until every unit is done or given up."""
        while self.queue or self.held or self.running:
            self._hire()
            self._assign()
            self._hear()
        if self.given_up:
            self._report()

    def end(self) -> None:
        """End all workers, and wait a little until those of this machine are gone."""
        here = platform.node()
        for worker in [*self.idle, *(each for each, _ in self._busy())]:
            with suppress(Exception):
                self.ray.kill(worker)
        for _, mark in self.opening.values():
            mark.unlink(missing_ok=True)
        deadline = time.monotonic() + END_SECONDS
        ours = [number for host, number in self.processes.values() if host == here]
        while any(map(_alive, ours)) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _busy(self) -> list[tuple[Any, Any]]:
        return [*self.opening.values(), *self.running.values()]

    def _hire(self) -> None:
        """As many workers as there is work for."""
        left = len(self.queue) + len(self.held) + len(self.running)
        for _ in range(min(self.workers, left) - len(self.idle) - len(self._busy())):
            worker = self.kind.remote()
            mark = _mark(self.place.folder)
            answer = worker.open.remote(self.place, mark.name, self.perform)
            self.opening[answer] = worker, mark

    def _assign(self) -> None:
        now = time.monotonic()
        for number in [each for each, again in self.held.items() if again <= now]:
            del self.held[number]
            self.queue.append(number)
        while self.idle and self.queue:
            worker, number = self.idle.pop(), self.queue.popleft()
            unit, arms = self.asked[number]
            content = sent(unit, f"The unit {unit_name(unit)}").content
            # answers come one by one, so that each run counts as soon as it is stored
            answers = worker.run.options(num_returns="streaming").remote(content, list(arms))
            self.running[answers] = worker, number

    def _hear(self) -> None:
        """Wait for answers, and take those that there are."""
        self._keep_marks()
        waiting = [*self.opening, *self.running]
        if not waiting:
            if len(self.held) and not self.queue:
                self._say(f"Another process works in {self.place.folder}; waiting for it.")
            time.sleep(POLL_SECONDS)
            return
        if not self.processes and time.monotonic() - self.began > ROOM_SECONDS:
            there = self.ray.cluster_resources()
            self._say(
                f"No worker is ready yet: each opens its model, or waits for room in the cluster, "
                f"which has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs in all."
            )
        seconds = POLL_SECONDS if self.held else 1.0
        ready, _ = self.ray.wait(waiting, num_returns=1, timeout=seconds)
        for answer in ready:
            if answer in self.opening:
                self._opened(answer)
            else:
                self._answered(answer)

    def _keep_marks(self) -> None:
        """Show now and then that marks are waited for: other machines cannot ask this process, and
        sweep what did not change for an hour."""
        if time.monotonic() - self.marked > MARK_SECONDS:
            self.marked = time.monotonic()
            for _, mark in self.opening.values():
                with suppress(OSError):
                    mark.touch()

    def _opened(self, answer: Any) -> None:
        worker, mark = self.opening.pop(answer)
        mark.unlink(missing_ok=True)
        try:
            said = self.ray.get(answer)
        except self.ray.exceptions.RayTaskError:
            raise  # of our own code: another version of it there
        except self.ray.exceptions.RayError as error:
            self.unopened += 1
            if self.unopened > AGAIN:
                raise WorkerLostError(
                    f"{self.unopened} workers died, one after the other, before they had opened "
                    f"their model. The last error: {_short(error)}"
                ) from None
            self._say(f"A worker died before it was ready and is replaced: {_short(error)}")
            return
        if said[0] == "failed":
            raise pickle.loads(said[1])
        self.unopened = 0
        self.processes[worker] = said[1:]
        self.idle.append(worker)

    def _answered(self, answers: Any) -> None:
        worker, number = self.running[answers]
        try:
            said = self.ray.get(next(answers))
        except self.ray.exceptions.RayTaskError:
            raise
        except (self.ray.exceptions.RayError, StopIteration) as error:
            self._lost(answers, _short(error))
            return
        word, rest = said[0], said[1:]
        if word == "stored":
            self.tell(number, *rest)
            return
        if word == "failed":
            raise pickle.loads(rest[0])
        if word == "memory":
            self._lost(answers, rest[0])
            return
        del self.running[answers]
        self.idle.append(worker)
        if word == "held":
            self.held[number] = time.monotonic() + POLL_SECONDS
        else:
            for category, text in rest[0]:
                warnings.warn(text, category, stacklevel=2)

    def _lost(self, answers: Any, error: str) -> None:
        """A worker died at a unit, or cannot be relied on any more."""
        worker, number = self.running.pop(answers)
        # one that only cannot be reached would hold its unit
        with suppress(Exception):
            self.ray.kill(worker)
        self.deaths[number] += 1
        name = unit_name(self.asked[number][0])
        if self.deaths[number] > AGAIN:
            self.given_up[number] = error
            tqdm.write(f"Given up after {AGAIN + 1} workers: {name}. {error}", sys.stderr)
        else:
            self.queue.append(number)
            again = f"it is run again, {self.deaths[number]} of {AGAIN} times"
            tqdm.write(f"A worker died at {name}; {again}. {error}", sys.stderr)

    def _report(self) -> None:
        units = [
            f"{unit_name(self.asked[number][0])} ({error})"
            for number, error in list(self.given_up.items())[:3]
        ]
        more = len(self.given_up) - len(units)
        raise WorkerLostError(
            f"{len(self.given_up)} of {len(self.asked)} units are missing, at each of which "
            f"{AGAIN + 1} workers died: {'; '.join(units)}{f'; and {more} more' if more else ''}. "
            "All others are stored; the same call tries these again."
        )

    def _say(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            tqdm.write(text, sys.stderr)


def _mark(folder: Path) -> Path:
    """A new file, by which a worker tells that it sees this folder."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=temporary_prefix(folder / "worker"))
    os.close(handle)
    return Path(name)


def _alive(process: int) -> bool:
    with suppress(OSError):
        os.kill(process, 0)
        return True
    return False


def _short(error: BaseException) -> str:
    """Ray's reason for a death, without its advice."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.partition("The actor is dead because ")[2] or text
    text = text.partition(" Some common causes include")[0]
    return f"{type(error).__name__}: {text[:300]}{'...' if len(text) > 300 else ''}"
