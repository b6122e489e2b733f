"""Which part of an output is scored, and that it is said and is the same for all arms."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from recast_probe.datasets import FileCase
from recast_probe.errors import InputError
from recast_probe.metrics import ImageMetric
from recast_probe.pocket.bench import pocket_bench
from recast_probe.studies.comparison import Comparison
from recast_probe.studies.extra_metrics import measured
from recast_probe.studies.scored_area import (
    NO_TARGET,
    REFERENCE,
    TARGET,
    changes_subject,
    check_oracle,
    scored_against,
    scored_area,
    scored_on,
)

RED, GREEN = (220, 30, 30), (40, 120, 60)


def reddish(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image).astype(int)
    return pixels[..., 0] > pixels[..., 1]


def scene(left: int = 10, size=(64, 64), colour=RED) -> Image.Image:
    image = Image.new("RGB", size, GREEN)
    image.paste(colour, (left, 20, left + 20, 40))
    return image


def left_half() -> Image.Image:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    return mask


@pytest.fixture
def case_of(tmp_path):
    def make(reference=None, target=None, mask=None, finder=reddish, category="all") -> FileCase:
        files = {"reference_file": reference or scene(), "target_file": target, "mask_file": mask}
        paths = {}
        for name, image in files.items():
            if image is not None:
                paths[name] = tmp_path / f"{name}.png"
                image.save(paths[name])
        return FileCase("fox", "on a beach", category, 0, finder=finder, **paths)

    return make


def test_subjects_are_found_where_nothing_says_where_they_should_be(case_of):
    output, full = scene(30), scene(15)
    area = scored_area(case_of(), output, full, reddish)
    np.testing.assert_array_equal(area.output, reddish(output))
    np.testing.assert_array_equal(area.full, reddish(full))
    np.testing.assert_array_equal(area.wanted, reddish(scene()))
    assert area.words == "reddish masks"
    given = case_of(mask=left_half())
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
    assert area.output is area.wanted is area.full is None
    assert area.words == f"whole images ({why})"


def test_a_mask_of_the_reference_alone_is_not_enough(case_of):
    case = case_of(mask=left_half(), finder=None)
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
    np.testing.assert_array_equal(area.wanted, case.reference_mask)
    assert area.column == {"scored_against": "reference"}
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


@pytest.mark.parametrize(
    ("category", "changes"),
    [
        ("local edit", True),
        ("Local Edit", True),
        ("Instruction Editing - Local", True),
        ("background change", False),
        ("character reference", False),
        ("style reference", False),
        ("localised", False),
        ("all", False),
    ],
)
def test_local_edits_are_those_that_change_the_subject(category, changes, case_of):
    case = case_of(target=scene(40), category=category)
    assert changes_subject(case) is changes
    area = scored_area(case, scene(30), scene(15), reddish)
    assert area.against == (TARGET if changes else REFERENCE)
    wanted = case.target if changes else case.reference
    np.testing.assert_array_equal(np.asarray(area.picture), np.asarray(wanted))
    np.testing.assert_array_equal(area.wanted, reddish(wanted))
    # where the subject should be in the output is the target's mask for every kind of edit
    np.testing.assert_array_equal(area.output, reddish(case.target))


def test_a_local_edit_without_a_target_says_that_the_reference_had_to_do(case_of):
    area = scored_area(case_of(category="local edit"), scene(30), scene(15), reddish)
    assert area.against == NO_TARGET
    np.testing.assert_array_equal(np.asarray(area.picture), np.asarray(scene()))
    unseen = scored_area(
        case_of(target=scene(colour=GREEN), category="local edit"), scene(), scene(), reddish
    )
    assert unseen.words == "whole images (reddish saw nothing in the target)"
    assert unseen.against == TARGET


def test_the_right_answer_to_a_local_edit_beats_an_unchanged_reference():
    """Known answers: the true target scores 1, and doing nothing less; elsewhere it is as ever."""
    comparison = Comparison(SimpleNamespace(), {}, SimpleNamespace())
    rows = []
    for case in pocket_bench(2, 3):
        found = {}
        for arm, image in (("right", case.target), ("unchanged", case.reference)):
            run = SimpleNamespace(
                image=image, reference_tokens_per_step=[1], mean_budget=1.0, seconds=0.0
            )
            found[arm] = comparison._measure(case, run, case.target)
            rows.append({"category": case.category} | found[arm])
        if case.category == "local edit":
            assert found["right"]["scored_against"] == "target"
            assert found["right"]["identity"] == pytest.approx(1, abs=1e-5)
            assert found["right"]["colour"] == pytest.approx(1, abs=1e-5)
            for name in ("identity", "colour"):
                assert found["unchanged"][name] < 0.9 * found["right"][name]
            assert found["right"]["target_error"] == 0 < found["unchanged"]["target_error"]
        else:
            to_reference = comparison._scorer.score(
                case.target, case.target_mask, case.reference, case.reference_mask
            )
            assert found["right"]["identity"] == to_reference["mobilenet"]
            assert found["right"]["scored_against"] == "reference"
    table = pd.DataFrame(rows)
    assert scored_against(table) == "local edits: to the target"
    assert scored_against(table[table["category"] != "local edit"]) is None
    assert scored_against(pd.DataFrame({"arm": ["full"]})) is None


def test_further_metrics_compare_a_local_edit_with_its_target():
    case = pocket_bench(1, 1, categories=("local edit",))[0]
    area = scored_area(case, case.target, case.target, None)
    dinov2 = IdentityMetric()
    assert measured([dinov2], case, case.target, case.target, area)["dinov2"] == 0
    assert measured([dinov2], case, case.reference, case.target, area)["dinov2"] > 0


class IdentityMetric(ImageMetric):
    """Mean distance of pixels, by a known metric's name."""

    name = "dinov2"

    def score(self, image, mask, reference, reference_mask):
        assert mask is not None
        assert reference_mask is not None
        return float(np.abs(np.asarray(image, float) - np.asarray(reference, float)).mean())

    def provenance(self):
        return {"metric": self.name}
