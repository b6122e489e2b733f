"""A fork while another thread runs: the child neither hangs nor runs a half-changed pipeline."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from recast_probe.errors import InputError
from recast_probe.pipelines.one_run import between_runs

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def in_a_child(work) -> int:
    """Exit code of a forked child: 0 if the work says so, 1 if not, 2 after an InputError."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 3
    try:
        signal.alarm(30)  # a child that hangs ends by this signal
        code = 0 if work() else 1
    except InputError:
        code = 2
    finally:
        os._exit(code)


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
def test_forks_during_and_between_runs(probe, image, attachment):
    settings = {"steps": 2, "seed": 3, "progress": False, "attachment": attachment}
    wanted = np.asarray(probe.generate(image, "a fox", **settings).image)
    reached, go_on = threading.Event(), threading.Event()

    def again() -> bool:
        return np.array_equal(probe.generate(image, "a fox", **settings).image, wanted)

    def pause(_, step, *__):
        reached.set()
        assert go_on.wait(60)
        return {}

    images = []
    thread = threading.Thread(
        target=lambda: images.append(
            probe.generate(image, "a fox", callback_on_step_end=pause, **settings).image
        )
    )
    thread.start()
    try:
        assert reached.wait(60)
        during = in_a_child(again)
        grandchild = in_a_child(lambda: in_a_child(again) == 2)
    finally:
        go_on.set()
        thread.join(60)
    assert (during, grandchild) == (2, 0)
    assert in_a_child(again) == 0
    assert again()
    np.testing.assert_array_equal(images[0], wanted)


def test_a_fork_while_another_thread_only_looks_at_a_pipeline(probe, image):
    settings = {"steps": 1, "progress": False}
    wanted = np.asarray(probe.generate(image, "a fox", **settings).image)
    reached, go_on = threading.Event(), threading.Event()

    def look():
        with between_runs():
            reached.set()
            assert go_on.wait(60)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert reached.wait(60)
        made = in_a_child(
            lambda: np.array_equal(probe.generate(image, "a fox", **settings).image, wanted)
        )
    finally:
        go_on.set()
        thread.join(60)
    assert made == 0
