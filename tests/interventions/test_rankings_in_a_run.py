"""Rankings that a run makes of itself: what they measure, when, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from recast_probe import rank
from recast_probe.blocks import select_blocks
from recast_probe.budget import MassShare
from recast_probe.diagnostics import entropy, overlap, skew, stability
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import Keep, Merge, Prune, Recast, Similarity, TokenCache
from recast_probe.interventions.recast import RANKINGS, RecastHook
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.verification import patches
from recast_probe.runs.watching import watch_attention

QUIET = {"steps": 6, "progress": False}


def pixels(result) -> np.ndarray:
    return np.asarray(result.image)


def test_attention_among_reference_tokens_is_that_of_a_dense_softmax(probe, pipeline, image):
    layout, dense = probe.layout(image), []

    def note(call, attention, arguments):
        if call == 0:
            query, key = (arguments[name].double().transpose(1, 2) for name in ("query", "key"))
            weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
            span = layout.span("reference")
            dense.append(weights[0, :, span, span].mean(1).numpy())

    with watch_attention(pipeline.transformer, note):
        pipeline(**probe.pipeline_arguments(image, "fox", steps=6))
    profile = probe.profile(
        image, "fox", profile_steps=0, queries="reference", mass_table="queried", **QUIET
    )
    np.testing.assert_allclose(profile.score[0], np.stack(dense), atol=1e-6)
    assert profile.queries == "reference"
    assert "attention from reference tokens" in profile.selection_text()
    ranking = rank.self_attention(profile, blocks="all")
    assert ranking.order[0] == np.stack(dense).mean((0, 1)).argmax()


def test_profiles_remember_whose_attention_they_hold(probe, image, tmp_path):
    profile = probe.profile(image, "fox", profile_steps=0, queries="text", **QUIET)
    loaded = AttentionProfile.load(profile.save(tmp_path / "text.nc"))
    assert loaded.queries == "text"
    assert "reference tokens, attention from text tokens)" in repr(loaded)
    assert loaded.identical(profile)
    assert loaded.provenance["recorded"]["queries"] == "text"
    np.testing.assert_allclose(
        loaded.score.sum("token"), loaded.mass.sel(query_group="text", key_group="reference"), 1e-4
    )
    for make, needed in ((rank.cross_image, "generation"), (rank.self_attention, "reference")):
        with pytest.raises(InputError, match=f"needs attention from {needed} tokens"):
            make(loaded)


def test_similarity_is_the_cosine_with_the_mean_generation_token(probe, pipeline, image):
    states = []
    block = pipeline.transformer.single_transformer_blocks[1]
    before = patches(pipeline.transformer)
    handle = block.register_forward_hook(lambda _, __, output: states.append(output[1].double()))
    result = probe.generate(
        image, ["fox", "hen"], interventions=[Similarity(blocks=["single.0", "single.1"])], **QUIET
    )
    handle.remove()
    assert patches(pipeline.transformer) == before
    found = result.similarity[0]
    assert found.shape == (2, 2, 16)
    for prompt in range(2):
        mean, reference = states[0][prompt, :16].mean(0), states[0][prompt, 16:]
        wanted = reference @ mean / (reference.norm(dim=-1) * mean.norm())
        np.testing.assert_allclose(found[prompt, 1], wanted, atol=1e-6)
    plain = probe.generate(image, ["fox", "hen"], **QUIET)
    np.testing.assert_array_equal(pixels(result), pixels(plain))
    assert rank.cosine(found[0]).order[0] == found[0].mean(0).argmax()


@pytest.mark.parametrize(
    ("ranking", "queries"), [("cross-image", "generation"), ("self-attention", "reference")]
)
def test_recast_reads_only_what_its_ranking_needs(probe, image, tmp_path, ranking, queries):
    """Nothing but the scores is read, and they stay the same; what is not held is refused."""
    whole = probe.profile(image, "fox", blocks="paper", profile_steps=0, queries=queries, **QUIET)
    own = probe.recast(image, "fox", budget=5, ranking=ranking, **QUIET).profile
    np.testing.assert_array_equal(own.score.values, whole.score.values)
    place = {"query_group": queries, "key_group": "reference"}
    np.testing.assert_allclose(own.mass.sel(place), whole.mass.sel(place), atol=1e-6)
    assert own.mass.notnull().sum() == own.mass.sel(place).size
    with pytest.raises(InputError, match="holds no conditional_entropy"):
        own.conditional_entropy  # noqa: B018
    assert "scores alone" in repr(own)
    loaded = AttentionProfile.load(own.save(tmp_path / "own.nc"))
    assert loaded.identical(own)
    assert loaded.provenance["recorded"]["mass_table"] == "scores"


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
def test_a_ranking_has_no_more_read_than_scores(probe, image, monkeypatch, attachment):
    """In the blocks and the step that it ranks by; a function may look at all that there is."""
    seen = []
    read = type(probe.family).read_attention

    def counted(self, *arguments, **settings):
        seen.append(settings["mass_table"])
        return read(self, *arguments, **settings)

    monkeypatch.setattr(type(probe.family), "read_attention", counted)
    more = {**QUIET, "attachment": attachment}
    probe.generate(image, "fox", interventions=[Recast(5)], **more)
    blocks = len(select_blocks("paper", probe.block_kinds))
    assert seen == ["scores"] * blocks
    seen.clear()
    own = Recast(5, ranking=lambda profile, blocks, steps: rank.cross_image(profile))
    probe.generate(image, "fox", interventions=[own], **more)
    assert seen == ["all"] * blocks
    seen.clear()
    probe.generate(image, "fox", interventions=[Recast(5)], profile=True, **more)
    assert set(seen) == {"all"}


@pytest.mark.parametrize("ranking", RANKINGS)
def test_a_run_that_ranks_itself_is_pruning_by_its_own_first_step(probe, image, ranking):
    """The same images as with the ranking made in a run before, bit for bit."""
    queries = "reference" if ranking == "self-attention" else "generation"
    before = probe.generate(
        image,
        "fox",
        interventions=[Similarity("single")],
        profile=True,
        profile_steps=0,
        queries=queries,
        **QUIET,
    )
    order = {
        "cross-image": lambda: rank.cross_image(before.profile, blocks="single"),
        "self-attention": lambda: rank.self_attention(before.profile, blocks="single"),
        "cosine": lambda: rank.cosine(before.similarity[0][0]),
    }[ranking]()
    pruned = probe.generate(image, "fox", interventions=[Prune(order, 5, start=1)], **QUIET)
    own = probe.recast(image, "fox", budget=5, blocks="single", ranking=ranking, **QUIET)
    assert own.ranking.order.tolist() == order.order.tolist()
    assert own.reference_tokens_per_step == (16, 5, 5, 5, 5, 5)
    np.testing.assert_array_equal(pixels(own), pixels(pruned))
    everything = probe.recast(image, "fox", budget=16, ranking=ranking, **QUIET)
    np.testing.assert_array_equal(pixels(everything), pixels(probe.generate(image, "fox", **QUIET)))


@pytest.mark.parametrize("ranking", RANKINGS)
def test_ranking_again_takes_full_steps_and_lets_tokens_come_back(
    probe, image, ranking, monkeypatch
):
    budget, seen, own = 5, [], RecastHook.reference_tokens

    def watched(hook, step):
        kept = own(hook, step)
        seen.append(None if kept is None else frozenset(kept.tolist()))
        return kept

    monkeypatch.setattr(RecastHook, "reference_tokens", watched)
    again = Recast(budget, blocks="all", ranking=ranking, every=2)
    result = probe.generate(image, "fox", interventions=[again], **QUIET)
    assert result.reference_tokens_per_step == (16, 5, 16, 5, 16, 5)
    assert len({seen[1], seen[3], seen[5]}) > 1
    assert result.mean_budget == 10.5
    described = result.provenance["interventions"][0]
    assert (described["ranking"], described["every"]) == (ranking, 2)


@pytest.mark.parametrize("ranking", RANKINGS)
def test_true_guidance_ranks_by_the_conditional_branch(probe, image, ranking):
    """The first step's conditional branch knows nothing of the negative prompt."""
    guided = {"true_cfg_scale": 2.0, "negative_prompt": "blurry", **QUIET}
    with_guidance = probe.recast(image, "fox", budget=5, ranking=ranking, **guided)
    alone = probe.recast(image, "fox", budget=5, ranking=ranking, **QUIET)
    assert with_guidance.ranking.score == pytest.approx(alone.ranking.score, rel=1e-5)
    again = probe.recast(image, "fox", budget=5, ranking=ranking, every=3, **guided)
    assert again.reference_tokens_per_step == (16, 5, 5, 16, 5, 5)


