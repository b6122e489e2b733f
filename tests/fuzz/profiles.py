"""Profile files: damaged, and forged with a checksum that fits."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from recast_probe.commands.diagnose import numbers
from recast_probe.diagnostics import OF_A_PROFILE
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.profiles.profile_file import TRAILER, TRAILER_LENGTH
from tests.fuzz.damage import ODD, damaged, edited, flipped
from tests.fuzz.harness import FuzzClass


def _prepare(folder: Path, base: Path) -> dict[str, Any]:
    data = (base / "profile.nc").read_bytes()
    (folder / "secret").write_bytes(b"secret" * 4096)
    return {
        "path": folder / "damaged.nc",
        "folder": folder,
        "data": data,
        "whole": AttentionProfile.load(base / "profile.nc"),
    }


def _load(state: dict[str, Any], data: bytes) -> tuple[AttentionProfile, bool]:
    """What a file of these bytes holds, and whether it is the whole one's content."""
    state["path"].write_bytes(data)
    found = AttentionProfile.load(state["path"])
    return found, found.identical(state["whole"])


def damaged_file(rng: random.Random, state: dict[str, Any]) -> str:
    """Damage that somebody's disk or network did."""
    changed = damaged(state["data"], rng)
    _, same = _load(state, changed)
    return "right" if same else "SILENT: other values"


def signed(data: bytes) -> bytes:
    """With the checksum that fits."""
    return data + TRAILER + hashlib.sha256(data).hexdigest().encode()


def flipped_and_signed(rng: random.Random, state: dict[str, Any]) -> str:
    """Bits turned over by somebody who knows the format; what is accepted must be usable."""
    data = signed(flipped(state["data"][:-TRAILER_LENGTH], rng))
    found, same = _load(state, data)
    return "right" if same else _used(found)


def _used(found: AttentionProfile) -> str:
    numbers([diagnostic(found) for diagnostic in OF_A_PROFILE])
    found._repr_html_()
    return "accepted"


def forged(rng: random.Random, state: dict[str, Any]) -> str:
    """A structure that no run writes."""
    path = state["path"]
    path.write_bytes(state["data"][:-TRAILER_LENGTH])
    way = rng.choice(
        (_attribute, _attribute, _values, _values, _link, _outside, _bomb, _more, _shape, _packed)
    )
    with h5py.File(path, "r+") as file:
        way(file, rng, state)
    found, same = _load(state, signed(path.read_bytes()))
    leaked = any(
        b"secret" in values.values.tobytes() for values in found.dataset.variables.values()
    )
    if leaked:
        return "SILENT: another file was read"
    return "right" if same else _used(found)


def _attribute(file: h5py.File, rng: random.Random, _: Any) -> None:
    name = rng.choice(
        ("layout", "block_kinds", "provenance", "queries", "format_version", "format")
    )
    try:
        values = json.loads(file.attrs[name])
        text: Any = json.dumps(edited(values, rng))
    except (TypeError, ValueError):
        text = rng.choice((*ODD[:10], "[" * 5000, "x", np.zeros(3)))
        text = str(text) if text is None or isinstance(text, bool) else text
    if rng.random() < 0.1:
        text = "[" * rng.choice((100, 100_000))
    try:
        file.attrs[name] = text
    except (TypeError, ValueError, OverflowError, OSError):
        file.attrs[name] = rng.choice(("", "null", "{}", "[]"))


def _values(file: h5py.File, rng: random.Random, _: Any) -> None:
    name = rng.choice([name for name in file if file[name].dtype.kind in "fi"])
    array = file[name]
    place = tuple(rng.randrange(length) for length in array.shape)
    odd = (-1, 2, 1e30, np.nan, np.inf) if array.dtype.kind == "f" else (-1, 99, 2**40)
    array[place] = rng.choice(odd)


def _link(file: h5py.File, rng: random.Random, state: Any) -> None:
    name = rng.choice(("sigma", "score", "extra"))
    if name in file:
        del file[name]
    file[name] = rng.choice(
        (
            h5py.ExternalLink(str(state["folder"] / "secret"), "/score"),
            h5py.SoftLink("/score"),
            h5py.SoftLink(f"/{name}"),
            h5py.SoftLink("/nowhere"),
        )
    )


def _outside(file: h5py.File, rng: random.Random, state: Any) -> None:
    name = rng.choice(("sigma", "timestep", "conditional_entropy", "extra"))
    shape = file[name].shape if name in file else (4,)
    kind = file[name].dtype if name in file else "u1"
    if name in file:
        del file[name]
    if rng.random() < 0.5:
        outside = [(str(state["folder"] / "secret"), 0, 10_000)]
        file.create_dataset(name, shape=shape, dtype=kind, external=outside)
    else:
        layout = h5py.VirtualLayout(shape, kind)
        layout[...] = h5py.VirtualSource(str(state["folder"] / "secret"), "x", shape)
        file.create_virtual_dataset(name, layout)


def _bomb(file: h5py.File, rng: random.Random, _: Any) -> None:
    name = rng.choice(("score", "mass", "token", "row", "extra"))
    dims = file[name].ndim if name in file else 1
    kind = file[name].dtype if name in file else "f4"
    if name in file:
        del file[name]
    shape = (1,) * (dims - 1) + (rng.choice((2**28, 2**34, 2**40)),)
    chunks = (1,) * (dims - 1) + (2**20,)
    made = file.create_dataset(name, shape=shape, dtype=kind, chunks=chunks, compression="gzip")
    if rng.random() < 0.5:
        made[..., 0] = 0
    if rng.random() < 0.5:
        file.attrs["layout"] = json.dumps(
            {"text": 0, "generation": [1, 1], "references": [[1, shape[-1]]]}
        )


def _more(file: h5py.File, rng: random.Random, _: Any) -> None:
    way = rng.randrange(3)
    if way == 0:
        file.create_group("score2").create_dataset("x", data=1)
    elif way == 1:
        file["extra"] = np.zeros(3)
    else:
        del file["sigma"]
        file.create_group("sigma")


def _shape(file: h5py.File, rng: random.Random, _: Any) -> None:
    name = rng.choice(list(file))
    array = file[name][()]
    del file[name]
    way = rng.randrange(4)
    if way == 0:
        array = array.reshape(-1)
    elif way == 1:
        array = array[..., :1]
    elif way == 2 and array.dtype.kind in "fi":
        array = array.astype(rng.choice(("f2", "f8", "i1", "u8", "S8", "?", "c8")))
    elif way == 3:
        return
    file[name] = array


def _packed(file: h5py.File, rng: random.Random, _: Any) -> None:
    """Attributes by which readers of netCDF change the values."""
    name = rng.choice(("score", "mass", "sigma", "step", "timestep"))
    key = rng.choice(("scale_factor", "add_offset", "_FillValue", "missing_value", "units"))
    value = "days since 1970-01-01" if key == "units" else rng.choice((0.0, 2.0, 1.0, np.nan))
    file[name].attrs[key] = value


CLASSES = (
    FuzzClass("profiles, damaged", damaged_file, _prepare, 1500),
    FuzzClass("profiles, flipped and signed", flipped_and_signed, _prepare, 700),
    FuzzClass("profiles, forged", forged, _prepare, 500),
)
