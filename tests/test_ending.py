"""Programs end in one sentence: after errors for people, errors of the system, and every stop."""

from __future__ import annotations

import ast
import errno
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recast_probe._utils import ending
from recast_probe._utils.ending import run_program
from recast_probe.errors import InputError, ProfileFileError, VerificationError

ROOT = Path(__file__).parents[1]
# the program answers each line, so that a signal has come before the next one is sent
PROGRAM = """
import os, signal, sys, time
from recast_probe._utils import ending

ending.PATIENCE_SECONDS = 60  # however slow the machine is

def answer():
    for _ in sys.stdin:
        print("still here", flush=True)

def work():
    try:
        print("ready", flush=True)
        answer()
    finally:
        print("clearing up", flush=True)
        answer()
        print("cleared up", flush=True)

{first}
ending.run_program(work, "program")
"""


def not_ignored():
    """Signals are what they are to a program of its own, also where the tests run under nohup."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def program(signals, first="", ignored=()):
    """Exit code, output and errors of a program that gets these signals at work, one that counts
    and further ones while it clears up."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(first=first)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=not_ignored,
    ) as process:

        def send(number):
            process.send_signal(number)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "still here\n"

        assert process.stdout.readline() == "ready\n"
        for number in ignored:
            send(number)
        process.send_signal(signals[0])
        assert process.stdout.readline() == "clearing up\n"
        for number in signals[1:]:
            send(number)
        out, err = process.communicate(timeout=60)
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


EVERYWHERE = """
import os, signal, sys
from recast_probe._utils import ending

def ended(number, moment, work):
    # exit code of a program that gets a signal at this line of the module, and whether it came
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        came = os.read(reader, 1) == b"x"
        os.close(reader)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), came
    code, lines = 1, 0

    def count(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename != ending.__file__:
            return None
        lines += event != "call"
        if lines == moment and event != "call":
            lines += 1
            os.write(writer, b"x")
            os.kill(os.getpid(), number)
        return count

    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        ending.stoppable_while_importing()
        sys.settrace(count)
        ending.run_program(work, "program")
        code = 0
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.settrace(None)
        os._exit(code)

def fail():
    raise OSError("no")

for work, usual in ((lambda: None, 0), (fail, ending.FAILED)):
    for number in ending.STOPS:
        moment, came = 1, True
        while came:
            code, came = ended(number, moment, work)
            wanted = (usual, 128 + number) if came else (usual,)
            assert code in wanted, (number, moment, code)
            moment += 1
        assert moment > 15, moment
"""


def test_a_stop_may_come_at_any_moment():
    run = subprocess.run([sys.executable, "-c", EVERYWHERE], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_ignored_signals_stay_ignored():
    first = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    code, _, err = program([signal.SIGTERM], first, ignored=[signal.SIGHUP, signal.SIGHUP])
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


def test_a_script_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "--quick", "--model", str(tmp_path / "none")])
    monkeypatch.delitem(sys.modules, "analyses.table_1", raising=False)
    before = {each: signal.getsignal(each) for each in ending.STOPS}
    try:
        with pytest.raises(SystemExit) as stop:
            runpy.run_module("analyses.table_1", run_name="__main__", alter_sys=True)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    said = err.splitlines()[-1]
    assert stop.value.code == 2
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
    with subprocess.Popen(
        [sys.executable, "-m", "analyses.table_1"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=not_ignored,
    ) as process:
        catches_hangups(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert (process.returncode, err.splitlines()[-1]) == (130, "Interrupted.")
