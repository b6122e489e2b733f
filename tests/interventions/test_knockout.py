"""Knockout in runs: exact, composable, nothing where nothing is cut, all where all is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe.attention import dense_attention
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import Keep, Knockout, Merge, TokenCache, WithoutReference
from recast_probe.layout import Grid, TokenLayout
from recast_probe.testing import tiny

QUIET = {"steps": 3, "progress": False}
BOTH = (Knockout("reference", "generation"), Knockout("reference", "text"))


def pixels(result) -> np.ndarray:
    return np.asarray(result.image).astype(int)


class TestPaths:
    def test_cutting_every_edge_from_the_reference_is_the_run_without_it(self, probe, image):
        """Equal as numbers, not as bits: the kernels sum in another order when the sequence is
        shorter, which may tip the rounding of a pixel to the next of 256 levels."""
        cut = pixels(probe.generate(image, "fox", interventions=BOTH, **QUIET))
        without = pixels(probe.generate(image, "fox", interventions=[WithoutReference()], **QUIET))
        full = pixels(probe.generate(image, "fox", **QUIET))
        assert np.abs(cut - without).max() <= 1
        assert np.abs(full - without).max() > 10
        for one in BOTH:
            alone = pixels(probe.generate(image, "fox", interventions=[one], **QUIET))
            assert np.abs(alone - without).max() > 1

    def test_what_the_reference_would_see_plays_no_part_then(self, probe, image):
        cut = pixels(probe.generate(image, "fox", interventions=BOTH, **QUIET))
        more = [*BOTH, Knockout("text", "reference"), Knockout("generation", "reference")]
        also = pixels(probe.generate(image, "fox", interventions=more, **QUIET))
        np.testing.assert_array_equal(cut, also)

    def test_value_zeroed_is_another_cut(self, probe, image):
        zeroed = [Knockout(c.from_group, c.to_group, removal="value-zeroed") for c in BOTH]
        found = pixels(probe.generate(image, "fox", interventions=zeroed, **QUIET))
        cut = pixels(probe.generate(image, "fox", interventions=BOTH, **QUIET))
        assert np.abs(found - cut).max() > 1

    def test_cutting_nothing_is_the_plain_image(self, probe, plain, image):
        nothing = [
            Knockout("reference", "generation", tokens=()),
            Knockout("reference", "text", tokens=[], removal="value-zeroed"),
            Knockout("text", "generation", heads=()),
            Knockout("text", "reference", steps=()),
        ]
        result = probe.generate(image, "fox", interventions=nothing, **QUIET)
        np.testing.assert_array_equal(pixels(result), plain(image, "fox", steps=3))
        facts = result.provenance["interventions"]
        assert [each["attention_calls_cut"] for each in facts] == [0, 0, 0, 0]

    def test_parts_add_up_to_the_whole(self, probe, image):
        whole = probe.generate(image, "fox", interventions=[BOTH[0]], **QUIET)
        parts = [
            Knockout("reference", "generation", tokens=range(0, 16, 2), heads=0),
            Knockout("reference_0", "generation", tokens=range(1, 16, 2), heads=0, blocks="double"),
            Knockout("reference", "generation", tokens=range(1, 16, 2), heads=[0], blocks="single"),
            Knockout("reference", "generation", heads=1, steps=[0, 2]),
            Knockout("reference", "generation", heads=1, steps=1),
        ]
        result = probe.generate(image, "fox", interventions=parts, **QUIET)
        assert np.abs(pixels(result) - pixels(whole)).max() <= 1
        calls = [each["attention_calls_cut"] for each in result.provenance["interventions"]]
        assert calls == [15, 6, 9, 10, 5]

    def test_padding_and_prompt_are_the_parts_of_text(self, probe, image):
        whole = [Knockout("text", "generation")]
        parts = [Knockout("padding", "generation"), Knockout("prompt", "generation")]
        one, other = (
            pixels(probe.generate(image, "fox", interventions=each, **QUIET))
            for each in (whole, parts)
        )
        assert np.abs(one - other).max() <= 1
        padded = pixels(probe.generate(image, "fox", interventions=parts[:1], **QUIET))
        assert np.abs(one - padded).max() > 1

    def test_both_branches_are_cut(self, probe, image):
        guided = {"true_cfg_scale": 2.0, "negative_prompt": "blur"}
        cut = probe.generate(image, "fox", interventions=BOTH, **QUIET, **guided)
        without = probe.generate(
            image, "fox", interventions=[WithoutReference()], **QUIET, **guided
        )
        assert np.abs(pixels(cut) - pixels(without)).max() <= 1
        padding = Knockout("padding", "generation")
        result = probe.generate(image, "fox", interventions=[padding], **QUIET, **guided)
        assert result.provenance["interventions"][0]["attention_calls_cut"] == 30


class TestPrunedReference:
    def test_tokens_are_those_of_the_full_reference(self, probe, image):
        kept = (2, 3, 7, 11, 12)
        cut = [Knockout("reference", to, tokens=[3, 4, 12]) for to in ("generation", "text")]
        own = [Knockout("reference", "reference", tokens=[3, 4, 12])]
        found = probe.generate(image, "fox", interventions=[Keep(kept), *cut, *own], **QUIET)
        # a token that nobody sees might as well not be there; the others never had tokens 3 and 12
        expected = probe.generate(image, "fox", interventions=[Keep((2, 7, 11))], **QUIET)
        assert np.abs(pixels(found) - pixels(expected)).max() <= 1
        other = probe.generate(image, "fox", interventions=[Keep((2, 3, 12))], **QUIET)
        assert np.abs(pixels(found) - pixels(other)).max() > 1

    def test_the_order_of_the_list_does_not_matter(self, probe, image):
        pair = [Keep((1, 5, 6), start=1), Knockout("reference", "generation", tokens=[5])]
        one, other = (
            pixels(probe.generate(image, "fox", interventions=each, **QUIET))
            for each in (pair, pair[::-1])
        )
        np.testing.assert_array_equal(one, other)

    def test_without_any_reference_there_is_nothing_to_cut(self, probe, image):
        alone = probe.generate(image, "fox", interventions=[WithoutReference()], **QUIET)
        both = probe.generate(image, "fox", interventions=[WithoutReference(), *BOTH], **QUIET)
        np.testing.assert_array_equal(pixels(alone), pixels(both))

    def test_merged_tokens_cannot_be_told_apart(self, probe, image):
        merged = Merge(4, proportional=False)
        with pytest.raises(InputError, match=r"works in the blocks.*while Merge acts"):
            probe.generate(image, "fox", interventions=[merged, BOTH[0]], **QUIET)


def test_a_profile_of_a_cut_run_is_that_of_the_cut_attention(probe, image):
    cut = [Knockout("reference", "generation", blocks=1, heads=0)]
    result = probe.generate(image, "fox", interventions=cut, profile=True, **QUIET)
    mass = result.profile.mass.sel(query_group="generation", key_group="reference")
    assert (mass.sel(block=1, head=0) == 0).all()
    assert (mass.sel(block=1, head=1) > 0).all()
    assert (mass.sel(block=[0, 2, 3, 4]) > 0).all()
    np.testing.assert_allclose(result.profile.mass.sum("key_group"), 1, atol=1e-5)
    before = probe.profile(image, "fox", **QUIET)
    np.testing.assert_array_equal(before.mass.sel(block=0, step=0), result.profile.mass[0, 0])


@pytest.mark.parametrize("removal", ["renormalised", "value-zeroed"])
def test_in_a_run_the_output_is_that_of_the_masked_softmax(probe, image, removal, monkeypatch):
    """Every attention call of a run: inputs and cuts as they came, output in float64 beside it."""
    from recast_probe.pipelines.flux.kontext import FluxKontext

    calls, read = [], FluxKontext.read_attention

    def noting(self, query, key, value, layout, **settings):
        found = read(self, query, key, value, layout, **settings)
        calls.append((query, key, value, layout, settings["cuts"], found.output))
        return found

    monkeypatch.setattr(FluxKontext, "read_attention", noting)
    random = np.random.default_rng(5)
    groups = ("text", "padding", "generation", "reference", "reference_0")
    cuts = [
        Knockout(
            str(random.choice(groups)),
            str(random.choice(groups)),
            tokens=random.choice(8, size=5, replace=False),
            heads=int(random.integers(2)),
            removal=removal,
        )
        for _ in range(4)
    ]
    probe.generate(image, "a", interventions=cuts, steps=1, progress=False)
    assert len(calls) == tiny.BLOCKS
    for query, key, value, layout, chosen, output in calls:
        assert len(chosen) == 4
        expected = dense_attention(query, key, value, layout, cuts=chosen)
        torch.testing.assert_close(output.double(), expected.output, atol=1e-6, rtol=1e-6)


class TestRefused:
    @pytest.mark.parametrize(
        ("knockout", "message"),
        [
            (lambda: Knockout("refrence", "generation"), "no token group 'refrence'.*padding"),
            (lambda: Knockout("reference", "reference_1"), "no token group 'reference_1'"),
            (
                lambda: Knockout("reference", "text", tokens=[16]),
                "holds 16.*reference tokens 0-15",
            ),
            (lambda: Knockout("reference", "text", tokens=[-1]), "tokens must be a whole number"),
            (lambda: Knockout("reference", "text", tokens=[0.5]), "tokens must be a whole number"),
            (lambda: Knockout("reference", "text", heads=2), "heads holds 2"),
            (lambda: Knockout("reference", "text", steps=[3]), "steps holds 3"),
            (lambda: Knockout("reference", "text", blocks=9), "no block 9"),
            (lambda: Knockout("reference", "text", removal="hard"), "'hard'"),
        ],
    )
    def test_settings_that_do_not_fit(self, probe, image, knockout, message):
        with pytest.raises(InputError, match=message):
            probe.generate(image, "fox", interventions=[knockout()], **QUIET)

    def test_a_run_without_reference(self, probe):
        with pytest.raises(InputError, match="no reference tokens; give a reference image"):
            probe.generate(None, "fox", interventions=[BOTH[0]], **QUIET)

    def test_prompts_of_different_length_together(self, probe, image):
        prompts, padding = ["fox", "a fox"], [Knockout("padding", "generation")]
        with pytest.raises(InputError, match=r"have \[7, 5\] padding tokens.*one by one"):
            probe.generate(image, prompts, interventions=padding, **QUIET)
        probe.generate(image, ["fox", "elk"], interventions=padding, **QUIET)

    def test_steps_without_attention(self, probe, image):
        with pytest.raises(InputError, match="while TokenCache acts"):
            probe.generate(
                image,
                "fox",
                interventions=[TokenCache(interval=2, first_full=1), BOTH[0]],
                **QUIET,
            )

    def test_attention_that_cannot_be_changed(self, adapter_probe, image):
        with pytest.raises(UnsupportedPipelineError, match="cannot be changed"):
            adapter_probe.generate(image, "fox", interventions=[BOTH[0]], **QUIET)


def test_settings_are_described_for_the_record(probe, image):
    cut = Knockout("reference", "generation", tokens=[3, 1, 3], blocks="single", heads=1)
    result = probe.generate(image, "fox", interventions=[cut], **QUIET)
    (described,) = result.provenance["interventions"]
    assert described.pop("attention_calls_cut") == 9
    assert described == cut.describe()
    assert described["tokens"]["count"] == 2
    assert (described["heads"], described["steps"], described["blocks"]) == ([1], None, "single")
    assert cut.describe() != Knockout("reference", "generation", tokens=[3, 2]).describe()


def test_one_of_several_references_is_found():
    """Positions, without a run: no pipeline here takes two references in its sequence."""
    from recast_probe.interventions.base import RunContext
    from recast_probe.interventions.token_groups import positions, present_positions

    layout = TokenLayout(2, Grid(1, 3), (Grid(1, 4), Grid(2, 2)))
    run = RunContext(layout, np.zeros(1), np.zeros(1), ["single"])
    np.testing.assert_array_equal(positions("reference_1", run), [9, 10, 11, 12])
    run.present = np.array([0, 3, 4, 6])
    second = positions("reference_1", run)
    np.testing.assert_array_equal(present_positions(second, run, 9), [7, 8])
    np.testing.assert_array_equal(present_positions(second, run, 5), [])
    np.testing.assert_array_equal(present_positions(second, run, 13), second)
    with pytest.raises(InputError, match="3 reference tokens, which are not 8"):
        present_positions(second, run, 8)
