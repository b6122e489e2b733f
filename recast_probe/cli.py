"""The `recast-probe` command."""

from __future__ import annotations

import errno
import sys
import warnings
from typing import Any

import typer

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
from recast_probe.errors import RecastProbeError

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
# full, quota, file too large, read-only, not allowed: for the user to mend
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; errors that people can mend are one message and exit code 2."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            # typer turns Ctrl-C into a returned exit code
            code = app(arguments, standalone_mode=False)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if isinstance(code, int) and code:
            raise SystemExit(code)
    except RecastProbeError as error:
        _fail(str(error), 2)
    except OSError as error:
        if error.errno not in DISK:
            raise
        where = f" ({error.filename})" if error.filename else ""
        _fail(
            f"{error.strerror}{where}. What was finished before is kept, and no file is half "
            "written; make room or choose another --out, and run the command again.",
            2,
        )
    except (KeyboardInterrupt, typer.Abort):
        _fail("Interrupted.", INTERRUPTED)
    except typer.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except Exception as error:
        # usage errors of the command line know how to show themselves
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            raise SystemExit(error.exit_code) from None
        raise


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"recast-probe: {message}", file=sys.stderr)


def _fail(message: str, code: int) -> None:
    print(f"recast-probe: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
