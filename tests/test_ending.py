"""Programs end in one sentence: after errors for people, errors of the system, and every stop."""

from __future__ import annotations

import ast
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recast_probe._utils.ending import run_program
from recast_probe.errors import InputError, ProfileFileError, VerificationError

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os, signal, sys, time
from recast_probe._utils.ending import run_program

def work():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        time.sleep(0.3)
        print("cleared up", flush=True)

{first}
run_program(work, "program")
"""


def program(signals, first=""):
    """Exit code, output and errors of a program that gets these signals at work."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(first=first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout.readline() == "ready\n"
        for number in signals:
            process.send_signal(number)
            time.sleep(0.005)
        out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("signals", "code", "said"),
    [
        ([signal.SIGINT], 130, "program: Interrupted."),
        ([signal.SIGTERM], 143, "program: Interrupted by SIGTERM."),
        ([signal.SIGHUP], 129, "program: Interrupted by SIGHUP."),
        ([signal.SIGINT] * 5, 130, "program: Interrupted."),
        ([signal.SIGTERM, signal.SIGINT, signal.SIGHUP], 143, "program: Interrupted by SIGTERM."),
    ],
)
def test_stops_let_the_program_clear_up(signals, code, said):
    assert program(signals) == (code, "cleared up\n", f"{said}\n")


def test_ignored_signals_stay_ignored():
    first = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    code, _, err = program([signal.SIGHUP, signal.SIGHUP, signal.SIGTERM], first)
    assert (code, err) == (143, "program: Interrupted by SIGTERM.\n")


def test_a_stop_that_a_library_turns_into_an_error_is_a_stop():
    first = """
inner = work
def work():
    try:
        inner()
    except KeyboardInterrupt:
        raise ValueError("a callback failed")
"""
    assert program([signal.SIGTERM], first)[::2] == (143, "program: Interrupted by SIGTERM.\n")


def test_children_of_a_program_end_as_they_would():
    first = """
def work():
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        # a signal that comes while a process is being forked is lost
        os.write(writer, b"at work")
        time.sleep(60)
        os._exit(0)
    os.read(reader, 7)
    os.kill(child, signal.SIGTERM)
    print("ready", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(first=first)], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "ready -15\n", "")


def test_nobody_reads_the_output():
    first = "def work():\n    [print('x' * 100_000, flush=True) for _ in range(100)]"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(first=first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        err = process.stderr.read().decode()
    assert (process.returncode, err) == (2, "program: Broken pipe.\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("No such\n  block 7."), "p: No such block 7."),
        (ProfileFileError("cut short"), "p: cut short"),
        (VerificationError("off"), "p: off"),
        (OSError(errno.ENOSPC, "No space left on device"), "p: No space left on device. What was"),
        (OSError(errno.EROFS, "Read-only file system", "/a"), "p: Read-only file system (/a). "),
        (OSError(errno.EDQUOT, "Quota exceeded"), "p: Quota exceeded. What was finished"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/a"), "p: File name too long (/a)."),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a"), "p: No such file (/a)."),
        (OSError(errno.EIO, "Input/output error"), "p: Input/output error."),
        (OSError("could not load weights"), "p: could not load weights"),
        (OSError(), "p: OSError"),
    ],
)
def test_errors_are_one_sentence(error, said, capsys):
    def work():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_program(work, "p")
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_mistakes_of_ours_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_program(lambda: 1 / 0, "p")
    with pytest.raises(SystemExit, match="3"):
        run_program(lambda: sys.exit(3), "p")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("package", ["analyses", "benchmarks"])
def test_every_script_ends_so(package):
    scripts = [path for path in (ROOT / package).glob("*.py") if "__main__" in path.read_text()]
    assert scripts
    for path in scripts:
        last = ast.unparse(ast.parse(path.read_text()).body[-1])
        assert f"run_program(main, '{path.stem}')" in last, path


def script(name, *arguments, stop_after=None):
    """Exit code and last line of `python -m`."""
    with subprocess.Popen(
        [sys.executable, "-m", name, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        if stop_after is not None:
            stop_after(process)
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, err.splitlines()[-1]


def test_a_script_says_what_is_wrong(tmp_path):
    code, said = script("analyses.table_1", "--quick", "--model", str(tmp_path / "none"))
    assert code == 2
    assert said.startswith("table_1: ")
    assert str(tmp_path / "none") in said


def catches_hangups(process):
    """Wait until the process has a handler for SIGHUP, as Python by itself has none."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = Path(f"/proc/{process.pid}/status").read_text()
        (caught,) = (line for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) & 1 << signal.SIGHUP - 1:
            return
        time.sleep(0.005)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for handlers")
def test_a_script_stopped_while_it_imports_says_so():
    assert script("analyses.table_1", stop_after=catches_hangups) == (130, "Interrupted.")
