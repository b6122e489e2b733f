"""Profiles: labels, selections, and files that come back exactly or not at all."""

from __future__ import annotations

import errno
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe import diagnostics
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError, ProfileFileError
from recast_probe.files import atomic
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.profiles.profile_file import write_dataset

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")

KINDS = ["double"] * 2 + ["single"] * 4
LAYOUT = TokenLayout(5, Grid(2, 3), (Grid(2, 2), Grid(1, 3)))


def make_profile(seed=0, branches=("conditional", "unconditional"), provenance=None):
    rng = np.random.default_rng(seed)
    shape = (len(branches), 3, 4, 2)
    return AttentionProfile.build(
        score=rng.random((*shape, 7)).astype(np.float32),
        mass=rng.random((*shape, 3, 3)),
        conditional_entropy=rng.random(shape),
        mass_weighted_conditional_entropy=rng.random(shape),
        steps=[0, 1, 5],
        timesteps=[1000.0, 900.125, 31.7],
        sigmas=[1.0, 0.9, 0.0317],
        blocks=[1, 2, 3, 5],
        block_kinds=KINDS,
        heads=[0, 3],
        layout=LAYOUT,
        branches=branches,
        provenance=provenance or {"prompt": "ein Fuchs 🦊 <b>„naïve“</b>", "seed": 3},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return make_profile().save(tmp_path_factory.mktemp("saved") / "fox.nc")


def test_files_of_version_1_open_and_say_what_they_lack():
    """The file was written before mass-weighted entropies were recorded."""
    profile = AttentionProfile.load(Path(__file__).with_name("version_1.nc"))
    assert profile.dataset.attrs["format_version"] == 1
    assert profile.provenance == {"prompt": "a fox", "seed": 3}
    assert float(profile.score.sum()) == pytest.approx(2 * 3 * 2 / 4)
    with pytest.raises(InputError, match="no mass_weighted_conditional_entropy; it holds score"):
        profile.variable("mass_weighted_conditional_entropy")
    spread = diagnostics.entropy(profile)
    assert "conditional_first" in spread.summary()
    assert "mutual_information_first" not in spread.summary()
    for asked in (
        lambda: spread.mutual_information,
        lambda: diagnostics.mutual_information(profile),
        lambda: diagnostics.copy_heads(profile),
        lambda: diagnostics.reading(profile),
    ):
        with pytest.raises(InputError, match=r"mass_weighted.*Profile the run again"):
            asked()
    rng = np.random.default_rng(1)
    score = rng.random((1, 2, 3, 2, 6))
    score = (score / (score.sum(-1, keepdims=True) * 4)).astype(np.float32)
    np.testing.assert_array_equal(profile.dataset["score"], score)


def test_round_trip_is_exact(tmp_path):
    profile = make_profile()
    profile.dataset["score"][0, 1, 2, 0, 3] = np.nan
    path = profile.save(tmp_path / "fox.nc")
    loaded = AttentionProfile.load(path)
    assert loaded.identical(profile)
    assert loaded.provenance == profile.provenance
    assert loaded.layout == LAYOUT
    assert loaded.block_kinds == KINDS
    assert loaded.dataset["score"].dtype == np.float32
    again = loaded.save(tmp_path / "again.nc")
    assert AttentionProfile.load(again).identical(profile)
    assert not make_profile(seed=1).identical(profile)


def test_selection_and_mean_follow_the_labels():
    profile = make_profile()
    raw = profile.dataset["score"].values
    chosen = profile.sel(blocks="single", steps=[0, 5], heads=3)
    np.testing.assert_array_equal(chosen.score.values, raw[0][[0, 2]][:, 1:][:, :, [1]])
    expected = raw[1][:, [0]].astype(np.float64).mean((0, 1, 2))
    mean = profile.sel(branch="unconditional").mean_score(blocks="double")
    np.testing.assert_allclose(mean.values, expected)
    for everything in (profile, profile.sel(), profile.sel(blocks="all", steps=[0, 1, 5])):
        assert np.shares_memory(everything.score.values, raw), "selecting everything copied"
    assert profile.sel(branch="unconditional").branch == "unconditional"
    repeated = profile.sel(steps=[5, 0, 5]).mean_score()
    np.testing.assert_array_equal(repeated, profile.sel(steps=[0, 5]).mean_score())


def test_a_selection_says_what_was_chosen():
    profile = make_profile()
    chosen = profile.sel(blocks="single", steps=5)
    assert chosen.selection_text() == "blocks single (2-3, 5), step 5, heads 0, 3"
    assert profile.selection_text(blocks="single") == "blocks single (2-3, 5), steps 0-1, 5, " + (
        "heads 0, 3"
    )
    assert profile.sel(heads=0).selection_text() == "blocks 1-3, 5, steps 0-1, 5, head 0"
    assert profile.sel(branch="unconditional").selection_text().endswith("unconditional branch")
    # what is chosen by number has no name, even where it is all of a named group
    assert chosen.sel(blocks=[2, 3, 5]).selection_text().startswith("blocks 2-3, 5, ")


def test_selecting_twice_is_selecting_once():
    profile = make_profile()
    once = profile.sel(blocks="single", steps=[0, 1], heads=3, branch="unconditional")
    twice = profile.sel(steps=[0, 1]).sel(heads=3).sel("single").sel(branch="unconditional")
    assert twice.identical(once)
    assert twice.selection_text() == once.selection_text()
    with pytest.raises(InputError, match="holds blocks 2-3, 5"):
        once.sel(blocks="double")
    with pytest.raises(InputError, match="there is unconditional"):
        once.sel(branch="conditional")


def test_a_part_can_be_saved(tmp_path):
    chosen = make_profile().sel(blocks="single", heads=[0, 3])
    loaded = AttentionProfile.load(chosen.save(tmp_path / "part.nc"))
    assert loaded.identical(chosen)
    assert loaded.selection_text() == "blocks single (2-3, 5), steps 0-1, 5, heads 0, 3"


def test_maps_are_one_grid_per_reference_image():
    maps = make_profile().reference_map(np.arange(7))
    assert [m.tolist() for m in maps] == [[[0, 1], [2, 3]], [[4, 5, 6]]]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"blocks": 0}, "holds blocks 1-3, 5"),
        ({"blocks": "single.9"}, "no block 'single.9'"),
        ({"steps": 2}, "steps 0-1, 5"),
        ({"heads": []}, "heads 0, 3"),
        ({"branch": "neither"}, "conditional, unconditional"),
    ],
)
def test_what_was_not_recorded_is_refused(selection, message):
    with pytest.raises(InputError, match=message):
        make_profile().sel(**selection)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="make no attention profile"):
        AttentionProfile.build(
            score=np.zeros((1, 1, 1, 1, 6)),
            mass=np.zeros((1, 1, 1, 1, 3, 3)),
            conditional_entropy=np.zeros((1, 1, 1, 1)),
            steps=[0],
            timesteps=[1.0],
            sigmas=[1.0],
            blocks=[0],
            block_kinds=KINDS,
            heads=[0],
            layout=LAYOUT,
        )


