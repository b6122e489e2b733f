from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.metrics import IdentityScorer, cosine, features, identity_score, retrieve
from recast_probe.metrics.encoder import load_encoder
from recast_probe.metrics.mobilenet import MobileNetV2

COUNT = 16
# the largest of the gradient image below, from the float32 checkpoint with the shipped centre
PINNED = {868: 0.1709, 539: 0.1567, 495: 0.1275, 496: 0.1265, 881: 0.1227, 1042: 0.1167}


@pytest.fixture(scope="module")
def composites(subject, composite):
    first = [composite(subject(seed, 72), seed=1000 + seed) for seed in range(COUNT)]
    second = [composite(subject(seed, 60), seed=2000 + seed) for seed in range(COUNT)]
    return first, second


def test_the_network_has_the_published_number_of_parameters():
    assert sum(value.numel() for value in MobileNetV2().parameters()) == 2_223_872


def test_features_are_those_of_the_published_checkpoint():
    rows, columns = np.mgrid[0:128, 0:128]
    image = np.stack([2 * rows, 2 * columns, 255 - rows - columns], axis=-1).astype(np.uint8)
    values = features([Image.fromarray(image)])[0]
    assert values.shape == (1280,)
    assert values.dtype == np.float32
    assert values[list(PINNED)] == pytest.approx(list(PINNED.values()), abs=2e-3)


def test_features_have_length_one_and_do_not_depend_on_the_batch(composites):
    images, masks = zip(*composites[0], strict=True)
    values = features(images, masks)
    assert np.linalg.norm(values, axis=1) == pytest.approx(np.ones(COUNT), abs=1e-5)
    assert features(images, masks, batch=3) == pytest.approx(values, abs=1e-4)


def test_masked_features_find_the_same_subject_on_another_background(composites):
    first, second = (features(*zip(*side, strict=True)) for side in composites)
    similarity = cosine(first, second)
    same = np.diag(similarity)
    different = similarity[~np.eye(COUNT, dtype=bool)]
    assert (retrieve(first, second) == 1).mean() >= 0.9
    assert same.mean() - different.mean() > 0.4
    whole = [features([image for image, _ in side]) for side in composites]
    assert (retrieve(*whole) == 1).mean() < (retrieve(first, second) == 1).mean()


def test_scores_of_one_pair(composites):
    (image, mask), (other, other_mask) = composites[0][3], composites[1][3]
    stranger, stranger_mask = composites[1][4]
    own = identity_score(image, mask, other, other_mask)
    foreign = identity_score(image, mask, stranger, stranger_mask)
    assert set(own) == {"mobilenet", "colour"}
    assert own["mobilenet"] > foreign["mobilenet"]
    assert own["colour"] > foreign["colour"]
    assert identity_score(image, mask, image, mask) == pytest.approx(
        {"mobilenet": 1.0, "colour": 1.0}, abs=1e-5
    )


def test_an_unmasked_scorer_sees_the_background(subject, composite):
    image, mask = composite(subject(1), seed=2, place=(10, 20))
    other, _ = composite(subject(1), seed=3, place=(10, 20))
    assert IdentityScorer().score(image, mask, other, mask)["colour"] == pytest.approx(1.0)
    assert IdentityScorer(masked=False).score(image, mask, other, mask)["colour"] < 0.9


def test_ranks_of_known_features():
    gallery = np.eye(3)
    queries = np.array([[1.0, 0.0, 0.0], [0.9, 0.5, 0.1], [0.2, 0.9, 0.1]])
    assert retrieve(queries, gallery).tolist() == [1, 2, 3]
    assert retrieve(queries, gallery, np.array([0, 0, 1])).tolist() == [1, 1, 1]
    assert retrieve(np.ones((3, 3)), np.ones((3, 3))).tolist() == [3, 3, 3]


def test_wrong_arguments_are_explained(composites):
    image, mask = composites[0][0]
    with pytest.raises(InputError, match="1 images but 2 masks"):
        features([image], [mask, mask])
    with pytest.raises(InputError, match="into a list"):
        features(image)
    with pytest.raises(InputError, match="targets"):
        retrieve(np.eye(2), np.eye(3)[:, :2])
    with pytest.raises(InputError, match=r"0\.\.2"):
        retrieve(np.eye(3), np.eye(3), np.array([0, 1, 3]))
    with pytest.raises(InputError, match="shapes"):
        cosine(np.eye(3), np.eye(2))
    assert features([]).shape == (0, 1280)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"encoder\.safetensors"):
        load_encoder(path)
    with pytest.raises(InputError, match="cannot be used"):
        load_encoder(tmp_path / "missing.safetensors")
