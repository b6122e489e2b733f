"""Benchmarks: tables, paths, archives and the trees of DreamBooth and DreamBench++."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image

from recast_probe.datasets import dreambench, dreambooth, file_label, folder, kontextbench
from tests.datasets.trees import dreambench_tree, dreambooth_tree, kontextbench_tree
from tests.fuzz.damage import ODD, damaged, edited
from tests.fuzz.harness import FuzzClass

ROWS = [
    {"image": "a.png", "prompt": "in snow", "seed": 1, "category": "x", "subject": "fox"},
    {"image": "b.png", "prompt": "on a beach", "seed": 2, "category": "y", "mask": "m.png"},
]
NAMES = (
    *(
        "../a.png",
        "/etc/passwd",
        "a.png/../a.png",
        "C:\\a.png",
        "\\\\x\\a.png",
        "out.png",
        "loop.png",
    ),
    *("fifo.png", "a" * 300, "a\0b", "", " ", ".", "nowhere.png", "\ud800.png", "sub", "bad.png"),
    *("https://example.org/a.png", "a.png\n", "~/a.png", "huge.png"),
)


def _tables(place: Path, _: Path) -> Path:
    outside = place.parent / "outside.png"
    for path in (outside, place / "a.png", place / "b.png"):
        Image.effect_noise((12, 12), 60).convert("RGB").save(path)
    mask = Image.new("L", (12, 12))
    mask.paste(255, (2, 2, 8, 8))
    mask.save(place / "m.png")
    (place / "bad.png").write_bytes(b"no picture")
    (place / "out.png").symlink_to(outside)
    (place / "loop.png").symlink_to(place / "loop.png")
    (place / "sub").mkdir()
    os.mkfifo(place / "fifo.png")
    return place


def _facts(cases: Any) -> list[Any]:
    file_label(cases)
    return [
        (case.reference_file.name, case.prompt, case.seed, case.category, case.subject)
        for case in cases
        if case.reference.size and (case.reference_mask is None or case.reference_mask.any())
    ]


WHOLE = [(row["image"], row["prompt"], row["seed"], row["category"]) for row in ROWS]


def table(rng: random.Random, place: Path) -> str:
    """A user's own table with odd values, names or bytes."""
    rows = json.loads(json.dumps(ROWS))
    form = rng.choice(("jsonl", "csv"))
    for other in place.glob("table.*"):
        other.unlink()
    way = rng.randrange(5)
    row = rng.choice(rows)
    if way == 0:
        row[rng.choice(("image", "mask", "target"))] = rng.choice(NAMES)
    elif way == 1:
        row[rng.choice(list(row))] = rng.choice(ODD)
    elif way == 2:
        rows = edited(rows, rng)
    text = _text(rows, form)
    if way == 3:
        old = rng.choice(('"prompt"', "prompt", "a.png", '"seed": 1', "in snow"))
        text = text.replace(
            old, rng.choice((f"{old}, {old}", '"image"', "\x00", "\u2028", "[" * 5000))
        )
    data = text.encode("utf-8", "surrogatepass")
    if way == 4:
        data = damaged(data, rng)
    path = place / f"table.{form}"
    path.write_bytes(data)
    found = _facts(folder(path))
    outside = [name for name, *_ in found if name in ("out.png", "passwd")]
    if outside:
        return f"SILENT: {outside[0]} is outside of the folder"
    return "right" if [each[:4] for each in found] == WHOLE else "accepted"


