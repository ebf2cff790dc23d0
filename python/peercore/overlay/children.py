"""How the overlay reaches the Python processes that a program starts: two variables and a start-up folder.

`export` writes the choice of services to the environment and puts the start-up folder at the head of PYTHONPATH; a
child interpreter then finds our ``sitecustomize`` there, which calls `install_from_environment`. Forked children need
none of it, they inherit the finder. Interpreters started with -E, -I or -S ignore it, as they ignore PYTHONPATH.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping

from peercore.overlay import install

MODULES = "PEERCORE_MODULES"
"""Services to replace, separated by commas; ``all`` for every service that exists; unset or empty for none."""

BARE = "PEERCORE_BARE"
"""``0`` leaves the bare spellings alone."""

STARTUP_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup")
"""Folder that holds our sitecustomize.py and nothing else."""


def choice(environ: MutableMapping[str, str] = os.environ) -> tuple[tuple[str, ...], bool] | None:
    """Return the services the environment asks for (empty: all of them) and whether bare names count; None for none."""
    names = [name.strip() for name in environ.get(MODULES, "").split(",") if name.strip()]
    if not names:
        return None
    bare = environ.get(BARE, "1").strip() != "0"
    return (() if "all" in names else tuple(names)), bare


def export(
    modules: Iterable[str],
    bare: bool,
    environ: MutableMapping[str, str] = os.environ,
    search_path: Iterable[str] = (),
) -> None:
    """Set `environ` so that child interpreters install `modules` (empty: all) before they run anything.

    search_path: folders a child needs on its path to find peercore at all, put behind the start-up folder.
    """
    environ[MODULES] = ",".join(modules) or "all"
    environ[BARE] = "1" if bare else "0"
    first = [STARTUP_FOLDER, *search_path]
    rest = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry not in first]
    environ["PYTHONPATH"] = os.pathsep.join([*first, *rest])


def install_from_environment() -> None:
    """Install what PEERCORE_MODULES asks for; nothing when it is unset. Raises as `peercore.install` does."""
    asked = choice()
    if asked is not None:
        modules, bare = asked
        install(*modules, bare=bare)
