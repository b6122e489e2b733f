"""The page: all in one file, nothing fetched, and text from a run stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps

import recast_probe as rp
from recast_probe.cli import main
from recast_probe.errors import InputError
from recast_probe.explorer.page import SCRIPT, STYLE
from recast_probe.testing.planted_profiles import planted

ROOT = Path(__file__).parents[2]
RUN = ["--out", "a.html", "--image", "a.png", "--prompt", "x"]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&<!--\u2028"


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def json_of(page: str) -> dict:
    (text,) = re.findall(r'id="recast-data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(text)


def test_text_from_a_run_stays_text():
    profile = planted(np.ones(16))
    explorer = rp.explore(
        profile, title=HOSTILE, outlines={HOSTILE: [1]}, words=[HOSTILE, "b", "c"]
    )
    page = explorer.html()
    tags = [tag for tag, _ in Elements(page).found]
    assert tags.count("script") == 2
    assert "img" not in tags
    run = json_of(page)["runs"][0]
    assert run["title"] == run["outlines"][0]["name"] == run["words"][0] == HOSTILE


def test_nothing_is_fetched_and_no_other_script_runs(result, maps, image):
    page = rp.explore(result, maps, image=image).html()
    for _, attributes in Elements(page).found:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    outside = re.findall(r"https?://[^\s\"']+", page)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}  # a name, which nobody asks for
    assert not re.search(r"fetch\(|XMLHttp|WebSocket|importScripts|\beval\(|innerHTML", page)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for kind, attributes in (("script", ' type="module"'), ("style", "")):
        (text,) = re.findall(rf"<{kind}{attributes}>(.*?)</{kind}>", page, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_script_and_the_style_cannot_end_their_element():
    for file in (SCRIPT, STYLE):
        assert "</" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["viridis", "cividis"])
def test_colours_are_those_of_matplotlib(name):
    (text,) = re.findall(rf'{name}:\s*"([^"]+)"', SCRIPT.read_text())
    found = np.frombuffer(base64.b64decode(text), np.uint8).reshape(256, 3)
    expected = np.round(255 * colormaps[name](np.arange(256))[:, :3])
    np.testing.assert_array_equal(found, expected)


def test_saving_refuses_other_names(tmp_path):
    explorer = rp.explore(planted(np.ones(16)))
    with pytest.raises(InputError, match="html"):
        explorer.save(tmp_path / "x.htm")
    with pytest.raises(InputError, match="does not exist"):
        explorer.save(tmp_path / "none" / "x.html")
    assert explorer.save(tmp_path / "x.html").read_text("utf-8") == explorer.html()


def run(words: list[str], capsys) -> str:
    """Output of a command that must succeed."""
    try:
        main(words)
    except SystemExit as stop:
        pytest.fail(f"{words}: exit code {stop.code}, {capsys.readouterr().err}")
    return capsys.readouterr().err


def test_the_command_makes_a_page_from_a_model_and_from_files(tmp_path, capsys, image):
    image.save(tmp_path / "a.png")
    out = str(tmp_path / "page.html")
    made = ["--image", str(tmp_path / "a.png"), "--out", out]
    run(
        ["explore", *made, "--prompt", "a fox", "--model", "tiny:flux-kontext", "--steps", "2",
         "--region", "1:2,0:3", "--blocks", "0,3", "--save", str(tmp_path / "run")],
        capsys,
    )  # fmt: skip
    page = json_of(Path(out).read_text("utf-8"))["runs"][0]
    assert page["maps"]["query"] == list(range(4, 12))
    assert page["block"] == [0, 3]
    assert page["prompt"] == "a fox"
    assert len(page["generated"]) == 1
    files = [str(tmp_path / "run" / name) for name in ("profile.nc", "maps.nc", "image.png")]
    run(
        ["explore", files[0], "--maps", files[1], "--generated", files[2], *made,
         "--compare", files[0], "--overwrite"],
        capsys,
    )  # fmt: skip
    again = json_of(Path(out).read_text("utf-8"))["runs"]
    assert len(again) == 2
    assert again[0]["maps"] == page["maps"]
    assert again[0]["generated"] == page["generated"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.png"], ".html"),
        (["--out", "a.html"], "--image and --prompt"),
        (["--out", "a.html", "--maps", "m.nc"], "--maps goes with a stored profile"),
        (["p.nc", "--out", "a.html", "--prompt", "x"], "--prompt"),
        ([*RUN, "--region", "3:1,0:0"], "3:1,0:0"),
        ([*RUN, "--region", "all"], "'all'"),
        (["p.nc", "--out", "a.html"], "p.nc"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["explore", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_the_commands_and_the_code_of_the_docs_run(tmp_path, monkeypatch, capsys):
    from recast_probe import pocket

    text = (ROOT / "docs" / "explorer.md").read_text()
    monkeypatch.chdir(tmp_path)
    pocket.samples()[2].image.save("fox.png")
    names: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block.replace("steps=28", "steps=2"), names)
    assert names["pruned"].reference_tokens_per_step == (3, 3)
    assert Path("explore.html").is_file()
    lines = re.findall(r"^recast-probe (.*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line)
        run([*words, "--steps", "2"] if "--prompt" in words else words, capsys)
    assert Path("out/fox.html").is_file()