def test_diagnostics_take_profiles_of_any_queries(probe, image):
    settings = {"profile_steps": 0, "blocks": "single", **QUIET}
    mask = np.eye(4, dtype=bool)
    by_group = {
        queries: probe.profile(image, "fox", queries=queries, **settings)
        for queries in ("generation", "reference")
    }
    for diagnose in (skew, entropy, lambda profile: overlap(profile, mask)):
        found = [repr(diagnose(profile)) for profile in by_group.values()]
        assert found[0] != found[1]
    for each in (skew(by_group["reference"]), overlap(by_group["reference"], mask)):
        assert "attention from reference tokens" in each.selection
    others = [probe.profile(image, p, queries="reference", **settings) for p in ("hen", "cow")]
    three = [by_group["reference"], *others]
    scores = np.stack([profile.mean_score().values for profile in three], axis=1)
    correlations = spearmanr(scores).statistic[np.triu_indices(3, 1)]
    found = stability(three)
    assert found.mean_spearman.mean == pytest.approx(correlations.mean())
    assert "attention from reference tokens" in repr(found)


def test_a_last_step_is_not_spent_on_ranking(probe, image):
    result = probe.recast(image, "fox", budget=5, every=5, **QUIET)
    assert result.reference_tokens_per_step == (16, 5, 5, 5, 5, 5)
    late = probe.recast(image, "fox", budget=5, profile_step=3, **QUIET)
    assert late.reference_tokens_per_step == (16, 16, 16, 16, 5, 5)
    assert [int(step) for step in late.profile.score["step"]] == [3]