def damaged(path, kind):
    make_profile().save(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "changed by a tool":
        with h5py.File(path, "r+") as file:
            file["score"][...] = 0
    elif kind == "text":
        path.write_text("not a profile")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "foreign":
        xr.Dataset({"temperature": ("x", [1.0, 2.0])}).to_netcdf(path, engine="h5netcdf")
    elif kind == "foreign with a checksum":
        write_dataset(path, xr.Dataset({"temperature": ("x", [1.0, 2.0])}))
    elif kind == "newer":
        write_dataset(path, make_profile().dataset.assign_attrs(format_version=99))
    elif kind == "no layout":
        dataset = make_profile().dataset
        dataset.attrs.pop("layout")
        write_dataset(path, dataset)
    elif kind == "no scores":
        write_dataset(path, make_profile().dataset.drop_vars("score"))
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "cut short"),
        ("changed by a tool", "changed by another program|do not match the checksum"),
        ("text", "not a netCDF-4 file"),
        ("empty", "not a netCDF-4 file"),
        ("foreign", "not an attention profile"),
        ("foreign with a checksum", "not an attention profile"),
        ("newer", "format 99.*upgrade"),
        ("no layout", "layout is missing"),
        ("no scores", "needs score"),
        ("missing", "no file"),
    ],
)
def test_bad_files_give_one_clear_error(tmp_path, capfd, kind, message):
    path = tmp_path / "bad.nc"
    damaged(path, kind)
    with pytest.raises(ProfileFileError, match=message):
        AttentionProfile.load(path)
    gc.collect()
    assert capfd.readouterr() == ("", "")


