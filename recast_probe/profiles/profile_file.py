"""What the dataset of an attention profile holds, and its file: netCDF-4 with a checksum."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import xarray as xr

from recast_probe.errors import InputError, ProfileFileError
from recast_probe.files.atomic import write_bytes
from recast_probe.files.input_files import opened
from recast_probe.layout import GROUPS, TokenLayout
from recast_probe.profiles.profile_reading import check_values, read_arrays

FORMAT = "recast_probe.AttentionProfile"
# 2 added mass_weighted_conditional_entropy, which is missing in files of version 1
# in files of version 3 there are no entropies
FORMAT_VERSION, WITH_ENTROPIES = 3, 2
# netCDF-4 is HDF5, which ignores what follows its own end; there stands the SHA-256 of the rest
SIGNATURE = b"\x89HDF\r\n\x1a\n"
TRAILER = b"recast_probe sha256 "
TRAILER_LENGTH = len(TRAILER) + 64
DIMENSIONS = {
    "score": ("branch", "step", "block", "head", "token"),
    "mass": ("branch", "step", "block", "head", "query_group", "key_group"),
    "conditional_entropy": ("branch", "step", "block", "head"),
    "mass_weighted_conditional_entropy": ("branch", "step", "block", "head"),
}
OPTIONAL = ("conditional_entropy", "mass_weighted_conditional_entropy")


def write_dataset(path: str | Path, dataset: xr.Dataset) -> Path:
    """Write a dataset to a netCDF-4 file, whole or not at all.

    Raises:
        OSError: the disk is full or the place cannot be written; an earlier file stays.
    """
    encoding: dict[str, dict[str, object]] = {}
    for name, variable in dataset.variables.items():
        if variable.dtype.kind == "f":
            packed = {"zlib": True, "complevel": 1} if variable.ndim > 1 else {}
            # a fill value would make NaN a special case on the way back
            encoding[str(name)] = {"_FillValue": None, **packed}
    buffer = io.BytesIO()
    # HDF5 ends the whole process when the disk fills up under it, so it only ever writes to memory
    dataset.to_netcdf(buffer, engine="h5netcdf", encoding=encoding)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.seek(0, io.SEEK_END)
    buffer.write(TRAILER + digest.encode())
    return write_bytes(path, buffer.getbuffer())


def read_dataset(path: str | Path) -> xr.Dataset:
    """Read what `write_dataset` wrote, into memory; the file is closed again.

    Raises:
        ProfileFileError: missing, damaged, foreign, of a newer version, or with values that no run
            gives.
    """
    with opened(path, "The profile file", ProfileFileError) as file:
        # HDF5 may loop for ever in a damaged file, so it never gets to see one
        size = check_bytes(path, file)
        try:
            dataset = read_arrays(file, size, DIMENSIONS, partial(_check_format, path))
            check_dataset(dataset)
            check_values(dataset)
        except ProfileFileError:
            raise
        # what somebody else wrote makes HDF5 and the checks raise nearly anything
        except Exception as error:
            raise ProfileFileError(
                f"{path} is no complete attention profile: {error or type(error).__name__}"
            ) from None
    return dataset


def check_bytes(path: str | Path, file: BinaryIO, what: str = "an attention profile") -> int:
    """Check a file against its checksum; gives its length without that.

    Raises:
        ProfileFileError: it is of another kind than `what`, or damaged.
    """
    try:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            raise ProfileFileError(f"{path} is not {what}: it is not a netCDF-4 file at all.")
        size = length = max(0, file.seek(0, io.SEEK_END) - TRAILER_LENGTH)
        file.seek(length)
        trailer = file.read()
        file.seek(0)
        digest = hashlib.sha256()
        while length:
            part = file.read(min(length, 1 << 20))
            digest.update(part)
            length -= len(part)
    except OSError as error:
        raise ProfileFileError(f"{path} cannot be read: {error.strerror}.") from None
    if not trailer.startswith(TRAILER):
        raise ProfileFileError(
            f"{path} is not {what} of recast_probe, or it was cut short or changed by another "
            "program. Copy the file again, or repeat the run."
        )
    if trailer != TRAILER + digest.hexdigest().encode():
        raise ProfileFileError(
            f"{path} is damaged: its contents do not match the checksum that was saved with them. "
            "Copy the file again, or repeat the run."
        )
    return size


def _check_format(path: str | Path, attributes: Mapping[str, Any]) -> None:
    if attributes.get("format") != FORMAT:
        raise ProfileFileError(f"{path} is netCDF, but not an attention profile of recast_probe.")
    version = int(attributes.get("format_version", 0))
    if version > FORMAT_VERSION:
        raise ProfileFileError(
            f"{path} has profile format {version}, and this recast_probe reads up to "
            f"{FORMAT_VERSION}; upgrade recast_probe."
        )


def check_dataset(dataset: xr.Dataset) -> None:
    """Check that a dataset is a whole attention profile.

    Raises:
        InputError: the first thing that is missing or does not fit.
    """
    for name, dimensions in DIMENSIONS.items():
        if name in OPTIONAL and name not in dataset:
            continue
        if name not in dataset or dataset[name].dims != dimensions:
            raise InputError(f"A profile needs {name} with dimensions {', '.join(dimensions)}.")
        if not dataset[name].size:
            raise InputError(f"The profile's {name} is empty.")
    for name in ("timestep", "sigma", "block_kind", "row", "column", "reference"):
        if name not in dataset.coords:
            raise InputError(f"A profile needs the coordinate {name}.")
    for name in ("layout", "block_kinds", "provenance"):
        try:
            json.loads(dataset.attrs[name])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The profile's attribute {name} is missing or no JSON.") from error
    queries = dataset.attrs.get("queries", "generation")  # not in files of earlier versions
    if queries not in GROUPS:
        raise InputError(
            f"A profile's queries are {', '.join(GROUPS)} tokens, not {str(queries)!r}."
        )
    tokens = TokenLayout.from_dict(json.loads(dataset.attrs["layout"])).reference_tokens
    if tokens != dataset.sizes["token"]:
        raise InputError(
            f"The profile has {dataset.sizes['token']} tokens, but its layout has {tokens}."
        )
