"""Pages on findings: what they say follows from the numbers, and what ships is what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analyses import findings, schedules
from recast_probe.errors import InputError
from recast_probe.paper_claims.measurements import collect
from recast_probe.recipes.page import against, decided, ends, higher

ROOT = Path(__file__).parents[2]


def number(mean, low, high, **more):
    return {"mean": mean, "low": low, "high": high, **more}


@pytest.mark.parametrize(
    ("low", "high", "null", "side"),
    [
        *((0.1, 0.2, 0, 1), (-0.2, -0.1, 0, -1), (-0.1, 0.1, 0, 0), (0.0, 0.2, 0, 0)),
        *((0.7, 0.9, 0.8, 0), (None, None, 0, 0), (float("nan"), float("nan"), 0, 0)),
    ],
)
def test_an_interval_lies_on_a_side_or_says_nothing(low, high, null, side):
    assert decided(number(0.15, low, high), null) == side


def test_sentences_follow_from_the_numbers():
    more = number(0.05, 0.04, 0.06, p_value=0.0002)
    assert higher("A", "B", more) == "A has more identity than B: 0.050 [0.040, 0.060], p < 0.001."
    less = number(-0.05, -0.06, -0.04)
    assert higher("A", "B", less, "mass") == "A has less mass than B: -0.050 [-0.060, -0.040]."
    assert "cannot be told apart" in higher("A", "B", number(0.01, -0.1, 0.1))
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
    held = json.loads(numbers.read_text())
    assert held["measured"]["adaptive_above_flat"]["mean"] == pytest.approx(
        collect([numbers])["adaptive_above_flat"]["mean"]
    )
    assert (held["subjects"], held["steps"]) == (2, 2)
