"""Cases that only share their names are told apart by what they consist of."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from recast_probe.content.digest import NoContent
from recast_probe.datasets import FileCase, case_digest
from recast_probe.pocket.bench import pocket_bench


def bright(image):
    return np.asarray(image.convert("L")) / 255


def dark(image):
    return 1 - bright(image)


@pytest.fixture
def case(tmp_path):
    for name, colour in (("fox.png", "red"), ("den.png", "green"), ("in.png", "white")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / name)
    return FileCase("fox", "in snow", "animal", 0, tmp_path / "fox.png", finder=bright)


def test_pocket_bench_of_two_seeds():
    """Subjects and prompts are the same, pictures and noise are not."""
    one, other = (pocket_bench(12, 1, ["background change"], seed) for seed in (0, 1))
    alike = [(a, b) for a, b in zip(one, other, strict=True) if a.prompt == b.prompt]
    assert alike
    for a, b in alike:
        assert a.subject == b.subject
        assert case_digest([a]) != case_digest([b])
    again = pocket_bench(12, 1, ["background change"], 0)
    assert [case_digest([each]) for each in again] == [case_digest([each]) for each in one]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("prompt", "in sand"),
        ("reference", Image.new("RGB", (128, 128))),
        ("target", Image.new("RGB", (128, 128))),
        ("reference_mask", np.zeros((128, 128), bool)),
        ("target_mask", np.zeros((128, 128), bool)),
    ],
)
def test_every_part_of_a_drawn_case_counts(name, value):
    (case,) = pocket_bench(1, 1)
    assert case_digest([replace(case, **{name: value})]) != case_digest([case])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("reference_file", "den.png"),
        ("mask_file", "in.png"),
        ("target_file", "den.png"),
        ("finder", dark),
        ("finder", None),
    ],
)
def test_every_part_of_a_case_of_files_counts(case, name, value):
    value = case.reference_file.with_name(value) if isinstance(value, str) else value
    assert case_digest([replace(case, **{name: value})]) != case_digest([case])


def test_groups_are_told_apart_by_their_order(case):
    other = replace(case, prompt="in sand")
    assert case_digest([case, other]) != case_digest([other, case])
    assert case_digest([case]) == case_digest([replace(case)])


@dataclass
class Above:
    """A finder that can be changed in place, and has no hash."""

    least: float
    lock: object = None

    def __call__(self, image):
        return bright(image) > self.least


def test_finders_of_one_name_are_told_apart(case):
    digests = [case_digest([replace(case, finder=Above(least))]) for least in (0.1, 0.9, 0.1)]
    assert digests[0] == digests[2] != digests[1]


def test_a_finder_without_content_is_refused_where_runs_are_kept(case):
    nameless = replace(case, finder=Above(0.1, threading.Lock()))
    with pytest.raises(NoContent, match="The mask finder cannot be told from another one"):
        case_digest([nameless])
    assert len(case_digest([nameless], strict=False)) == 16
    assert nameless.reference_mask.all()


def test_a_finder_that_was_changed_searches_again(case):
    finder = Above(0.1)
    searched = replace(case, finder=finder)
    assert searched.reference_mask.all()
    finder.least = 0.9
    assert searched.reference_mask is None


def test_a_mask_is_the_readers_own(case):
    own = np.eye(4, dtype=bool)
    searched = replace(case, finder=lambda image: own)
    searched.reference_mask[:] = True
    np.testing.assert_array_equal(searched.reference_mask, np.eye(4))
    own[:] = True  # the finder's array: now it is another finder
    assert searched.reference_mask.all()
    # and with one whose content nobody knows, what was found stays as it was
    other = np.eye(4, dtype=bool)
    lock = threading.Lock()
    kept = replace(case, finder=lambda image: other if lock else None)
    kept.reference_mask[:] = True
    other[:] = True
    np.testing.assert_array_equal(kept.reference_mask, np.eye(4))


def test_a_picture_is_searched_once(case):
    class Counting:
        """What it counts makes it no other finder."""

        def __init__(self, asked):
            self.asked = asked

        def __call__(self, image):
            self.asked.append(image.size)
            return bright(image)

        def __getstate__(self):
            return {}

    asked = []
    for finder in (Counting(asked), Counting(asked)):
        assert replace(case, finder=finder).reference_mask is None
    assert asked == [(4, 4)]
