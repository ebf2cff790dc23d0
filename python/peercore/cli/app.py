"""The typer application: its commands, their options and help texts."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from peercore.cli import PROGRAM, run

# A line of \\b keeps the line breaks of the paragraph below it.
_EPILOG = f"""\b
Exit codes: 0 all went well, 1 a check failed, 2 wrong usage or a missing package;
run passes on the exit code of the program it runs.

\b
Examples:
  {PROGRAM} doctor
  {PROGRAM} run -m uvicorn services.api_server:app --workers 2
  {PROGRAM} bench rate_limiter --json report.json
"""

_DOCTOR_EPILOG = f"""\b
Examples:
  {PROGRAM} doctor
  {PROGRAM} doctor ~/stack --json
"""

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}  # the part parses them itself, --help too

app = typer.Typer(
    help="Native services for Peer Communication Protocol v1.2 stacks.",
    epilog=_EPILOG,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Native services for Peer Communication Protocol v1.2 stacks."""
    if version:
        typer.echo(_version())
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command(epilog=_DOCTOR_EPILOG)
def doctor(
    path: Annotated[
        Path | None,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="Workspace root or services folder to look at. Default: this folder and the import path.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show versions, native paths and what is replaced here.

    Looks at the services folder without importing it. Exit code 1 if a check fails.
    """
    from peercore.cli import doctor as report_of

    report = report_of.examine(path)
    if as_json:
        typer.echo(report_of.as_json(report))
    else:
        report_of.show(report)
    raise typer.Exit(0 if report["ok"] else 1)


@app.command(context_settings=_PASS_ON, add_help_option=False)
def bench(context: typer.Context) -> None:
    """Measure native services beside plain Python ones."""
    _run_part("bench", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
def demo(context: typer.Context) -> None:
    """Drive a real web application behind the limiter."""
    _run_part("demo", context.args)


@app.command("run", context_settings=_PASS_ON, add_help_option=False)
def run_program(context: typer.Context) -> None:
    """Run an unmodified program on the native services."""
    raise typer.Exit(run.main(context.args))


def _version() -> str:
    import peercore

    try:
        return peercore.__version__
    except ImportError as error:
        typer.echo(f"{PROGRAM}: {error}", err=True)
        raise typer.Exit(1) from None


def _run_part(name: str, args: list[str]) -> None:
    """Run the typer function `name` of module ``peercore.cli.<name>``, imported only now, on `args`."""
    module = importlib.import_module(f"peercore.cli.{name}")
    part = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    part.command(name)(getattr(module, name))
    part(args=args, prog_name=f"{PROGRAM} {name}")
