"""The `recast-probe` command."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import typer

from recast_probe._utils.ending import run_program
from recast_probe.commands import (
    bound,
    claims,
    demo,
    diagnose,
    doctor,
    generate,
    pocket,
    profile,
    score,
)

app = typer.Typer(
    name="recast-probe",
    help="Find out how an in-context diffusion transformer uses its reference image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("profile")(profile.profile)
app.command("diagnose")(diagnose.diagnose)
app.command("generate")(generate.generate)
app.command("score")(score.score)
app.command("bound")(bound.bound)
app.command("claims")(claims.claims)
app.command("doctor")(doctor.doctor)
app.add_typer(pocket.app, name="pocket")


INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run a command; errors that people can mend are one message and exit code 2."""
    run_program(lambda: _run(arguments), "recast-probe")


def _run(arguments: list[str] | None) -> None:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            # typer turns Ctrl-C into a returned exit code
            code = app(arguments, standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except Exception as error:
        # usage errors of the command line know how to show themselves
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            raise SystemExit(error.exit_code) from None
        raise
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if isinstance(code, int) and code:
        raise SystemExit(code)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"recast-probe: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
