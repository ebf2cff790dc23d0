"""python -m peercore bench: the harness, and one quick run of everything."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peercore.bench import baseline, environment
from peercore.bench.rate_limiter_checks import same_answer, shuffled_keys
from peercore.bench.report import Goal, Report, Row, compared
from peercore.bench.rounds import Side, Spread, interleave, order_of, own_code
from peercore.cli import main

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300
ROWS = 15


def bench(*options: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
    command += ["-m", "peercore", "bench", *options]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


# -- rounds


def test_every_side_takes_every_place_and_goes_both_ways() -> None:
    assert [order_of(2, number) for number in range(4)] == [[0, 1], [1, 0], [1, 0], [0, 1]]
    orders = [order_of(3, number) for number in range(6)]
    assert sorted(orders) == [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]


def test_interleave_measures_each_side_once_a_round_without_gc() -> None:
    calls: list[str] = []

    def side(name: str) -> Side:
        def sample() -> float:
            assert not gc.isenabled()
            calls.append(name)
            return float(len(calls))

        return Side(name, sample, lambda: calls.append(f"before {name}"), lambda: calls.append(f"after {name}"))

    samples = interleave([side("a"), side("b")], rounds=4)
    assert gc.isenabled()
    assert {name: len(values) for name, values in samples.items()} == {"a": 4, "b": 4}
    assert [calls.count(name) for name in ("a", "before a", "after a", "b")] == [5, 5, 5, 5]  # one of them warm-up
    at = calls.index("a")
    assert calls[at - 1 : at + 2] == ["before a", "a", "after a"]


def test_sides_do_not_share_code_objects() -> None:
    def driver(number: int, *, factor: int = 2) -> int:
        return number * factor

    copy = own_code(driver)
    assert copy(3) == 6
    assert copy.__code__ is not driver.__code__


# -- figures and verdicts


def test_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    samples = {"peercore": [1.0, 2.0, 10.0], "baseline": [8.0, 18.0, 100.0]}
    row = compared("work", Goal("ratio", 9), "baseline", samples)
    assert (row.ours, row.theirs) == (2.0, 18.0)
    assert row.ratio == Spread(9.0, 8.5, 9.5)
    assert row.verdict == "reached"


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("a", "ns", Goal("ratio", 6), ratio=Spread(5.99, 5, 7)), "not reached"),
        (Row("a", "ns", Goal("ratio", 6)), "not reached"),
        (Row("a", "B", Goal("value", 82), ours=82.0), "reached"),
        (Row("a", "B", Goal("value", 82), ours=82.5), "not reached"),
        (Row("a", "ns", ours=1.0), "informational"),
        (Row("a", "ns", Goal("ratio", 6), absent="not installed"), "not installed"),
    ],
)
def test_verdicts(row: Row, verdict: str) -> None:
    assert row.verdict == verdict
    assert row.as_dict()["verdict"] == verdict


def test_report_is_plain_data() -> None:
    rows = [Row("a", "ns", Goal("ratio", 6), "b", 1.0, 5.0, Spread(5.0, 4.0, 6.0)), Row("c", "B", ours=1.0)]
    report = Report("rate_limiter", False, 3, {"python": "3"}, rows)
    assert report.missed == rows[:1]
    first, second = json.loads(report.as_json())["rows"]
    assert first["ratio"] == {"median": 5.0, "low": 4.0, "high": 6.0}
    assert (first["goal_text"], second["goal_text"]) == ("≥ 6×", "")


def test_the_interpreter_s_build_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/opt/python")
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: "'--enable-optimizations' '--with-lto'")
    assert environment.python_build() == "optimised (PGO), LTO"
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: None)
    assert environment.python_build() == "not optimised (no PGO)"


# -- equal work


def test_keys_are_distinct_and_in_the_same_order_every_time() -> None:
    keys = shuffled_keys(1000)
    assert len(set(keys)) == 1000
    assert keys == shuffled_keys(1000)
    assert keys != sorted(keys)


INFO = {"limit": 60, "remaining": 0, "reset_at": 100.0, "window": 60}


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        ((True, INFO), True),
        ((True, {**INFO, "reset_at": 100.2}), True),
        ((False, {**INFO, "retry_after": 1}), False),
        ((True, {**INFO, "remaining": 1}), False),
        ((True, {**INFO, "reset_at": 160.0}), False),
        ((True, {**INFO, "extra": 1}), False),
    ],
)
def test_same_answer(theirs: Any, same: bool) -> None:
    assert same_answer((True, INFO), theirs) is same


def test_same_answer_knows_the_two_roundings_of_retry_after() -> None:
    def denied(wait: float) -> Any:
        return False, {**INFO, "retry_after": wait}

    assert same_answer(denied(0.3), denied(1))
    assert same_answer(denied(1.0), denied(2))
    assert not same_answer(denied(1.0), denied(12))


# -- the other side


def test_the_baseline_is_found_from_below_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tests" / "python")
    assert baseline.find().folder == ROOT / "benchmarks" / "baseline"


def test_a_workspace_root_stands_for_its_services_folder(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    assert baseline.find(tmp_path).folder == tmp_path / "services"
    assert baseline.find(tmp_path / "services").folder == tmp_path / "services"


def test_a_service_is_loaded_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_it.py").write_text("VALUE = 7")
    (tmp_path / "it.py").write_text("from neighbour_of_it import VALUE\nclass It: value = VALUE")
    path = list(sys.path)
    assert baseline.load_file(tmp_path / "it.py").It.value == 7
    assert sys.path == path
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere")
    with pytest.raises(baseline.NoBaseline, match="no_such_module_anywhere"):
        baseline.load_file(tmp_path / "broken.py")


# -- the command


@pytest.mark.rss
def test_quick_run(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "report.json"
    done = bench("--quick", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "QUICK" in done.stdout
    assert "cancelled waits" in done.stdout
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["quick"] is True
    assert {"python", "python_build", "native", "packages", "cpu", "date"} <= report["environment"].keys()
    assert len(report["rows"]) == ROWS
    left_behind = next(row for row in report["rows"] if "cancelled waits" in row["name"])
    assert left_behind["ours"] == 0


def test_different_results_are_not_compared(tmp_path: Path) -> None:
    source = (ROOT / "benchmarks" / "baseline" / "rate_limiter.py").read_text(encoding="utf-8")
    wrong = source.replace("bucket.tokens -= 1.0", "bucket.tokens -= 2.0")
    assert wrong != source
    (tmp_path / "rate_limiter.py").write_text(wrong, encoding="utf-8")
    done = bench("--quick", "--against", str(tmp_path))
    assert done.returncode == 1
    assert "not the same results" in done.stderr


def test_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(environment, "version_of", lambda name: None)
    for options, text in (
        (["no_such_service"], "no benchmark for"),
        (["--plot", str(tmp_path / "p.png")], "matplotlib"),
        (["--against", str(tmp_path)], "no rate_limiter.py"),
        (["--against", str(tmp_path / "missing")], "does not exist"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["bench", *options])
        assert ended.value.code == 2
        assert text in " ".join(capsys.readouterr().err.split())
