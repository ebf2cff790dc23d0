"""The shape of the source tree: which layer may know what, and what belongs to every source file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = (ROOT / "cpp/include", ROOT / "cpp/src")
# Components that touch the outside world. Every other one decides: time and input come in as arguments.
PERFORMERS = {"base", "net", "storage", "node"}
OUTSIDE_WORLD = re.compile(r"asio|sqlite|<thread>|(steady|system|high_resolution)_clock::now")
LONGEST_LINE = 120
LONGEST_FILE = 500


def files(*folders: str, suffixes: str) -> list[Path]:
    """Return the files under the given folders of the repository whose suffix is one of the space-separated ones."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    return [path for path in found if path.suffix in suffixes.split() and path.is_file()]


def matches(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """Return "path:line: text" for every line in which the pattern occurs."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def components() -> list[str]:
    """Return the names of the core's components, one folder each."""
    return sorted(path.name for path in (ROOT / "cpp/src").iterdir() if path.is_dir())


def test_there_is_a_core_to_check() -> None:
    assert {"base", "ratelimit"} <= set(components())


def test_core_does_not_know_python() -> None:
    assert matches(re.compile(r"pybind11|Python\.h"), files("cpp/include", "cpp/src", suffixes=".hpp .cpp")) == []


def test_deciders_reach_for_no_clock_thread_socket_or_database() -> None:
    deciders = [name for name in components() if name not in PERFORMERS]
    folders = [f"{base.relative_to(ROOT)}/{name}" for base in CORE for name in deciders]
    assert deciders
    assert matches(OUTSIDE_WORLD, files(*folders, suffixes=".hpp .cpp")) == []


def test_pybind11_enters_through_one_header() -> None:
    found = matches(re.compile(r"#include\s*<pybind11/"), files("cpp/bindings", suffixes=".hpp .cpp"))
    assert {line.split(":")[0] for line in found} == {"cpp/bindings/bindings.hpp"}


def test_module_is_a_table_of_contents() -> None:
    assert len((ROOT / "cpp/bindings/module.cpp").read_text(encoding="utf-8").splitlines()) <= 40


@pytest.mark.parametrize("source", files("cpp/src", suffixes=".cpp"), ids=lambda path: path.stem)
def test_every_core_source_has_its_tests(source: Path) -> None:
    relative = source.relative_to(ROOT / "cpp/src")
    test = ROOT / "tests/cpp" / relative.with_name(f"{source.stem}_test.cpp")
    assert test.is_file()
    assert re.search(r"\bTEST(_F|_P)?\(", test.read_text(encoding="utf-8"))


def test_error_table_covers_every_error_code() -> None:
    header = (ROOT / "cpp/include/peercore/base/errc.hpp").read_text(encoding="utf-8")
    enum = re.search(r"enum class Errc \{(.*?)\};", header, re.DOTALL)
    assert enum is not None
    codes = set(re.findall(r"^\s*(\w+)\s*(?:=\s*\d+)?,", enum[1], re.MULTILINE))
    cases = set(re.findall(r"case Errc::(\w+):", (ROOT / "cpp/bindings/errors.cpp").read_text(encoding="utf-8")))
    assert codes
    assert cases == codes


@pytest.mark.parametrize(
    "path",
    files("cpp", "python", "tests", "benchmarks", suffixes=".cpp .hpp .py .pyi .cmake .txt .md"),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_lines_and_files_stay_readable(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    # A row of a Markdown table is one line, however long.
    long = [n for n, line in enumerate(lines, 1) if len(line) > LONGEST_LINE and not line.startswith("|")]
    assert long == [], f"lines longer than {LONGEST_LINE}"
    assert len(lines) <= LONGEST_FILE
