"""Memory of idle keys and under a flood of new ones: resident memory of a process of its own for each figure.

tracemalloc sees nothing that C++ or Rust allocates, so the kernel's count is what is compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peercore.bench.rate_limiter_checks import RUST, installed
from peercore.bench.report import Goal, Row
from peercore.bench.rounds import Spread, middle, ratios
from peercore.bench.scale import Scale

OPPONENT = "opponent"
NATIVE = "native"
RIVAL = "rival"
FLAT_MB = 2.0
"""Growth of resident memory that still counts as flat: the allocator's own variation."""


@dataclass(frozen=True)
class Task:
    """What a probe process has to do, sent to it as JSON."""

    side: str
    keys: int
    flood: bool = False
    file: str = ""


def memory_rows(scale: Scale, opponent_file: Path, opponent_name: str) -> list[Row]:
    """Bytes per idle key beside the key's text: against the other side's and the Rust rival's; the bound."""
    sides = [NATIVE, OPPONENT] + ([RIVAL] if installed("rust_py_rate_limit") else [])
    samples: dict[str, list[float]] = {side: [] for side in sides}
    for count in scale.idle_keys:
        for side in sides:
            samples[side].append(probe(Task(side, count, file=str(opponent_file)))["bytes_per_key"])
    ours = samples[NATIVE]
    name, unit = "memory per idle key beside its text", "B"
    note = f"{min(ours):.0f}–{max(ours):.0f} B at {scale.idle_keys[0]:,}–{scale.idle_keys[-1]:,} keys"
    rows = [
        _row(name, Goal("ratio", 3), opponent_name, samples, OPPONENT),
        Row(f"{name}, bound", unit, Goal("value", 82), ours=middle(ours), note=note),
    ]
    if RIVAL in samples:
        rows.append(_row(name, None, RUST, samples, RIVAL))
    else:
        rows.append(Row(name, unit, None, RUST, absent="not installed"))
    return rows


def _row(name: str, goal: Goal | None, opponent: str, samples: dict[str, list[float]], side: str) -> Row:
    ours, theirs = samples[NATIVE], samples[side]
    return Row(name, "B", goal, opponent, middle(ours), middle(theirs), Spread.of(ratios(theirs, ours)))


def flood_row(scale: Scale) -> Row:
    """Growth of resident memory between the first tenth of a flood of distinct keys and its end, default cap."""
    taken = probe(Task(NATIVE, scale.flood_keys, flood=True))["rss_mb"]
    growth = max(taken) - taken[0]
    name = f"{scale.flood_keys:,} distinct keys, default cap: growth after the first tenth"
    note = "MB at each tenth: " + " ".join(f"{value:.1f}" for value in taken)
    return Row(name, "MB", Goal("value", FLAT_MB), ours=growth, note=note)


def probe(task: Task) -> dict[str, Any]:
    """Run `task` in a fresh process and return what it printed."""
    command: Sequence[str] = [sys.executable, "-m", "peercore.bench.memory_probe", json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the memory probe failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
