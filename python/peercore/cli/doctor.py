"""``python -m peercore doctor``: what is installed, what runs natively, and what the overlay would replace here.

Nothing of the examined stack is imported; its folders are only listed.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import peercore
from peercore.overlay import catalog

_OPTIONAL = ("starlette", "fastapi", "uvicorn", "typer", "rich")


def examine(path: Path | None = None) -> dict[str, Any]:
    """Return the report as plain data, ready for JSON.

    Keys: ``python`` and ``packages`` (versions), ``build`` (from the compiled core), ``native_paths`` (name -> bool),
    ``overlay`` (see `_overlay`), ``checks`` (list of ``name``, ``ok``, ``detail``) and ``ok`` (bool, all checks).
    """
    imports = [_import_check(name, module) for name, module in catalog.SERVICES.items()]
    build, native_paths, checks = _native()  # after the services: a path is active once a service uses it
    return {
        "peercore": build.get("version"),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "platform": platform.platform(),
        },
        "build": build,
        "native_paths": native_paths,
        "packages": {name: _version(name) for name in _OPTIONAL},
        "overlay": _overlay(path),
        "checks": checks + imports,
        "ok": all(check["ok"] for check in checks + imports),
    }


def as_json(report: dict[str, Any]) -> str:
    """Return the report as indented JSON text."""
    return json.dumps(report, indent=2)


def show(report: dict[str, Any], console: Console | None = None) -> None:
    """Print the report as tables."""
    console = console or Console()
    console.print(_table("peercore", _version_rows(report)))
    console.print(_table("overlay", _overlay_rows(report["overlay"])))
    rows = [(check["name"], f"{'ok' if check['ok'] else 'FAILED'}: {check['detail']}") for check in report["checks"]]
    console.print(_table("checks", rows))


def services_folder(path: Path | None) -> str | None:
    """Return the services folder of a v1.2 stack: ``path/services`` or `path`, else None.

    Without a path, the first one that is reached from here or through the import path.
    """
    here = os.getcwd()
    for root in [here, *sys.path] if path is None else [str(path)]:
        for folder in (os.path.join(root, catalog.PACKAGE), root):
            if _holds_services(folder):
                return os.path.abspath(folder)
    return None


def _holds_services(folder: str) -> bool:
    # One v1.2 file is enough in a folder of the right name; elsewhere it takes a second one beside it.
    found = catalog.modules_in(folder)
    return len(found) > (0 if os.path.basename(folder) == catalog.PACKAGE else 1)


def _overlay(path: Path | None) -> dict[str, Any]:
    """Return ``folder`` (str or None), ``replaced`` (name, module, file and spellings) and ``kept`` (name -> file)."""
    folder = services_folder(path)
    found = catalog.modules_in(folder) if folder else {}
    replaced = [
        {"name": name, "file": found.get(name), "module": module, "spellings": _spellings(folder, name)}
        for name, module in catalog.SERVICES.items()
    ]
    kept = {name: file for name, file in found.items() if name not in catalog.SERVICES}
    return {"folder": folder, "replaced": replaced, "kept": kept, "installed": peercore.installed()}


def _spellings(folder: str | None, name: str) -> list[str]:
    bare = folder is None or name not in catalog.modules_in(folder) or catalog.is_services_folder(folder, name)
    return list(catalog.spellings(name, bare))


def _native() -> tuple[dict[str, Any], dict[str, bool], list[dict[str, Any]]]:
    try:
        core: Any = importlib.import_module("peercore._core")
    except ImportError as error:
        return {}, {}, [_check("native core loads", False, str(error))]
    paths = dict(core.native_paths())
    idle = sorted(name for name, active in paths.items() if not active)
    detail = f"not active: {', '.join(idle)}" if idle else f"{len(paths)} active"
    checks = [_check("native core loads", True, str(core.__file__)), _check("native paths", not idle, detail)]
    return dict(core.build_info()), paths, checks


def _import_check(name: str, module: str) -> dict[str, Any]:
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        return _check(f"{name} imports", False, str(error))
    return _check(f"{name} imports", True, str(imported.__file__))


def _check(name: str, ok: bool, detail: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail}


def _version(name: str) -> str | None:
    try:
        return distribution_version(name)
    except PackageNotFoundError:
        return None


def _version_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    python, build = report["python"], report["build"]
    rows = [
        ("peercore", report["peercore"] or "not available"),
        ("Python", f"{python['implementation']} {python['version']}, {python['executable']}"),
        ("platform", python["platform"]),
    ]
    labels = {"compiler": "compiler", "build_type": "build", "cxx_standard": "C++", "pybind11": "pybind11"}
    rows += [(label, str(build[key])) for key, label in labels.items() if key in build]
    rows.append(("linked libraries", "\n".join(map(str, build.get("libraries", ()))) or "none"))
    rows.append(("native paths", "\n".join(f"{name}: {_yes(on)}" for name, on in report["native_paths"].items())))
    rows += [(name, version or "not installed") for name, version in report["packages"].items()]
    return rows


def _overlay_rows(overlay: dict[str, Any]) -> list[tuple[str, str]]:
    if overlay["folder"] is None:
        rows = [("services folder", "none found here; the names import natively after install() all the same")]
    else:
        rows = [("services folder", overlay["folder"])]
    for service in overlay["replaced"]:
        names = " and ".join(service["spellings"])
        rows.append((f"replaces {service['name']}", f"{names}\n{service['file'] or 'no file'} -> {service['module']}"))
    rows += [(f"keeps {name}", file) for name, file in overlay["kept"].items()]
    return rows


def _table(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    return table


def _yes(active: bool) -> str:
    return "active" if active else "not active"
