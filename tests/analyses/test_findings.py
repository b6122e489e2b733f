"""Pages on findings: what they say follows from the numbers, and what ships is what is written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from analyses import findings, schedules
from recast_probe.errors import DamagedFileError, InputError
from recast_probe.files.envelope import read_sealed
from recast_probe.paper_claims.measurements import collect
from recast_probe.recipes.page import (
    against,
    corrected,
    decided,
    ends,
    higher,
    side,
    too_few,
    warned,
)
from recast_probe.recipes.words import TABLE, about, cases_in_words

ROOT = Path(__file__).parents[2]


def number(mean, low, high, **more):
    return {"mean": mean, "low": low, "high": high, **more}


@pytest.mark.parametrize(
    ("low", "high", "null", "way"),
    [
        *((0.1, 0.2, 0, 1), (-0.2, -0.1, 0, -1), (-0.1, 0.1, 0, 0), (0.0, 0.2, 0, 0)),
        *((0.7, 0.9, 0.8, 0), (None, None, 0, 0), (float("nan"), float("nan"), 0, 0)),
    ],
)
def test_an_interval_lies_on_a_side_or_says_nothing(low, high, null, way):
    assert side(number(0.15, low, high), null) == way


@pytest.mark.parametrize(
    ("low", "p", "way"),
    [(0.1, 0.05, 1), (0.1, 0.051, 0), (-0.1, 0.01, 0), (0.1, math.nan, 0), (None, 0.01, 0)],
)
def test_interval_and_corrected_p_value_decide_together(low, p, way):
    assert decided(number(0.15, low, 0.2, p_holm=p)) == way


def test_all_differences_of_a_section_are_corrected_for_one_another():
    eight = {"p_value": 2 / 2**8, "subjects": 8}
    found = corrected([number(0.2, 0.1, 0.3, **eight)] * 12)
    assert [each["p_holm"] for each in found] == [12 * 2 / 2**8] * 12
    assert "cannot be told apart" in higher("A", "B", found[0])
    assert "0.0078" in warned(found)[0]
    assert "0.094" in warned(found)[0]
    # six of them can be decided
    assert warned(found[:6]) == []
    assert decided(corrected([number(0.2, 0.1, 0.3, **eight)] * 6)[0]) == 1
    # one whose table has more comparisons keeps the table's value
    of_table = number(0.2, 0.1, 0.3, p_holm=0.2, **eight)
    assert corrected([of_table, number(0.2, 0.1, 0.3, **eight)])[0]["p_holm"] == 0.2
    assert corrected([]) == warned([]) == []


def test_so_few_subjects_decide_nothing():
    assert too_few(8, 6) == ""
    assert "0.055" in too_few(8, 7)
    assert too_few(100, 1000) == ""
    # as many as KontextBench has pairs
    assert too_few(1026.0, 22) == ""
    assert "is 1 when" in too_few(2, 4)


def test_cases_are_counted_and_not_called_subjects():
    rows = [
        {"subject": subject, "prompt": f"{number}: p", "category": kind, "arm": arm}
        for subject in ("fox", "hen")
        for number, kind in enumerate(("local edit", "background change"))
        for arm in ("full", "none")
    ]
    words = cases_in_words(pd.DataFrame(rows))
    assert words == "2 subjects, 4 cases (local edit, background change)"


def test_columns_of_a_table_come_with_that_sentence():
    rows = [
        {"subject": f"s{number}", "prompt": "0: p", "arm": arm}
        for number in range(8)
        for arm in ("full", *"abcdefg")
    ]
    table = pd.DataFrame(rows)
    assert about(table).startswith(TABLE)
    assert "0.055" in about(table)
    assert about(table[table["arm"] != "g"]) == TABLE


def test_sentences_follow_from_the_numbers():
    more = number(0.05, 0.04, 0.06, p_holm=0.0002)
    numbers = "0.050 [0.040, 0.060], p (Holm) < 0.001."
    assert higher("A", "B", more) == f"A has more identity than B: {numbers}"
    less = higher("A", "B", number(-0.05, -0.06, -0.04, p_holm=0.01), "mass")
    assert less == "A has less mass than B: -0.050 [-0.060, -0.040], p (Holm) 0.01."
    assert "cannot be told apart" in higher("A", "B", number(0.01, -0.1, 0.1, p_holm=0.01))
    assert against("It", number(0.1, 0.05, 0.2, p_holm=0.06), 0, "0").startswith("It is not told")
    assert against("It", number(0.7, 0.6, 0.75), 0.8, "0.8").startswith("It is below 0.8")
    assert ends(number(0.5, None, None), ".0%") == "50% [cannot tell]"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        *((1, 1, "survives"), (-1, -1, "survives"), (1, -1, "reversed"), (0, 1, "decided now")),
        *((1, 0, "not decided any more"), (0, 0, "not decided in either")),
    ],
)
def test_what_became_of_a_finding(before, after, words):
    assert findings.became(before, after) == words
    assert words in findings.BECAME


def test_editions_are_compared_where_both_measured():
    before = {"top25": number(0.7, 0.65, 0.75), "entropy_fall": number(0.2, 0.1, 0.3)}
    after = {"top25": number(0.78, 0.74, 0.82), "retention": number(0.6, 0.5, 0.7)}
    (row,) = findings.compared(before, after)
    assert row["what became of it"] == "not decided any more"
    assert row["held against"] == "0.8"


def test_two_studies_that_hold_one_number_need_a_word(tmp_path):
    def write(study: str, name: str, mean: float) -> Path:
        path = tmp_path / f"{study}.json"
        path.write_text(json.dumps({"measured": {name: number(mean, mean, mean)}}))
        return path

    name = "adaptive_above_flat"
    files = [write("schedules", name, 0.1), write("table_1", name, 0.2)]
    for order in (files, files[::-1]):
        assert findings.together(order)[name]["mean"] == 0.1
    again = [files[1], write("acceleration", name, 0.3)]
    with pytest.raises(InputError, match="table_1 and acceleration both hold adaptive_above_flat"):
        findings.together(again)


def test_the_page_that_ships_is_the_one_that_is_written(tmp_path):
    written = findings.main(
        ["--measured", str(ROOT / "docs" / "measured"), "--markdown", str(tmp_path / "page.md")]
    )
    shipped = (ROOT / "docs" / "findings.md").read_text()
    assert (tmp_path / "page.md").read_text() == written["page"] == shipped
    named = {path.stem for path in (ROOT / "docs" / "findings").glob("*.md")}
    held = {path.stem for path in (ROOT / "docs" / "measured").glob("*.json")}
    assert named == held - {"ip_adapter"}
    with pytest.raises(InputError, match="holds no files"):
        findings.page(tmp_path)


def test_a_script_writes_its_page_and_its_numbers(tmp_path):
    page, numbers = tmp_path / "docs.md", tmp_path / "numbers.json"
    asked = ["--model", "tiny:flux-kontext", "--quick", "--subjects", "2", "--prompts", "1"]
    found = schedules.main(
        [
            *(*asked, "--steps", "2", "--out", str(tmp_path / "out")),
            *("--markdown", str(page), "--measured", str(numbers)),
        ]
    )
    text = page.read_text()
    assert text.startswith("# Does the growing schedule help?")
    assert "`python -m analyses.schedules --model tiny:flux-kontext" in text
    assert "--subjects 2 --prompts 1 --steps 2 --quick --seed 0 --markdown" in text
    for row in found["table"]:
        assert row["identity"] in text
    assert "![" in text
    assert (tmp_path / "docs-identity.png").read_bytes() == (
        tmp_path / "out" / "identity.png"
    ).read_bytes()
    own = (tmp_path / "out" / "page.md").read_text()
    # the same text and table; command and picture are elsewhere
    assert own.split("\n\n")[4] == text.split("\n\n")[4]
    assert own.split("\n\n")[4].startswith("| arm")
    held = read_sealed(numbers, "Measured")
    numbers.write_text(numbers.read_text().replace('"steps": 2', '"steps": 3'))
    with pytest.raises(DamagedFileError, match="checksum"):
        read_sealed(numbers, "Measured")
    with pytest.raises(InputError, match="checksum"):
        collect([numbers])
    numbers.write_text(numbers.read_text().replace('"steps": 3', '"steps": 2'))
    assert held["measured"]["adaptive_above_flat"]["mean"] == pytest.approx(
        collect([numbers])["adaptive_above_flat"]["mean"]
    )
    assert (held["subjects"], held["steps"]) == (2, 2)