def test_one_ranking_serves_other_prompts(probe, image):
    ranking = rank.cross_image(probe.profile(image, "fox", profile_steps=0, **QUIET))
    results = probe.generate(image, ["hen", "cow"], interventions=[Prune(ranking, 4)], **QUIET)
    for prompt, together in zip(("hen", "cow"), results.images, strict=True):
        alone = probe.generate(image, prompt, interventions=[Prune(ranking, 4)], **QUIET)
        difference = np.asarray(together).astype(int) - np.asarray(alone.image)
        assert np.abs(difference).max() <= 1


def test_files_of_earlier_versions_hold_attention_of_generation_tokens(probe, image, tmp_path):
    profile = probe.profile(image, "fox", profile_steps=0, **QUIET)
    earlier = profile.dataset.copy()
    del earlier.attrs["queries"]
    path = AttentionProfile(earlier).save(tmp_path / "earlier.nc")
    loaded = AttentionProfile.load(path)
    assert loaded.queries == "generation"
    assert rank.cross_image(loaded).order.tolist() == rank.cross_image(profile).order.tolist()
    earlier.attrs["queries"] = "image"
    with pytest.raises(InputError, match="not 'image'"):
        AttentionProfile(earlier)


def test_a_share_of_the_mass_is_taken_of_the_ranking_in_use(probe, image):
    share = MassShare(0.6)
    result = probe.recast(image, "fox", budget=share, blocks="all", every=3, **QUIET)
    wanted = [
        share.tokens_of(rank.cross_image(result.profile, blocks="all", steps=step))
        for step in (0, 3)
    ]
    counts = result.reference_tokens_per_step
    assert counts == (16, wanted[0], wanted[0], 16, wanted[1], wanted[1])
    assert 1 < wanted[0] < 16
    described = result.provenance["interventions"][0]["budget"]
    assert described == {"name": "MassShare", "share": 0.6}
    ranking = rank.cross_image(result.profile, blocks="all")
    pruned = probe.generate(image, "fox", interventions=[Prune(ranking, share)], **QUIET)
    assert pruned.reference_tokens_per_step == (wanted[0],) * 6
    everything = probe.recast(image, "fox", budget=MassShare(1), **QUIET)
    np.testing.assert_array_equal(pixels(everything), pixels(probe.generate(image, "fox", **QUIET)))


