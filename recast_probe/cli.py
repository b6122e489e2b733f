"""The `recast-probe` command: its commands are imported when they are called."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from recast_probe._utils.ending import run_program
from recast_probe.commands import output

# what `--help` says of them, which is how their own help begins
COMMANDS = {
    "demo": "Profile, diagnose and prune on shipped references; write summary, figures and report.",
    "profile": "Record how much attention each reference token gets; one run and profile a prompt.",
    "diagnose": "Skew, entropy, overlap with a mask, and agreement between several profiles.",
    "explore": "One HTML file to look into a run: hover a token to see where it looks.",
    "generate": "An image with all, some or no reference tokens, by one method or several.",
    "mask": "Find the subject of a picture; write its mask.",
    "score": "Score an image against its reference or prompt, or one folder against another.",
    "gate": "Decide whether a saving loses less than a limit, and whether it beats other ones.",
    "study": "Run a whole study by its name: table_1, paths, or compare for arms of your own.",
    "bound": "FLOP, bytes, the least time of a run, and the most that something can speed it up.",
    "claims": "Each claim of the paper: its number, what arithmetic allows, what was measured.",
    "doctor": "What is installed, which device and attention backend, what is missing for what.",
    "pocket": "Train and evaluate Pocket Kontext.",
}
INTERRUPTED = 130


class Commands(TyperGroup):
    """The commands, each in the module of its name."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        if self.commands.get(cmd_name) is None:
            module = import_module(f"recast_probe.commands.{cmd_name}")
            self.commands[cmd_name] = module_command(cmd_name, module)
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in COMMANDS:
            # the base class suggests names among those that it holds
            names: dict[str, Any] = dict.fromkeys(COMMANDS)
            self.commands = {**names, **self.commands}
        return super().resolve_command(ctx, args)


def module_command(name: str, module: Any) -> Any:
    """The command of a module: its `app`, or else the function of its name."""
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(getattr(module, name))
    made = typer.main.get_command(app)
    made.name = name
    return made


app = typer.Typer(
    name="recast-probe",
    cls=Commands,
    help="Find out how an in-context diffusion transformer uses its reference image.",
    no_args_is_help=True,
    # boxes and colours take as long to load as all the rest of --help
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        from recast_probe import __version__

        print(f"recast-probe {__version__}")
        raise typer.Exit


@app.callback()
def options(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object and nothing else; may follow the command, too."
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """Find out how an in-context diffusion transformer uses its reference image."""
    output.print_json(as_json)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; errors that people can mend are one message and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    run_program(lambda: _run(_json_first(given)), "recast-probe")


def _json_first(arguments: list[str]) -> list[str]:
    """`--json` belongs to the whole command line, wherever it stands."""
    rest = [each for each in arguments if each != "--json"]
    return rest if len(rest) == len(arguments) else ["--json", *rest]


def _run(arguments: list[str]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            # typer turns Ctrl-C into a returned exit code
            code = app(arguments, prog_name="recast-probe", standalone_mode=False)
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
