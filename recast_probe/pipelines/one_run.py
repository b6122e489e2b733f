"""One observed run at a time, and nobody judges a pipeline in the middle of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recast_probe.errors import InputError

# nnsight traces one thread at a time, and a pipeline has one scheduler
_lock = threading.RLock()
_running = 0  # nested runs of the thread that holds the lock
_observed: list[Any] = []  # their pipelines
_forked_in_a_run = False


def _after_fork() -> None:
    """In a child process: a new lock where a thread that is not there holds the old one."""
    global _lock, _running, _forked_in_a_run
    if _lock.acquire(blocking=False):  # nobody's, or this thread's own
        _lock.release()
        return
    _forked_in_a_run |= _running > 0
    _running = 0
    _observed.clear()
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def between_runs() -> Iterator[None]:
    """Wait for the observed run of another thread, which has hooks in place; none begins inside.

    Raises:
        InputError: the process was forked in the middle of a run.
    """
    if _forked_in_a_run:
        raise InputError(
            "This process was forked while another thread ran the probe, so it holds a pipeline in "
            "the middle of a run. Fork between runs, or start processes by "
            "multiprocessing.get_context('spawn')."
        )
    with _lock:
        yield


@contextmanager
def one_run() -> Iterator[None]:
    """`between_runs`, and what happens inside is a run."""
    global _running
    with between_runs():
        _running += 1
        try:
            yield
        finally:
            _running -= 1


@contextmanager
def observing(pipeline: Any) -> Iterator[None]:
    """The pipeline is in an observed run of this thread, which is in `one_run`."""
    _observed.append(pipeline)
    try:
        yield
    finally:
        _observed.remove(pipeline)


def in_a_run(pipeline: Any) -> bool:
    """Whether this thread, which is in `between_runs`, is in an observed run of the pipeline."""
    return any(pipeline is each for each in _observed)
