"""What a page holds: values in 8 bits with their error, and never less than was asked for."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest

import recast_probe as rp
from recast_probe.errors import InputError
from recast_probe.explorer import data
from recast_probe.explorer.coding import ABSENT, coded, decoded, packed
from recast_probe.explorer.data import Shown, content, data_url
from recast_probe.interventions import Keep, Knockout
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.testing import tiny
from recast_probe.testing.planted_profiles import planted


def stored(explorer: rp.explorer.Explorer, name: str) -> np.ndarray:
    """An array as the page will read it."""
    described = explorer.content.page["arrays"][name]
    raw = zlib.decompress(explorer.content.arrays[name])
    return np.frombuffer(raw, f"<{described['type']}").reshape(described["shape"])


def test_8_bits_are_within_the_error_that_is_said():
    values = np.random.default_rng(0).dirichlet(np.full(300, 0.05), (4, 5)).astype(np.float32)
    values[1, 2, :7] = np.nan
    values[3, 3] = 0
    found = coded(values)
    back = decoded(found.codes, found.scales)
    assert (np.isnan(back) == np.isnan(values)).all()
    assert (found.codes[1, 2, :7] == ABSENT).all()
    assert float(np.nanmax(np.abs(back - values))) == found.error
    # a step of the square root next to the largest value is two of 254
    assert 0 < found.error <= 1.01 * np.nanmax(values) / 254
    np.testing.assert_array_equal(back.max(-1)[0], values.max(-1)[0])
    assert (back[3, 3] == 0).all()


def test_packing_is_whole_or_nothing():
    values = np.random.default_rng(0).integers(0, 255, 5000).astype(np.uint8)
    whole = packed(values, 10_000)
    assert whole is not None
    assert zlib.decompress(whole) == values.tobytes()
    assert packed(values, len(whole) - 1) is None


def test_a_page_holds_what_the_run_gave(result, maps, image):
    explorer = rp.explore(result, maps, image=image)
    profile = result.profile
    back = decoded(stored(explorer, "0/score"), stored(explorer, "0/score/scale"))
    errors = explorer.content.errors
    np.testing.assert_allclose(back, profile.score, atol=errors["0/score"] * 1.001)
    back = decoded(stored(explorer, "0/maps"), stored(explorer, "0/maps/scale"))
    np.testing.assert_allclose(back, maps.data, atol=errors["0/maps"] * 1.001)
    back = decoded(stored(explorer, "0/text"), stored(explorer, "0/text/scale"))
    np.testing.assert_allclose(back, maps.text, atol=errors["0/text"] * 1.001)
    np.testing.assert_array_equal(stored(explorer, "0/shares"), maps.shares)
    np.testing.assert_array_equal(
        stored(explorer, "0/mass"), profile.mass.sel(query_group="generation")
    )
    entropy = rp.entropy(profile)
    np.testing.assert_allclose(stored(explorer, "0/entropy"), entropy.marginal, atol=1e-6)
    np.testing.assert_allclose(
        stored(explorer, "0/block_entropy"), entropy.block_marginal, atol=1e-6
    )
    run = explorer.content.page["runs"][0]
    assert run["step"] == [0, 1, 2]
    assert run["kind"].count("single") == 3
    assert run["maps"]["head"] == [0, 1]
    assert run["maps"]["query"] == list(range(16))
    assert explorer.content.page["errors"].keys() == errors.keys()


def test_pruned_tokens_are_told_from_those_that_get_nothing(probe, image):
    keep = Keep((1, 4, 9), start=1)
    pruned = probe.generate(image, "a fox", 2, interventions=[keep], profile=True, progress=False)
    codes = stored(rp.explore(pruned), "0/score")
    absent = np.setdiff1d(np.arange(16), keep.tokens)
    assert (codes[0] != ABSENT).all()
    assert (codes[1][..., absent] == ABSENT).all()
    assert (codes[1][..., [1, 4, 9]] != ABSENT).all()
    bits = stored(rp.explore(pruned), "0/entropy")
    assert 0 < bits[1] <= np.log2(3) < bits[0]


def test_averaged_dimensions_have_no_labels(probe, result, image):
    mean = probe.attention_maps(
        image, "a fox", [(1, 2)], steps=3, mean_over=("step", "head"), progress=False
    )
    explorer = rp.explore(result, mean, image=image)
    described = explorer.content.page["runs"][0]["maps"]
    assert described["step"] is None
    assert described["head"] is None
    assert described["block"] == [0, 1, 2, 3, 4]
    assert described["query"] == [6]
    assert stored(explorer, "0/maps").shape == (1, 5, 1, 1, 16)
    by_mean = rp.explore(result, mean, mean_over=("head",))
    assert stored(by_mean, "0/score").shape == (3, 5, 1, 16)


def test_what_does_not_fit_is_refused_with_what_to_choose(result, maps):
    with pytest.raises(InputError, match=r"maps \(3 steps x 5 blocks.*max_bytes.*queries="):
        rp.explore(result.profile, maps, max_bytes=6000)
    with pytest.raises(InputError, match=r"scores of the profile.*profile.sel"):
        rp.explore(result.profile, max_bytes=100)
    with pytest.raises(InputError, match=r"pictures.*max_bytes"):
        rp.explore(result, maps, image=np_image(), max_bytes=3000)
    assert rp.explore(result, maps, max_bytes=200_000).content.nbytes <= 200_000


def np_image():
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    return Image.fromarray(noise)


def full_size(queries: int, blocks: int) -> tuple[rp.AttentionProfile, AttentionMaps]:
    """4,096 generation tokens and as many of the reference."""
    import json

    import xarray as xr

    grid = Grid(64, 64)
    layout = TokenLayout(8, grid, (grid,))
    shape = (1, blocks, 2)
    profile = rp.AttentionProfile.build(
        score=np.full((1, *shape, grid.size), 1e-4, np.float32),
        mass=np.full((1, *shape, 3, 3), 1 / 3, np.float32),
        conditional_entropy=np.ones((1, *shape)),
        steps=[0],
        timesteps=[1000],
        sigmas=[1],
        blocks=range(blocks),
        block_kinds=["double"] * blocks,
        heads=[0, 1],
        layout=layout,
    )
    values = np.random.default_rng(0).random((blocks, queries, grid.size), np.float32) / 4096
    reference, row, column = layout.reference_coordinates()
    array = xr.DataArray(
        values,
        dims=("block", "query", "token"),
        coords={
            "block": range(blocks),
            "query": range(queries),
            "token": range(grid.size),
            "row": ("token", row),
            "column": ("token", column),
            "reference": ("token", reference),
        },
        attrs={
            "queries": "generation",
            "selection": "planted",
            "layout": json.dumps(layout.to_dict()),
            "provenance": "{}",
        },
    )
    return profile, AttentionMaps(array)


def test_a_megapixel_is_shown_in_part_or_refused_in_words():
    profile, maps = full_size(4096, 2)
    with pytest.raises(InputError, match=r"4,096 queries x 4,096 tokens.*16\.8 MB.*queries="):
        rp.explore(profile, maps)
    region = maps.sel(query=np.arange(1024), block=1)
    explorer = rp.explore(profile, region)
    assert explorer.content.nbytes < 20_000_000
    assert stored(explorer, "0/maps").shape == (1, 1, 1, 1024, 4096)
    whole = rp.explore(profile, maps.sel(block=0), max_bytes=40_000_000)
    assert stored(whole, "0/maps").shape == (1, 1, 1, 4096, 4096)


def test_outlines_are_masks_rankings_and_tokens(result, mask):
    ranking = rp.rank.cross_image(result.profile)
    made = rp.explore(
        result, outlines={"half": mask, "fine": mask.repeat(8, 0).repeat(8, 1),
                          "best": (ranking, 5), "flat": mask.reshape(-1), "some": [3, 1]}
    )  # fmt: skip
    found = {each["name"]: each["tokens"] for each in made.content.page["runs"][0]["outlines"]}
    half = np.flatnonzero(mask).tolist()
    assert found["half"] == found["fine"] == found["flat"] == half
    assert found["best"] == sorted(ranking.top(5).tolist())
    assert found["some"] == [1, 3]
    for wrong, message in (
        ({"a": ranking}, r"say how many.*\(ranking, 64\)"),
        ({"a": [16]}, "16, which is none of reference tokens 0-15"),
        ({"a": np.ones(9, bool)}, r"\(9,\).*16 tokens"),
        ({str(i): [i] for i in range(7)}, "outlines holds 7"),
    ):
        with pytest.raises(InputError, match=message):
            rp.explore(result, outlines=wrong)


def test_what_does_not_belong_together_is_refused(probe, result, maps, image):
    other = probe.attention_maps(image, "a fox", [1], seed=1, steps=3, progress=False)
    text = probe.attention_maps(image, "a fox", group="text", steps=3, progress=False)
    with pytest.raises(InputError, match=r"seed 1.*seed|seed 1.*with 0"):
        rp.explore(result, other)
    with pytest.raises(InputError, match="text tokens"):
        rp.explore(result, text)
    with pytest.raises(InputError, match=r"step 2.*the profile does not"):
        rp.explore(result.profile.sel(steps=[0, 1]), maps)
    with pytest.raises(InputError, match=r"recorded at step 0-2 and 0"):
        rp.explore(result, compare=result.profile.sel(steps=0))
    with pytest.raises(InputError, match="other token grids"):
        rp.explore(planted(np.ones((1, 1, 1, 16))), compare=planted(np.ones(4), [Grid(2, 2)]))
    with pytest.raises(InputError, match=r"2 reference pictures.*1"):
        rp.explore(result, image=[image, image])
    with pytest.raises(InputError, match="profile=True"):
        rp.explore(probe.generate(image, "a fox", 1 + 1, progress=False))
    with pytest.raises(InputError, match="not AttentionMaps"):
        rp.explore(maps)
    with pytest.raises(InputError, match="1 words were given for"):
        rp.explore(result, words=["fox"])
    reference = probe.profile(image, "a fox", queries="reference", **{"steps": 2}, progress=False)
    with pytest.raises(InputError, match="reference queries"):
        rp.explore(reference)


def renamed(profile, **facts):
    """The profile with other facts in its provenance."""
    told = {**profile.provenance, **facts}
    return rp.AttentionProfile(profile.dataset.assign_attrs(provenance=json.dumps(told)))


def test_maps_of_a_run_that_was_changed_in_another_way_are_refused(probe, image):
    run = {"steps": 2, "progress": False}
    cuts = [Knockout("reference", "generation", blocks=[block]) for block in (3, 1)]
    profile = probe.generate(image, "a fox", interventions=cuts[0], profile=True, **run).profile
    maps = [probe.attention_maps(image, "a fox", interventions=cut, **run) for cut in cuts]
    rp.explore(profile, maps[0])
    with pytest.raises(InputError, match="interventions"):
        rp.explore(profile, maps[1])


def test_maps_of_another_model_reference_or_scale_are_refused(result, maps):
    profile = result.profile
    model = profile.provenance["model"]
    for facts, message in (
        ({"model": {**model, "fingerprint": "ab"}}, "fingerprint"),
        ({"model": {**model, "identity": {**model["identity"], "adapters": 2}}}, "adapters"),
        ({"image": {**profile.provenance["image"], "sha256": "ab"}}, "the reference"),
        ({"arguments": {"guidance_scale": 2.0}}, "arguments"),
    ):
        with pytest.raises(InputError, match=message):
            rp.explore(renamed(profile, **facts), maps)
    # what is not told is not compared
    rp.explore(renamed(profile, model=None, image=None, arguments=None), maps)


def test_a_second_run_never_stands_on_the_first_ones_picture(probe, result, image):
    other = tiny.tiny_image(seed=5)
    second = probe.generate(other, "a fox", 3, profile=True, progress=False)
    settings = {"image": image, "outlines": {"some": [1, 3]}}
    for compare, pictures in ((second, [data_url(other)]), (second.profile, [])):
        one, two = rp.explore(result, compare=compare, **settings).content.page["runs"]
        assert one["references"] == [data_url(image)]
        assert two["references"] == pictures
        assert (len(one["outlines"]), two["outlines"]) == (1, [])
    same = probe.generate(image, "a red cat", 3, profile=True, progress=False)
    one, two = rp.explore(result, compare=same.profile, **settings).content.page["runs"]
    assert one["references"] == two["references"] == [data_url(image)]
    assert one["outlines"] == two["outlines"]


def test_two_runs_of_one_size_stand_beside_each_other(probe, result, maps, image):
    second = probe.generate(image, "a red cat", 3, profile=True, progress=False)
    explorer = rp.explore(result, maps, image=image, compare=second)
    one, two = explorer.content.page["runs"]
    assert (one["title"], two["title"]) == ("a fox", "a red cat")
    assert one["maps"] is not None
    assert two["maps"] is None
    assert one["generated"] != two["generated"]
    assert one["references"] == two["references"]
    inner = rp.explore(second, title="other", image=image)
    assert rp.explore(result, compare=inner).content.page["runs"][1]["title"] == "other"


def test_several_references_and_layers(image):
    from recast_probe.probe import Probe

    probe = Probe.tiny("flux2")
    result = probe.generate([image, image], "a fox", 2, profile=True, progress=False)
    maps = probe.attention_maps([image, image], "a fox", steps=2, progress=False)
    explorer = rp.explore(result, maps, image=[image, image])
    run = explorer.content.page["runs"][0]
    assert len(run["grids"]) == len(run["references"]) == 2
    assert stored(explorer, "0/maps").shape[-1] == sum(rows * cols for rows, cols in run["grids"])


@pytest.mark.parametrize(
    ("name", "word"), [("qwen-image-layered", "layer"), ("ltx-condition", "frame")]
)
def test_layers_and_frames_have_a_picture_each(image, name, word):
    from recast_probe.explorer import record_run
    from recast_probe.probe import Probe
    from recast_probe.testing.tiny_ltx import SETTINGS

    settings = SETTINGS if name.startswith("ltx") else {}
    probe = Probe.tiny(name)
    result, maps = record_run(probe, image, "a fox", 2, progress=False, **settings)
    run = rp.explore(result, maps, image=image).content.page["runs"][0]
    layers = maps.layout.generation.layers
    assert len(run["generation"]) == len(run["generated"]) == layers > 1
    assert run["layer"] == word
    if not maps.layout.text:
        assert maps.text is None
        with pytest.raises(InputError, match="text"):
            probe.attention_maps(image, "a fox", steps=2, text=True, progress=False, **settings)


def test_tokens_without_places_are_a_rectangle_without_a_picture(adapter_probe, image):
    result = adapter_probe.generate(image, "a fox", 2, profile=True, progress=False)
    explorer = rp.explore(result, image=image)
    run = explorer.content.page["runs"][0]
    rows, columns = run["grids"][0]
    assert rows * columns == result.profile.layout.reference_tokens
    assert not run["placed"]
    assert run["references"] == []


def test_words_of_the_text_are_known_where_the_family_knows_them(pocket_run):
    probe, sample, result, maps = pocket_run
    explorer = rp.explore(result, maps, image=sample.image, probe=probe)
    words = explorer.content.page["runs"][0]["words"]
    assert len(words) == maps.layout.text
    assert words[-1] == "<pad>"
    assert "".join(words).replace("<pad>", "").replace("</s>", "").split() == (
        sample.prompts[0].replace(",", " ,").split()
        if " ," in "".join(words)
        else sample.prompts[0].split()
    )


def test_content_is_counted_as_a_file_holds_it(result, maps, image):
    explorer = rp.explore(result, maps, image=image)
    empty = len(rp.explore(result, maps, image=image).html())
    assert explorer.content.nbytes < empty < explorer.content.nbytes + 120_000
    assert data.in_base64(4) == 8
    with pytest.raises(InputError, match="mean_over"):
        content([Shown(result.profile)], mean_over=("step",))
