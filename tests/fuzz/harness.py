"""Runs trials in processes of their own, so that one that hangs or dies is counted and no more.

A trial is one input. It returns "right" (the right answer, or damage noticed and mended), "clear"
(refused in words), "accepted" (another valid input, or a forger's: nothing can tell), or a text
that begins with "SILENT" (a wrong answer without a word). A `RecastProbeError` counts as clear, any
other exception as RAW.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recast_probe.errors import RecastProbeError

LIMIT_SECONDS = 30
LIMIT_BYTES = 2**31
"""More memory than a trial may take on top of what was held before it."""
BAD = ("RAW", "SILENT", "hang")


@dataclass(frozen=True)
class FuzzClass:
    """One kind of input.

    Attributes:
        name: of the class.
        trial: given a random generator and what `prepare` gave; see the module.
        prepare: given an empty folder and the folder of whole files; called once a process.
        share: of 10,000 inputs.
    """

    name: str
    trial: Callable[[random.Random, Any], str]
    prepare: Callable[[Path, Path], Any]
    share: int


@dataclass
class Counts:
    """What became of the inputs of a class; `bad` holds index and details."""

    found: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[int, str]] = field(default_factory=list)


def one(each: FuzzClass, seed: int, index: int, state: Any) -> str:
    """What became of one input."""
    rng = random.Random(f"{seed}/{each.name}/{index}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            found = each.trial(rng, state)
    except RecastProbeError as error:
        found = "clear" if str(error).strip() else "RAW an error without a word"
    except (KeyboardInterrupt, Exception) as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "recast_probe" in frame.filename] or frames
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        found = f"RAW {type(error).__name__} at {place}: {str(error)[:120]}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return f"RAW took {grown / 2**30:.1f} GiB" if grown > LIMIT_BYTES else found


def run(
    classes: Sequence[FuzzClass], counts: dict[str, int], seed: int, base: Path, lanes: int = 2
) -> dict[str, Counts]:
    """Run so many inputs of each class, in `lanes` processes.

    Args:
        counts: inputs by the name of the class.
        base: the folder of whole files.
    """
    found = {each.name: Counts() for each in classes}
    with tempfile.TemporaryDirectory() as scratch:
        logs = [Path(scratch) / f"lane-{lane}.log" for lane in range(lanes)]
        children = []
        for lane, log in enumerate(logs):
            child = os.fork()
            if not child:
                _guarded(
                    lambda lane=lane, log=log: _lane(
                        classes, counts, seed, base, range(lane, 10**9, lanes), log
                    )
                )
            children.append(child)
        for status in [os.waitpid(child, 0)[1] for child in children]:
            if status:
                raise RuntimeError(f"A lane of the fuzzer ended with status {status}.")
        for log in logs:
            for line in log.read_text(errors="replace").splitlines():
                name, index, outcome = line.split("\t", 2)
                kind = outcome.split()[0].rstrip(":")
                found[name].found[kind] += 1
                if kind in BAD:
                    found[name].bad.append((int(index), outcome))
    return found


def _guarded(work: Callable[[], None]) -> None:
    """Do something in a forked process and end it, whatever happens."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _lane(
    classes: Sequence[FuzzClass],
    counts: dict[str, int],
    seed: int,
    base: Path,
    mine: range,
    log: Path,
) -> None:
    log.touch()
    for each in classes:
        todo = [index for index in range(counts[each.name]) if index in mine]
        while todo:
            done = _child(each, seed, base, todo, log)
            todo = todo[done:]


def _child(each: FuzzClass, seed: int, base: Path, todo: list[int], log: Path) -> int:
    """Run inputs in a process until they are done or it dies; gives how many were run."""
    before = len(log.read_text(errors="replace").splitlines())
    with tempfile.TemporaryDirectory() as scratch:
        child = os.fork()
        if not child:
            _guarded(lambda: _trials(each, seed, base, Path(scratch), todo, log))
        _, status = os.waitpid(child, 0)
    done = len(log.read_text(errors="replace").splitlines()) - before
    if done < len(todo):
        if not os.WIFSIGNALED(status):
            with log.open("a") as file:
                file.write(f"{each.name}\t{todo[done]}\tRAW its whole files cannot be made\n")
            return len(todo)
        number = os.WTERMSIG(status)
        outcome = "hang" if number == signal.SIGALRM else f"RAW killed by signal {number}"
        with log.open("a") as file:
            file.write(f"{each.name}\t{todo[done]}\t{outcome}\n")
        done += 1
    return done


def _trials(
    each: FuzzClass, seed: int, base: Path, scratch: Path, todo: list[int], log: Path
) -> None:
    os.environ["XDG_CACHE_HOME"] = str(scratch / "cache")
    (scratch / "work").mkdir()
    state = each.prepare(scratch / "work", base)
    # libraries tell of what they read on standard error
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with log.open("a", buffering=1) as file:
        for index in todo:
            # the default action ends the process: no handler of Python runs in a loop of C
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LIMIT_SECONDS)
            outcome = " ".join(one(each, seed, index, state).split())
            signal.alarm(0)
            file.write(f"{each.name}\t{index}\t{outcome}\n")
