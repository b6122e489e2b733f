"""Cases that only share their names are told apart by what they consist of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

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
