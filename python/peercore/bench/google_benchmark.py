"""Figures of the C++ core from its Google Benchmark program, where that has been built."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from peercore.bench.report import Row
from peercore.bench.rounds import middle

BUILD_FOLDERS = (Path("build/bench"), Path("build"), Path("build/release"))
REPETITIONS = 5


def core_rows(program: str, names: dict[str, str]) -> list[Row]:
    """Run benchmark `program`; return one row per entry of `names` (name in the program -> name in the table)."""
    path = next((folder / program for folder in BUILD_FOLDERS if (folder / program).is_file()), None)
    if path is None:
        return [Row(label, "ns", absent="not built", note="make bench builds it") for label in names.values()]
    options = ["--benchmark_format=json", f"--benchmark_repetitions={REPETITIONS}", "--benchmark_min_time=0.1"]
    done = subprocess.run([str(path.resolve()), *options], capture_output=True, text=True, check=True)
    runs = [run for run in json.loads(done.stdout)["benchmarks"] if run["run_type"] == "iteration"]
    rows = []
    for name, label in names.items():
        times = [run["cpu_time"] for run in runs if run["run_name"] == name]
        note = f"{min(times):.1f}–{max(times):.1f} ns in {len(times)} repetitions"
        rows.append(Row(label, "ns", ours=middle(times), note=note))
    return rows
