"""Files of activations: earlier ones open, and a description that fits no run is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from recast_probe.errors import DamagedFileError
from recast_probe.files.envelope import sealed, without_seal
from recast_probe.profiles.activations import Activations


@pytest.fixture(scope="module")
def recorded(probe, image):
    return probe.record(image, "a fox", steps=2, blocks=[0, 1], record_steps=[1], progress=False)


@pytest.fixture
def rewrite(recorded, tmp_path):
    """Writes the file anew with another description; gives its path."""
    path = recorded.save(tmp_path / "a.safetensors")
    with safe_open(path, framework="pt") as opened:
        described = json.loads(opened.metadata()["recast_probe"])
        tensors = {name: opened.get_tensor(name) for name in list(opened.keys())}

    def write(change, version=2):
        facts = without_seal(described)
        if version == 1:
            facts |= {"format": described["format"], "version": 1, "sha256": facts.pop("values")}
        change(facts)
        if version != 1:
            facts = sealed(facts, "Activations", version)
        save_file(tensors, path, {"recast_probe": json.dumps(facts)})
        return path

    return write


def test_files_of_the_first_format_open(rewrite, recorded):
    with pytest.warns(UserWarning, match="earlier recast_probe"):
        back = Activations.load(rewrite(lambda facts: None, version=1))
    assert back.sha256 == recorded.sha256
    assert back.provenance == recorded.provenance
    np.testing.assert_array_equal(back.positions, recorded.positions)
    path = rewrite(lambda facts: facts.update(sha256="0" * 64), version=1)
    with (
        pytest.warns(UserWarning, match="earlier"),
        pytest.raises(DamagedFileError, match="checksum"),
    ):
        Activations.load(path)


def set_to(name, value):
    return lambda facts: facts.update({name: value})


def last_position(value):
    return lambda facts: facts["positions"].__setitem__(-1, value)


@pytest.mark.parametrize(
    "change",
    [
        last_position(10**6),
        last_position(10**30),
        last_position(-1),
        last_position("7"),
        set_to("positions", []),
        set_to("positions", [[1]]),
        set_to("positions", {"a": 1}),
        set_to("block_kinds", []),
        set_to("timesteps", [1000.0]),
        set_to("timesteps", "now"),
        set_to("layout", [4]),
        set_to("layout", {"text": -1, "generation": [1, 1], "references": []}),
        set_to("values", "0" * 64),
        lambda facts: facts.pop("tokens"),
        lambda facts: facts.pop("values"),
    ],
)
def test_forged_descriptions_are_refused(rewrite, change):
    with pytest.raises(DamagedFileError):
        Activations.load(rewrite(change))


@pytest.mark.parametrize(
    "text", ["{", "[]", "[" * 10_000, '{"version": 1e999}', "null", '{"a":1,"a":1}']
)
def test_foreign_descriptions_are_refused(tmp_path, recorded, text):
    path = tmp_path / "a.safetensors"
    save_file(
        {"keys/conditional/1/0": next(iter(recorded.values.values()))}, path, {"recast_probe": text}
    )
    with pytest.raises(DamagedFileError):
        Activations.load(path)


def test_newer_files_say_so(rewrite):
    with pytest.raises(DamagedFileError, match="upgrade"):
        Activations.load(rewrite(lambda facts: None, version=3))


def test_what_is_no_file_of_activations(tmp_path):
    for path in (tmp_path, "a" * 300, tmp_path / "none"):
        with pytest.raises(DamagedFileError):
            Activations.load(path)
