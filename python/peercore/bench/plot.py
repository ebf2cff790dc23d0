"""The report as a picture: one bar per ratio, with its quartiles and its goal."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

from peercore.bench.report import NOT_REACHED, Report, Row
from peercore.bench.table import circumstances

_GREEN, _RED, _BLUE = "#2a7f62", "#b3412f", "#4a6fa5"
_LABEL_WIDTH = 44


def save(report: Report, path: Path) -> None:
    """Write the picture to `path`, in the format of its suffix. Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in report.rows if row.ratio is not None]
    figure, axes = pyplot.subplots(figsize=(11, 1.9 + 0.62 * len(rows)), layout="constrained")
    for position, row in enumerate(rows):
        _bar(axes, position, row)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(row.ratio.high for row in rows if row.ratio) * 1.14)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as quick (or as small) as the other side; whiskers: quartiles; black mark: goal")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    title = f"peercore {report.component}" + (" (quick run: not to be quoted)" if report.quick else "")
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold")
    figure.supxlabel(fill(circumstances(report), 150), fontsize=7, color="0.35", x=0.01, ha="left")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _bar(axes: object, position: int, row: Row) -> None:
    assert row.ratio is not None
    spread = row.ratio
    colour = _RED if row.verdict == NOT_REACHED else _BLUE if row.goal is None else _GREEN
    right = max(spread.high, row.goal.bound) if row.goal else spread.high  # clear of the goal's mark
    whiskers = [[spread.median - spread.low], [spread.high - spread.median]]
    axes.barh(position, spread.median, height=0.6, color=colour)  # type: ignore[attr-defined]
    axes.errorbar(  # type: ignore[attr-defined]
        spread.median, position, xerr=whiskers, color="black", capsize=3, linewidth=1, fmt="none"
    )
    axes.annotate(  # type: ignore[attr-defined]
        f"{spread.median:.1f}×", (right, position), xytext=(6, 0), textcoords="offset points", va="center"
    )
    if row.goal is not None:
        axes.plot(  # type: ignore[attr-defined]
            [row.goal.bound] * 2, [position - 0.38, position + 0.38], color="black", linewidth=2.2
        )


def _label(row: Row) -> str:
    return fill(row.name, _LABEL_WIDTH) + f"\nagainst {row.opponent}"
