"""What a user installs: one version number, typing files, stubs that tell the truth, nothing that does not belong."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import peercore
from peercore import _core

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(peercore.__file__).parent
VERSION = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
# What stubtest cannot see. The getters that make the first two pass for a coroutine and a function answer with another
# class on purpose, while stubtest reads the attribute from the type, where it is `type`. The third is a C slot, which
# shows only (*args, **kwargs).
ALLOWED = """
peercore._core.NativeCoroutine.__class__
peercore._core.NativeMethod.__class__
peercore._core.RateLimiter.__init__
"""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names in a source distribution of this tree, without its top folder."""
    folder = tmp_path_factory.mktemp("sdist")
    code = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT, check=True, capture_output=True, timeout=120)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


def test_version_is_the_one_of_pyproject() -> None:
    assert peercore.__version__ == _core.__version__ == importlib.metadata.version("peercore") == VERSION


def test_version_is_written_in_one_place() -> None:
    literal = re.compile(rf"""["']{re.escape(VERSION)}["']""")
    sources = [path for folder in ("cpp", "python") for path in (ROOT / folder).rglob("*") if path.is_file()]
    sources = [path for path in sources if path.suffix in {".cpp", ".hpp", ".py", ".pyi", ".txt", ".cmake"}]
    assert sources
    assert [path for path in sources if literal.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("name", ["py.typed", "_core.pyi"])
def test_typing_files_are_shipped(name: str) -> None:
    assert (PACKAGE / name).is_file()


def test_installation_holds_the_package_and_nothing_else() -> None:
    names = [str(path) for path in importlib.metadata.files("peercore") or []]
    assert sum(name.startswith("peercore/_core.") and name.endswith(".so") for name in names) == 1
    stray = re.compile(r"(^|/)(tests?|benchmarks|cpp|include|lib|cmake)/|\.(cpp|hpp|a|o|cmake)$|^(?!peercore)")
    scripts = re.compile(r"^(\.\./)+bin/")
    assert [name for name in names if stray.search(name) and not scripts.search(name)] == []


def test_sdist_holds_every_source(sdist: set[str]) -> None:
    top = ["pyproject.toml", "CMakeLists.txt", "Makefile", "README.md", "LICENSE"]
    suffixes = {".cpp", ".hpp", ".py", ".pyi", ".cmake", ".txt", ".typed", ".md"}
    sources = [
        path.relative_to(ROOT).as_posix()
        for folder in ("cpp", "python", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in suffixes and "__pycache__" not in path.parts
    ]
    assert {*top, *sources} - sdist == set()


def test_sdist_holds_nothing_that_was_built(sdist: set[str]) -> None:
    built = re.compile(r"^(build|dist|wheelhouse|\.ci|\.git)/|__pycache__|\.(so|o|a|pyc|whl|gz)$|_cache/|\.hypothesis/")
    assert [name for name in sdist if built.search(name)] == []


@pytest.fixture
def stubtest(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Return a function that runs mypy's stubtest on the shipped stub with the given text added to it."""

    def run(extra: str) -> subprocess.CompletedProcess[str]:
        stubs = tmp_path / "peercore"
        stubs.mkdir()
        (stubs / "__init__.pyi").touch()
        (stubs / "_core.pyi").write_text((PACKAGE / "_core.pyi").read_text(encoding="utf-8") + extra, encoding="utf-8")
        (tmp_path / "allowed").write_text(ALLOWED, encoding="utf-8")
        command = [sys.executable, "-m", "mypy.stubtest", "--allowlist", "allowed", "peercore._core"]
        env = {**os.environ, "MYPYPATH": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)

    return run


def test_stubs_agree_with_the_compiled_module(stubtest: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    run = stubtest("")
    assert run.returncode == 0, run.stdout + run.stderr


# stubtest says nothing when it finds no stub for a module whose name starts with an underscore, so that it was read is
# shown by the opposite.
def test_stub_of_something_that_is_not_there_is_found_out(
    stubtest: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    run = stubtest("\ndef not_there() -> None: ...\n")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "_core.not_there" in run.stdout
