"""JSON and folders that vouch for themselves: a changed bit is found, whatever it is in."""

from __future__ import annotations

import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.errors import DamagedFileError, InputError
from recast_probe.files.atomic import atomic_folder, previous, write_json
from recast_probe.files.envelope import (
    CONTENTS,
    check_folder,
    file_digest,
    plain,
    read_json,
    read_sealed,
    seal_folder,
    sealed,
)
from tests.damage import found_or_same

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    SCALARS | TEXTS,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(TEXTS, each, max_size=4),
    max_leaves=20,
)
RESULT = {"identity": 0.812345, "steps": [28, 4], "note": "größer", "none": None, "1": {"a": True}}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXTS.map("x{}".format), VALUES, max_size=5))
def test_what_is_sealed_comes_back(tmp_path_factory, values):
    path = write_json(tmp_path_factory.getbasetemp() / "a.json", sealed(values, "Test"))
    assert read_sealed(path, "Test") == plain(values)
    # however it is laid out
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read_sealed(path, "Test") == plain(values)


@pytest.mark.parametrize("reader", [lambda path: read_sealed(path, "Test"), read_json])
def test_a_flipped_bit_changes_nothing_without_a_word(tmp_path, reader):
    path = write_json(tmp_path / "a.json", sealed(RESULT, "Test"))

    def same(back):
        # where the word "sha256" is hit, the rest looks as if it was written by hand; it is right
        return {name: back.get(name) for name in RESULT} == RESULT

    assert found_or_same(path, lambda: reader(path), DamagedFileError, same, flips=600) > 400


def test_edited_values_are_refused_and_written_ones_taken(tmp_path):
    path = write_json(tmp_path / "a.json", sealed(RESULT, "Test"))
    path.write_text(path.read_text().replace("0.812345", "0.912345"))
    for reader in (read_json, lambda each: read_sealed(each, "Test")):
        with pytest.raises(DamagedFileError, match="checksum"):
            reader(path)
    write_json(path, {"by hand": 1})
    assert read_json(path) == {"by hand": 1}
    with pytest.raises(DamagedFileError, match="format"):
        read_sealed(path, "Test")


def test_other_formats_and_newer_versions_are_refused(tmp_path):
    path = write_json(tmp_path / "a.json", sealed(RESULT, "Test", version=2))
    with pytest.raises(DamagedFileError, match="upgrade"):
        read_sealed(path, "Test")
    with pytest.raises(DamagedFileError, match="Other"):
        read_sealed(path, "Other")
    assert read_sealed(path, "Test", version=3) == RESULT


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '[{"b": {"a": 1, "a": 1}}]',
        '{"a": NaN}',
        "[Infinity]",
        "[-Infinity]",
        "[1e999]",
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000,
        "1" * 5000,
        "",
        "{",
        b"\xff\xfe",
        b'"\xed\xa0\x80"',
    ],
    ids=lambda text: str(text[:16]),
)
def test_json_that_is_not_strict_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DamagedFileError, match=r"a\.json"):
        read_json(path)


def test_only_files_of_a_fair_size_are_read(tmp_path):
    path = write_json(tmp_path / "a.json", [0] * 100)
    assert read_json(path, max_bytes=path.stat().st_size) == [0] * 100
    with pytest.raises(DamagedFileError, match="larger"):
        read_json(path, max_bytes=path.stat().st_size - 1)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path, tmp_path / "none", tmp_path / "pipe", "/dev/zero", "a" * 300, "a\0b"):
        with pytest.raises(DamagedFileError):
            read_json(other)
    for other in (tmp_path, tmp_path / "none", tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(DamagedFileError):
            file_digest(other)


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1, 2}, "\ud800", {1: 1, "1": 2}])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(InputError):
        sealed({"value": value}, "Test")


@pytest.mark.parametrize("name", ["format", "version", "sha256"])
def test_names_of_the_seal_are_taken(name):
    with pytest.raises(InputError, match=name):
        sealed({name: 1}, "Test")


@pytest.fixture
def folder(tmp_path):
    """A sealed folder with a file and one below."""
    with atomic_folder(tmp_path / "made") as fresh:
        (fresh / "below").mkdir()
        (fresh / "a.txt").write_text("one")
        (fresh / "below" / "b.bin").write_bytes(bytes(range(100)))
        seal_folder(fresh)
    return tmp_path / "made"


def test_a_folder_vouches_for_every_file(folder):
    check_folder(folder)
    for path in (folder / "a.txt", folder / "below" / "b.bin"):
        read, never = (lambda: check_folder(folder)), (lambda _: False)
        assert found_or_same(path, read, DamagedFileError, never, flips=50) == 52
    (folder / "new.txt").touch()
    with pytest.raises(DamagedFileError, match=r"new\.txt"):
        check_folder(folder)
    (folder / "new.txt").rename(folder / CONTENTS)
    with pytest.raises(DamagedFileError):
        check_folder(folder)
    (folder / CONTENTS).unlink()
    with pytest.raises(DamagedFileError, match="cut short"):
        check_folder(folder)


def test_a_folder_appears_whole_or_not_at_all(folder):
    def write(path):
        with atomic_folder(path) as fresh:
            (fresh / "a.txt").write_text("two")
            raise KeyboardInterrupt

    for path in (folder, folder.parent / "other"):
        with pytest.raises(KeyboardInterrupt):
            write(path)
    check_folder(folder)
    assert list(folder.parent.iterdir()) == [folder]
    with atomic_folder(folder) as fresh:
        (fresh / "a.txt").write_text("three")
    assert {path.name for path in folder.iterdir()} == {"a.txt"}
    assert not previous(folder).exists()
