"""The arrays of a profile file, looked at before they are read.

The checksum of a file says that it is whole, not who wrote it. HDF5 can name other files, values
that are computed, and sizes that fill the memory; nothing of that is part of a profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import h5py
import numpy as np
import xarray as xr

from recast_probe.errors import InputError
from recast_probe.files.input_files import parse_json
from recast_probe.layout import GROUPS, TokenLayout
from recast_probe.profiles.hdf5_heaps import check_heaps

COORDINATES = {
    "branch": ("branch", "text"),
    "step": ("step", "whole"),
    "timestep": ("step", "real"),
    "sigma": ("step", "real"),
    "block": ("block", "whole"),
    "block_kind": ("block", "text"),
    "head": ("head", "whole"),
    "token": ("token", "whole"),
    "row": ("token", "whole"),
    "column": ("token", "whole"),
    "reference": ("token", "whole"),
    "query_group": ("query_group", "text"),
    "key_group": ("key_group", "text"),
}
"""Dimension and kind of each coordinate."""
LARGEST = 32 * 2**30
"""Bytes in memory; a run of a model of 12 B parameters with two references needs a tenth."""
MOST_EXPANSION, FREE = 100, 64 * 2**20
"""Bytes in memory for each byte of the file, and bytes that need no file."""
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
ROUNDING = 1e-3
"""How far a fraction, or bits, may lie outside of their range; sums in float32 stay far below."""
WRITTEN_BY_NETCDF = ("_NCProperties",)


def read_arrays(
    file: BinaryIO,
    size: int,
    dimensions: Mapping[str, tuple[str, ...]],
    check_format: Callable[[Mapping[str, Any]], None],
    coordinates: Mapping[str, tuple[str, str]] = COORDINATES,
) -> xr.Dataset:
    """All arrays and attributes of a file as a dataset in memory, values as they are stored.

    Args:
        file: open for reading, in HDF5.
        size: its bytes.
        dimensions: of the variables that it may hold, by their names.
        check_format: is given the attributes before anything else is looked at.
        coordinates: dimension and kind of each coordinate that it may hold.

    Raises:
        InputError: something in it that is not part of a profile, or more than it can hold.
        Others: HDF5's own, where it is damaged, and those of `check_format`.
    """
    known = {
        **{name: (dims, "real") for name, dims in dimensions.items()},
        **{name: ((dim,), kind) for name, (dim, kind) in coordinates.items()},
    }
    check_heaps(file, size)
    with h5py.File(file, "r") as opened:
        attributes = {
            name: _attribute(opened.attrs, name)
            for name in opened.attrs
            if name not in WRITTEN_BY_NETCDF
        }
        check_format(attributes)
        if len(opened) > len(known):
            raise InputError(f"it holds {len(opened)} arrays, such a file at most {len(known)}.")
        found = {name: _array(opened, name, known) for name in opened}
        _check_sizes(found, known, size)
        values = {name: (known[name][0], _read(array)) for name, array in found.items()}
    return xr.Dataset(
        {name: value for name, value in values.items() if name in dimensions},
        {name: value for name, value in values.items() if name in coordinates},
        attributes,
    )


def _array(opened: h5py.File, name: str, known: Mapping[str, Any]) -> h5py.Dataset:
    """An array by its name, checked by what its header says."""
    if name not in known:
        raise InputError(f"it holds {name[:60]!r}, which is no part of such a file.")
    if not isinstance(opened.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"{name} is a link to another place.")
    array = opened[name]
    dims, kind = known[name]
    if not isinstance(array, h5py.Dataset) or array.shape is None:
        raise InputError(f"{name} is no array.")
    if len(array.shape) != len(dims) or not all(array.shape):
        raise InputError(f"{name} has the shape {array.shape}; it needs {', '.join(dims)}.")
    if not _is_kind(array.dtype, kind):
        raise InputError(f"{name} has the type {array.dtype}, which is no {kind} one.")
    made = array.id.get_create_plist()
    if made.get_external_count() or made.get_layout() == h5py.h5d.VIRTUAL:
        raise InputError(f"{name} takes its values from other files.")
    if any(made.get_filter(i)[0] not in FILTERS for i in range(made.get_nfilters())):
        raise InputError(f"{name} is packed in a way that such files are not.")
    if not array.id.get_storage_size():
        raise InputError(f"{name} has a shape, but no values.")
    return array


def _is_kind(dtype: np.dtype, kind: str) -> bool:
    if kind == "text":
        return h5py.check_string_dtype(dtype) is not None
    return dtype.kind == {"real": "f", "whole": "i"}[kind] and dtype.itemsize in (4, 8)


def _check_sizes(found: Mapping[str, h5py.Dataset], known: Mapping[str, Any], size: int) -> None:
    """Every dimension has one length, and nothing is larger than such a file can hold."""
    lengths: dict[str, int] = {}
    for name, array in found.items():
        for dimension, length in zip(known[name][0], array.shape, strict=True):
            if lengths.setdefault(dimension, length) != length:
                raise InputError(
                    f"{name} has {length} in the dimension {dimension}, others have "
                    f"{lengths[dimension]}."
                )
    needed = 0
    for array in found.values():
        for shape in (array.shape, array.chunks or ()):
            needed = max(needed, math.prod(shape) * array.dtype.itemsize)
    total = sum(math.prod(array.shape) * array.dtype.itemsize for array in found.values())
    most = min(LARGEST, MOST_EXPANSION * size + FREE)
    if max(total, needed) > most:
        raise InputError(
            f"it says that it holds {max(total, needed) / 2**30:,.2f} GiB, and a file of {size:,} "
            f"bytes holds at most {most / 2**30:,.2f}."
        )


def _read(array: h5py.Dataset) -> np.ndarray:
    if array.dtype.kind in "fi":
        return array[()]
    return np.array([str(each) for each in array.asstr()[()]], dtype=np.str_)


def _attribute(attributes: h5py.AttributeManager, name: str) -> Any:
    made = attributes.get_id(name)
    if math.prod(made.shape) != 1:
        raise InputError(f"the attribute {name[:60]} has the shape {made.shape}.")
    text = h5py.check_string_dtype(made.dtype)
    if text is None and made.dtype.kind not in "fi":
        raise InputError(f"the attribute {name[:60]} has the type {made.dtype}.")
    value = attributes[name]
    if text is None:
        return np.asarray(value).reshape(-1)[0]
    found = np.asarray(value, dtype=object).reshape(-1)[0]
    return found.decode() if isinstance(found, bytes) else str(found)


def check_values(dataset: xr.Dataset) -> None:
    """Check that a whole profile holds what a run can give, and says the same everywhere.

    NaN stands for what was not there: a pruned token, a mass that was not asked for.

    Raises:
        InputError: the first value that cannot be, or two that contradict each other.
    """
    _check_attributes(dataset.attrs)
    layout = TokenLayout.from_dict(parse_json(dataset.attrs["layout"], "the attribute layout"))
    bits = math.log2(max(layout.reference_tokens, 1))
    for name, variable in dataset.data_vars.items():
        _check_range(str(name), variable.values, bits if "entropy" in str(name) else 1.0)
    for name in ("timestep", "sigma"):
        if not np.isfinite(dataset[name].values).all():
            raise InputError(f"{name} is not finite.")
    kinds = parse_json(dataset.attrs["block_kinds"], "the attribute block_kinds")
    for name, count in (("step", None), ("block", len(kinds)), ("head", None), ("branch", None)):
        values = dataset[name].values
        if len(set(values.tolist())) < len(values):
            raise InputError(f"{name} names one twice.")
        if name != "branch" and (values.min() < 0 or values.max() >= (count or np.inf)):
            raise InputError(f"{name} has {values.min()} to {values.max()}.")
    reference, row, column = layout.reference_coordinates()
    expected: dict[str, Any] = {
        "block_kind": [kinds[block] for block in dataset["block"].values],
        "token": np.arange(layout.reference_tokens),
        **{"reference": reference, "row": row, "column": column},
        **{"query_group": GROUPS, "key_group": GROUPS},
    }
    for name, values in expected.items():
        if not np.array_equal(dataset[name].values, values):
            raise InputError(f"{name} is not what the layout and the kinds of blocks say.")


def _check_attributes(attributes: Mapping[Any, Any]) -> None:
    kinds = parse_json(attributes["block_kinds"], "the attribute block_kinds")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise InputError("the attribute block_kinds is no list of names.")
    facts = parse_json(attributes["provenance"], "the attribute provenance", any_text=True)
    if not isinstance(facts, dict):
        raise InputError("the attribute provenance is no object.")
    image = facts.get("image")
    if isinstance(image, dict):
        for side in ("width", "height"):
            if type(image.get(side)) is not int or image[side] < 1:
                raise InputError(f"the {side} of the image is {image.get(side)!r}.")


def _check_range(name: str, values: np.ndarray, most: float) -> None:
    # NaN compares false; one pass each, as a profile may be large
    wrong = (values < -ROUNDING) | (values > most + ROUNDING)
    if wrong.any():
        raise InputError(f"{name} holds {values[wrong][0]:g}; it lies from 0 to {most:g}.")
