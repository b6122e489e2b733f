"""Attention maps come back from their file as they were, or the file is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import recast_probe as rp
from recast_probe.errors import InputError, ProfileFileError
from recast_probe.figures import plot_attention_map
from recast_probe.interventions import Keep
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.profiles.maps_file import write_maps
from recast_probe.profiles.profile_file import TRAILER, TRAILER_LENGTH
from recast_probe.testing.planted_profiles import planted

LAYOUT = TokenLayout(3, Grid(2, 3), (Grid(2, 2), Grid(1, 2)))


def make_maps(mean_over: tuple[str, ...] = (), beside: bool = True) -> AttentionMaps:
    """Random maps of 4 of 6 generation tokens."""
    random = np.random.default_rng(0)
    kept = {"step": [0, 2], "block": [1, 3, 4], "head": [0, 1]}
    kept = {name: each for name, each in kept.items() if name not in mean_over}
    queries = np.array([0, 2, 3, 5])
    labels = {
        **kept,
        "query": queries,
        "query_layer": ("query", 0 * queries),
        "query_row": ("query", queries // 3),
        "query_column": ("query", queries % 3),
    }
    reference, row, column = LAYOUT.reference_coordinates()

    def array(key: str, size: int, **more) -> xr.DataArray:
        shape = [len(each) for each in kept.values()]
        values = random.random((*shape, 4, size), np.float32) / size
        return xr.DataArray(values, dims=(*kept, "query", key), coords={**labels, **more})

    data = array(
        "token", 6, token=range(6), row=("token", row), column=("token", column),
        reference=("token", reference),
    )  # fmt: skip
    data.values[..., 4] = np.nan
    data.attrs |= {
        "queries": "generation",
        "selection": "some blocks, caf\u00e9",
        "layout": json.dumps(LAYOUT.to_dict()),
        "provenance": json.dumps({"seed": 3, "prompts": ["a fox"]}),
    }
    if not beside:
        return AttentionMaps(data)
    shares = array("key_group", 3, key_group=["text", "generation", "reference"])
    return AttentionMaps(data, shares, array("text_token", 3, text_token=range(3)))


@pytest.mark.parametrize("mean_over", [(), ("head",), ("step", "block", "head")])
@pytest.mark.parametrize("beside", [True, False])
def test_maps_come_back_as_they_were(tmp_path, mean_over, beside):
    maps = make_maps(mean_over, beside)
    found = AttentionMaps.load(maps.save(tmp_path / "maps.nc"))
    assert found.identical(maps)
    assert found.data.dims == maps.data.dims
    assert found.data.dtype == np.float32
    assert found.provenance == maps.provenance
    assert found.layout == LAYOUT
    assert repr(found) == repr(maps)


def test_files_of_format_1_stay_readable():
    """The file was written when the format was made."""
    found = AttentionMaps.load(Path(__file__).with_name("maps_version_1.nc"))
    assert found.identical(make_maps(("head",)))


def test_maps_of_a_run_come_back(tmp_path, probe, image):
    settings = {"steps": 3, "progress": False, "interventions": [Keep((1, 4, 9), start=1)]}
    maps = probe.attention_maps(image, "a fox", [(0, 1), (3, 2)], text=True, **settings)
    found = rp.AttentionMaps.load(maps.save(tmp_path / "maps.nc"))
    assert found.identical(maps)
    assert found.data["query"].values.tolist() == [1, 14]


def test_every_flipped_byte_is_seen(tmp_path):
    path = make_maps().save(tmp_path / "maps.nc")
    whole = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole), 40):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(ProfileFileError):
            AttentionMaps.load(path)
    path.write_bytes(whole[:-10])
    with pytest.raises(ProfileFileError, match="cut short"):
        AttentionMaps.load(path)


def forged(path, **changes) -> None:
    """A file with a checksum of its own that says something else."""
    maps = make_maps()
    data = maps.data.copy()
    for name, value in changes.items():
        if name == "values":
            data.values[...] = value
        elif name in data.coords:
            data = data.assign_coords({name: (data[name].dims, value)})
        else:
            data.attrs[name] = value
    write_maps(path, data, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": 1.5}, "maps holds 1.5"),
        ({"values": -0.2}, "maps holds -0.2"),
        ({"query": [0, 0, 1, 2]}, "query names one twice"),
        ({"query": [0, 1, 2, 6]}, "generation tokens"),
        ({"row": [0] * 6}, "row"),
        ({"query_row": [0] * 4}, "query_row"),
        ({"step": [0, -1]}, "step"),
        ({"layout": "{}"}, "text"),
        ({"layout": json.dumps(TokenLayout(3, Grid(2, 3), (Grid(2, 2),)).to_dict())}, "token"),
        ({"provenance": "[]"}, "provenance"),
        ({"queries": "sky"}, "sky"),
    ],
)
def test_forged_values_are_refused(tmp_path, changes, message):
    forged(tmp_path / "maps.nc", **changes)
    with pytest.raises(ProfileFileError, match=message):
        AttentionMaps.load(tmp_path / "maps.nc")


def test_what_the_format_could_reach_is_refused(tmp_path):
    """Other files, and sizes that no such file holds; the checksum fits."""

    def signed(change) -> None:
        whole = make_maps().save(tmp_path / "maps.nc").read_bytes()[:-TRAILER_LENGTH]
        (tmp_path / "maps.nc").write_bytes(whole)
        with h5py.File(tmp_path / "maps.nc", "r+") as file:
            change(file)
        data = (tmp_path / "maps.nc").read_bytes()
        digest = hashlib.sha256(data).hexdigest().encode()
        (tmp_path / "maps.nc").write_bytes(data + TRAILER + digest)

    def linked(file) -> None:
        del file["maps"]
        file["maps"] = h5py.ExternalLink("other.nc", "/maps")

    def added(file) -> None:
        file["extra"] = [1.0]

    def huge(file) -> None:
        del file["shares"]
        file.create_dataset("shares", (2, 3, 2, 4, 2**34), np.float32, chunks=(1, 1, 1, 1, 1024))
        file["shares"][0, 0, 0, 0, 0] = 1

    for change, message in ((linked, "link"), (added, "extra|17 arrays"), (huge, "key_group|GiB")):
        signed(change)
        with pytest.raises(ProfileFileError, match=message):
            AttentionMaps.load(tmp_path / "maps.nc")


def test_other_files_are_refused(tmp_path):
    profile = planted(np.ones(16)).save(tmp_path / "profile.nc")
    with pytest.raises(ProfileFileError, match="not a file of attention maps"):
        AttentionMaps.load(profile)
    maps = make_maps().save(tmp_path / "maps.nc")
    with pytest.raises(ProfileFileError, match="not an attention profile"):
        rp.AttentionProfile.load(maps)
    (tmp_path / "text.nc").write_text("no")
    with pytest.raises(ProfileFileError, match="netCDF"):
        AttentionMaps.load(tmp_path / "text.nc")
    with pytest.raises(ProfileFileError, match="no file"):
        AttentionMaps.load(tmp_path / "none.nc")
    with pytest.raises(InputError, match=r"must end in \.nc"):
        make_maps().save(tmp_path / "maps.json")
    with pytest.raises(InputError, match="does not exist"):
        make_maps().save(tmp_path / "none" / "maps.nc")


def test_a_part_of_maps_is_maps():
    maps = make_maps()
    part = maps.sel(block=[3, 1], query=5, head=1)
    assert part.data.shape == (2, 2, 1, 1, 6)
    chosen = {"block": [3, 1], "query": [5], "head": [1]}
    np.testing.assert_array_equal(part.data, maps.data.sel(chosen))
    np.testing.assert_array_equal(part.shares, maps.shares.sel(chosen))
    assert "query 5" in part.selection
    with pytest.raises(InputError, match="block=2"):
        maps.sel(block=2)
    with pytest.raises(InputError, match="token=1"):
        maps.sel(token=1)
    with pytest.raises(InputError, match="shares of attention maps"):
        AttentionMaps(maps.data, maps.text)


def test_the_figure_draws_one_query_on_its_reference():
    maps = make_maps()
    figure = plot_attention_map(maps, query=3, reference=1)
    panel = figure.axes[0]
    assert panel.get_title(loc="left") == "Generation token 3 (row 1, column 0)"
    drawn = panel.images[0].get_array()
    assert drawn.shape[:2] == (1, 2)
    top = 100 * np.nanmax(maps.mean().sel(query=3).values[4:])
    assert figure.axes[1].get_ylim()[1] == pytest.approx(top)
    for settings, message in (
        ({"query": 1}, "query=1"),
        ({"reference": 2}, "reference is 2"),
    ):
        with pytest.raises(InputError, match=message):
            plot_attention_map(maps, **settings)


@pytest.mark.parametrize("labels", [{"head": []}, {"step": []}, {"step": True}, {"block": [[0]]}])
def test_labels_that_name_nothing_are_refused(labels):
    """The mean of no map would be NaN, and a part without maps is none."""
    maps = make_maps()
    for choose in (maps.mean, maps.sel):
        with pytest.raises(InputError, match=next(iter(labels))):
            choose(**labels)
