"""Runs Python in a process of its own, on a copy of the example stack in tests/data/stack."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

STACK = Path(__file__).parents[1] / "data" / "stack"
TIMEOUT_S = 120  # a safety net; each process takes well under a second of its own


def copy_stack(folder):
    """Copy the example stack below `folder` and return its root."""
    return Path(shutil.copytree(STACK, folder / "stack", ignore=shutil.ignore_patterns("__pycache__")))


def python(*arguments, path=(), cwd=None, environ=None, executable=sys.executable):
    """Run the interpreter with `arguments`, `path` in front of its import path; return the finished process."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PEERCORE_")}
    search_path = [*map(str, path), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    env |= {"PYTHONPATH": os.pathsep.join(search_path), "PYTHONDONTWRITEBYTECODE": "1", **(environ or {})}
    command = [executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def run_code(code, *flags, **options):
    """Run `code` with every warning an error, expect success and silence on stderr; return what it printed."""
    done = python("-W", "error", *flags, "-c", textwrap.dedent(code), **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def result_of(code, **options):
    """Run `code`, which prints JSON, and return the value."""
    return json.loads(run_code(code, **options))
