"""A record vouches only for the files that it was written with."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from recast_probe import pocket
from recast_probe.demo import arms


def test_a_failed_run_leaves_no_record_of_an_older_one(probe, tmp_path, monkeypatch):
    (older,) = arms.cases(pocket.samples()[:1], 1, seed=0)
    (newer,) = arms.cases(pocket.samples()[:1], 1, seed=7)
    wanted = np.asarray(arms.perform(probe, older, "none", 2, tmp_path).image)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(arms, "write_json", full)
        with pytest.raises(OSError, match="No space"):
            arms.perform(probe, newer, "none", 2, tmp_path)
    found = np.asarray(arms.perform(probe, older, "none", 2, tmp_path).image)
    np.testing.assert_array_equal(found, wanted)
