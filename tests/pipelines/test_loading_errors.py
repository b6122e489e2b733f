"""A pipeline that cannot be loaded: the reason is the one that there is."""

from __future__ import annotations

import pytest

from recast_probe.errors import InputError, MissingPackageError
from recast_probe.pipelines import family_of_class, loading


@pytest.fixture
def unavailable(monkeypatch):
    monkeypatch.setattr(loading, "is_installed", lambda name: False)
    family = family_of_class("QwenImageEditPipeline")
    return lambda error, name="a/b": loading._unavailable(name, error, family)


def test_an_error_of_another_kind_is_told_as_what_it_is(unavailable, tmp_path):
    error = ValueError("Cannot use apply_chat_template because there is no chat template.")
    assert not isinstance(unavailable(error), MissingPackageError)
    of_folder = unavailable(error, str(tmp_path))
    assert isinstance(of_folder, InputError)
    for words in ("torchvision", "huggingface"):
        assert words not in str(of_folder)
    assert "ValueError: Cannot use apply_chat_template" in str(of_folder)


@pytest.mark.parametrize(
    "error",
    [
        ImportError("AutoVideoProcessor requires the Torchvision library"),
        AttributeError("module transformers has no attribute Qwen2VLProcessor"),
        RuntimeError("operator torchvision::nms does not exist"),
    ],
)
def test_a_package_that_is_missing_is_named(unavailable, error):
    assert isinstance(unavailable(error), MissingPackageError)
    outer = ValueError("the processor")
    outer.__cause__ = error
    assert isinstance(unavailable(outer), MissingPackageError)
