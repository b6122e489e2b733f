"""README's table of families is what the cases of the conformance suite announce."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recast_probe.errors import InputError
from recast_probe.pipelines import FAMILIES
from recast_probe.testing import conformance, tiny
from recast_probe.testing.conformance import __main__ as program
from recast_probe.testing.conformance import readme_table as module
from recast_probe.testing.conformance.supported import REASONS

README = Path(__file__).parents[2] / "README.md"
PAGE = f"before\n{module.BEGIN}\nold\n{module.END}\nafter\n"


@pytest.fixture
def kontext():
    return conformance.Case(
        "mine", tiny.build_tiny_pipeline, [tiny.tiny_image()], refuses={"several references": "one"}
    )


@pytest.fixture
def few(monkeypatch):
    """Two properties to examine, one of which the model refuses."""
    few = {name: conformance.PROPERTIES[name] for name in ("several references", "certificate")}
    monkeypatch.setattr(conformance.suite, "PROPERTIES", few)


def test_the_readme_has_the_table_of_today():
    table = conformance.families_table(conformance.supported_cases())
    assert conformance.written_table(README) == table, "run `make families`"
    for family in FAMILIES:
        assert f"| `{family.name}` |" in table


def test_every_property_stands_in_one_column():
    named = [name for names in module.COLUMNS.values() for name in names]
    assert sorted(named) == sorted(conformance.PROPERTIES)


def test_cells_are_yes_or_the_number_of_a_reason(kontext):
    refuses = {"several references": "one", "certificate": "two", "runs share no state": "one"}
    table = conformance.families_table([kontext, replace(kontext, refuses=refuses)])
    first, second = (
        dict(zip(("family", "what", *module.COLUMNS), row.split(" | "), strict=True))
        for row in table.splitlines()[2:4]
    )
    assert first["several references"] == second["several references"] == "no (1)"
    assert first["trace, verify"] == first["prune"] == second["prune"] == "yes"
    assert second["trace, verify"] == "no (2, 1)"
    assert table.endswith("\n\n1. one\n2. two")


def test_a_reason_is_told_in_a_sentence_if_there_is_one(kontext):
    sentences = {"one": "It takes one picture."}
    refuses = {"several references": "one", "certificate": "two"}
    table = conformance.families_table([replace(kontext, refuses=refuses, reasons=sentences)])
    assert table.endswith("\n\n1. two\n2. It takes one picture.")


def test_every_reason_of_ours_is_a_sentence_and_none_is_left_over():
    cases = conformance.supported_cases()
    said = {case.refuses[name]: case.reason(name) for case in cases for name in case.refuses}
    for reason in said.values():
        assert reason[0].isupper() or reason[0] == "`", reason
        assert reason.endswith("."), reason
    assert set(said) == set(REASONS)


def test_writing_examines_first_and_leaves_the_rest_alone(kontext, few, tmp_path, monkeypatch):
    file = tmp_path / "page.md"
    file.write_text(PAGE)
    monkeypatch.setattr(program, "supported_cases", lambda: [kontext])
    program.main(["--write", str(file)])
    assert conformance.written_table(file) == conformance.families_table([kontext])
    written = file.read_text()
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    wrong = replace(kontext, refuses={})
    with pytest.raises(AssertionError, match="announces nothing"):
        conformance.write_families_table(file, [wrong])
    assert file.read_text() == written
    conformance.write_families_table(file, [wrong], examine=False)
    assert conformance.written_table(file) == conformance.families_table([wrong])


@pytest.mark.parametrize("lost", [module.BEGIN, module.END])
def test_a_file_without_a_marker_is_refused(lost, tmp_path):
    file = tmp_path / "page.md"
    file.write_text(PAGE.replace(lost, ""))
    with pytest.raises(InputError, match=f"no line '{lost}'"):
        conformance.write_families_table(file, [])
    with pytest.raises(InputError, match=r"none\.md"):
        conformance.written_table(tmp_path / "none.md")
