"""What people write first: taken where it can only mean one thing, else answered in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import recast_probe as rp
from recast_probe import figures
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.experiments import path_profiles
from recast_probe.interventions import Similarity
from recast_probe.testing import tiny

STEPS = {"steps": 2, "progress": False}


@pytest.fixture(scope="module")
def own():
    """A probe of its own, a run with a profile, and the profile."""
    probe = rp.Probe(tiny.build_tiny_pipeline())
    result = probe.generate(
        tiny.tiny_image(), "a", interventions=Similarity(), profile=True, **STEPS
    )
    return probe, result, result.profile


def test_one_intervention_may_stand_for_a_list(own):
    probe, _, profile = own
    image, prune = tiny.tiny_image(), rp.Prune(rp.rank.cross_image(profile), 4)
    made = probe.generate(image, "a", interventions=prune, **STEPS)
    assert made.reference_tokens_per_step == (4, 4)
    cut = rp.Knockout("reference", "generation")
    one, several = (
        path_profiles(probe, image, "a", interventions=each, **STEPS)[0] for each in (cut, [cut])
    )
    np.testing.assert_array_equal(one.score.values, several.score.values)
    assert rp.accelerate(probe.pipe, interventions=rp.WithoutReference()).restore() is probe.pipe


@pytest.mark.parametrize("given", ["prune", 3, rp.WithoutReference, [[rp.WithoutReference()]], {}])
def test_what_is_no_intervention(own, given):
    with pytest.raises(InputError, match=r"intervention|make one"):
        own[0].generate(tiny.tiny_image(), "a", interventions=given or {"a": 1}, **STEPS)


def test_a_run_stands_for_its_profile(own):
    _, result, profile = own
    inside = np.eye(4, dtype=bool)
    for ask in (rp.skew, rp.entropy, lambda each: rp.overlap(each, inside, null_draws=0)):
        assert ask(result).summary() == ask(profile).summary()
    for rank in (rp.rank.cross_image, lambda each: rp.rank.single_block(each, 1)):
        np.testing.assert_array_equal(rank(result).order, rank(profile).order)
    assert rp.stability([result, profile]).summary()["spearman"] == pytest.approx(1)
    with pytest.raises(InputError, match=r"profile=True"):
        rp.skew(own[0].generate(tiny.tiny_image(), "a", **STEPS))


ONE_PROFILE = [rp.skew, rp.entropy, rp.rank.cross_image, rp.diagnostics.mutual_information]


@pytest.mark.parametrize("ask", ONE_PROFILE)
@pytest.mark.parametrize("given", [[], [1], "a.nc", Image.new("RGB", (8, 8)), None, np.ones(16)])
def test_what_is_no_profile(ask, given):
    with pytest.raises(InputError, match="AttentionProfile"):
        ask(given)


def test_stability_takes_a_list(own):
    profile = own[2]
    for wrong in ((profile, profile), (profile,), (own[1],)):
        with pytest.raises(InputError, match=r"stability\(\[one, other\]\)"):
            rp.stability(*wrong)


def test_cosines_come_from_a_run_that_recorded_them(own):
    _, result, profile = own
    expected = rp.rank.cosine(result.similarity[0][0])
    np.testing.assert_array_equal(rp.rank.cosine(result).order, expected.order)
    with pytest.raises(InputError, match="Similarity"):
        rp.rank.cosine(profile)
    with pytest.raises(InputError, match="steps"):
        rp.rank.cosine(result, step=9)


def test_figures_take_paths_and_say_what_they_draw(own, tmp_path):
    _, result, profile = own
    path = tmp_path / "image.png"
    tiny.tiny_image().save(path)
    panels = [len(figures.plot_importance(each, path).axes) for each in (profile, result)]
    assert panels == [len(figures.plot_importance(profile, tiny.tiny_image()).axes)] * 2
    found = rp.skew(profile)
    with pytest.raises(InputError, match="plot_skew takes Skew or Mapping, not list of 1"):
        figures.plot_skew([found])
    with pytest.raises(InputError, match="plot_entropy takes Entropy"):
        figures.plot_entropy(profile)
    with pytest.raises(InputError, match="no file"):
        figures.plot_importance(profile, tmp_path / "none.png")


def test_blocks_by_diffusers_names_and_slices():
    kinds = ["double"] * 2 + ["single"] * 3
    assert select_blocks("transformer_blocks.1", kinds) == [1]
    assert select_blocks(["single_transformer_blocks.1", 0], kinds) == [0, 3]
    assert select_blocks("single_transformer_blocks", kinds) == [2, 3, 4]
    assert select_blocks(slice(1, None, 2), kinds) == [1, 3]
    # the only list of other transformers has this name, whatever kind its blocks are
    assert select_blocks("transformer_blocks.1", ["single"] * 3) == [1]
    wrong = ("transformer_blocks.2", "single_transformer_blocks.3", slice(7, 9), slice("a", "b"))
    for name in wrong:
        with pytest.raises(InputError, match="block"):
            select_blocks(name, kinds)
    with pytest.raises(InputError, match="no block"):
        select_blocks("single_transformer_blocks.0", ["single"] * 3)


def test_a_slice_is_stored_as_it_was_said(own):
    made = own[0].recast(tiny.tiny_image(), "a", budget=4, blocks=slice(2, 5), **STEPS)
    assert made.provenance["interventions"][0]["blocks"] == "slice(2, 5, None)"
    assert made.provenance["recorded"]["blocks"] == [2, 3, 4]


def test_guidance_without_a_negative_prompt_is_warned_of(own):
    with pytest.warns(UserWarning, match="true_cfg_scale=4 has no effect"):
        made = own[0].generate(tiny.tiny_image(), "a", true_cfg_scale=4.0, **STEPS)
    assert "true_cfg_scale=4 has no effect" in made.provenance["remarks"][0]


def test_a_mask_of_the_background_is_warned_of(own):
    profile = own[2]
    least = np.argsort(profile.mean_score().values)
    background = np.ones(16, bool)
    background[least[-4:]] = False
    with pytest.warns(UserWarning, match="~mask"):
        assert rp.overlap(profile, background.reshape(4, 4)).auroc == 0


def test_masks_of_another_size_are_scaled_to_the_image():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[16:48, 16:48] = (200, 30, 30)
    output = Image.fromarray(picture)
    photograph = output.resize((256, 256), Image.Resampling.NEAREST)
    small = np.zeros((64, 64), bool)
    small[16:48, 16:48] = True
    large = np.kron(small, np.ones((4, 4), bool))
    scorer = rp.metrics.IdentityScorer()
    scaled = scorer.score(output, large, photograph, large)
    assert scaled == pytest.approx(scorer.score(output, small, photograph, large), abs=0.02)
    with pytest.raises(InputError, match="aspect ratios differ"):
        scorer.score(output, large[:128], photograph, large)


@pytest.mark.parametrize(
    ("ask", "meant"),
    [
        (lambda: rp.metrics.metric("dino"), "dinov2"),
        (lambda: rp.Probe.tiny("flux2-klien"), "flux2-klein"),
        (lambda: rp.accelerate(tiny.build_tiny_pipeline(), method="recats"), "recast"),
    ],
)
def test_names_nearly_right(ask, meant):
    with pytest.raises(InputError, match=f"Did you mean '{meant}'"):
        ask()
