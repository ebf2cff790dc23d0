"""Everything in the README runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_readme_has_python_examples() -> None:
    assert len(PYTHON_BLOCKS) >= 3


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=lambda block: block.split("\n")[0])
def test_a_python_example_runs_without_a_warning(block: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", block]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_the_example_of_new_code_prints_what_its_comments_say(tmp_path: Path) -> None:
    (block,) = [block for block in PYTHON_BLOCKS if "acquire" in block]
    result = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, second, third = result.stdout.splitlines()
    assert first.startswith("(True, {'limit': 600, 'remaining': 1,")
    assert second == "True"
    assert third == "[False, True]"


def test_make_targets_that_the_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"^make (?:[A-Z_]+=\S+ )*([a-z-]+)", README, re.M)) | {"bench", "sanitize", "fuzz", "lint"}
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_links_lead_to_files() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
