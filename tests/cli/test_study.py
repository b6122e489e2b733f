"""`recast-probe study`: arms, pictures and metrics of one's own, and what is refused."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pandas as pd
import pytest

from analyses import compare
from recast_probe import recipes
from recast_probe.cli import main
from recast_probe.commands import study
from recast_probe.metrics import registry
from recast_probe.testing import tiny
from tests.cli.test_bad_input import refused

ARMS = ("--arm", "prune:rank=cosine,budget=25%", "--arm", "random:budget=4")
NAMES = ["full", "none", "cosine:budget=25%", "random:budget=4"]
PLUGIN = """
import recast_probe as rp

@rp.metrics.register_metric
class Width(rp.metrics.ImageMetric):
    name = "width"
    def score(self, image, mask, reference, reference_mask):
        return float(image.width)
    def provenance(self):
        return {"metric": self.name}
"""


def options(folder: Path, *more: str) -> list[str]:
    return [
        *("compare", "--model", "tiny:flux-kontext", "--images", str(folder / "table.csv")),
        *("--masks", "none", "--steps", "2", "--out", str(folder / "out"), *more),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of two own pictures with own arms and an own metric; its folder."""
    folder = tmp_path_factory.mktemp("study")
    for number in range(2):
        tiny.tiny_image(seed=number).save(folder / f"{number}.png")
    (folder / "table.csv").write_text("image,prompt\n0.png,in snow\n1.png,on sand\n")
    (folder / "width.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "ENTRIES", dict(registry.ENTRIES))
        plugin = ("--plugin", str(folder / "width.py"), "--metrics", "width,colour-whole")
        arguments = options(folder, *ARMS, "--baseline", "random:budget=4", *plugin)
        main(["study", *arguments])
        yield folder, arguments


def test_own_arms_pictures_and_metric(made):
    folder, _ = made
    runs = pd.read_parquet(folder / "out" / "runs.parquet")
    assert list(dict.fromkeys(runs["arm"])) == NAMES
    assert sorted(set(runs["subject"])) == ["0.png", "1.png"]
    assert runs["width"].nunique() == 1
    assert (runs["colour-whole"] == runs["colour"]).all()
    steps = runs.groupby("arm")["token_steps"].first()
    assert steps["cosine:budget=25%"] == steps["full"] / 2 * 1.25
    assert steps["random:budget=4"] == steps["full"] / 2 + 4
    page = (folder / "out" / "page.md").read_text()
    assert "Written by `recast-probe study compare --model tiny:flux-kontext" in page
    assert "--arm prune:rank=cosine,budget=25% random:budget=4 --benchmark folder" in page
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert summary["arms"]["cosine:budget=25%"] == {"arm": "cosine:budget=25%"}
    assert summary["benchmark"] == "folder"


def test_a_script_does_the_same_and_json_is_one_object(made, capsys, monkeypatch):
    folder, arguments = made
    before = json.loads((folder / "out" / "summary.json").read_text())
    nothing = lambda *_, **__: pytest.fail("ran again")  # noqa: E731
    monkeypatch.setattr("recast_probe.probe.Probe.generate", nothing)
    found = compare.main(arguments[1:])
    after = json.loads((folder / "out" / "summary.json").read_text())
    assert after["table"] == before["table"] == found["table"]
    assert "`python -m analyses.compare" in (folder / "out" / "page.md").read_text()
    capsys.readouterr()
    main(["--json", "study", *arguments])
    printed = json.loads(capsys.readouterr().out)
    assert printed["study"] == "compare"
    assert printed["table"] == found["table"]


def test_studies_are_listed_as_their_modules_say(command):
    listed = command("study").out
    assert command("study", "--list").out == listed
    assert json.loads(command("--json", "study").out) == recipes.STUDIES
    folder = Path(recipes.__file__).parent
    with_recipe = [path.stem for path in folder.glob("*.py") if "\nRECIPE = " in path.read_text()]
    assert sorted(with_recipe) == sorted(recipes.STUDIES)
    scripts = Path(compare.__file__).parent
    for name, words in recipes.STUDIES.items():
        assert name in listed
        said = ast.get_docstring(ast.parse((folder / f"{name}.py").read_text())) or ""
        assert " ".join(said.split("\n\n")[0].split()) == words
        assert f'script("{name}")' in (scripts / f"{name}.py").read_text()


@pytest.fixture
def no_model(monkeypatch):
    """Nothing may load a model."""
    monkeypatch.setattr(
        "recast_probe.commands.common.open_probe", lambda *_: pytest.fail("loaded a model")
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tabel_1"], "Did you mean 'table_1'"),
        (["compare"], "give --arm"),
        (["compare", "--arm", "prun:rank=cosine"], "Did you mean 'prune'"),
        (["compare", "--arm", "recast:bugdet=4"], "no option 'bugdet'"),
        (["compare", "--arm", "random:budget=0.25", "random:budget=25%"], "is there twice"),
        (["compare", "--arm", "none"], "'none' itself"),
        (["compare", "--arm", "recast", "--baseline", "random"], "--baseline random"),
        (["table_1", "--metrics", "dino"], "Did you mean 'dinov2'"),
        (["table_1", "--categories", "style reference"], "other categories"),
        (["table_1", "--plugin", "nowhere.py"], "nowhere.py"),
        (["table_1", "--plugin", "own.py", "--engine", "ray"], "--shard"),
        (["table_1", "--model", "nowhere"], "nowhere"),
        (["table_1", "--images", "EMPTY"], "There is none"),
        (["table_1", "--images", "ROWS"], "has no cases"),
        (["table_1", "--images", "PROMPT"], "no text in prompt"),
        (["compare", "--images", "ONE", "--arm", "mask-oracle:budget=4"], "have none"),
        (["acceleration", "--steps", "8", "--images", "ONE"], "needs the true answer"),
        (["heads", "--images", "ONE"], "needs the subject's mask in the reference"),
    ],
)
def test_refusals_come_before_a_model_is_loaded(words, said, command, no_model, tmp_path):
    tiny.tiny_image().save(tmp_path / "fox.png")
    tables = {
        "ROWS": "image,prompt\n",
        "PROMPT": "image\nfox.png\n",
        "ONE": "image,prompt\nfox.png,in snow\n",
    }
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
    (tmp_path / "EMPTY").mkdir()
    places = {
        **{name: str(tmp_path / f"{name}.csv") for name in tables},
        "EMPTY": str(tmp_path / "EMPTY"),
    }
    given = [places.get(each, each) for each in words]
    masks = ["--masks", "none"] if "--images" in words else []
    refused(
        command("study", *given, *masks, *(["--out", tmp_path / "out"] if words[1:] else [])), said
    )
    assert not (tmp_path / "out").exists()


def test_options_are_a_study_s_own(capsys, no_model):
    for words in (["stability", "--arm", "recast"], ["causal_map", "--images", "x.csv"]):
        with pytest.raises(SystemExit):
            study.run_study(words[0], words[1:])
        assert "unrecognized arguments" in capsys.readouterr().err


def test_a_plugin_that_fails_is_named(command, no_model, tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    refused(command("study", "table_2", "--plugin", tmp_path / "broken.py"), "ZeroDivisionError")
