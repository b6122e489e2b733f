"""AuraFace: decoding, alignment and embedding against what is planted, and against float64."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import transform

from recast_probe import metrics
from recast_probe.errors import InputError, MissingPackageError, MissingWeightsError
from recast_probe.metrics.faces import TEMPLATE, FaceDetector, align, similarity
from recast_probe.metrics.faces.alignment import warp
from recast_probe.metrics.faces.detection import STRIDES, decode, letterbox, suppress
from tests import tiny_metrics

GREY = (128, 128, 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_metrics.save_auraface(tmp_path_factory.mktemp("auraface"))


@pytest.fixture(scope="module")
def metric(folder):
    return metrics.metric("auraface", folder)


def face(seed: int, size: int) -> np.ndarray:
    """A red square whose green differs from person to person."""
    green = np.random.default_rng(seed).integers(0, 256, (4, 4), dtype=np.uint8)
    square = np.zeros((size, size, 3), np.uint8)
    square[..., 0] = 255
    square[..., 1] = np.kron(green, np.ones((size // 4, size // 4), np.uint8))
    return square


def scene(size: int, *faces: tuple[np.ndarray, int, int]) -> Image.Image:
    """Squares on grey at (left, top)."""
    image = np.full((size, size, 3), 128, np.uint8)
    for square, left, top in faces:
        image[top : top + len(square), left : left + len(square)] = square
    return Image.fromarray(image)


def box(size: int, left: int, top: int, side: int) -> np.ndarray:
    """A mask of one square."""
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_a_planted_face_is_found_where_it_is(folder):
    detector = FaceDetector(folder / "scrfd_10g_bnkps.onnx")
    (found,) = detector.detect(scene(640, (face(0, 32), 320, 96)))
    assert found.box == pytest.approx([320, 96, 352, 128])
    assert found.points == pytest.approx(TEMPLATE / 112 * 32 + [320, 96], abs=1e-4)
    assert found.score > 0.99
    # half the size: the canvas is twice as large as the image
    (found,) = detector.detect(scene(320, (face(0, 16), 160, 48)))
    assert found.box == pytest.approx([160, 48, 176, 64])
    assert found.points == pytest.approx(TEMPLATE / 112 * 16 + [160, 48], abs=1e-4)
    assert detector.detect(Image.new("RGB", (200, 100), GREY)) == []


@pytest.mark.parametrize(("width", "height"), [(640, 320), (320, 640), (1280, 640)])
def test_images_that_are_not_square_keep_their_shape(folder, width, height):
    detector = FaceDetector(folder / "scrfd_10g_bnkps.onnx")
    factor = max(width, height) / 640
    side = int(32 * factor)
    image = np.full((height, width, 3), 128, np.uint8)
    image[side : 2 * side, 2 * side : 3 * side] = face(0, side)
    (found,) = detector.detect(Image.fromarray(image))
    assert found.box == pytest.approx([2 * side, side, 3 * side, 2 * side], abs=1e-3)


def test_the_canvas_is_bilinear_and_black_beyond_the_image():
    colours = np.random.default_rng(0).random((3, 5, 3)).astype(np.float32)
    canvas, scale = letterbox(colours, (8, 10))
    assert (canvas.shape, scale) == ((8, 10, 3), 2.0)
    assert (canvas[6:] == 0).all()
    # float64, by hand: pixel centres at half-integers, edges held
    rows = np.clip((np.arange(6) + 0.5) / 2 - 0.5, 0, 2)
    columns = np.clip((np.arange(10) + 0.5) / 2 - 0.5, 0, 4)
    top, left = np.minimum(rows.astype(int), 1), np.minimum(columns.astype(int), 3)
    y, x = (rows - top)[:, None, None], (columns - left)[None, :, None]
    at = [[colours[np.ix_(top + i, left + j)].astype(np.float64) for j in (0, 1)] for i in (0, 1)]
    wanted = (1 - y) * ((1 - x) * at[0][0] + x * at[0][1]) + y * ((1 - x) * at[1][0] + x * at[1][1])
    assert np.abs(canvas[:6] - wanted * 255).max() <= 0.5 + 1e-3


def test_anchors_are_decoded_row_by_row_two_a_place():
    size, outputs = (64, 96), []
    random = np.random.default_rng(0)
    counts = [2 * (64 // stride) * (96 // stride) for stride in STRIDES]
    for width in (1, 4, 10):
        outputs += [random.random((count, width)).astype(np.float32) for count in counts]
    scores, boxes, points = decode(outputs, size)
    assert len(scores) == len(boxes) == len(points) == sum(counts)
    # stride 16, row 2, column 3, second anchor
    index = 2 * (2 * 6 + 3) + 1
    row = counts[0] + index
    left, top, right, bottom = outputs[4][index] * 16
    assert scores[row] == pytest.approx(outputs[1][index, 0])
    assert boxes[row] == pytest.approx([48 - left, 32 - top, 48 + right, 32 + bottom], abs=1e-4)
    assert points[row, 4] == pytest.approx(outputs[7][index, 8:] * 16 + [48, 32], abs=1e-4)
    # exports with a batch axis in front
    batched = decode([each[None] for each in outputs], size)
    assert np.array_equal(batched[1], boxes)
    with pytest.raises(InputError, match="stride 8"):
        decode([outputs[0][:-1], *outputs[1:]], size)


def test_overlapping_boxes_leave_the_best():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29], [0, 5, 9, 14]], np.float64)
    scores = np.array([0.7, 0.9, 0.8, 0.6])
    # the last shares 10 x 4 of 10 x 15 pixels with the first kept one
    assert suppress(boxes, scores, 0.4) == [1, 2, 3]
    assert suppress(boxes, scores, 0.2) == [1, 2]
    assert suppress(np.zeros((0, 4)), np.zeros(0), 0.4) == []


@settings(max_examples=50, deadline=None)
@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.1, 10),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_a_similarity_is_found_again(angle, scale, shift):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wanted = np.column_stack([scale * turn, shift])
    moved = TEMPLATE @ wanted[:, :2].T + wanted[:, 2]
    assert similarity(TEMPLATE, moved) == pytest.approx(wanted, abs=1e-6)


def test_the_nearest_similarity_is_the_one_of_scikit_image():
    random = np.random.default_rng(0)
    for _ in range(20):
        points = random.normal(size=(5, 2)) * 30 + 200
        wanted = transform.SimilarityTransform.from_estimate(points, TEMPLATE)
        assert similarity(points, TEMPLATE) == pytest.approx(wanted.params[:2], abs=1e-8)
    # a mirrored face is not turned inside out
    mirrored = similarity(TEMPLATE * [-1, 1], TEMPLATE)
    assert np.linalg.det(mirrored[:, :2]) > 0
    with pytest.raises(InputError, match="one place"):
        similarity(np.ones((5, 2)), TEMPLATE)


def test_warping_is_scikit_images_bilinear():
    random = np.random.default_rng(0)
    colours = random.random((60, 80, 3))
    matrix = np.array([[1.4, -0.5, 12.0], [0.5, 1.4, -20.0]])
    full = np.vstack([matrix, [0, 0, 1]])
    wanted = np.stack(
        [
            transform.warp(
                np.pad(colours[..., channel], 1),
                transform.AffineTransform(np.linalg.inv(full))
                + transform.AffineTransform(translation=(1, 1)),
                output_shape=(112, 112),
                order=1,
            )
            for channel in range(3)
        ],
        axis=-1,
    )
    found = warp(colours, matrix, 112)
    assert (found == 0).mean() > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_points_on_the_template_leave_the_picture_as_it_is():
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    )
    np.testing.assert_allclose(align(image, TEMPLATE), np.asarray(image) / 255, atol=1e-6)
    half = align(image, TEMPLATE, size=56)
    assert half.shape == (56, 56, 3)


def test_embeddings_are_those_of_the_aligned_crop(metric):
    square = face(3, 32)
    (row,) = metric.embed([scene(640, (square, 64, 256))])
    # by hand: the cell, enlarged 3.5 times, pixel centres on whole numbers
    places = np.arange(112) / 3.5
    low = places.astype(int)
    part = places - low
    around = np.full((34, 34, 3), 128.0)
    around[:32, :32] = square
    columns = around[:, low] * (1 - part)[None, :, None] + around[:, low + 1] * part[None, :, None]
    crop = columns[low] * (1 - part)[:, None, None] + columns[low + 1] * part[:, None, None]
    values = (np.rint(crop) - 127.5) / 127.5
    means = np.moveaxis(values, -1, 0).reshape(3, 8, 14, 8, 14).mean(axis=(2, 4)).reshape(-1)
    matrix = np.random.default_rng(0).standard_normal((192, 16)).astype(np.float32)
    np.testing.assert_allclose(row, means @ matrix, atol=2e-3)


def test_the_same_face_elsewhere_and_another_face(metric):
    reference = scene(640, (face(1, 32), 96, 480))
    same, other = scene(320, (face(1, 16), 32, 48)), scene(320, (face(2, 16), 32, 48))
    assert metric.score(reference, None, reference, None) == pytest.approx(1, abs=1e-6)
    assert metric.score(same, None, reference, None) > 0.99
    assert metric.score(other, None, reference, None) < 0.9


def test_masks_choose_among_faces_and_the_largest_counts(metric):
    small = np.zeros((8, 8, 3), np.uint8)
    small[..., 2] = 255
    image = scene(640, (small, 64, 64), (face(1, 32), 320, 320))
    assert metric.face(image).box == pytest.approx([320, 320, 352, 352])
    assert metric.face(image, box(640, 48, 48, 40)).box == pytest.approx([64, 64, 72, 72])
    assert metric.face(image, box(640, 500, 500, 40)) is None
    # the mask chooses only: what lies around the face is still seen
    chosen = metric.embed([image], [box(640, 330, 330, 10)])
    assert np.array_equal(chosen, metric.embed([image]))


def test_no_face_is_nan_and_said(metric):
    image, empty = scene(640, (face(1, 32), 320, 320)), Image.new("RGB", (64, 64), GREY)
    with pytest.warns(UserWarning, match="no face in the reference;"):
        assert np.isnan(metric.score(image, None, empty, None))
    with pytest.warns(UserWarning, match="no face in the image's mask;"):
        assert np.isnan(metric.score(image, box(640, 0, 0, 9), image, None))
    rows = metric.embed([image, empty])
    assert rows.shape == (2, 16)
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows[1]).all()


def test_files_that_are_missing_or_wrong(folder, tmp_path, monkeypatch):
    with pytest.raises(MissingWeightsError, match=r"lacks scrfd_10g_bnkps\.onnx"):
        metrics.metric("auraface", tmp_path)
    shutil.copy(folder / "scrfd_10g_bnkps.onnx", tmp_path)
    with pytest.raises(MissingWeightsError, match=r"lacks glintr100\.onnx"):
        metrics.metric("auraface", tmp_path)
    (tmp_path / "glintr100.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"glintr100\.onnx cannot be used"):
        metrics.metric("auraface", tmp_path)
    shutil.copy(folder / "scrfd_10g_bnkps.onnx", tmp_path / "glintr100.onnx")
    with pytest.raises(InputError, match="no face recognition network"):
        metrics.metric("auraface", tmp_path)
    shutil.copy(folder / "glintr100.onnx", tmp_path / "scrfd_10g_bnkps.onnx")
    with pytest.raises(InputError, match="1 outputs; a face detector"):
        metrics.metric("auraface", tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeightsError, match=r"scrfd_10g_bnkps\.onnx of fal/AuraFace-v1"):
        metrics.metric("auraface")


def test_a_missing_runtime_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"'\.\[metrics\]'"):
        metrics.metric("auraface", folder)


def test_provenance_has_digests_of_both_files(metric, folder):
    import hashlib

    facts = metric.provenance()
    data = (folder / "glintr100.onnx").read_bytes()
    assert facts["recognition"] == hashlib.sha256(data).hexdigest()
    assert facts["detection"] != facts["recognition"]
    assert facts["threshold"] == 0.5
