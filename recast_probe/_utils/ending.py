"""How a program ends: what people can mend, and every stop from outside, is one sentence."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from recast_probe.errors import RecastProbeError

FAILED = 2
STOPS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
# further stops while a first one is being obeyed change nothing, unless that takes too long
PATIENCE_SECONDS = 3.0
# full, quota, file too large, read-only, not allowed: for the user to mend
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def run_program(work: Callable[[], object], name: str) -> None:
    """Run a program's work. Errors for people, those of the system, Ctrl-C, SIGTERM and SIGHUP end
    it with one sentence on standard error and no traceback.

    Args:
        work: what is done; SystemExit passes through.
        name: of the program; the sentence begins with it.

    Raises:
        SystemExit: 2 after an error, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP.
    """
    stopped: list[int] = []
    # a stop may come at any moment, while the handlers are put in and taken out, too
    try:
        with _stoppable(stopped):
            work()
    except BaseException as error:
        # a library may have turned the stop into an error of its own
        if stopped or isinstance(error, KeyboardInterrupt):
            number = stopped[0] if stopped else signal.SIGINT
            message, code = _stopped_by(number), 128 + number
        elif isinstance(error, RecastProbeError):
            message, code = str(error), FAILED
        elif isinstance(error, OSError):
            message, code = _in_words(error), FAILED
        else:
            raise
        if isinstance(error, BrokenPipeError):
            _forget_output()
        print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
        raise SystemExit(code) from None


@contextmanager
def _stoppable(stopped: list[int]) -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does; `stopped` gets their numbers.

    A quick second stop does not break into the first one's clearing up. Signals that are ignored,
    as under nohup, or handled by someone else stay so. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process, last = os.getpid(), -PATIENCE_SECONDS

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != process:  # a forked child is nobody's program
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if time.monotonic() - last < PATIENCE_SECONDS:
            return
        last = time.monotonic()
        stopped.append(number)
        if len(stopped) == 1:
            # while the interpreter shuts down, libraries would answer with their tracebacks
            atexit.register(_ignore_stops)
        raise KeyboardInterrupt

    ours = (signal.SIG_DFL, signal.default_int_handler, _end_now)
    before = {each: signal.getsignal(each) for each in STOPS}
    before = {each: handler for each, handler in before.items() if handler in ours}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        # after a stop the program is about to end, and no second one may disturb that
        if not stopped:
            for each, handler in before.items():
                signal.signal(each, handler)


def stoppable_while_importing() -> None:
    """For the first line of a program whose imports take seconds: until `run_program`, a stop ends
    it with its sentence at once, since there is nothing yet to clear up."""
    for each in STOPS:
        if signal.getsignal(each) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(each, _end_now)


def _end_now(number: int, _: FrameType | None) -> None:
    print(_stopped_by(number), file=sys.stderr, flush=True)
    os._exit(128 + number)


def _stopped_by(number: int) -> str:
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    return f"Interrupted{by}."


def _in_words(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _DISK:
        return (
            f"{error.strerror}{where}. What was finished before is kept, and no file is half "
            "written; make room or choose another --out, and run the command again."
        )
    return f"{error.strerror}{where}." if error.strerror else str(error) or type(error).__name__


def _forget_output() -> None:
    """Nobody reads standard output any more; what is left in it would raise at the very end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _ignore_stops() -> None:
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
