"""An array of a store of profiles that stays that of the records it was opened with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from recast_probe.errors import ProfileFileError


class Records(Protocol):
    """What vouches for profiles; see `CheckedChunks`."""

    def record(self, place: int) -> dict[str, Any]: ...

    def forget(self) -> None: ...


class BoundArray:
    """What dask reads of an array: never a part of one saved profile and a part of a later one.

    A chunk is held against the record that is there when it is read. This one also asks that it be
    the record that was there when the array was opened.

    Args:
        array: of zarr, (profile, ...).
        store: that the array reads through.
        records: of the profiles that may be read, by place.
        place: of the one profile whose part of the array this is; None for all of it.
    """

    def __init__(
        self,
        array: Any,
        store: Records,
        records: Mapping[int, dict[str, Any]],
        place: int | None = None,
    ) -> None:
        self._array, self._store, self._records, self._place = array, store, records, place
        left_out = int(place is not None)
        self.shape, self.chunks = array.shape[left_out:], array.chunks[left_out:]
        self.dtype, self.ndim = array.dtype, array.ndim - left_out

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        key = key if self._place is None else (self._place, *key)
        places = np.atleast_1d(np.arange(self._array.shape[0])[key[0]]).tolist()
        try:
            found = self._array[key]
        except ProfileFileError:
            # what passes for damage where a later profile lies in the place of this one
            self._store.forget()
            self._check(places)
            raise
        self._check(places)
        return found

    def _check(self, places: list[int]) -> None:
        for place in places:
            opened = self._records[place]
            if self._store.record(place) != opened:
                raise ProfileFileError(
                    f"The profile {opened['name']!r} was saved anew after it was opened here; open "
                    "it again."
                )
