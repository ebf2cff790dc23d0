"""Versions and machine: what has to stand beside every figure."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import sysconfig
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any

PACKAGES = ("fastapi", "starlette", "anyio", "aiolimiter", "rust-py-rate-limit")


def describe(opponent: str) -> dict[str, Any]:
    """Return the circumstances of a run as plain data; `opponent` says what the native side is compared with."""
    core: Any = importlib.import_module("peercore._core")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "opponent": opponent,
        "python": platform.python_version(),
        "python_build": python_build(),
        "python_executable": sys.executable,
        "native": dict(core.build_info()),
        "packages": {name: version_of(name) for name in PACKAGES},
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
    }


def version_of(distribution: str) -> str | None:
    """Return the installed version of `distribution`, or None."""
    try:
        return distribution_version(distribution)
    except PackageNotFoundError:
        return None


def python_build() -> str:
    """Say how the interpreter was built: one without PGO is slower and flatters native code."""
    if sys.base_prefix == "/usr":
        return (
            "the distribution's build"  # Debian's and Fedora's are optimised; their sysconfig describes another build
        )
    options = sysconfig.get_config_var("CONFIG_ARGS") or ""
    parts = ["optimised (PGO)" if "--enable-optimizations" in options else "not optimised (no PGO)"]
    if "--with-lto" in options:
        parts.append("LTO")
    return ", ".join(parts)


def cpu_model() -> str:
    """Return the processor's name as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
