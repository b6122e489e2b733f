"""A flipped bit in any file of this package is found, or changes nothing that is read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from recast_probe import AttentionMaps, AttentionProfile
from recast_probe.errors import DamagedFileError, InputError, ProfileFileError
from recast_probe.pocket.checkpoint import load_checkpoint, save_checkpoint
from recast_probe.pocket.subjects import held_out, load_pack
from recast_probe.profiles.activations import Activations
from recast_probe.studies import Store, load_table, save_table
from tests.damage import FLIPS, found_or_same

KEY = {"subject": "größer", "arm": "full"}
VALUES = {"identity": 0.812345, "mean": None, "steps": [28, 4], "note": "a", "one": 1}


def test_activations(probe, image, tmp_path):
    path = tmp_path / "a.safetensors"
    probe.record(
        image, "a fox", what=("keys", "residual"), steps=2, blocks=[0, 1], progress=False
    ).save(path)
    wanted = Activations.load(path)

    def same(back):
        facts = ("tokens", "layout", "block_kinds", "provenance", "sha256")
        return all(getattr(back, name) == getattr(wanted, name) for name in facts) and all(
            np.array_equal(getattr(back, name), getattr(wanted, name))
            for name in ("positions", "timesteps")
        )

    # the header as densely as the rest, which is far larger
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    assert found_or_same(path, lambda: Activations.load(path), DamagedFileError, same)
    for part in range(8, header, -(-header // FLIPS)):
        path.write_bytes(whole[:part] + bytes([whole[part] ^ 1 << part % 8]) + whole[part + 1 :])
        try:
            assert same(Activations.load(path)), part
        except DamagedFileError:
            continue
    for cut in (0, 7, 100, header - 1, header, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedFileError):
            Activations.load(path)


def test_profiles(probe, image, tmp_path):
    path = probe.profile(image, "a fox", steps=1, progress=False).save(tmp_path / "a.nc")
    count = found_or_same(path, lambda: AttentionProfile.load(path), ProfileFileError, lambda _: 0)
    assert count == FLIPS + 2


def test_maps(probe, image, tmp_path):
    maps = probe.attention_maps(image, "a fox", [3], steps=2, progress=False)
    path = maps.save(tmp_path / "a.nc")
    count = found_or_same(path, lambda: AttentionMaps.load(path), ProfileFileError, lambda _: 0)
    assert count == FLIPS + 2


@pytest.fixture
def store(tmp_path):
    """A store with one run of a text and a picture."""
    opened = Store(tmp_path, {"model": "tiny", "seed": 0})
    files = {
        ".txt": lambda path: path.write_text("some text"),
        ".bin": lambda path: path.write_bytes(bytes(range(256))),
    }
    opened.save(KEY, VALUES, files, {"versions": {"torch": "2"}})
    return opened


@pytest.mark.parametrize("suffix", [".json", ".txt", ".bin"])
def test_records_of_a_study(store, suffix):
    (path,) = store.folder.glob(f"*full*{suffix}")
    wanted = store.load(KEY)
    assert wanted.values == VALUES

    def read():
        found = store.load(KEY)
        if found is None:
            raise LookupError
        return found

    count = found_or_same(path, read, LookupError, lambda back: back == wanted)
    assert count > FLIPS / 2
    assert store.load(KEY) == wanted


def test_settings_of_a_study(store):
    path = store.folder / "study.json"
    count = found_or_same(
        path,
        lambda: Store(store.folder, store.settings).load(KEY),
        InputError,
        lambda back: back.values == VALUES,
    )
    assert count > FLIPS / 2


def test_records_of_another_study_or_run_are_not_taken(store, tmp_path):
    (path,) = store.folder.glob("*full*.json")
    other = Store(tmp_path / "other", {"model": "tiny", "seed": 1})
    for each in store.folder.glob("*full*"):
        (other.folder / each.name).write_bytes(each.read_bytes())
    assert other.load(KEY) is None
    # the settings are gone, and with them what the records are of
    (store.folder / "study.json").unlink()
    assert Store(store.folder, other.settings).load(KEY) is None
    second = store.save({**KEY, "arm": "none"}, {"identity": 0.1})
    assert second.values != VALUES
    (none,) = store.folder.glob("*none*.json")
    path.write_bytes(none.read_bytes())
    assert store.load(KEY) is None


def test_tables(tmp_path):
    table = pd.DataFrame({"arm": ["full", "none"] * 20, "mean": np.linspace(0, 1, 40)})
    files = save_table(table, tmp_path / "table", {"seed": 0})

    def same(back):
        return back[0].equals(table) and back[1] == {"seed": 0}

    for path in files:
        count = found_or_same(path, lambda: load_table(tmp_path / "table"), DamagedFileError, same)
        assert count >= FLIPS / 2


def test_checkpoints(tmp_path):
    tensors = {"model/a": torch.arange(300.0), "ema/b": torch.ones(3, 4)}
    save_checkpoint(tmp_path / "c", tensors, {"steps": 3, "seconds": 1.5})

    def same(back):
        found, progress = back
        return progress == {"steps": 3, "seconds": 1.5} and all(
            torch.equal(found[name], tensors[name]) for name in tensors
        )

    names = {path.name for path in (tmp_path / "c").iterdir()}
    assert names == {"contents.json", "progress.json", "state-00.safetensors"}
    for name in names:
        path = tmp_path / "c" / name
        count = found_or_same(path, lambda: load_checkpoint(tmp_path / "c"), InputError, same)
        assert count >= FLIPS / 2
    (tmp_path / "c" / "state-00.safetensors").unlink()
    with pytest.raises(DamagedFileError, match="state-00"):
        load_checkpoint(tmp_path / "c")


def test_training_packs(tmp_path):
    """A zip archive has a checksum for each of its members."""
    path, subject = tmp_path / "subjects.npz", held_out()[0]
    np.savez_compressed(
        path, rgba=subject.rgba[None], key=[subject.key], name=[subject.name], style=["fluent"]
    )

    def same(back):
        (found,) = back
        facts = (found.key, found.name, found.style) == (subject.key, subject.name, "fluent")
        return facts and np.array_equal(found.rgba, subject.rgba)

    assert found_or_same(path, lambda: load_pack(path), Exception, same) > FLIPS / 2
