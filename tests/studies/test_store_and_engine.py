"""Studies that are cut short go on to the same table; foreign and damaged records are not used."""

from __future__ import annotations

import errno
import json

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet

from recast_probe.errors import DamagedFileError, InputError
from recast_probe.studies import load_table, markdown, save_table
from recast_probe.studies.engine import Outcome, Unit, run_study
from recast_probe.studies.store import Store
from recast_probe.studies.tables import p_value, with_interval

SETTINGS = {"model": "tiny", "seed": 0}
UNITS = [Unit({"subject": s, "prompt": p}, n) for n, (s, p) in enumerate(["ax", "ay", "bx"])]
ARMS = ("full", "none")


class Performer:
    """Counts its runs; may be interrupted before one of them."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.runs: list[tuple[int, str]] = []
        self.interrupt_at = interrupt_at

    def __call__(self, unit, arms):
        for arm in arms:
            if len(self.runs) == self.interrupt_at:
                raise KeyboardInterrupt
            self.runs.append((unit.payload, arm))
            value = unit.payload + (0.5 if arm == "full" else np.nan)
            text = f"{unit.payload} {arm}"
            yield Outcome(arm, {"value": value}, {".txt": lambda path, t=text: path.write_text(t)})


def run(folder, performer):
    return run_study(UNITS, ARMS, performer, Store(folder, SETTINGS), progress=False)


@pytest.mark.parametrize("interrupt_at", range(6))
def test_a_killed_study_gives_the_same_table(tmp_path, interrupt_at, capsys):
    whole = run(tmp_path / "whole", Performer())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Performer(interrupt_at))
    assert f"{interrupt_at} of 6 runs are in" in capsys.readouterr().err
    rest = Performer()
    pd.testing.assert_frame_equal(run(tmp_path / "cut", rest), whole)
    assert len(rest.runs) == 6 - interrupt_at
    again = Performer()
    pd.testing.assert_frame_equal(run(tmp_path / "cut", again), whole)
    assert again.runs == []
    assert whole["value"].tolist()[:3] == pytest.approx([0.5, np.nan, 1.5], nan_ok=True)
    assert whole.columns.tolist() == ["subject", "prompt", "arm", "value"]


def damage_text(folder):
    next(folder.glob("*.txt")).write_text("other")


def damage_record(folder):
    next(folder.glob("a-x-*.json")).write_text("{")


def lose_file(folder):
    next(folder.glob("*.txt")).unlink()


@pytest.mark.parametrize("damage", [damage_text, damage_record, lose_file])
def test_damaged_records_are_made_again(tmp_path, damage):
    whole = run(tmp_path, Performer())
    damage(tmp_path)
    performer = Performer()
    pd.testing.assert_frame_equal(run(tmp_path, performer), whole)
    assert len(performer.runs) == 1


def test_a_full_disk_leaves_no_record_of_an_older_run(tmp_path):
    store = Store(tmp_path, SETTINGS)
    key = {"subject": "a", "arm": "full"}
    store.save(key, {"value": 1}, {".txt": lambda path: path.write_text("one")})

    def full(path):
        path.write_text("tw")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        store.save(key, {"value": 2}, {".txt": full})
    assert store.load(key) is None
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_other_settings_are_never_mixed_in(tmp_path):
    run(tmp_path, Performer())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"other settings: seed \(seed was 0, now 1\)"):
        Store(tmp_path, SETTINGS | {"seed": 1})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "study.json").write_text("[")
    with pytest.raises(InputError, match="cannot be read"):
        Store(tmp_path, SETTINGS)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"computed": 1}, {"computed": 1.0}, "computed was 1, now 1.0"),
        ({"computed": 1}, {"computed": True}, "computed was 1, now true"),
        ({"computed": 1}, {"computed": "1"}, 'computed was 1, now "1"'),
        ({}, {"finder": None}, "finder was missing, now null"),
        ({"finder": None}, {}, "finder was null, now missing"),
        ({"at": {"a": [0]}}, {"at": {"a": [False]}}, r"at\.a was \[0\], now \[false\]"),
        ({"at": {}}, {}, r"at was \{\}, now missing"),
        ({"at": 0.0}, {"at": -0.0}, "at was 0.0, now -0.0"),
    ],
)
def test_settings_that_python_takes_for_equal_are_other_settings(tmp_path, before, after, said):
    key = {"subject": "a", "arm": "full"}
    Store(tmp_path, SETTINGS | before).save(key, {"value": 1})
    with pytest.raises(InputError, match=said):
        Store(tmp_path, SETTINGS | after)
    assert Store(tmp_path, SETTINGS | before).load(key).values == {"value": 1}


@pytest.mark.parametrize("suffix", [".PNG", "png", ".json", ".lock", ".a.b"])
def test_a_refused_suffix_leaves_the_earlier_run(tmp_path, suffix):
    store, key = Store(tmp_path, SETTINGS), {"subject": "a", "arm": "full"}
    store.save(key, {"value": 1}, {".txt": lambda path: path.write_text("one")})
    writers = {".txt": lambda path: path.write_text("two"), suffix: lambda path: None}
    with pytest.raises(InputError, match="no suffix"):
        store.save(key, {"value": 2}, writers)
    kept = store.load(key)
    assert (kept.values, kept.files[".txt"].read_text()) == ({"value": 1}, "one")


def test_what_labels_do_not_tell_makes_other_runs_and_no_column(tmp_path):
    tables = []
    for number, content in enumerate(("one", "other", "one")):
        units = [Unit({"subject": "a"}, number, content)]
        store = Store(tmp_path, SETTINGS)
        tables.append(run_study(units, ["full"], Performer(), store, progress=False))
    assert [table["value"].tolist() for table in tables] == [[0.5], [1.5], [0.5]]
    assert tables[0].columns.tolist() == ["subject", "arm", "value"]


def test_keys_cannot_leave_the_folder_or_collide(tmp_path):
    store = Store(tmp_path / "runs", SETTINGS)
    keys = [{"subject": s, "arm": "x"} for s in ("../../evil", "a/b", "a-b", "ä" * 300, "")]
    for number, key in enumerate(keys):
        store.save(key, {"value": number})
    assert [store.load(key).values["value"] for key in keys] == list(range(5))
    assert {path.parent for path in tmp_path.rglob("*.json")} == {tmp_path / "runs"}
    with pytest.raises(InputError, match="no suffix"):
        store.save(keys[0], {}, {"/../x.png": lambda path: None})


def test_studies_that_cannot_be(tmp_path):
    store = Store(tmp_path, SETTINGS)
    with pytest.raises(InputError, match="names of their own"):
        run_study([*UNITS, UNITS[0]], ARMS, Performer(), store, progress=False)
    with pytest.raises(InputError, match="was not asked for"):
        run_study(UNITS, ["none"], lambda u, a: [Outcome("full", {})], store, progress=False)
    with pytest.raises(InputError, match="No outcome came"):
        run_study(UNITS, ["none"], lambda u, a: [], store, progress=False)


def test_tables_come_back_with_their_provenance(tmp_path):
    table = pd.DataFrame({"arm": ["full", "none"], "mean": [0.5, np.nan]}).set_index("arm")
    files = save_table(table, tmp_path / "table_1", {"seed": 0, "note": np.nan})
    assert [path.name for path in files] == ["table_1.parquet", "table_1.csv", "table_1.json"]
    pd.testing.assert_frame_equal(pd.read_parquet(files[0]), table)
    pd.testing.assert_frame_equal(pd.read_csv(files[1], index_col="arm"), table)
    stored = parquet.read_schema(files[0]).metadata[b"recast_probe"]
    back, provenance = load_table(tmp_path / "table_1")
    assert json.loads(stored) == provenance == {"seed": 0, "note": None}
    pd.testing.assert_frame_equal(back, table)
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"0", b"1", 1))
        with pytest.raises(DamagedFileError):
            load_table(tmp_path / "table_1")
        path.write_bytes(whole)
    with pytest.raises(InputError, match="does not exist"):
        save_table(table, tmp_path / "nowhere" / "table", {})


def test_a_copied_table_is_checked_itself(tmp_path):
    table = pd.DataFrame({"arm": ["full", "none"], "mean": [0.5, 0.25]}).set_index("arm")
    for path in save_table(table, tmp_path / "one", {}):
        path.with_stem("two").write_bytes(path.read_bytes())
    pd.testing.assert_frame_equal(load_table(tmp_path / "two")[0], table)
    (table + 0.1).to_parquet(tmp_path / "two.parquet")
    with pytest.raises(DamagedFileError, match=r"two\.parquet"):
        load_table(tmp_path / "two")


def test_tables_in_words():
    assert with_interval(0.41234, 0.36, 0.4711) == "0.412 [0.360, 0.471]"
    assert with_interval(0.4, np.nan, np.nan) == "0.400 [cannot tell]"
    assert with_interval(0.41234, 0.36, 0.4711, 24.0) == "0.412 [0.360, 0.471, n=24]"
    assert with_interval(0.4, np.nan, np.nan, 5) == "0.400 [cannot tell, n=5]"
    assert [p_value(p) for p in (0.0001, 0.0042, 0.25, np.nan)] == ["< 0.001", "0.004", "0.25", "-"]
    assert markdown([{"arm": "a|b", "mean": 0.5}, {"arm": "none", "mean": 0.25}]).split("\n") == [
        "| arm  |  mean |",
        "| ---- | ----: |",
        "| a\\|b | 0.500 |",
        "| none | 0.250 |",
    ]
    assert markdown([]) == ""
