"""PocketBench: fixed, held out, and true to its categories."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe.errors import InputError
from recast_probe.pocket.bench import CATEGORIES, pocket_bench


def pixels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.fixture(scope="module")
def cases():
    return pocket_bench(6, 4, CATEGORIES)


def test_the_same_arguments_give_the_same_cases(cases):
    again, other = pocket_bench(6, 4, CATEGORIES), pocket_bench(6, 4, CATEGORIES, seed=1)
    for first, second in zip(cases, again, strict=True):
        assert (first.prompt, first.seed) == (second.prompt, second.seed)
        np.testing.assert_array_equal(pixels(first.target), pixels(second.target))
    assert [case.prompt for case in cases] != [case.prompt for case in other]
    # fewer subjects are the first of more
    assert [case.prompt for case in pocket_bench(2, 4, CATEGORIES)] == [
        case.prompt for case in cases[:8]
    ]


def test_prompts_of_a_subject_share_its_reference(cases):
    assert len({case.subject for case in cases}) == 6
    assert len({case.seed for case in cases}) == 24
    for subject in {case.subject for case in cases}:
        same = [c for c in cases if c.subject == subject and c.category != "style reference"]
        assert len(same) == 3
        for case in same:
            np.testing.assert_array_equal(pixels(case.reference), pixels(same[0].reference))


def test_targets_are_what_the_prompts_ask_for(cases):
    for case in cases:
        mask, where = case.reference_mask, case.target_mask
        assert 0.02 < mask.mean() < 0.6
        if case.category == "background change":
            np.testing.assert_array_equal(mask, where)
            inside, outside = (
                np.abs(pixels(case.reference) - pixels(case.target))[part].mean()
                for part in (mask, ~mask)
            )
            # only half-covered pixels at the edge mix with the background
            assert inside < 12 < outside
        if case.category == "local edit":
            np.testing.assert_array_equal(mask, where)
            far = ~mask & (np.abs(pixels(case.reference) - pixels(case.target)).max(-1) > 0)
            assert far.mean() < 0.1
            assert case.prompt.startswith("paint the subject")
        assert case.subject.split(" (")[0] not in case.prompt


def center(mask: np.ndarray) -> np.ndarray:
    return np.array([np.mean([places.min(), places.max() + 1]) for places in np.nonzero(mask)])


def test_references_are_in_the_middle_and_moved_subjects_leave_it_in_their_size():
    for case in pocket_bench(20, 1, ["character reference"]):
        # a drawing touches two opposite sides of its square, and the other two by a few pixels
        assert np.abs(center(case.reference_mask) - 64).min() <= 1
        assert np.abs(center(case.target_mask) - center(case.reference_mask)).max() >= 16
        assert case.target_mask.sum() == case.reference_mask.sum()
    anywhere = pocket_bench(20, 1, ["character reference"], references="anywhere")
    far = [np.abs(center(case.reference_mask) - 64).min() > 8 for case in anywhere]
    resized = [case.target_mask.sum() != case.reference_mask.sum() for case in anywhere]
    assert 2 < sum(far) < 18
    assert 4 < sum(resized) < 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subjects": 0}, "1 to 150 subjects"),
        ({"subjects": 151}, "1 to 150 subjects"),
        ({"prompts": 0}, "at least 1 prompt"),
        ({"categories": ["text"]}, "choose some of background change"),
        ({"categories": []}, "choose some of"),
        ({"references": "left"}, "choose middle or anywhere"),
    ],
)
def test_what_there_is_not(arguments, message):
    with pytest.raises(InputError, match=message):
        pocket_bench(**arguments)
