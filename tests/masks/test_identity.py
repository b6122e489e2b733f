"""Finders of one name are told apart by what they do."""

from __future__ import annotations

import json
import pickle
import threading
from functools import partial

import numpy as np
import pytest
from PIL import Image

from recast_probe.content.digest import NoContent
from recast_probe.masks import (
    GrabCut,
    OncePerImage,
    U2NetP,
    find_mask,
    finder_identity,
    finder_name,
    mask_finder,
)


def half(image, side):
    found = np.zeros((image.height, image.width), bool)
    found[:, : image.width // 2] = side == "left"
    found[:, image.width // 2 :] = side == "right"
    return found


def closure(side):
    return lambda image: half(image, side)


class Half:
    name = "half"

    def __init__(self, side):
        self.side = side

    def __call__(self, image):
        return half(image, self.side)


def locked(side):
    lock = threading.Lock()

    def find(image):
        with lock:
            return half(image, side)

    return find


KINDS = {
    "closure": closure,
    "object": Half,
    "method": lambda side: Half(side).__call__,
    "partial": lambda side: partial(half, side=side),
    "once": lambda side: OncePerImage(closure(side)),
    "around once": lambda side: Half(OncePerImage(closure(side))),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_finders_of_one_name_are_told_apart(kind):
    one, again, other = kind("left"), kind("left"), kind("right")
    assert finder_name(one) == finder_name(other)
    assert finder_identity(one) == finder_identity(again) != finder_identity(other)
    assert " at 0x" not in json.dumps(finder_identity(one))


def test_settings_of_this_packages_own_are_told():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cv2")
    assert finder_identity(mask_finder("u2netp+grabcut")) == {
        "name": "u2netp+grabcut",
        "finder": {"name": "u2netp", "certain": 0.5},
        "inside": 0.9,
        "outside": 0.05,
        "rounds": 3,
        "agreement": 0.5,
        "longest": 480,
    }
    found = [
        U2NetP(),
        U2NetP(1.0),
        GrabCut(U2NetP()),
        GrabCut(U2NetP(1.0)),
        GrabCut(U2NetP(), rounds=1),
        GrabCut(closure("left")),
        GrabCut(closure("right")),
        type("Own", (GrabCut,), {})(U2NetP()),
    ]
    assert len({json.dumps(finder_identity(each)) for each in found}) == len(found)
    assert finder_identity(GrabCut(OncePerImage(U2NetP()))) == finder_identity(GrabCut(U2NetP()))


def test_a_finder_without_content_is_refused_where_it_has_to_be_told():
    around = OncePerImage(locked("left"))
    with pytest.raises(NoContent, match="The mask finder cannot be told from another one"):
        finder_identity(around)
    found = finder_identity(around, strict=False)
    assert found["does"]["sha256"] is None
    assert found["name"] == "locked.<locals>.find"


def test_what_is_remembered_is_handed_out_as_a_copy():
    own = np.ones((2, 3), bool)
    remembering = OncePerImage(lambda image: own)
    image = Image.new("RGB", (3, 2))
    find_mask(image, remembering)[:] = False
    own[:] = False
    assert find_mask(image, remembering).all()


def test_what_was_found_makes_no_other_finder():
    one, other = (OncePerImage(Half("left")) for _ in range(2))
    find_mask(Image.new("RGB", (3, 2)), one)
    assert finder_identity(Half(one)) == finder_identity(Half(other))
    assert pickle.loads(pickle.dumps(one))._found == {}
