"""Every supported pipeline class against every property; and what the suite itself would notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recast_probe.errors import InputError
from recast_probe.pipelines import FluxKontext, supported_pipelines
from recast_probe.testing import conformance, tiny

CASES = {case.name: case for case in conformance.supported_cases()}


def named(case: str) -> object:
    """One class is examined in the short loop too."""
    return case if case == "FluxKontextPipeline" else pytest.param(case, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", conformance.PROPERTIES)
@pytest.mark.parametrize("case", map(named, CASES))
def test_every_pipeline_has_every_property_or_refuses_it(case, name):
    found = conformance.outcome(CASES[case], name)
    assert found == "yes" or CASES[case].refuses[name] in found


@pytest.mark.slow
def test_every_supported_class_has_a_case():
    classes = {type(case.probe.pipe).__name__ for case in CASES.values()}
    assert classes == set(supported_pipelines())


def test_every_property_says_what_it_proves():
    for name in conformance.PROPERTIES:
        assert conformance.proves(name).endswith(".")


@pytest.fixture
def kontext():
    return conformance.Case("mine", tiny.build_tiny_pipeline, [tiny.tiny_image()])


class TestWhatTheSuiteNotices:
    @pytest.mark.parametrize("name", ["image bit-identical", "runs share no state"])
    def test_a_pipeline_that_remembers_its_last_run(self, kontext, name):
        calls = []

        def build():
            pipe = tiny.build_tiny_pipeline()

            def later(module, positional, output):
                calls.append(1)
                return (output[0] + 1e-3 * len(calls), *output[1:])

            pipe.transformer.register_forward_hook(later)
            return pipe

        with pytest.raises(AssertionError, match=r"latents|pixels"):
            conformance.outcome(replace(kontext, build=build), name)

    @pytest.mark.parametrize("name", ["scores are the dense softmax", "certificate"])
    def test_scores_of_other_tokens(self, kontext, monkeypatch, name):
        read = FluxKontext.read_attention

        def rolled(self, *arguments, **settings):
            found = read(self, *arguments, **settings)
            pairs = {
                pair: replace(each, score=each.score.roll(1, -1))
                for pair, each in found.pairs.items()
            }
            return replace(found, pairs=pairs)

        monkeypatch.setattr(FluxKontext, "read_attention", rolled)
        with pytest.raises(AssertionError):
            conformance.outcome(kontext, name)

    def test_other_tokens_kept_than_asked_for(self, kontext, monkeypatch):
        keep = FluxKontext.keep_reference_tokens

        def shifted(self, inputs, layout, kept):
            return keep(self, inputs, layout, sorted((token + 1) % 16 for token in kept))

        monkeypatch.setattr(FluxKontext, "keep_reference_tokens", shifted)
        with pytest.raises(AssertionError, match="latents"):
            conformance.outcome(kontext, "pruned equals absent")

    def test_refusals_that_nobody_announced_and_announcements_without_a_refusal(self, kontext):
        with pytest.raises(AssertionError, match=r"announces nothing.*one reference image"):
            conformance.outcome(kontext, "several references")
        other = replace(kontext, refuses={"several references": "for want of time"})
        with pytest.raises(AssertionError, match=r"want of time.*one reference image"):
            conformance.outcome(other, "several references")
        proud = replace(kontext, refuses={"step cache": "cannot be skipped"})
        with pytest.raises(AssertionError, match="but has it"):
            conformance.outcome(proud, "step cache")
        with pytest.raises(InputError, match="no property 'flight'"):
            conformance.check_pipeline(replace(kontext, refuses={"flight": "no wings"}))


def test_the_table_names_every_outcome(kontext, monkeypatch):
    refused, had = "several references", "certificate"
    few = {name: conformance.PROPERTIES[name] for name in (refused, had)}
    monkeypatch.setattr(conformance.suite, "PROPERTIES", few)
    case = replace(kontext, refuses={refused: "one reference image"})
    table = conformance.conformance_table([case, replace(case, name="other")])
    assert list(table.index) == ["mine", "other"]
    assert list(table[had]) == ["yes", "yes"]
    assert table.loc["other", refused].startswith("refused: flux-kontext takes one")
