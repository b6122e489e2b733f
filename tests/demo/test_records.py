"""A record vouches only for the files that it was written with, and for itself."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from recast_probe import pocket
from recast_probe.demo import arms
from recast_probe.studies import store
from recast_probe.studies.comparison import Comparison


@pytest.fixture
def demo(probe, tmp_path, monkeypatch):
    """Makes the full run of one case; counts the runs that were needed."""
    run, calls = Comparison.run, []
    monkeypatch.setattr(arms, "ARMS", ("full",))
    monkeypatch.setattr(Comparison, "run", lambda *a: calls.append(a) or run(*a))

    def make(seed=0, steps=2):
        chosen = arms.cases(pocket.samples()[:1], 1, seed=seed)
        ((run,),) = arms.perform(probe, chosen, steps, tmp_path).values()
        return np.asarray(run.image), run.values["reference_tokens_per_step"]

    return make, calls, tmp_path


def test_a_failed_run_leaves_no_record_of_an_older_one(demo, monkeypatch):
    make, calls, _ = demo
    wanted = make()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_json", full)
        with pytest.raises(OSError, match="No space"):
            make(seed=7)
    np.testing.assert_array_equal(make()[0], wanted[0])
    assert len(calls) == 2


@pytest.mark.parametrize("suffix", [".json", ".png"])
def test_a_changed_run_is_made_again(demo, suffix):
    make, calls, folder = demo
    image, tokens = make()
    other, _ = make(seed=7)
    assert (other != image).any()
    files = {path.read_bytes(): path for path in folder.glob(f"[0-9]*{suffix}")}
    (one, first), (two, second) = files.items()
    # a bit in the middle; then the other run's file under this one's name
    for number, data in enumerate((one[:99] + bytes([one[99] ^ 1]) + one[100:], two), 3):
        first.write_bytes(data)
        np.testing.assert_array_equal(make()[0], image)
        np.testing.assert_array_equal(make(seed=7)[0], other)
        assert make()[1] == tokens
        assert len(calls) == number
        # the record was written anew, with its own time
        assert first.read_bytes() != data
    assert second.read_bytes() == two


def test_runs_of_other_steps_lie_beside_each_other(demo):
    make, calls, _ = demo
    assert [len(make(steps=steps)[1]) for steps in (2, 3, 2, 3)] == [2, 3, 2, 3]
    assert len(calls) == 2