@given(st.data())
@settings(deadline=None)
def test_no_changed_byte_goes_unnoticed(saved, data):
    content = bytearray(saved.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path = saved.with_name("changed.nc")
    path.write_bytes(content)
    with pytest.raises(ProfileFileError):
        AttentionProfile.load(path)


@given(st.data())
@settings(deadline=None)
def test_no_missing_end_goes_unnoticed(saved, data):
    content = saved.read_bytes()
    path = saved.with_name("short.nc")
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ProfileFileError):
        AttentionProfile.load(path)


def test_other_programs_can_read_the_file(saved):
    with xr.open_dataset(saved, engine="h5netcdf") as opened:
        assert opened["score"].dims == ("branch", "step", "block", "head", "token")
    with h5py.File(saved) as file:
        assert file["score"].shape == (2, 3, 4, 2, 7)


@pytest.mark.parametrize("prompt", ["nul \0 byte", "half of an emoji \ud83e", "long " * 40_000])
def test_any_prompt_comes_back(tmp_path, prompt):
    profile = make_profile(provenance={"prompt": prompt})
    loaded = AttentionProfile.load(profile.save(tmp_path / "fox.nc"))
    assert loaded.identical(profile)
    assert loaded.provenance == {"prompt": prompt}


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = make_profile(seed=1).save(tmp_path / "fox.nc")
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        make_profile(seed=2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are POSIX")
@pytest.mark.parametrize("limit", [0, 3_000, 20_000])
def test_a_file_that_cannot_grow_leaves_the_process_alive(tmp_path, limit):
    """The system itself refuses to write more, as on a full disk; HDF5 must not notice."""
    path = make_profile(seed=1).save(tmp_path / "fox.nc")
    before = path.read_bytes()
    assert len(before) > limit
    code = (
        "import resource, sys\n"
        "from recast_probe.profiles.profile import AttentionProfile\n"
        "profile = AttentionProfile.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try:\n    profile.save(sys.argv[1])\n"
        "except OSError as error:\n    print(error.errno)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path), str(limit)], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, str(errno.EFBIG), "")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_atomic_files_survive_interruption(tmp_path, interruption):
    path = atomic.write_text(tmp_path / "a.txt", "first")

    def write_half() -> None:
        with atomic.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise interruption

    with pytest.raises(interruption):
        write_half()
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
    atomic.write_json(path, {"ü": [1, None]})
    assert json.loads(path.read_text()) == {"ü": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(path, float("nan"))


def test_names_and_folders_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"\.nc"):
        make_profile().save(tmp_path / "fox.pkl")
    with pytest.raises(InputError, match="does not exist"):
        make_profile().save(tmp_path / "nowhere" / "fox.nc")


def test_html_escapes_the_prompt():
    text = make_profile(provenance={"prompt": "<script>x</script>"})._repr_html_()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


FLUX = ["double"] * 19 + ["single"] * 38


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("all", range(57)),
        ("double", range(19)),
        ("single", range(19, 57)),
        ("paper", range(20, 57)),
        (56, [56]),
        ("single.0", [19]),
        (["double.1", 56, "double.1"], [1, 56]),
    ],
)
def test_block_selections_of_flux(selection, expected):
    assert select_blocks(selection, FLUX) == list(expected)


@given(st.integers(0, 5), st.integers(1, 60))
def test_the_papers_blocks_are_never_empty(double, single):
    kinds = ["double"] * double + ["single"] * single
    chosen = select_blocks("paper", kinds)
    assert chosen
    assert set(chosen) <= set(select_blocks("single", kinds))


@pytest.mark.parametrize("selection", ["triple", "single.38", 57, -1, [], True, None, 1.5])
def test_unknown_blocks_are_named_with_what_there_is(selection):
    with pytest.raises(InputError, match=r"blocks 0 to 56|selects no block"):
        select_blocks(selection, FLUX)
