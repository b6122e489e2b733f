"""A function of a case that remembers its last answer, and can be sent to workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from recast_probe.datasets import Case

Answer = TypeVar("Answer")


class Remembered(Generic[Answer]):
    """All arms of a case share what is found out about it.

    `lru_cache` makes objects that cannot be sent to workers.

    Args:
        function: what is asked, once for as long as the case stays the same object.
    """

    def __init__(self, function: Callable[[Case], Answer]) -> None:
        self.function = function
        self._last: tuple[Case, Answer] | None = None

    def __call__(self, case: Case) -> Answer:
        if self._last is None or self._last[0] is not case:
            self._last = case, self.function(case)
        return self._last[1]
