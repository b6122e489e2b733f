"""Ray for the length of one call: the cluster that was named, or one of our own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from recast_probe.errors import InputError

ADDRESS = "RAY_ADDRESS"
OWN = "local"  # the address of a Ray for the length of a call
# a Ray of our own tells its maker nothing and runs workers with the priority of this process,
# unless the user wants it otherwise
USUAL = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
ATTEMPTS = 3
BEGIN_SECONDS = 1.0


def starts_own(ray: Any, address: str | None) -> bool:
    """Whether `connected` starts a Ray for the call, with the GPUs of this machine alone."""
    return not ray.is_initialized() and _wanted(address) == OWN


def _wanted(address: str | None) -> str:
    return address or os.environ.get(ADDRESS) or OWN


@contextmanager
def connected(ray: Any, address: str | None, workers: int | None) -> Iterator[None]:
    """Be connected to Ray; what we started ends with the block.

    Ray of this process that runs already is used as it is, and left running.

    Args:
        address: of a cluster; None for that in RAY_ADDRESS, or else a Ray of our own.
        workers: that a Ray of our own must have room for.

    Raises:
        InputError: there is no such cluster, or another one than that of this process.
    """
    if ray.is_initialized():
        if address is not None:
            raise InputError(
                f"This process is connected to Ray already, so address={address!r} cannot be used; "
                "leave it out, or call ray.shutdown() before."
            )
        yield
        return
    wanted = _wanted(address)
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if wanted == OWN:
        for name, value in USUAL.items():
            os.environ.setdefault(name, value)
        # one for each worker, however few there are; of GPUs Ray finds all
        settings |= {"num_cpus": workers or os.cpu_count() or 1, "include_dashboard": False}
    before = _handler_of_sigterm()
    try:
        with _own_handler_of_sigterm():
            try:
                _begin(ray, 1 if wanted != OWN else ATTEMPTS, address=wanted, **settings)
            except Exception as error:  # of a class of its own for every cause, or of none
                raise InputError(
                    f"No Ray could be had at address={wanted!r} ({' '.join(str(error).split())}). "
                    "`ray status` shows a cluster that runs; without an address Ray is started "
                    "for the call."
                ) from error
        yield
    finally:
        ray.shutdown()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _begin(ray: Any, attempts: int, **settings: Any) -> None:
    """`ray.init`; a Ray of our own, which gives its parts half a minute, is tried again."""
    for attempt in range(attempts):
        before = set(_children())
        try:
            ray.init(**settings)
            return
        except Exception:
            for each in set(_children()) - before:
                with suppress(psutil.Error):
                    if any("ray" in part for part in _command(each)):
                        each.kill()
            if attempt == attempts - 1:
                raise


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _command(process: psutil.Process) -> list[str]:
    """What a process runs; one that has only just begun says nothing at first, so it is waited for.

    Raises:
        psutil.Error: the process has ended.
    """
    deadline = time.monotonic() + BEGIN_SECONDS
    while not (command := process.cmdline()) and time.monotonic() < deadline:
        time.sleep(0.001)
    return command


@contextmanager
def _own_handler_of_sigterm() -> Iterator[None]:
    """`ray.init` puts in a handler that exits without a word; ours comes back."""
    before = _handler_of_sigterm()
    try:
        yield
    except SystemExit:
        if callable(before):
            signal.signal(signal.SIGTERM, before)
            before(signal.SIGTERM, None)
        raise
    finally:
        # as long as Ray runs, its own one is better than none: it ends the workers
        if callable(before):
            signal.signal(signal.SIGTERM, before)


def _handler_of_sigterm() -> Any:
    """None where there is none that Python knows, and outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.getsignal(signal.SIGTERM)
