"""The file of attention maps: netCDF-4 with a checksum, as that of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from recast_probe.errors import InputError, ProfileFileError
from recast_probe.files.input_files import opened, parse_json
from recast_probe.layout import GROUPS, TokenLayout
from recast_probe.profiles.profile_file import check_bytes, write_dataset
from recast_probe.profiles.profile_reading import ROUNDING, read_arrays

FORMAT = "recast_probe.AttentionMaps"
FORMAT_VERSION = 1
WHAT = "a file of attention maps"
DIMENSIONS = ("step", "block", "head", "query", "token")
AVERAGED = DIMENSIONS[:3]
BESIDE = {"shares": "key_group", "text": "text_token"}
"""What may stand beside the maps, each with the dimension that it has in place of token."""
PLACE = ("query_layer", "query_row", "query_column")
COORDINATES = {
    **{name: (name, "whole") for name in (*DIMENSIONS, "text_token")},
    **dict.fromkeys(PLACE, ("query", "whole")),
    "row": ("token", "whole"),
    "column": ("token", "whole"),
    "reference": ("token", "whole"),
    "key_group": ("key_group", "text"),
}
MEAN = -1
"""The label of a dimension that was averaged over, in the file."""


def write_maps(
    path: str | Path, maps: xr.DataArray, beside: Mapping[str, xr.DataArray | None]
) -> Path:
    """Write maps and what stands beside them, whole or not at all.

    Raises:
        OSError: the disk is full or the place cannot be written; an earlier file stays.
    """
    found = {"maps": maps, **{name: each for name, each in beside.items() if each is not None}}
    # one order of dimensions whatever was averaged, so that a reader knows it before it reads
    whole = {
        name: each.expand_dims({dim: [MEAN] for dim in AVERAGED if dim not in each.dims}).transpose(
            *AVERAGED, "query", ...
        )
        for name, each in found.items()
    }
    attributes = {**maps.attrs, "format": FORMAT, "format_version": FORMAT_VERSION}
    plain = {name: each.drop_attrs() for name, each in whole.items()}
    return write_dataset(path, xr.Dataset(plain, attrs=attributes))


def read_maps(path: str | Path) -> tuple[xr.DataArray, dict[str, xr.DataArray]]:
    """Read what `write_maps` wrote, into memory.

    Raises:
        ProfileFileError: missing, damaged, foreign, of a newer version, or with values that no run
            gives.
    """
    dimensions = {
        "maps": DIMENSIONS,
        **{name: (*AVERAGED, "query", dim) for name, dim in BESIDE.items()},
    }
    with opened(path, "The file of attention maps", ProfileFileError) as file:
        size = check_bytes(path, file, WHAT)
        try:
            dataset = read_arrays(file, size, dimensions, partial(_check_format, path), COORDINATES)
            _check(dataset)
        except ProfileFileError:
            raise
        # what somebody else wrote makes HDF5 and the checks raise nearly anything
        except Exception as error:
            raise ProfileFileError(
                f"{path} is not {WHAT} that is whole: {error or type(error).__name__}"
            ) from None
    averaged = [dim for dim in AVERAGED if dataset[dim].values.tolist() == [MEAN]]
    attributes = {
        name: value for name, value in dataset.attrs.items() if not name.startswith("format")
    }
    found = dataset.drop_attrs().squeeze(averaged, drop=True)
    # what is made by a run has no name
    beside = {
        name: found[name].reset_coords(drop=True).rename(None) for name in BESIDE if name in found
    }
    of_queries = {name: found[name] for name in PLACE}
    return (
        found["maps"].rename(None).assign_attrs(attributes),
        {name: each.assign_coords(of_queries) for name, each in beside.items()},
    )


def _check_format(path: str | Path, attributes: Mapping[str, Any]) -> None:
    if attributes.get("format") != FORMAT:
        raise ProfileFileError(f"{path} is netCDF, but not {WHAT} of recast_probe.")
    version = int(attributes.get("format_version", 0))
    if version > FORMAT_VERSION:
        raise ProfileFileError(
            f"{path} has the format {version} of attention maps, and this recast_probe reads up to "
            f"{FORMAT_VERSION}; upgrade recast_probe."
        )


def _check(dataset: xr.Dataset) -> None:
    """Check that the maps hold what a run can give, and say the same everywhere; InputError."""
    layout = TokenLayout.from_dict(parse_json(dataset.attrs["layout"], "the attribute layout"))
    facts = parse_json(dataset.attrs["provenance"], "the attribute provenance", any_text=True)
    if not isinstance(facts, dict) or not isinstance(dataset.attrs["selection"], str):
        raise InputError("the attributes provenance and selection are no object and no text.")
    group = dataset.attrs["queries"]
    queries = dataset["query"].values
    span = layout.span(str(group))
    if len(set(queries.tolist())) < len(queries) or not (
        queries.min() >= 0 and queries.max() < span.stop - span.start
    ):
        raise InputError(f"query names one twice, or one that is none of the {group} tokens.")
    reference, row, column = layout.reference_coordinates()
    at = np.full((3, span.stop - span.start), -1)
    if group == "generation":
        at = np.stack(layout.generation.coordinates())
    expected: dict[str, Any] = {
        **dict(zip(PLACE, at[:, queries], strict=True)),
        "token": np.arange(layout.reference_tokens),
        **{"reference": reference, "row": row, "column": column},
    }
    if "shares" in dataset:
        expected["key_group"] = GROUPS
    if "text" in dataset:
        expected["text_token"] = np.arange(layout.text)
    for name, values in expected.items():
        if not np.array_equal(dataset[name].values, values):
            raise InputError(f"{name} is not what the layout says.")
    for name in AVERAGED:
        labels = dataset[name].values
        if len(set(labels.tolist())) < len(labels) or (labels.min() < 0 and len(labels) > 1):
            raise InputError(f"{name} names one twice, or holds {labels.min()}.")
    for held, variable in dataset.data_vars.items():
        values = variable.values
        wrong = (values < -ROUNDING) | (values > 1 + ROUNDING)
        if wrong.any():
            raise InputError(f"{held} holds {values[wrong][0]:g}; it lies from 0 to 1.")
