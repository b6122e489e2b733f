"""Named methods: equal token counts, and the plain image with everything kept."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe.commands.generate import METHODS as COMMANDS
from recast_probe.commands.generate import RANKED
from recast_probe.errors import InputError
from recast_probe.interventions import METHODS, method
from recast_probe.interventions.methods import REUSING, WITHOUT_BUDGET
from recast_probe.selection.budgets import Adaptive

MASK = np.zeros((4, 4), bool)
MASK[1:3, 1:3] = True
QUIET = {"steps": 4, "progress": False}
PRUNING = [name for name in METHODS if name not in WITHOUT_BUDGET]
# with everything kept these still take something from an earlier step
SAVING = (*REUSING, "step-cache")


def run(probe, image, name, budget, **settings):
    interventions = method(name, budget, probe.layout(image), mask=MASK, seed=3, **settings)
    return probe.generate(image, "fox", interventions=interventions, **QUIET)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in SAVING])
def test_everything_kept_is_the_plain_image(probe, plain, image, name):
    same = run(probe, image, name, 16).image
    wanted = plain(image if name != "none" else None, "fox", steps=4)
    np.testing.assert_array_equal(np.asarray(same), wanted)


@pytest.mark.parametrize("name", PRUNING)
def test_every_method_keeps_the_same_number_of_tokens(probe, image, name):
    result = run(probe, image, name, Adaptive(4, 9))
    assert result.reference_tokens_per_step == (16, 5, 6, 9)


def test_methods_keep_different_tokens(probe, image):
    images = {name: np.asarray(run(probe, image, name, 5).image).tobytes() for name in PRUNING}
    assert len(set(images.values())) == len(PRUNING)


def test_reversed_keeps_what_recast_drops(probe, image):
    best, worst = (run(probe, image, name, 5).ranking for name in ("recast", "reversed"))
    assert best.order.tolist() == worst.order[::-1].tolist()


def test_the_command_knows_every_method():
    assert {*COMMANDS} - {RANKED} == set(METHODS)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("reuse", {"refresh": 1}),
        ("reuse+step-cache", {"refresh": 1, "computed": 4}),
        ("step-cache", {"computed": 4}),
    ],
)
def test_with_nothing_saved_it_is_the_plain_image(probe, plain, image, name, settings):
    budget = None if name == "step-cache" else 5
    same = run(probe, image, name, budget, **settings).image
    np.testing.assert_array_equal(np.asarray(same), plain(image, "fox", steps=4))
    assert np.asarray(run(probe, image, name, budget).image).tobytes() != same.tobytes()


def test_unknown_methods_and_oracles_without_a_mask(probe, image):
    layout = probe.layout(image)
    with pytest.raises(InputError, match="no method 'best'; there is full, recast"):
        method("best", 4, layout)
    with pytest.raises(InputError, match="needs the subject's mask"):
        method("mask-oracle", 4, layout)
