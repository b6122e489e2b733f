"""The benchmark of a store of profiles: both ways hold the same, few are recorded."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest

import recast_probe as rp
from benchmarks import profile_store as benchmark


def test_store_and_files_hold_the_same(tmp_path, capsys):
    options = Namespace(model="tiny:flux-kontext", dtype="auto", device="cpu", cpu_offload=False)
    options.steps, options.recorded, options.seed = 2, 1, 0
    benchmark.record(tmp_path, options)
    for part in (range(0, 5, 2), range(1, 5, 2)):
        benchmark.write_store(tmp_path, part, 5, 0)
        benchmark.write_files(tmp_path, part, 5, 0)
    store = rp.ProfileStore(tmp_path / "store")
    for name, path in zip(store.names, benchmark.files(tmp_path), strict=True):
        assert store.load(name).identical(rp.AttentionProfile.load(path))
    one, other = (store.load(name).dataset for name in store.names[:2])
    source = rp.AttentionProfile.load(tmp_path / "recorded-0.nc").dataset
    assert not np.allclose(one.score, other.score, rtol=0.1)
    np.testing.assert_allclose(one.score.sum("token"), source.score.sum("token"), rtol=1e-5)
    found = {}
    for name in (benchmark.FILES, benchmark.STORE, benchmark.PART):
        found[name] = benchmark.surveyed(Namespace(survey=name, folder=tmp_path))
        assert found[name]["values"]["profiles"] == 5
    assert found[benchmark.FILES]["values"] == found[benchmark.STORE]["values"]
    assert found[benchmark.PART]["values"]["spearman"] != pytest.approx(
        found[benchmark.STORE]["values"]["spearman"], abs=1e-9
    )
    assert capsys.readouterr().out.count("peak_memory_bytes") == 3
