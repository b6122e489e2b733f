"""Which part of an output is scored, and that it is said and is the same for all arms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from recast_probe.datasets import FileCase
from recast_probe.errors import InputError
from recast_probe.pocket.bench import pocket_bench
from recast_probe.studies.scored_area import check_oracle, scored_area, scored_on

RED, GREEN = (220, 30, 30), (40, 120, 60)


def reddish(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image).astype(int)
    return pixels[..., 0] > pixels[..., 1]


def scene(left: int = 10, size=(64, 64), colour=RED) -> Image.Image:
    image = Image.new("RGB", size, GREEN)
    image.paste(colour, (left, 20, left + 20, 40))
    return image


@pytest.fixture
def case_of(tmp_path):
    def make(reference=None, target=None, mask=None, finder=reddish) -> FileCase:
        files = {"reference_file": reference or scene(), "target_file": target, "mask_file": mask}
        paths = {}
        for name, image in files.items():
            if image is not None:
                paths[name] = tmp_path / f"{name}.png"
                image.save(paths[name])
        return FileCase("fox", "on a beach", "all", 0, finder=finder, **paths)

    return make


def test_subjects_are_found_where_nothing_says_where_they_should_be(case_of):
    output, full = scene(30), scene(15)
    area = scored_area(case_of(), output, full, reddish)
    np.testing.assert_array_equal(area.output, reddish(output))
    np.testing.assert_array_equal(area.full, reddish(full))
    np.testing.assert_array_equal(area.reference, reddish(scene()))
    assert area.words == "reddish masks"
    given = case_of(mask=Image.new("L", (64, 64), 255))
    assert scored_area(given, output, full, reddish).words == "given and reddish masks"


def test_an_arm_that_lost_its_subject_is_scored_like_the_others(case_of):
    output, full = scene(colour=GREEN), scene(15)
    area = scored_area(case_of(), output, full, reddish)
    np.testing.assert_array_equal(area.output, reddish(full))
    assert area.words == "reddish masks, the full run's"


@pytest.mark.parametrize(
    ("reference", "full", "finder", "why"),
    [
        (scene(colour=GREEN), scene(), reddish, "reddish saw nothing in the reference"),
        (scene(), scene(colour=GREEN), reddish, "reddish saw nothing in the full run"),
        (scene(), scene(), None, "no masks"),
    ],
)
def test_whole_images_are_compared_with_whole_images(case_of, reference, full, finder, why):
    area = scored_area(case_of(reference, finder=finder), scene(), full, finder)
    assert area.output is area.reference is area.full is None
    assert area.words == f"whole images ({why})"


def test_a_mask_of_the_reference_alone_is_not_enough(case_of):
    case = case_of(mask=Image.new("L", (64, 64), 255), finder=None)
    assert scored_area(case, scene(), scene(), None).words == "whole images (no masks of outputs)"


def test_a_target_says_where_the_subject_should_be(case_of):
    case = case_of(target=scene(40))
    output = scene(0, (32, 32))
    area = scored_area(case, output, output, reddish)
    assert area.output.shape == (32, 32)
    columns = np.nonzero(area.output.any(axis=0))[0]
    assert (columns.min(), columns.max()) == (20, 29)
    assert area.words == "reddish masks"


def test_pocket_bench_is_scored_as_ever_and_its_tables_say_nothing_new():
    (case,) = pocket_bench(1, 1)
    area = scored_area(case, case.target, case.reference, None)
    np.testing.assert_array_equal(area.output, case.target_mask)
    np.testing.assert_array_equal(area.full, case.target_mask)
    np.testing.assert_array_equal(area.reference, case.reference_mask)
    assert area.column == {}
    assert scored_on(pd.DataFrame({"arm": ["full"]})) is None


def test_a_mixed_table_counts():
    assert scored_on(pd.DataFrame({"scored_on": ["a masks"] * 3})) == "a masks"
    mixed = pd.DataFrame({"scored_on": ["a masks", None, "a masks"]})
    assert scored_on(mixed) == "2 of 3 on a masks, 1 of 3 on given masks"


def test_the_oracle_needs_a_mask_of_every_reference(case_of):
    arms = {"full": "full", "the oracle": "mask-oracle"}
    check_oracle([case_of()], arms)
    blank = case_of(scene(colour=GREEN))
    check_oracle([blank], {"full": "full"})
    with pytest.raises(InputError, match=r"'the oracle' ranks .* first is 'fox'"):
        check_oracle([blank], arms)
    with pytest.raises(InputError, match=r"1 references have none.*leave the mask oracle out"):
        check_oracle([case_of(finder=None)], arms)