def test_results_name_the_ranking_that_the_run_made(probe, image):
    result = probe.recast(image, "fox", budget=5, blocks=[2, np.int64(3)], **QUIET)
    assert result.provenance["interventions"][0]["blocks"] == [2, 3]
    made = result.provenance["ranking"]
    assert made["name"] == "cross-image"
    assert made["details"] == {"selection": "blocks 2-3, step 0, all heads"}
    by_hand = Prune(result.ranking, 5).describe()["ranking"]
    assert made == by_hand


def test_adapters_have_neither_self_attention_nor_states_to_compare(adapter_probe, image):
    settings = {"steps": 2, "progress": False}
    with pytest.raises(InputError, match="queries='reference' cannot be recorded"):
        adapter_probe.recast(image, "fox", budget=2, ranking="self-attention", **settings)
    with pytest.raises(UnsupportedPipelineError, match="no hidden states"):
        adapter_probe.recast(image, "fox", budget=2, ranking="cosine", **settings)


@pytest.mark.parametrize(
    ("interventions", "message"),
    [
        ([Recast(4), Recast(5)], "would rank the tokens of one run twice"),
        ([Prune(rank.random(16, 0), 4), Recast(3)], "Recast needs the full reference in step 0"),
        (
            [Recast(6, every=2), Keep((1, 2, 3), start=2)],
            "Recast needs the full reference in step 2, but Keep drops",
        ),
        (
            [Recast(4, ranking="cosine", profile_step=4), TokenCache(interval=3, first_full=1)],
            r"Recast works in the blocks in steps \[4\].*TokenCache",
        ),
        ([Similarity(step=1), Merge(8)], r"Similarity works in the blocks in steps \[1\].*Merge"),
        ([Prune(rank.random(16, 0), MassShare(0.5))], "has no mass"),
        ([Prune(rank.RandomPerStep(16), MassShare(0.5))], "has no mass"),
    ],
)
def test_what_does_not_fit_together_is_refused(probe, image, interventions, message):
    with pytest.raises(InputError, match=message):
        probe.generate(image, "fox", interventions=interventions, **QUIET)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recast(4, every=2.5), "every must be a whole number"),
        (lambda: Recast(4, profile_step=-1), "profile_step must be a whole number"),
        (lambda: Recast(MassShare(0.5), ranking="cosine"), "have no mass"),
        (lambda: Recast(MassShare(0.5), worst_first=True), "have no mass"),
        (lambda: Merge(MassShare(0.5)), "there is none here"),
        (lambda: MassShare(1.5), "up to 1, got 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, i: p.recast(i, "a", budget=5, ranking="best", **QUIET), "ranking must be one"),
        (lambda p, i: p.recast(None, "a", budget=5, **QUIET), "no reference tokens"),
        (lambda p, i: p.recast(i, "a", budget=5, every=1, **QUIET), "would never prune"),
        (lambda p, i: p.recast(i, "a", budget=5, blocks="none", ranking="cosine", **QUIET), "none"),
        (lambda p, i: p.profile(i, "a", queries="image", **QUIET), "queries='image' cannot be"),
        (
            lambda p, i: p.generate(
                i,
                "a",
                interventions=[Recast(5, ranking="self-attention")],
                profile=True,
                profile_steps=0,
                **QUIET,
            ),
            "generation and reference are asked for",
        ),
        (
            lambda p, i: p.generate(i, "a", interventions=[Similarity(step=6)], **QUIET),
            "step=6 is outside",
        ),
        (
            lambda p, i: p.generate(
                i, "a", interventions=[Similarity(step=1), Prune(rank.random(16, 0), 4)], **QUIET
            ),
            "needs the full reference in step 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(probe, image, call, message):
    with pytest.raises(InputError, match=message):
        call(probe, image)


def test_single_blocks_by_number_and_name(probe, image):
    profile = probe.profile(image, "fox", profile_steps=0, **QUIET)
    by_number, by_name = rank.single_block(profile, 3), rank.single_block(profile, "single.1")
    assert by_number.name == by_name.name == "block 3"
    assert by_number.order.tolist() == by_name.order.tolist()
    assert by_number.order.tolist() != rank.single_block(profile, 0).order.tolist()
    assert by_number.score == pytest.approx(profile.score[0, 3].mean("head").values)
    with pytest.raises(InputError, match="takes one block"):
        rank.single_block(profile, "single")