def _text(rows: Any, form: str) -> str:
    if form == "jsonl" or not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        lines = rows if isinstance(rows, list) else [rows]
        return "\n".join(json.dumps(row) for row in lines)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[str(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join(",".join(line) for line in [columns, *cells])


TWICE = (
    ("table.jsonl", '{"image": "a.png", "prompt": "x", "%s": "b.png"}', ("image", "prompt")),
    ("table.csv", "image,prompt,%s\na.png,x,b.png\n", ("image", "prompt")),
    (
        "table.jsonl",
        '{"image": "a.png", "prompt": "x", "seed": "%s"}',
        ("1_000", "+5", "\u0663", " 1e3", "0x10", "-1", "1.0", str(2**63), "9" * 5000),
    ),
)


def twice(rng: random.Random, place: Path) -> str:
    """Names that stand twice, and seeds that are no plain numbers: always refused."""
    for other in place.glob("table.*"):
        other.unlink()
    name, text, values = rng.choice(TWICE)
    (place / name).write_text(text % rng.choice(values))
    folder(place / name)
    return "SILENT: one of two values was taken"


def _trees(place: Path, _: Path) -> dict[str, Any]:
    makers = {"kontext": kontextbench_tree, "dreambench": dreambench_tree, "booth": dreambooth_tree}
    for name, make in makers.items():
        make(place / f"whole-{name}")
    return {
        "place": place,
        "loaders": {"kontext": kontextbench, "dreambench": dreambench, "booth": dreambooth},
    }


def tree(rng: random.Random, state: dict[str, Any]) -> str:
    """A published benchmark's tree with one file changed."""
    name = rng.choice(list(state["loaders"]))
    load, place = state["loaders"][name], state["place"] / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(state["place"] / f"whole-{name}", place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    texts = [path for path in files if path.suffix in (".txt", ".jsonl")]
    path = rng.choice(texts if rng.random() < 0.7 else files)
    data = path.read_bytes()
    way = rng.randrange(6)
    if way == 0:
        path.unlink()
        rng.choice((os.mkfifo, os.mkdir, lambda at: os.symlink("/etc/passwd", at)))(path)
    elif way == 1:
        path.unlink()
    elif way == 2 and path.suffix == ".txt":
        path.write_text(data.decode() + rng.choice(("'{1}" * 20_000, "x," * 50_000, "'" * 90_000)))
    else:
        path.write_bytes(damaged(data, rng))
    cases = load(place)
    for case in cases[:3]:
        assert case.reference.mode == "RGB"
    return "accepted"


def _archives(place: Path, _: Path) -> dict[str, Any]:
    whole = dreambench_tree(place / "tree")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(whole.rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(whole))
    cases = dreambench(whole)
    return {
        "place": place,
        "data": out.getvalue(),
        "facts": [(case.prompt, case.subject, case.reference.tobytes()) for case in cases],
    }


def archive(rng: random.Random, state: dict[str, Any]) -> str:
    """An archive: damaged, encrypted, with odd names or with more in it than it says."""
    path = state["place"] / "data.zip"
    before = sorted(state["place"].parent.iterdir())
    path.write_bytes(
        damaged(state["data"], rng) if rng.random() < 0.6 else _odd_archive(rng, state)
    )
    try:
        cases = dreambench(path)
    finally:
        shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"]), ignore_errors=True)
        assert sorted(state["place"].parent.iterdir()) in (
            before,
            [each for each in before if each.name != "cache"],
        ), "a file escaped"
    return "accepted" if len(cases) != len(state["facts"]) else "right"


def _odd_archive(rng: random.Random, state: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    method = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    names = (
        *(
            "../../x.jpg",
            "/tmp/x.jpg",
            "C:\\x.jpg",
            "a\\..\\..\\x.jpg",
            "images/" + "y" * 300 + ".jpg",
        ),
        *(
            "images",
            "images/live_subject",
            "images/live_subject/animal/00.jpg",
            "images/\u2028.jpg",
        ),
    )
    with (
        zipfile.ZipFile(io.BytesIO(state["data"])) as whole,
        zipfile.ZipFile(out, "w", method) as new,
    ):
        for each in whole.namelist():
            new.writestr(each, whole.read(each))
        way = rng.randrange(4)
        if way == 0:
            new.writestr(rng.choice(names), b"x")
        elif way == 1:
            info = zipfile.ZipInfo("images/link.jpg")
            info.external_attr = 0o120777 << 16
            new.writestr(info, "/etc/passwd")
        elif way == 2:
            new.writestr(
                "images/big.jpg", bytes(rng.choice((10**6, 250 * 2**20))), zipfile.ZIP_DEFLATED
            )
    data = bytearray(out.getvalue())
    if way == 3:
        # says that a member is encrypted, or packed in an unknown way
        place = data.rindex(b"PK\x01\x02")
        data[place + rng.choice((8, 10))] |= rng.choice((1, 0x40))
    return bytes(data)


CLASSES = (
    FuzzClass("benchmarks, tables", table, _tables, 900),
    FuzzClass("benchmarks, ambiguous", twice, _tables, 100),
    FuzzClass("benchmarks, trees", tree, _trees, 400),
    FuzzClass("benchmarks, archives", archive, _archives, 300),
)
