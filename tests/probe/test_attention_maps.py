"""Rows of attention of single tokens: exact, only those asked for, and nothing changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe.attention import AttentionInputs, Cut
from recast_probe.attention.query_rows import query_rows
from recast_probe.diagnostics import correspondence, flow
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.experiments.path_profiles import path_profiles
from recast_probe.interventions import Keep, Knockout
from recast_probe.layout import Grid, TokenLayout
from recast_probe.probe import Probe
from recast_probe.testing import tiny

QUIET = {"steps": 3, "progress": False}


@pytest.mark.parametrize("chunk", [None, 2])
def test_rows_equal_the_dense_softmax(chunk):
    layout = TokenLayout(3, Grid(2, 4), (Grid(3, 3),))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, layout.total, 3, 8, generator=generator) for _ in range(3))
    rows, columns = torch.tensor([0, 4, 5, 19]), torch.tensor([11, 13, 19])
    cuts = (
        Cut(torch.arange(5), torch.arange(10, 14), (1,)),
        Cut(torch.tensor([5]), torch.arange(layout.total)),
    )
    for chosen in ((), cuts):
        scores = torch.einsum("bqhd,bkhd->bhqk", q.double(), k.double()) / 8**0.5
        for cut in chosen:
            for head in range(3) if cut.heads is None else cut.heads:
                scores[:, head, cut.queries[:, None], cut.keys] = -torch.inf
        expected = scores.softmax(-1).nan_to_num(0)[:, :, rows][..., columns]
        found = query_rows(AttentionInputs(q, k, v, chosen), rows, columns, chunk)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


def test_all_rows_average_to_the_profile(probe, image):
    maps = probe.attention_maps(image, "fox", profile_steps=[0, 2], blocks=[1, 3], **QUIET)
    profile = probe.profile(image, "fox", profile_steps=[0, 2], blocks=[1, 3], **QUIET)
    assert maps.data.dims == ("step", "block", "head", "query", "token")
    np.testing.assert_allclose(maps.data.mean("query"), profile.score, atol=1e-6)
    shares = maps.data.values / maps.data.values.sum(-1, keepdims=True)
    bits = -(shares * np.log2(shares)).sum(-1).mean(-1)
    np.testing.assert_allclose(bits, profile.conditional_entropy, atol=1e-4)
    assert "blocks 1, 3, steps 0, 2" in maps.selection


def test_tokens_and_regions_are_rows_of_the_whole(probe, image):
    whole = probe.attention_maps(image, "fox", **QUIET)
    some = probe.attention_maps(image, "fox", [9, 2], heads=1, profile_steps=1, **QUIET)
    np.testing.assert_allclose(some.data[0, :, 0], whole.data[1, :, 1, [2, 9]], atol=1e-7)
    assert some.data["query_row"].values.tolist() == [0, 2]
    assert some.data["query_column"].values.tolist() == [2, 1]
    region = np.zeros((64, 64), bool)
    region[16:48, 32:] = True
    averaged = probe.attention_maps(
        image, "fox", region, mean_over=("step", "head", "block"), **QUIET
    )
    inside = [6, 7, 10, 11]
    assert averaged.data["query"].values.tolist() == inside
    np.testing.assert_allclose(averaged.data, whole.mean().sel(query=inside), atol=1e-7)
    assert averaged.mean().dims == ("query", "token")
    assert "mean over step and head and blocks" in averaged.selection
    assert averaged.data.nbytes == 4 * 4 * 16
    text = probe.attention_maps(image, "fox", [0, 3], group="text", blocks=2, **QUIET)
    assert text.data["query_row"].values.tolist() == [-1, -1]
    per_text = probe.profile(image, "fox", queries="text", blocks=2, **QUIET)
    every = probe.attention_maps(image, "fox", group="text", blocks=2, **QUIET)
    np.testing.assert_allclose(every.data.mean("query"), per_text.score, atol=1e-6)


def test_pruned_tokens_are_gaps_and_cut_ones_zeros(probe, image):
    changed = [Keep((1, 4, 9)), Knockout("reference", "generation", tokens=[4], heads=0)]
    maps = probe.attention_maps(image, "fox", [5], interventions=changed, **QUIET)
    absent = np.setdiff1d(np.arange(16), [1, 4, 9])
    assert np.isnan(maps.data.sel(token=absent)).all()
    assert (maps.data.sel(token=4, head=0) == 0).all()
    assert (maps.data.sel(token=4, head=1) > 0).all()
    assert (maps.data.sel(token=[1, 9]) > 0).all()
    with pytest.raises(InputError, match="pruned"):
        correspondence(maps)


def test_what_cannot_be_is_refused_before_anything_runs(probe, adapter_probe, image, monkeypatch):
    from recast_probe.runs import attention_maps as module

    monkeypatch.setattr(module, "run", None)
    for settings, message in (
        ({"queries": [16]}, "queries holds 16.*generation tokens 0-15"),
        ({"queries": []}, "queries selects nothing"),
        ({"queries": np.zeros((4, 4), bool)}, "queries selects nothing"),
        ({"queries": np.zeros((4, 4)), "group": "text"}, "not text tokens"),
        ({"queries": "all"}, "queries must be a whole number.*'all'"),
        ({"max_bytes": 1000}, "need 3.6e-05 GB.*max_bytes is 1e-06 GB.*mean_over"),
        ({"mean_over": ("query",)}, "not 'query'"),
        ({"heads": 2}, "heads holds 2"),
        ({"group": "sky"}, "no token group 'sky'"),
    ):
        with pytest.raises(InputError, match=message):
            probe.attention_maps(image, "fox", **settings, **QUIET)
    with pytest.raises(UnsupportedPipelineError, match="cannot be changed, reused or mapped"):
        adapter_probe.attention_maps(image, "fox", **QUIET)
    with pytest.raises(InputError, match="one prompt"):
        probe.attention_maps(image, ["fox", "elk"], **QUIET)


def test_correspondence_of_planted_places(image):
    """Keys equal to queries in the fast rotary pairs: each token looks at its own place."""
    from recast_probe.testing.planted_attention import FAST, blocks, plant_queries, still

    pipe = tiny.build_tiny_pipeline(seed=3)
    still(pipe.transformer)
    with torch.no_grad():
        for block in blocks(pipe.transformer):
            plant_queries(block.attn, tiny.HEADS, 8.0, FAST)
            for name, norm in (("to_k", "norm_k"), ("add_k_proj", "norm_added_k")):
                projection = getattr(block.attn, name, None)
                if projection is not None:
                    projection.weight.zero_()
                    vector = torch.zeros(tiny.HEAD_DIMENSION)
                    vector[list(FAST)] = 1.0
                    projection.bias.copy_(vector.repeat(tiny.HEADS))
                    getattr(block.attn, norm).weight.fill_(1.0)
    maps = Probe(pipe).attention_maps(image, "fox", steps=1, progress=False)
    found = correspondence(maps)
    assert found.best.values.tolist() == list(range(16))
    np.testing.assert_allclose(found.displacement, 0, atol=1e-12)
    summary = found.summary()
    assert (summary["same_place"], summary["different_best_tokens"]) == (1, 16)
    assert "100% look at their own place" in repr(found)
    # the mean place is drawn to the middle, from where the other tokens are
    middle = np.abs(found.expected_place.values - 0.5) < np.abs(found.place.values - 0.5)
    assert middle.all()
    alone = correspondence(maps, block=2, head=1)
    assert alone.selection.endswith("block 2, head 1")
    with pytest.raises(InputError, match="block=9"):
        correspondence(maps, block=9)
    with pytest.raises(InputError, match="reference is 1"):
        correspondence(maps, reference=1)


class TestPathProfiles:
    def test_one_run_gives_what_two_would(self, probe, image):
        chosen = {"profile_steps": [0, 2], "blocks": [0, 3], "seed": 4}
        both = path_profiles(probe, image, "fox", **chosen, **QUIET)
        for queries, found in zip(("generation", "text"), both, strict=True):
            alone = probe.profile(image, "fox", queries=queries, **chosen, **QUIET)
            for name in ("score", "mass", "conditional_entropy"):
                np.testing.assert_array_equal(found.dataset[name], alone.dataset[name])
            assert found.queries == found.provenance["recorded"]["queries"] == queries
        result = flow(*both, rollout=True)
        assert 0 < result.mediated_share < 1
        assert (result.rollout.sel(path="all") > result.rollout.sel(path="without text")).all()

    def test_both_branches_and_a_file(self, probe, image, tmp_path):
        guided = {"true_cfg_scale": 2.0, "negative_prompt": "dark"}
        both = path_profiles(probe, image, "fox", profile_steps=1, **QUIET, **guided)
        assert both[1].dataset.sizes["branch"] == 2
        saved = [each.save(tmp_path / f"{each.queries}.nc") for each in both]
        loaded = [type(both[0]).load(path) for path in saved]
        assert flow(*loaded).summary() == flow(*both).summary()
        other = flow(*(each.sel(branch="unconditional") for each in both))
        assert other.summary() != flow(*both).summary()

    def test_a_cut_run_has_no_path_left(self, probe, image):
        cut = [Knockout("reference", "text"), Knockout("reference", "generation", blocks="single")]
        both = path_profiles(probe, image, "fox", interventions=cut, blocks="single", **QUIET)
        assert float(both[0].score.sum()) == float(both[1].score.sum()) == 0

    def test_refused(self, probe, adapter_probe, image):
        with pytest.raises(InputError, match="one prompt"):
            path_profiles(probe, image, ["fox", "elk"], **QUIET)
        with pytest.raises(InputError, match="Attention of text tokens"):
            path_profiles(adapter_probe, image, "fox", **QUIET)


def test_places_are_rows_and_columns_of_the_grid(probe, image):
    places = probe.attention_maps(image, "fox", [(2, 1), (0, 2)], **QUIET)
    indices = probe.attention_maps(image, "fox", [9, 2], **QUIET)
    np.testing.assert_array_equal(places.data, indices.data)
    one = probe.attention_maps(image, "fox", ((3, 3),), profile_steps=0, **QUIET)
    assert one.data["query"].values.tolist() == [15]
    # lists of lists are masks, as before
    mask = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    masked = probe.attention_maps(image, "fox", mask, profile_steps=0, **QUIET)
    assert masked.data["query"].values.tolist() == [5]
    for wrong in ([(4, 0)], [(0, -1)], [(0, 0), (1, 4)]):
        with pytest.raises(InputError, match=r"place.*4 x 4"):
            probe.attention_maps(image, "fox", wrong, **QUIET)
    with pytest.raises(InputError, match="not text tokens"):
        probe.attention_maps(image, "fox", [(0, 0)], group="text", **QUIET)


def test_shares_and_text_are_the_rest_of_each_row(probe, image):
    settings = {"interventions": [Keep((1, 4, 9))], "mean_over": ("head",), **QUIET}
    for changes in ({**settings, "interventions": ()}, settings):
        maps = probe.attention_maps(image, "fox", [0, 7], text=True, **changes)
        np.testing.assert_allclose(maps.shares.sum("key_group"), 1, atol=1e-5)
        reference, text = (
            each.sum(name)
            for each, name in ((maps.data.fillna(0), "token"), (maps.text, "text_token"))
        )
        np.testing.assert_allclose(maps.shares.sel(key_group="reference"), reference, atol=1e-6)
        np.testing.assert_allclose(maps.shares.sel(key_group="text"), text, atol=1e-6)
    assert probe.attention_maps(image, "fox", [0], **QUIET).text is None
    whole = probe.attention_maps(image, "fox", **QUIET)
    profile = probe.profile(image, "fox", **QUIET)
    mass = profile.mass.sel(query_group="generation")
    np.testing.assert_allclose(whole.shares.mean("query"), mass, atol=1e-5)


def test_whole_rows_are_made_a_part_at_a_time(probe, image, monkeypatch):
    whole = probe.attention_maps(image, "fox", text=True, **QUIET)
    monkeypatch.setattr("recast_probe.runs.row_recorder.PART_BYTES", 2000)
    parts = probe.attention_maps(image, "fox", text=True, **QUIET)
    np.testing.assert_allclose(parts.data, whole.data, atol=1e-7)
    np.testing.assert_allclose(parts.text, whole.text, atol=1e-7)
