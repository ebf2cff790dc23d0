"""The report in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from peercore.bench.report import NOT_REACHED, Report, Row

_COLOURS = {"reached": "green", NOT_REACHED: "red", "informational": "blue"}


def show(report: Report, console: Console) -> None:
    """Print the table, then the circumstances and the notes on single rows."""
    title = f"{report.component}, {report.rounds} interleaved rounds" + (
        ", QUICK: not to be quoted" if report.quick else ""
    )
    table = Table(title=title, title_justify="left")
    table.add_column("Work", overflow="fold")
    table.add_column("Goal", no_wrap=True)
    table.add_column("Against", overflow="fold")
    for heading in ("There", "peercore", "Ratio", "Quartiles"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Verdict", no_wrap=True)
    for row in report.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in report.rows:
        if row.note:
            console.print(f"[dim]{row.name}: {row.note}[/dim]", highlight=False)
    console.print(circumstances(report), highlight=False, style="dim", markup=False)


def _cells(row: Row) -> list[str]:
    colour = _COLOURS.get(row.verdict, "yellow")
    return [
        row.name,
        row.goal.text(row.unit) if row.goal else "",
        row.opponent,
        figure(row.theirs, row.unit),
        figure(row.ours, row.unit),
        f"{row.ratio.median:.2f}×" if row.ratio else "",
        f"{row.ratio.low:.2f}–{row.ratio.high:.2f}" if row.ratio else "",
        f"[{colour}]{row.verdict}[/{colour}]",
    ]


def figure(value: float | None, unit: str) -> str:
    """A measured value with its unit; nothing for none."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()


def circumstances(report: Report) -> str:
    """One paragraph: what was measured with what, on what, when."""
    about = report.environment
    native = about["native"]
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items() if version)
    return (
        f"Python {about['python']}, {about['python_build']}; peercore {native['version']} "
        f"({native['build_type']}, {native['compiler']}); {packages}; "
        f"{about['cpu']}, {about['cpus']} CPUs, load {about['load']} at the start; {about['date']}"
    )
