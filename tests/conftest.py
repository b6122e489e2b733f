"""Shared fixtures: tiny pipelines, saved to folders and loaded by diffusers itself."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline, FluxPipeline
from diffusers.models.attention_dispatch import attention_backend
from PIL import Image

from recast_probe.files import locks
from recast_probe.pipelines.loading import load_pipeline
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_flux2, tiny_ip_adapter, tiny_qwen
from tests.slow import is_slow


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `tests.slow` lists."""
    for item in items:
        if is_slow(item.path):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def attention_backend_of_diffusers() -> Iterator[None]:
    """What a test sets for one model, diffusers makes the default of all; not beyond the test."""
    with attention_backend("native"):
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """One thread is fastest for tiny models, and makes results repeatable."""
    torch.set_num_threads(1)


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no locks."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers repository of the tiny pipeline."""
    return tiny.save_tiny_pipeline(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def pipeline(tiny_folder: Path) -> FluxKontextPipeline:
    """The tiny pipeline as diffusers loads it; tests must leave it as it is."""
    loaded = FluxKontextPipeline.from_pretrained(tiny_folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="session")
def probe(pipeline: FluxKontextPipeline) -> Probe:
    """A probe of the tiny pipeline."""
    return Probe(pipeline)


@pytest.fixture(scope="session")
def image() -> Image.Image:
    """A random square reference."""
    return tiny.tiny_image()


@pytest.fixture
def plain(pipeline: FluxKontextPipeline, probe: Probe):
    """Makes an image with the pipeline alone, as uint8 array."""

    def make(*arguments, **settings) -> np.ndarray:
        output = pipeline(**probe.pipeline_arguments(*arguments, **settings))
        return np.asarray(output.images[0])

    return make


@pytest.fixture(scope="session")
def adapter_folders(tmp_path_factory: pytest.TempPathFactory) -> tiny_ip_adapter.Folders:
    """Base, adapter and image encoder."""
    return tiny_ip_adapter.save_all(tmp_path_factory.mktemp("ip_adapter"))


@pytest.fixture(scope="session")
def adapter_pipeline(adapter_folders: tiny_ip_adapter.Folders) -> FluxPipeline:
    """The pipeline with its adapter; tests must leave it as it is."""
    return tiny_ip_adapter.load(adapter_folders)


@pytest.fixture(scope="session")
def adapter_probe(adapter_pipeline: FluxPipeline) -> Probe:
    """A probe of it."""
    return Probe(adapter_pipeline)


@pytest.fixture(scope="session")
def flux2_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Diffusers repositories of the tiny FLUX.2 pipelines, by name."""
    return tiny_flux2.save_all(tmp_path_factory.mktemp("flux2"))


@pytest.fixture(scope="session")
def flux2_probes(flux2_folders: dict[str, Path]) -> dict[str, Probe]:
    """Probes of them, loaded by the package; tests must leave the pipelines as they are."""
    probes = {name: Probe.from_pretrained(folder) for name, folder in flux2_folders.items()}
    for probe in probes.values():
        probe.pipe.set_progress_bar_config(disable=True)
    return probes


@pytest.fixture(params=["flux2", "klein"])
def flux2_probe(request: pytest.FixtureRequest, flux2_probes: dict[str, Probe]) -> Probe:
    """FLUX.2, and klein with guidance by a second call."""
    return flux2_probes[request.param]


@pytest.fixture(scope="session")
def qwen_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Diffusers repositories of the tiny Qwen pipelines: "edit" and "plus"."""
    folder = tmp_path_factory.mktemp("qwen")
    return {
        name: tiny_qwen.save_tiny_pipeline(folder / name, plus=name == "plus", zero_cond_t=zero)
        for name, zero in (("edit", False), ("plus", True))
    }


@pytest.fixture(scope="session")
def qwen_probes(qwen_folders: dict[str, Path]) -> dict[str, Probe]:
    """Probes of them, as our own code loads them; tests must leave them as they are."""
    probes = {name: Probe(load_pipeline(folder)) for name, folder in qwen_folders.items()}
    for each in probes.values():
        each.pipe.set_progress_bar_config(disable=True)
        tiny_qwen.remember_encoded(each.pipe.vae)
    return probes
