"""Where the runs of a script are made changes nothing but that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analyses import concentration
from recast_probe.probe import Probe
from recast_probe.recipes import recipe_of
from recast_probe.recipes.arguments import parse

SMALL = ["--quick", "--subjects", "2", "--prompts", "1", "--steps", "2"]
TABLE_1, _ = recipe_of("table_1")
EXAMPLES = Path(__file__).parents[2] / "docs" / "how-to" / "examples"


def test_shards_of_a_script_make_its_table(tmp_path, capsys, monkeypatch):
    whole = concentration.main([*SMALL, "--out", str(tmp_path / "whole")])
    place = ["--out", str(tmp_path / "shared")]
    for shard in ("2/2", "1/2"):
        with pytest.raises(SystemExit) as stop:
            concentration.main([*SMALL, *place, "--shard", shard])
        assert stop.value.code == 0
        assert not list((tmp_path / "shared").glob("*.*")), "a part has no results"
    assert "Shard 1 of 2 is done" in capsys.readouterr().err
    profiled = []
    monkeypatch.setattr(Probe, "profile", lambda *_, **__: profiled.append(1))
    assert concentration.main([*SMALL, *place]) == whole
    assert profiled == []
    one, other = (pd.read_parquet(tmp_path / name / "runs.parquet") for name in ("whole", "shared"))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_the_command_that_makes_the_same_does_not_say_where(tmp_path):
    given = ["--engine", "ray", "--workers", "4", "--address", "auto", "--gpus-per-worker", "1"]
    commands = {parse("table_1", TABLE_1, each).command for each in ([], given, ["--shard", "1/2"])}
    assert len(commands) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a script of bash")
def test_the_array_of_slurm_runs_its_shard(tmp_path):
    """With a `recast-probe` that only says how it was called."""
    fake = tmp_path / "recast-probe"
    fake.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]), flush=True)\n"
    )
    fake.chmod(0o755)
    run = subprocess.run(
        ["bash", str(EXAMPLES / "slurm-array.sh"), "--out", "out/a b", "--steps", "2"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    command, name, *arguments = json.loads(run.stdout)
    assert (command, name) == ("study", "table_1")
    chosen = parse("table_1", TABLE_1, arguments)
    assert (chosen.shard, chosen.out, chosen.steps) == ((3, 8), Path("out/a b"), 2)


def test_the_cluster_file_is_one_of_ray():
    yaml = pytest.importorskip("yaml")
    util = pytest.importorskip("ray.autoscaler._private.util")
    config = util.prepare_config(yaml.safe_load((EXAMPLES / "ray-cluster.yaml").read_text()))
    util.validate_config(config)
    assert config["max_workers"] == 2
