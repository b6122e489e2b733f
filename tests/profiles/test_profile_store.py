"""Profiles come back from a store bit for bit, or with an error that says what is wrong."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import warnings

import numpy as np
import pytest

import recast_probe as rp
from recast_probe.errors import InputError, ProfileFileError, RecastProbeError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles import profile_store
from recast_probe.testing.planted_profiles import planted

NAMES = ("fox", "hen: in snow", "cow/../calf")


def made(seed):
    """Three blocks, two steps, two heads, with noise; one score is not known."""
    random = np.random.default_rng(seed)
    profile = planted(random.random((2, 3, 2, 16)) / 50)
    facts = {"seed": seed, "prompt": f"ü {seed}"}
    return rp.AttentionProfile(profile.dataset.assign_attrs(provenance=json.dumps(facts)))


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    store = rp.ProfileStore(folder, NAMES)
    for seed, name in enumerate(NAMES):
        store.save(name, made(seed))
    return store


def test_profiles_come_back_bit_for_bit(filled):
    again = rp.ProfileStore(filled.folder)
    assert again.names == NAMES
    assert len(again) == 3
    for seed, name in enumerate(NAMES):
        assert again.load(name).identical(made(seed))
        lazy = again.lazy(name)
        assert lazy.dataset.score.chunks is not None, "nothing was read"
        assert rp.AttentionProfile(lazy.dataset.load()).identical(made(seed))
    assert [each.provenance["seed"] for each in again] == [0, 1, 2]


def two_branches():
    random = np.random.default_rng(0)
    score = random.random((2, 1, 2, 1, 4)) / 10
    score[0, 0, 0, 0, 1] = np.nan
    return rp.AttentionProfile.build(
        score=score,
        mass=np.full((2, 1, 2, 1, 3, 3), np.nan),
        steps=[3],
        timesteps=[0.1 + 0.2],
        sigmas=[1 / 3],
        blocks=[1, 4],
        block_kinds=["double"] * 5,
        heads=[7],
        layout=TokenLayout(0, Grid(1, 2), (Grid(1, 2), Grid(2, 1, placed=True))),
        branches=["conditional", "unconditional"],
        queries="reference",
    )


def test_what_is_not_known_stays_so_in_every_branch(tmp_path):
    store, profile = rp.ProfileStore(tmp_path, ["one"]), two_branches()
    store.save("one", profile)
    assert store.load("one").identical(profile)
    (part,) = store.profiles(branch="unconditional", blocks=4)
    assert part.identical(profile.sel(branch="unconditional", blocks=4))


def test_diagnostics_are_those_of_the_profiles(filled):
    profiles = [made(seed) for seed in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, theirs = rp.survey(filled), rp.survey(profiles)
    for name, value in theirs.to_dataset().data_vars.items():
        np.testing.assert_array_equal(ours.to_dataset()[name], value)
    lazies = [filled.lazy(name) for name in NAMES]
    np.testing.assert_array_equal(
        rp.stability(lazies).spearman.values, rp.stability(profiles).spearman.values
    )
    assert rp.skew(lazies[1], blocks=2).summary() == rp.skew(profiles[1], blocks=2).summary()
    assert rp.entropy(lazies[1]).summary() == rp.entropy(profiles[1]).summary()
    whole = filled.dataset()
    assert whole.profile.values.tolist() == list(NAMES)
    mean = whole.score.mean("profile").compute()
    np.testing.assert_allclose(
        mean, np.mean([each.dataset.score.values for each in profiles], 0), rtol=1e-6
    )


def test_a_part_reads_nothing_else(filled, tmp_path):
    folder = shutil.copytree(filled.folder, tmp_path / "copy")
    store = rp.ProfileStore(folder)
    for path in (folder / "arrays" / "score" / "c" / "1" / "0" / "0" / "2").rglob("0"):
        if path.is_file():
            path.unlink()
    part = store.lazy(NAMES[1]).sel(blocks=[0, 1])
    assert part.score.identical(made(1).sel(blocks=[0, 1]).score.compute())
    with pytest.raises(ProfileFileError, match=r"score/c/1/.*not as it was written"):
        store.load(NAMES[1])
    with pytest.raises(ProfileFileError, match="not as it was written"):
        store.dataset().score.sum().compute()


def test_a_change_anywhere_is_seen(filled, tmp_path):
    """Every file of a store, with one byte changed, cut short, and gone."""
    files = [p.relative_to(filled.folder) for p in filled.folder.rglob("*") if p.is_file()]
    # entropies of 0 need no file: scores by block, masses, descriptions, records, names, template
    assert len(files) == 3 * (3 + 1) + 5 + 3 + 2
    for number, name in enumerate(files):
        for change in ("flip", "cut", "gone"):
            folder = tmp_path / f"{number}-{change}"
            shutil.copytree(filled.folder, folder)
            data = bytearray((folder / name).read_bytes())
            if change == "flip":
                data[len(data) // 2] ^= 1
            elif change == "cut":
                del data[len(data) // 2 :]
            (folder / name).write_bytes(data)
            if change == "gone":
                (folder / name).unlink()
            found = []
            try:
                store = rp.ProfileStore(folder)
                found = [store.load(each) for each in NAMES if each in store]
            except RecastProbeError:
                continue
            # only a record that is gone takes its profile along and says nothing
            assert (change, name.parts[0]) == ("gone", "records"), name
            assert len(found) == 2


def test_one_store_holds_one_kind(filled, tmp_path):
    store = rp.ProfileStore(tmp_path / "kinds", ["a", "b"])
    store.save("a", made(0))
    for other, what in (
        (two_branches(), "variables"),
        (made(0).sel(steps=0), "shapes"),
        (made(0).sel(blocks="single"), "shapes"),
        (rp.AttentionProfile(made(0).dataset.assign_attrs(queries="text")), "attributes"),
        (rp.AttentionProfile(made(0).dataset.assign_coords(step=[0, 5])), "coordinates"),
        (rp.AttentionProfile(made(0).dataset.drop_vars("conditional_entropy")), "variables"),
    ):
        with pytest.raises(InputError, match=f"another kind.*{what}"):
            store.save("b", other)
    assert store.missing() == ["b"]
    for call, message in (
        (lambda: store.save("c", made(0)), "'c'"),
        (lambda: store.load("b"), "'b' is not in"),
        (lambda: rp.ProfileStore(tmp_path / "none"), "no store"),
        (lambda: rp.ProfileStore(tmp_path / "none", ["a", "a"]), "once"),
        (lambda: rp.ProfileStore(tmp_path / "none", []), "names"),
        (lambda: rp.ProfileStore(filled.folder, ["a"]), "3 other"),
        (lambda: rp.ProfileStore(tmp_path / "kinds2", ["a"]).dataset(), "No profile"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_a_profile_that_was_cut_short_is_not_there(tmp_path, monkeypatch):
    store = rp.ProfileStore(tmp_path, ["a", "b"])
    store.save("a", made(0))
    store.save("b", made(1))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(profile_store, "write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.save("a", made(2))
    monkeypatch.undo()
    assert store.missing() == ["a"]
    assert [each.provenance["seed"] for each in store] == [1]
    store.save("a", made(2))
    assert store.load("a").identical(made(2))
    assert not list(tmp_path.rglob("*.lock"))


def test_a_lazy_profile_stays_the_one_that_was_opened(tmp_path):
    store = rp.ProfileStore(tmp_path, ["fox", "hen"])
    store.save("fox", made(0))
    store.save("hen", made(1))
    lazy, every = store.lazy("fox"), store.dataset().score
    first = lazy.sel(blocks=0).score.compute()
    np.testing.assert_array_equal(first, made(0).sel(blocks=0).score)
    store.save("fox", made(2))
    parts = lazy.sel(blocks=1).score, lazy.sel(blocks=0).score, every, every[0, 0, 0, 1]
    for _ in range(2):
        for part in parts:
            with pytest.raises(ProfileFileError, match="'fox' was saved anew"):
                part.compute()
        store.load("hen")  # which reads all records again
    np.testing.assert_array_equal(every[1, 0].compute(), made(1).dataset.score[0])
    assert rp.AttentionProfile(store.lazy("fox").dataset.load()).identical(made(2))
    # the same profile, saved once more, is no other
    again = store.lazy("hen")
    store.save("hen", made(1))
    assert rp.AttentionProfile(again.dataset.load()).identical(made(1))


def test_where_there_are_no_locks_profiles_are_written_with_a_warning(tmp_path, no_locks):
    with pytest.warns(UserWarning, match="without locks"):
        store = rp.ProfileStore(tmp_path, ["fox"])
    with pytest.warns(UserWarning, match="without locks"):
        store.save("fox", made(0))
    assert store.load("fox").identical(made(0))


def write_all(folder, seeds):
    store = rp.ProfileStore(folder, [str(seed) for seed in range(8)])
    for seed in seeds:
        store.save(str(seed), made(seed))


def test_several_processes_write_at_once(tmp_path):
    """The same names from here and from another process, which only takes them from the end."""
    spawned = multiprocessing.get_context("spawn")
    other = spawned.Process(target=write_all, args=(tmp_path, range(7, -1, -1)))
    other.start()
    write_all(tmp_path, range(4))
    while other.is_alive():
        write_all(tmp_path, range(8))
    assert other.exitcode == 0
    store = rp.ProfileStore(tmp_path)
    assert all(store.load(str(seed)).identical(made(seed)) for seed in range(8))
