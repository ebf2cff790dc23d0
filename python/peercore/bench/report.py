"""What a benchmark run produces: rows with goals and verdicts, and the report around them as plain data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from peercore.bench.rounds import Spread, middle, ratios

Verdict = Literal["reached", "not reached", "informational", "not installed", "not built"]
NOT_REACHED: Verdict = "not reached"


@dataclass(frozen=True)
class Goal:
    """A bound on a row's `ratio` (at least) or on our own `value` (at most)."""

    of: Literal["ratio", "value"]
    bound: float

    def holds(self, row: Row) -> bool:
        """Tell whether the row's figure is within the bound."""
        if self.of == "ratio":
            return row.ratio is not None and row.ratio.median >= self.bound
        return row.ours is not None and row.ours <= self.bound

    def text(self, unit: str) -> str:
        """The goal as people write it."""
        return f"≥ {self.bound:g}×" if self.of == "ratio" else f"≤ {self.bound:g} {unit}"


@dataclass
class Row:
    """One line of the table. `ours` and `theirs` are medians in `unit`; `ratio` is the spread of per-round ratios."""

    name: str
    unit: str
    goal: Goal | None = None
    opponent: str = ""
    ours: float | None = None
    theirs: float | None = None
    ratio: Spread | None = None
    note: str = ""
    absent: Verdict | None = None

    @property
    def verdict(self) -> Verdict:
        """What became of the goal; why there is no figure when there is none."""
        if self.absent is not None:
            return self.absent
        if self.goal is None:
            return "informational"
        return "reached" if self.goal.holds(self) else NOT_REACHED

    def as_dict(self) -> dict[str, Any]:
        """The row as plain data."""
        data = asdict(self)
        del data["absent"]
        return {**data, "goal_text": self.goal.text(self.unit) if self.goal else "", "verdict": self.verdict}


def compared(
    name: str,
    goal: Goal | None,
    opponent: str,
    samples: dict[str, list[float]],
    ours: str = "peercore",
    unit: str = "ns",
    note: str = "",
) -> Row:
    """Make the row that compares the samples of side `ours` with those of side `opponent`."""
    mine, theirs = samples[ours], samples[opponent]
    spread = Spread.of(ratios(theirs, mine))
    return Row(name, unit, goal, opponent, middle(mine), middle(theirs), spread, note)


@dataclass(frozen=True)
class Report:
    """A whole run."""

    component: str
    quick: bool
    rounds: int
    environment: dict[str, Any]
    rows: Sequence[Row]

    @property
    def missed(self) -> list[Row]:
        """Rows whose goal was not reached."""
        return [row for row in self.rows if row.verdict == NOT_REACHED]

    def as_json(self) -> str:
        """The report as indented JSON text."""
        data = {
            "component": self.component,
            "quick": self.quick,
            "rounds": self.rounds,
            "environment": self.environment,
            "rows": [row.as_dict() for row in self.rows],
        }
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
