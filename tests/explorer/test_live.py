"""Runs from the explorer: what the page asks for is what the probe would do."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

import recast_probe as rp
from recast_probe.errors import InputError, MissingPackageError
from recast_probe.explorer.widget import answer
from recast_probe.interventions import Keep, Knockout
from recast_probe.testing import assert_same_image, tiny
from tests.explorer.conftest import PROMPT, QUIET


@pytest.fixture
def explorer(probe, result, maps, image):
    other = Image.fromarray(255 - np.asarray(image))
    return rp.explore(result, maps, image=image, probe=probe, swaps={"negative": other})


def picture(found: dict) -> np.ndarray:
    assert found["kind"] == "made", found["words"]
    raw = base64.b64decode(found["image"].removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(raw)))


def test_pruning_from_the_brush_is_keep_bit_for_bit(explorer, probe, image):
    tokens = [9, 2, 4]
    kept = probe.generate(image, PROMPT, interventions=[Keep(tuple(tokens))], **QUIET)
    found = answer(explorer, {"action": "prune", "tokens": tokens})
    assert_same_image(explorer.made[-1].image, kept.image)
    np.testing.assert_array_equal(picture(found), np.asarray(kept.image))
    assert explorer.made[-1].reference_tokens_per_step == (3, 3, 3)
    assert "3 reference tokens" in found["words"]


def test_cutting_a_head_is_a_knockout(explorer, probe, image):
    for head, chosen in ((1, 1), (None, None)):
        cut = Knockout("reference", "generation", blocks=[2], heads=chosen)
        expected = probe.generate(image, PROMPT, interventions=[cut], **QUIET)
        found = answer(explorer, {"action": "cut", "block": 2, "head": head})
        np.testing.assert_array_equal(picture(found), np.asarray(expected.image))


def test_swapping_the_reference(explorer, probe, image):
    other = Image.fromarray(255 - np.asarray(image))
    expected = probe.generate(other, PROMPT, **QUIET)
    found = answer(explorer, {"action": "swap", "name": "negative"})
    np.testing.assert_array_equal(picture(found), np.asarray(expected.image))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"action": "prune", "tokens": [16]}, "16"),
        ({"action": "prune", "tokens": []}, "nothing"),
        ({"action": "prune", "tokens": "1; import os"}, "whole number"),
        ({"action": "prune"}, "whole number"),
        ({"action": "cut", "block": 99, "head": 0}, "99"),
        ({"action": "cut", "block": 0, "head": 7}, "7"),
        ({"action": "cut", "block": None}, "whole number"),
        ({"action": "swap", "name": "/etc/passwd"}, "no reference '/etc/passwd'"),
        ({"action": "delete"}, "no action 'delete'"),
        ("prune", "no action"),
    ],
)
def test_what_a_page_may_not_ask_is_refused_in_words(explorer, message, words):
    found = answer(explorer, message)
    assert found["kind"] == "refused"
    assert words in found["words"]
    assert explorer.made == []


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ValueError("no")])
def test_the_page_gets_an_answer_whatever_a_pipeline_raises(explorer, probe, monkeypatch, error):
    def raised(*_, **__):
        raise error

    monkeypatch.setattr(type(probe), "generate", raised)
    found = answer(explorer, {"action": "prune", "tokens": [1]})
    assert found == {"kind": "refused", "words": f"{type(error).__name__}: {error}"}


def test_a_run_with_other_arguments_is_refused(probe, image):
    result = probe.generate(image, PROMPT, profile=True, guidance_scale=2.0, **QUIET)
    explorer = rp.explore(result, image=image, probe=probe)
    with pytest.raises(InputError, match=r"arguments.*settings="):
        explorer.prune([1])
    same = rp.explore(result, image=image, probe=probe, settings={"guidance_scale": 2.0})
    kept = probe.generate(image, PROMPT, interventions=[Keep((1,))], guidance_scale=2.0, **QUIET)
    assert_same_image(same.prune([1]).image, kept.image)


def test_another_picture_or_model_is_refused(probe, result, image):
    other = Image.fromarray(255 - np.asarray(image))
    with pytest.raises(InputError, match="image"):
        rp.explore(result, image=other, probe=probe).prune([1])
    with pytest.raises(InputError, match="fingerprint"):
        rp.explore(result, image=image, probe=rp.Probe(tiny.build_tiny_pipeline(seed=3)))
    pruned = probe.generate(image, PROMPT, interventions=[Keep((1,))], profile=True, **QUIET)
    with pytest.raises(InputError, match=r"changed by Keep.*compare="):
        rp.explore(pruned, image=image, probe=probe)
    with pytest.raises(InputError, match="Give image="):
        rp.explore(result, probe=probe)
    with pytest.raises(InputError, match="probe="):
        rp.explore(result, image=image, swaps={"a": image})
    with pytest.raises(InputError, match="probe="):
        rp.explore(result, image=image).prune([1])
    with pytest.raises(InputError, match="brushed"):
        rp.explore(result, image=image, probe=probe).prune()


def test_the_widget_holds_the_page_and_answers(explorer, monkeypatch):
    pytest.importorskip("anywidget")
    widget = explorer.widget()
    assert explorer.widget() is widget
    page = widget.page
    assert page["live"] == {"swaps": ["negative"]}
    for name, data in explorer.content.arrays.items():
        at = page["arrays"][name]
        assert widget.arrays[at["start"] : at["start"] + at["length"]] == data
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, *_: sent.append(content))
    widget._handle_custom_msg({"action": "prune", "tokens": [0, 5]}, [])
    assert sent[0]["kind"] == "made"
    assert len(explorer.made) == 1
    widget.brushed = [7, 3]
    assert explorer.brushed == [3, 7]
    assert explorer.prune().reference_tokens_per_step == (2, 2, 2)
    shown = explorer._repr_mimebundle_()
    shown = shown[0] if isinstance(shown, tuple) else shown
    assert "application/vnd.jupyter.widget-view+json" in shown


def test_without_anywidget_it_says_how_to_get_it(result, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(MissingPackageError, match=r"anywidget.*'\.\[notebooks\]'"):
        rp.explore(result).widget()
