"""What of a request acts otherwise than one might think is said with the result."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from recast_probe.testing import tiny, tiny_qwen

QUIET = {"steps": 1, "progress": False}
LONG = "abcdefgh ijklmnopq rstuvw"


def remarks(probe, prompt, **settings):
    return probe.generate(tiny.tiny_image(), prompt, **{**QUIET, **settings}).provenance.get(
        "remarks"
    )


@pytest.mark.parametrize("which", ["probe", "adapter_probe"])
def test_tokens_that_are_cut_off(request, which):
    """T5 has 12 tokens of text here and CLIP 16, their own beginnings and ends among them."""
    probe = request.getfixturevalue(which)
    with pytest.warns(UserWarning, match="prompt 0 is too long for tokenizer_2: "):
        found = remarks(probe, LONG)
    second = len(probe.pipe.tokenizer_2(LONG)["input_ids"]) - tiny.TEXT_TOKENS
    first = len(probe.pipe.tokenizer(LONG)["input_ids"]) - 16
    assert found == [
        f"prompt 0 is too long for tokenizer: {first} of its tokens are cut off.",
        f"prompt 0 is too long for tokenizer_2: {second} of its tokens are cut off.",
    ]
    with pytest.warns(UserWarning, match="prompt_2 0 .* tokenizer_2"):
        assert len(remarks(probe, "fox", prompt_2=LONG)) == 1
    with pytest.warns(UserWarning, match="prompt 1 is too long"):
        found = remarks(probe, ["fox", LONG])
    assert all(each.startswith("prompt 1") for each in found)


def test_a_longer_sequence_takes_the_whole_prompt(probe):
    length = len(probe.pipe.tokenizer_2("abcdefgh ijk")["input_ids"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert remarks(probe, "abcdefgh ijk", max_sequence_length=length) is None
    with pytest.warns(UserWarning, match="1 of its tokens"):
        assert len(remarks(probe, "abcdefgh ijk", max_sequence_length=length - 1)) == 1


def test_negative_prompts_are_cut_off_where_they_are_read(probe):
    with pytest.warns(UserWarning, match="negative_prompt 0 is too long"):
        remarks(probe, "fox", negative_prompt=LONG, true_cfg_scale=2.0)
    assert remarks(probe, "fox", negative_prompt=LONG) == [
        "negative_prompt has no effect, since guidance is off."
    ]


def test_in_flux2(flux2_probe):
    long = "fox " * 60
    with pytest.warns(UserWarning, match="prompt 0 is too long for tokenizer"):
        (found,) = remarks(flux2_probe, long, height=32, width=32)
    family = flux2_probe.family
    mask = family.padding_tokens({"prompt": long, "max_sequence_length": 500})["conditional"]
    lost = int((~mask).sum()) - family.longest_prompt()
    assert f" {lost} of its tokens" in found
    assert remarks(flux2_probe, "fox", height=32, width=32, max_sequence_length=200) is None


def test_qwen_cuts_nothing_off(qwen_probes):
    size = tiny_qwen.SIZE
    assert remarks(qwen_probes["edit"], "fox " * 90, steps=2, **size) is None


def test_a_prompt_that_is_cut_off_makes_the_plain_image(probe):
    with pytest.warns(UserWarning, match="cut off"):
        result = probe.generate(tiny.tiny_image(), LONG, **QUIET)
    asked = probe.pipeline_arguments(tiny.tiny_image(), LONG, steps=1)
    image: Image.Image = probe.pipe(**asked).images[0]
    np.testing.assert_array_equal(np.asarray(result.image), np.asarray(image))
