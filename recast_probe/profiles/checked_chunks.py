"""A zarr store that hands on no file that is not what its record says."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore, WrapperStore

from recast_probe.errors import DamagedFileError, ProfileFileError
from recast_probe.files.envelope import digest, read_sealed


class CheckedChunks(WrapperStore):
    """Reads the arrays of a store of profiles; nothing can be written through it.

    Args:
        folder: of the store of profiles.
        template: what all profiles share, with the digests of the arrays' descriptions.
        names: of the profiles, by their places.
    """

    def __init__(self, folder: Path, template: Mapping[str, Any], names: Sequence[str]) -> None:
        super().__init__(LocalStore(folder / "arrays", read_only=True))
        self._folder, self._template, self._names = folder, template, names
        self._digest = digest(dict(template))
        self._records: dict[int, dict[str, Any]] = {}

    def record(self, place: int) -> dict[str, Any]:
        """What vouches for the profile at a place.

        Raises:
            ProfileFileError: it is missing or damaged, or of another profile or store.
        """
        known = self._records
        if place not in known:
            path = self._folder / "records" / f"{place:06d}.json"
            try:
                found = read_sealed(path, "StoredProfile")
            except DamagedFileError as error:
                raise ProfileFileError(str(error)) from None
            if (found["name"], found["template"]) != (self._names[place], self._digest):
                raise ProfileFileError(f"{path} belongs to another profile or store.")
            known[place] = found
        return known[place]

    def forget(self) -> None:
        """Read the records anew: profiles may have been saved anew."""
        self._records = {}

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """A whole file, or None where there is none and none is wanted.

        Raises:
            ProfileFileError: it is missing or changed, or was never written by `save`.
        """
        wanted = self._wanted(key)
        found = await self._store.get(key, prototype)
        held = None if found is None else hashlib.sha256(found.to_bytes()).hexdigest()
        if held != wanted:
            raise ProfileFileError(
                f"{self._folder / 'arrays' / key} is damaged: it is not as it was written. Save "
                "the profile again."
            )
        if found is None or byte_range is None:
            return found
        return await self._store.get(key, prototype, byte_range)

    def _wanted(self, key: str) -> str | None:
        """The digest of a file; None where there shall be none."""
        parts = key.split("/")
        if len(parts) > 2 and parts[1] == "c":
            return self.record(int(parts[2]))["chunks"].get(key)
        return self._template["metadata"].get(key)
