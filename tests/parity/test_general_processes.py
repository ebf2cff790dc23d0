"""General contract G9, and G6 across processes: imports are silent in any order, and workers and old pickles work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from service_catalog import SERVICES, Service

TIMEOUT_S = 120  # a safety net
BASELINE_FOLDER = Path(__file__).parents[2] / "benchmarks" / "baseline"

WATCH = """
    import json, logging, os, sys, threading
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    lastly = logging.lastResort, logging.raiseExceptions, logging.root.level, list(logging.root.handlers)
"""
REPORT = """
    changed = {
        "files": sorted({os.readlink(f"/proc/self/fd/{fd}") for fd in set(os.listdir("/proc/self/fd")) - before[0]
                         if os.path.exists(f"/proc/self/fd/{fd}")}),
        "threads": threading.active_count() - before[1],
        "logging": lastly != (logging.lastResort, logging.raiseExceptions, logging.root.level, logging.root.handlers),
        "logger": [h.__class__.__name__ for h in logging.getLogger("services").handlers],
    }
    print(json.dumps(changed))
"""
WATCH_AGAIN = "before = set(os.listdir('/proc/self/fd')), threading.active_count()"
NOTHING = {"files": [], "threads": 0, "logging": False, "logger": []}

IMPORTS = {
    "direct": "import peercore.services.{name}",
    "package first": "import peercore; import peercore.services.{name}",
    "core first": "import peercore._core; import peercore.services.{name}",
    "parts first": "import peercore.ratelimit.limiter; import peercore.services.{name}",
    "installed, qualified": "import peercore; peercore.install(); import services.{name}",
    "installed, bare": "import peercore; peercore.install(); import {name}",
    "installed, both": "import peercore; peercore.install(); import {name}, services.{name}",
    "baseline": "sys.path.insert(0, {folder!r}); import {name}",
}


@pytest.fixture(params=SERVICES, ids=lambda service: service.name)
def service(request: pytest.FixtureRequest) -> Service:
    return request.param


NO_LEAK_CHECK = {"ASAN_OPTIONS": "detect_leaks=0"}  # for processes that load FastAPI, whose compiled parts leak


def run(*arguments: Any, cwd: Path | None = None, environ: dict[str, str] | None = None) -> str:
    """Run Python with every warning an error; expect success and silence on stderr; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PEERCORE_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=cwd,
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"} | (environ or {}),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def code(*parts: str) -> str:
    return "\n".join(textwrap.dedent(part).strip("\n") for part in parts)


@pytest.mark.parametrize("how", IMPORTS)
def test_g9_importing_is_silent_and_starts_nothing(service: Service, how: str) -> None:
    line = IMPORTS[how].format(name=service.name, folder=str(BASELINE_FOLDER))
    if how == "baseline":  # FastAPI, which v1.2 imports, is not on trial
        line = f"import fastapi.dependencies.utils, starlette.middleware.base\n{WATCH_AGAIN}\n{line}"
    environ = NO_LEAK_CHECK if how == "baseline" else None
    assert json.loads(run("-c", code(WATCH, line, REPORT), environ=environ)) == NOTHING


def test_g9_both_names_are_one_module_in_either_order(service: Service) -> None:
    name = service.name
    for first, second in ((f"services.{name}", name), (name, f"services.{name}")):
        printed = run(
            "-c",
            code(
                f"""
                import importlib, peercore
                peercore.install()
                first, second = importlib.import_module({first!r}), importlib.import_module({second!r})
                print(first is second, first.__name__)
                """
            ),
        )
        assert printed == f"True peercore.services.{name}\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_g9_workers(service: Service, method: str, tmp_path: Path) -> None:
    class_ = service.classes[0].name
    script = tmp_path / "main.py"
    script.write_text(
        code(
            f"""
            import asyncio, multiprocessing, sys
            import peercore
            peercore.install()
            from services.{service.name} import {class_}

            def work(number):
                import {service.name} as bare
                import services.{service.name} as qualified
                assert bare is qualified
                return repr(asyncio.run(getattr(bare, {class_!r})().get_stats()))

            if __name__ == "__main__":
                instance = {class_}()
                expected = repr(asyncio.run(instance.get_stats()))
                with multiprocessing.get_context({method!r}).Pool(2) as pool:
                    print(set(pool.map(work, range(4))) == {{expected}})
                    pool.close()
                    pool.join()
            """
        )
    )
    assert run(script, cwd=tmp_path) == "True\n"


def test_g6_pickles_written_by_a_v1_2_process_load_after_install(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "services"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / f"{service.name}.py").write_text((BASELINE_FOLDER / f"{service.name}.py").read_text())
    names = list(service.dataclasses)
    written = tmp_path / "v1_2.pickle"
    for module in (f"services.{service.name}", service.name):
        run(
            "-c",
            code(
                f"""
                import importlib, pathlib, pickle, sys
                sys.path[:0] = [{str(tmp_path)!r}, {str(folder)!r}]
                module = importlib.import_module({module!r})
                made = [getattr(module, name)() for name in {names!r}]
                for each in made:
                    each.extra = "kept"
                pathlib.Path({str(written)!r}).write_bytes(pickle.dumps(made))
                """
            ),
            environ=NO_LEAK_CHECK,
        )
        printed = run(
            "-c",
            code(
                f"""
                import json, pathlib, pickle, peercore
                peercore.install()
                loaded = pickle.loads(pathlib.Path({str(written)!r}).read_bytes())
                print(json.dumps([[type(each).__module__, type(each).__name__, each.extra] for each in loaded]))
                """
            ),
        )
        assert json.loads(printed) == [[f"peercore.services.{service.name}", name, "kept"] for name in names]
