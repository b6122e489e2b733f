"""Profiles of a whole benchmark in one zarr store, larger than memory, written by several workers.

The arrays have one dimension more than a profile's, "profile", and a chunk never holds two
profiles: workers write regions that no other writes. What a profile needs beside its arrays, and
the SHA-256 of each of its chunks, stands in a record that is written last. So a record vouches for
its profile, and one that was cut short is not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from recast_probe._utils.optional import need
from recast_probe.blocks import Blocks
from recast_probe.errors import DamagedFileError, InputError, ProfileFileError
from recast_probe.files.atomic import atomic_folder, write_json
from recast_probe.files.envelope import digest, file_digest, read_sealed, sealed
from recast_probe.files.locks import held
from recast_probe.profiles.bound_array import BoundArray
from recast_probe.profiles.profile import AttentionProfile, Indices
from recast_probe.profiles.profile_file import DIMENSIONS
from recast_probe.profiles.profile_input import as_profile
from recast_probe.profiles.profile_reading import COORDINATES, check_values

PURPOSE = "A store of profiles"
NAMES, TEMPLATE, ARRAYS, RECORDS = "store.json", "template.json", "arrays", "records"
PROFILE = "profile"
KINDS = {"text": np.str_, "whole": np.int64, "real": np.float64}


class ProfileStore:
    """Profiles by name, of one layout and selection.

    Iterating gives one profile after the other, in the order of the names, of those that are
    there: ``rp.survey(store)``. Needs the extra ``zarr``.

    Args:
        folder: made if it is not there.
        names: of all profiles that it shall hold, such as the benchmark's cases; None for those of
            a store that is there.

    Raises:
        InputError: no names for a new store, a name that is there twice, or other names than the
            store has.
        ProfileFileError: the folder's own files are damaged.
        MissingPackageError: zarr or dask is not installed.

    Examples:
        >>> import tempfile
        >>> from recast_probe.testing.planted_profiles import planted
        >>> with tempfile.TemporaryDirectory() as place:
        ...     store = rp.ProfileStore(place, ["fox", "hen", "cow"])
        ...     for name in ("fox", "hen"):
        ...         store.save(name, planted(np.arange(16.0) / 200))
        ...     print(store, store.missing(), rp.survey(store).summary()["profiles"])
        ProfileStore(2 of 3 profiles) ['cow'] 2.0
    """

    def __init__(self, folder: str | Path, names: Sequence[str] | None = None) -> None:
        need("zarr", PURPOSE)
        need("dask", PURPOSE)
        self.folder = Path(folder)
        described = self.folder / NAMES
        if not described.exists():
            self._begin(names)
        self.names: tuple[str, ...] = tuple(_read(described, "ProfileStore")["names"])
        self._places = {name: place for place, name in enumerate(self.names)}
        self._open: tuple[dict[str, Any], _Arrays] | None = None
        if names is not None and tuple(map(str, names)) != self.names:
            raise InputError(
                f"{self.folder} holds {len(self.names)} other profiles, or the same in another "
                "order; choose another folder, or leave names out."
            )

    def _begin(self, names: Sequence[str] | None) -> None:
        if names is None:
            raise InputError(f"There is no store of profiles in {self.folder}.")
        given = [str(name) for name in names]
        if not given or len(set(given)) < len(given):
            raise InputError("A store of profiles needs names, each of them once.")
        (self.folder / RECORDS).mkdir(parents=True, exist_ok=True)
        with held(self.folder / "store.lock", wait=True):
            if not (self.folder / NAMES).exists():
                write_json(self.folder / NAMES, sealed({"names": given}, "ProfileStore"))

    def __len__(self) -> int:
        """How many profiles are there."""
        return sum(self._record_of(place).exists() for place in range(len(self.names)))

    def __contains__(self, name: object) -> bool:
        return name in self._places and self._record_of(self._places[str(name)]).exists()

    def __iter__(self) -> Iterator[AttentionProfile]:
        """The profiles that are there, each in memory as long as it is held."""
        return (self.load(name) for name in self.names if name in self)

    def __repr__(self) -> str:
        return f"ProfileStore({len(self)} of {len(self.names)} profiles)"

    def missing(self) -> list[str]:
        """Names of profiles that are not there."""
        return [name for name in self.names if name not in self]

    def save(self, name: str, profile: AttentionProfile) -> None:
        """Write a profile, in place of an earlier one of this name.

        Several processes may write at once, also the same name: one of them after the other.

        Raises:
            InputError: an unknown name, or a profile of another layout, selection or format than
                those that are there.
            OSError: the disk is full; the profile is not there then.
        """
        place, profile = self._place(name), as_profile(profile)
        check_values(profile.dataset)
        template = self._template_for(profile)
        record = self._record_of(place)
        with held(record.with_suffix(".lock"), wait=True):
            # an older record would vouch for chunks that are replaced now
            record.unlink(missing_ok=True)
            group = need("zarr", PURPOSE).open_group(
                str(self.folder / ARRAYS), mode="r+", zarr_format=3
            )
            chunks: dict[str, str] = {}
            for variable in template["variables"]:
                group[variable][place] = profile.dataset[variable].values
                folder = self.folder / ARRAYS / variable / "c" / str(place)
                for path in sorted(each for each in folder.rglob("*") if each.is_file()):
                    _flush(path)
                    key = path.relative_to(self.folder / ARRAYS).as_posix()
                    chunks[key] = file_digest(path)
            facts = {
                "name": name,
                "template": digest(template),
                "provenance": profile.provenance,
                "chunks": chunks,
            }
            write_json(record, sealed(facts, "StoredProfile"))

    def load(self, name: str) -> AttentionProfile:
        """A profile in memory, checked as one from a file is.

        Raises:
            InputError: an unknown name, or one that was not saved.
            ProfileFileError: damaged.
        """
        lazy = self._opened([name], lazily=False)
        try:
            check_values(lazy.dataset)
        except InputError as error:
            raise ProfileFileError(f"{name!r} in {self.folder} is damaged: {error}") from None
        return lazy

    def lazy(self, name: str) -> AttentionProfile:
        """A profile whose arrays are read when they are needed, and only the chunks that are.

        Diagnostics take it as it is; ``store.lazy(name).sel(blocks=3)`` reads one block. Every
        chunk is held against its checksum as it is read. Where the profile was saved anew in the
        meantime, reading it is refused.

        Raises:
            InputError, ProfileFileError: as `load`; also when values are read.
        """
        return self._opened([name], lazily=True)

    def profiles(
        self,
        blocks: Blocks | None = None,
        steps: Indices = None,
        heads: Indices = None,
        branch: str | None = None,
    ) -> Iterator[AttentionProfile]:
        """A part of each profile that is there, in memory; nothing else is read.

        The arguments are those of ``AttentionProfile.sel``.
        """
        for name in self.names:
            if name in self:
                part = self.lazy(name).sel(blocks, steps, heads, branch)
                yield AttentionProfile(part.dataset.load())

    def dataset(self) -> xr.Dataset:
        """All profiles that are there as one dataset of dask arrays, (profile, branch, ...).

        Nothing is read before it is asked for: ``store.dataset().score.mean("profile").compute()``.

        Raises:
            InputError: no profile is there.
            ProfileFileError: damaged, or saved anew since; also when values are read.
        """
        template, arrays, there = self._arrays([name for name in self.names if name in self])
        records = {place: arrays.store.record(place) for place in there}
        variables = {
            name: (
                (PROFILE, *DIMENSIONS[name]),
                _as_dask(BoundArray(arrays[name], arrays.store, records))[there],
            )
            for name in template["variables"]
        }
        coordinates = _coordinates(template)
        named = {PROFILE: [self.names[place] for place in there]}
        return xr.Dataset(variables, {**coordinates, **named}, template["attributes"])

    def _opened(self, names: Sequence[str], lazily: bool) -> AttentionProfile:
        template, arrays, (place,) = self._arrays(names)
        record = arrays.store.record(place)
        attributes = {**template["attributes"], "provenance": json.dumps(record["provenance"])}
        bound = {
            name: BoundArray(arrays[name], arrays.store, {place: record}, place)
            for name in template["variables"]
        }
        variables = {
            name: (DIMENSIONS[name], _as_dask(each) if lazily else each[()])
            for name, each in bound.items()
        }
        return AttentionProfile(xr.Dataset(variables, _coordinates(template), attributes))

    def _arrays(self, names: Sequence[str]) -> tuple[dict[str, Any], _Arrays, list[int]]:
        """Template, opened arrays and places of profiles that must be there."""
        places = [self._place(name) for name in names]
        absent = [name for name in names if name not in self]
        if absent or not names:
            raise InputError(f"{absent[0] if absent else 'No profile'!r} is not in {self!r}.")
        if self._open is None:
            template = _read(self.folder / TEMPLATE, "ProfileTemplate")
            self._open = template, _open_checked(self.folder, template, self.names)
        template, arrays = self._open
        # another process may have saved a profile anew
        arrays.store.forget()
        return template, arrays, places

    def _place(self, name: str) -> int:
        if name not in self._places:
            raise InputError(f"{name!r} is none of the {len(self.names)} names of this store.")
        return self._places[name]

    def _record_of(self, place: int) -> Path:
        return self.folder / RECORDS / f"{place:06d}.json"

    def _template_for(self, profile: AttentionProfile) -> dict[str, Any]:
        """What all profiles share; made of the first one, together with the empty arrays."""
        path, own = self.folder / TEMPLATE, _template(profile)
        if not path.exists():
            with held(self.folder / "store.lock", wait=True):
                if not path.exists():
                    metadata = _make_arrays(self.folder / ARRAYS, own, len(self.names))
                    write_json(path, sealed({**own, "metadata": metadata}, "ProfileTemplate"))
        found = _read(path, "ProfileTemplate")
        for name, value in own.items():
            if found[name] != value:
                raise InputError(
                    f"This profile is of another kind than those in {self.folder}: the {name} "
                    "differ. One store holds profiles of one layout, selection and format; give "
                    "others a store of their own."
                )
        return found


def _template(profile: AttentionProfile) -> dict[str, Any]:
    dataset = profile.dataset
    return {
        "variables": [str(name) for name in dataset.data_vars],
        "shapes": {str(name): list(each.shape) for name, each in dataset.data_vars.items()},
        "attributes": {
            str(name): value if isinstance(value, str) else int(value)
            for name, value in dataset.attrs.items()
            if name != "provenance"
        },
        "coordinates": {name: dataset[name].values.tolist() for name in COORDINATES},
    }


def _coordinates(template: Mapping[str, Any]) -> dict[str, tuple[str, np.ndarray]]:
    return {
        name: (dimension, np.array(template["coordinates"][name], KINDS[kind]))
        for name, (dimension, kind) in COORDINATES.items()
    }


def _make_arrays(folder: Path, template: Mapping[str, Any], count: int) -> dict[str, str]:
    """Empty arrays for so many profiles; gives the digests of what describes them."""
    zarr = need("zarr", PURPOSE)
    with atomic_folder(folder) as temporary:
        group = zarr.create_group(str(temporary), zarr_format=3, overwrite=True)
        for name in template["variables"]:
            shape = template["shapes"][name]
            group.create_array(
                name,
                shape=(count, *shape),
                chunks=_chunks(name, shape),
                dtype="float32",
                dimension_names=[PROFILE, *DIMENSIONS[name]],
                fill_value=0.0,
            )
        found = {
            path.relative_to(temporary).as_posix(): file_digest(path)
            for path in sorted(temporary.rglob("zarr.json"))
        }
    return found


def _chunks(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """One profile in a chunk, and of scores one branch and block, so that parts can be read."""
    if name != "score":
        return 1, *shape
    branch, block = (DIMENSIONS[name].index(each) for each in ("branch", "block"))
    return 1, *(1 if axis in (branch, block) else size for axis, size in enumerate(shape))


@dataclass(frozen=True)
class _Arrays:
    """Arrays by name, and the store that checks their files."""

    by_name: Mapping[str, Any]
    store: Any

    def __getitem__(self, name: str) -> Any:
        return self.by_name[name]


def _open_checked(folder: Path, template: Mapping[str, Any], names: Sequence[str]) -> _Arrays:
    """The arrays, of which every file that is read is held against its checksum."""
    from recast_probe.profiles.checked_chunks import CheckedChunks

    store = CheckedChunks(folder, template, names)
    found = {}
    try:
        group = need("zarr", PURPOSE).open_group(store, mode="r", zarr_format=3)
        for name in template["variables"]:
            array, shape = group[name], template["shapes"][name]
            expected = ((len(names), *shape), _chunks(name, shape), np.dtype("float32"))
            if (array.shape, array.chunks, array.dtype) != expected:
                raise ProfileFileError(f"{folder} is damaged: {name} has the shape {array.shape}.")
            found[name] = array
    except (KeyError, ValueError, FileNotFoundError) as error:
        raise ProfileFileError(f"{folder} is damaged: {error}.") from None
    return _Arrays(found, store)


def _as_dask(array: BoundArray) -> Any:
    chunks = array.chunks
    return need("dask.array", PURPOSE).from_array(array, chunks=chunks, name=False, fancy=False)


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        return read_sealed(path, kind)
    except DamagedFileError as error:
        raise ProfileFileError(str(error)) from None


def _flush(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())
