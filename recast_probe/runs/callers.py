"""Which pipeline calls, told from the stack: a transformer that is shared does not know."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def calling_pipeline() -> Any | None:
    """The innermost diffusers pipeline whose call this thread is in; None outside of any."""
    from diffusers import DiffusionPipeline

    for frame in _outwards(sys._getframe(1)):
        if frame.f_code.co_name == "__call__":
            caller = frame.f_locals.get("self")
            if isinstance(caller, DiffusionPipeline):
                return caller
    return None


def threads_within(pipeline: Any) -> dict[int, int]:
    """Threads that are in a call of the pipeline right now, each with a number for that call."""
    owners = [owner for owner in type(pipeline).__mro__ if "__call__" in vars(owner)]
    calls = {getattr(inspect.unwrap(vars(owner)["__call__"]), "__code__", None) for owner in owners}
    found = {}
    for thread, top in sys._current_frames().items():
        for frame in _outwards(top):
            known = frame.f_code in calls or frame.f_code.co_name == "__call__"
            if known and frame.f_locals.get("self") is pipeline:
                found[thread] = id(frame)
                break
    return found


class OneThread:
    """Refuses two calls of one pipeline at once, in both threads."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._spoiled: dict[int, int] = {}

    def disturbed(self) -> bool:
        """Whether another thread is in a call of the pipeline, or was since this call began."""
        mine = threading.get_ident()
        within = threads_within(self._pipeline)
        own = within.pop(mine, None)
        before = self._spoiled.pop(mine, None)
        self._spoiled |= within
        return bool(within) or (before is not None and before == own)
