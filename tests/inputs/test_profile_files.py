"""Profile files that somebody else wrote, with a checksum that fits."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest

from recast_probe.errors import ProfileFileError
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.profiles.profile_file import TRAILER_LENGTH
from tests.fuzz.profiles import signed
from tests.fuzz.whole import tiny_profile


@pytest.fixture
def forged(tmp_path):
    """Change a whole file by a function of its HDF5 and sign it again."""
    path = tiny_profile().save(tmp_path / "whole.nc")
    content = path.read_bytes()[:-TRAILER_LENGTH]

    def forge(change):
        path = tmp_path / "forged.nc"
        path.write_bytes(content)
        with h5py.File(path, "r+") as file:
            change(file)
        path.write_bytes(signed(path.read_bytes()))
        return path

    return forge


def replaced(name, **options):
    def change(file):
        shape, kind = file[name].shape, file[name].dtype
        del file[name]
        file.create_dataset(name, **({"shape": shape, "dtype": kind} | options))

    return change


def attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def value_of(name, value):
    return lambda file: file[name].__setitem__((0,) * file[name].ndim, value)


def linked(link):
    def change(file):
        del file["sigma"]
        file["sigma"] = link

    return change


LAYOUT = {"text": 8, "generation": [8, 8], "references": [[8, 8]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced("sigma", external=[("/etc/passwd", 0, 16)]), "sigma takes its values from other"),
        (linked(h5py.ExternalLink("other.nc", "/sigma")), "sigma is a link"),
        (linked(h5py.SoftLink("/timestep")), "sigma is a link"),
        (
            lambda file: file.create_dataset("extra", data=[1]),
            "such a file at most|no part",
        ),
        (replaced("sigma", dtype="i8", data=[1, 2]), "sigma has the type int64"),
        (replaced("sigma", shape=(3,), data=[1.0, 0.5, 0.1]), "dimension step"),
        (replaced("score", shape=(2**20, 2**10, 3, 2, 64), chunks=(1, 1, 3, 2, 64)), "no values"),
        (attribute("layout", json.dumps(LAYOUT | {"text": "x"})), "complete"),
        (attribute("layout", json.dumps(LAYOUT | {"references": [[1e300, 1]]})), "complete"),
        (attribute("layout", json.dumps(LAYOUT | {"references": [[4, 16]]})), "row is not what"),
        (attribute("layout", "[" * 100_000), "complete"),
        (attribute("block_kinds", '{"a": 1}'), "complete"),
        (attribute("provenance", "[]"), "provenance is no object"),
        (attribute("provenance", '{"image": {"width": 0, "height": 4}}'), "width of the image"),
        (value_of("score", -0.5), "score holds -0.5"),
        (value_of("score", np.inf), "score holds inf"),
        (value_of("mass", 1.5), "mass holds 1.5"),
        (value_of("conditional_entropy", 7), "conditional_entropy holds 7"),
        (value_of("sigma", np.nan), "sigma is not finite"),
        (value_of("block", 9), "block has"),
        (value_of("step", 1), "step names one twice"),
        (value_of("row", 3), "row is not what"),
    ],
)
def test_what_no_run_writes_is_refused(forged, change, message):
    with pytest.raises(ProfileFileError, match=message):
        AttentionProfile.load(forged(change))


@pytest.mark.parametrize(
    ("name", "value"), [("scale_factor", 2.0), ("add_offset", 1.0), ("_FillValue", 0.5)]
)
def test_attributes_of_other_readers_change_nothing(forged, name, value):
    path = forged(lambda file: file["score"].attrs.__setitem__(name, value))
    assert AttentionProfile.load(path).identical(tiny_profile())


def test_a_declared_size_is_held_against_the_file(forged):
    def change(file):
        del file["score"]
        shape = (1, 2, 3, 2, 2**30)
        made = file.create_dataset(
            "score", shape=shape, dtype="f4", chunks=(1, 1, 1, 1, 2**18), compression="gzip"
        )
        made[0, 0, 0, 0, 0] = 0.5
        for name in ("token", "row", "column", "reference"):
            kind = file[name].dtype
            del file[name]
            array = file.create_dataset(
                name, shape=shape[-1:], dtype=kind, chunks=(2**18,), compression="gzip"
            )
            array[0] = 0

    path = forged(change)
    assert os.path.getsize(path) < 200_000
    with pytest.raises(ProfileFileError, match=r"says that it holds .* GiB"):
        AttentionProfile.load(path)


def test_a_heap_of_texts_without_an_end(forged, tmp_path):
    """HDF5's own reader never comes back from it."""
    content = bytearray((tmp_path / "whole.nc").read_bytes()[:-TRAILER_LENGTH])
    heap = content.index(b"GCOL\x01")
    size = int.from_bytes(content[heap + 8 : heap + 16], "little")
    place = heap + 16
    while int.from_bytes(content[place : place + 2], "little"):
        length = int.from_bytes(content[place + 8 : place + 16], "little")
        place += 16 + -(-length // 8) * 8
        assert place < heap + size
    content[place + 8 : place + 16] = bytes(8)
    (tmp_path / "endless.nc").write_bytes(signed(bytes(content)))
    with pytest.raises(ProfileFileError, match="contradicts itself"):
        AttentionProfile.load(tmp_path / "endless.nc")
