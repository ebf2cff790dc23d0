"""``python -m peercore bench``: the native services measured beside plain Python ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from peercore.bench import baseline, environment, rate_limiter, table
from peercore.bench import plot as picture
from peercore.bench.report import Report
from peercore.bench.rounds import ResultsDiffer
from peercore.bench.scale import FULL, QUICK, Scale

COMPONENTS = (rate_limiter.COMPONENT,)
_CHECK_FAILED, _USAGE_ERROR = 1, 2


def bench(
    component: Annotated[str, typer.Argument(help=f"Service to measure: {', '.join(COMPONENTS)}.")] = COMPONENTS[0],
    json_file: Annotated[
        Optional[Path],  # noqa: UP045  # typer evaluates the text, also where an old typer meets Python 3.10
        typer.Option("--json", help="Write the report there as JSON; - prints it in place of the table."),
    ] = None,
    plot: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Draw the ratios into this file (.png, .svg, .pdf). Needs matplotlib."),
    ] = None,
    against: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            exists=True, file_okay=False, help="Measure against the services in this folder, not our baseline."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds instead of minutes; figures not to be quoted.")
    ] = False,
    gate: Annotated[bool, typer.Option("--gate", help="Exit code 1 when a goal is not reached.")] = False,
) -> None:
    """Measure the native services side by side with plain Python ones, in interleaved rounds.

    Our baseline is part of the repository; run this in a checkout, or name your own services with --against.

    Exit codes: 0 measured; 1 the sides gave different results (or, with --gate, a goal was missed); 2 wrong usage.

    Examples: python -m peercore bench --json report.json --plot report.png;
    python -m peercore bench rate_limiter --against ~/stack/services
    """
    if component not in COMPONENTS:
        raise typer.BadParameter(f"no benchmark for {component!r}; there is one for: {', '.join(COMPONENTS)}")
    if plot is not None and environment.version_of("matplotlib") is None:
        raise typer.BadParameter("--plot needs matplotlib: pip install 'peercore[bench]'")
    try:
        report = _measure(against, quick)
    except baseline.NoBaseline as error:
        typer.echo(f"python -m peercore bench: {error}", err=True)
        raise typer.Exit(_USAGE_ERROR) from None
    except ResultsDiffer as error:
        typer.echo(f"python -m peercore bench: not the same results, so nothing to compare: {error}", err=True)
        raise typer.Exit(_CHECK_FAILED) from None
    _publish(report, json_file, plot)
    raise typer.Exit(_CHECK_FAILED if gate and report.missed else 0)


def _measure(against: Path | None, quick: bool) -> Report:
    scale: Scale = QUICK if quick else FULL
    opponent = baseline.find(against)
    about = environment.describe(str(opponent.folder if against else baseline.IN_CHECKOUT))
    columns = (TextColumn("{task.description:<30}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(rate_limiter.PARTS))
        rows = rate_limiter.measure(
            opponent,
            scale,
            announce=lambda name: progress.update(task, description=name),
            done=lambda: progress.advance(task),
        )
    return Report(rate_limiter.COMPONENT, quick, scale.rounds, about, rows)


def _publish(report: Report, json_file: Path | None, plot: Path | None) -> None:
    if json_file == Path("-"):
        sys.stdout.write(report.as_json())
    else:
        # The table is wide: outside a terminal it gets the room it needs.
        console = Console() if sys.stdout.isatty() else Console(width=150)
        table.show(report, console)
    if json_file is not None and json_file != Path("-"):
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(report.as_json(), encoding="utf-8")
        typer.echo(f"Report: {json_file}", err=True)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        picture.save(report, plot)
        typer.echo(f"Picture: {plot}", err=True)
