"""Drawn subjects with alpha: the training pack, and the held-out ones that ship."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from recast_probe.errors import InputError
from recast_probe.files.atomic import atomic_path
from recast_probe.files.input_files import is_file
from recast_probe.images.pictures import open_picture
from recast_probe.pocket.pack import read_pack

THING_GROUPS = (
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "Travel & Places",
    "Activities",
)
HELD_OUT = 150
SIDE = 96
SHEET_COLUMNS = 15
ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class Subject:
    """One drawn thing.

    `rgba` is uint8 of shape (96, 96, 4). `key` is the hexadecimal code points, the identity that
    the held-out split is made on; `style` is "fluent" or "noto".
    """

    key: str
    name: str
    style: str
    rgba: np.ndarray

    def __repr__(self) -> str:
        return f"Subject({self.name!r}, {self.style})"


def held_out_keys(keys: list[str]) -> list[str]:
    """The 150 subjects that are never trained on: the smallest SHA-256 digests of their keys."""
    return sorted(keys, key=lambda key: hashlib.sha256(key.encode()).hexdigest())[:HELD_OUT]


def build_pack(
    fluent_tarball: Path, names_tarball: Path, out: Path, noto_font: Path | None = None
) -> dict[str, int]:
    """Make the training pack (`subjects.npz`) and the held-out sheet from the published packages.

    Args:
        fluent_tarball: `npm pack @lobehub/fluent-emoji-3d@1.1.0`.
        names_tarball: `npm pack unicode-emoji-json@0.9.0`.
        out: folder to write to.
        noto_font: `NotoColorEmoji.ttf`; gives the same training subjects in a second style.

    Archives are read in memory, member by member; nothing is unpacked to disk.
    """
    names = json.loads(_member(names_tarball, "package/data-by-emoji.json"))
    things = {
        "-".join(f"{ord(c):x}" for c in emoji): (emoji, entry["name"].lower())
        for emoji, entry in names.items()
        if entry["group"] in THING_GROUPS
    }
    drawn: dict[str, Subject] = {}
    with tarfile.open(fluent_tarball) as archive:
        members = {Path(m.name).stem: m for m in archive.getmembers() if m.name.endswith(".webp")}
        for key, (_, name) in things.items():
            member = members.get(key) or members.get(key.replace("-fe0f", ""))
            if member is not None:
                data = archive.extractfile(member).read()  # type: ignore[union-attr]
                image = open_picture(data, "A drawing").convert("RGBA")
                drawn[key] = Subject(key, name, "fluent", _tight(image))
    held_out = held_out_keys(list(drawn))
    training = [subject for key, subject in drawn.items() if key not in held_out]
    if noto_font is not None:
        training += _noto(noto_font, {s.key: things[s.key] for s in training})
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "subjects.npz") as temporary:
        np.savez_compressed(
            temporary,
            rgba=np.stack([s.rgba for s in training]),
            key=np.array([s.key for s in training]),
            name=np.array([s.name for s in training]),
            style=np.array([s.style for s in training]),
        )
    save_sheet([drawn[key] for key in held_out], out / "held_out")
    return {"training": len(training), "held_out": len(held_out)}


def load_pack(path: Path) -> list[Subject]:
    """Subjects of a training pack made by `build_pack`.

    Raises:
        InputError: none is there, or a damaged or another file.
    """
    if not is_file(path):
        raise InputError(
            f"No training pack at {str(path)[:300]}. Make one with `recast-probe pocket assets "
            f"--out {str(path.parent)[:300]}`."
        )
    pack = read_pack(path, SIDE)
    rows = zip(pack["key"], pack["name"], pack["style"], pack["rgba"], strict=True)
    return [Subject(str(key), str(name), str(style), rgba) for key, name, style, rgba in rows]


@lru_cache(maxsize=1)
def held_out() -> tuple[Subject, ...]:
    """The 150 held-out subjects that ship with the package."""
    names = json.loads((ASSETS / "held_out.json").read_text())
    sheet = np.asarray(Image.open(ASSETS / "held_out.webp").convert("RGBA"))
    subjects = []
    for index, entry in enumerate(names):
        row, column = divmod(index, SHEET_COLUMNS)
        cell = sheet[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        subjects.append(Subject(entry["key"], entry["name"], "fluent", cell))
    return tuple(subjects)


def save_sheet(subjects: list[Subject], stem: Path) -> None:
    """Write subjects as one lossless WebP contact sheet and a JSON list of their names."""
    rows = -(-len(subjects) // SHEET_COLUMNS)
    sheet = np.zeros((rows * SIDE, SHEET_COLUMNS * SIDE, 4), np.uint8)
    for index, subject in enumerate(subjects):
        row, column = divmod(index, SHEET_COLUMNS)
        sheet[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = subject.rgba
    Image.fromarray(sheet).save(stem.with_suffix(".webp"), lossless=True, exact=True)
    entries = [{"key": s.key, "name": s.name} for s in subjects]
    stem.with_suffix(".json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


def _tight(image: Image.Image) -> np.ndarray:
    """Crop to the drawn part, centre it on a square and scale to the pack's side."""
    box = image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox() or (0, 0, 1, 1)
    part = image.crop(box)
    side = max(part.size)
    square = Image.new("RGBA", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    rgba = np.array(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    rgba[rgba[..., 3] == 0] = 0
    return rgba


def _noto(font_file: Path, wanted: dict[str, tuple[str, str]]) -> list[Subject]:
    font = ImageFont.truetype(str(font_file), 109)
    subjects = []
    for key, (emoji, name) in wanted.items():
        image = Image.new("RGBA", (136, 128))
        ImageDraw.Draw(image).text((0, 0), emoji, font=font, embedded_color=True)
        if np.asarray(image)[..., 3].mean() > 20:
            subjects.append(Subject(key, name, "noto", _tight(image)))
    return subjects


def _member(tarball: Path, name: str) -> bytes:
    with tarfile.open(tarball) as archive:
        handle = archive.extractfile(name)
        if handle is None:
            raise InputError(f"{tarball} holds no file {name}.")
        return handle.read()
