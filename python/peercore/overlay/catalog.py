"""What there is to replace: the services that exist here, the modules of a v1.2 stack, and how to tell its folder."""

from __future__ import annotations

import importlib.machinery
import os
from collections.abc import Iterable

PACKAGE = "services"
"""Name of the package that holds the services in a v1.2 workspace."""

SERVICES: dict[str, str] = {"rate_limiter": "peercore.services.rate_limiter"}
"""Service name -> the module that replaces it. A new service joins the overlay by its line here."""

V12_MODULES = frozenset(
    {
        "api_server",
        "connection_pool",
        "dht",
        "distributed_registry",
        "entry_validator",
        "message_router",
        "multi_hop_router",
        "peer_discovery",
        "peer_service",
        "persistent_offline_queue",
        "rate_limiter",
        "registry",
    }
)
"""Module names of a v1.2 services folder; two of them side by side are what makes a folder one."""

_INSTALLATION_FOLDERS = ("site-packages", "dist-packages")


def spellings(name: str, bare: bool) -> tuple[str, ...]:
    """Return the import names of service `name`: the qualified one, and the bare one if `bare`."""
    qualified = f"{PACKAGE}.{name}"
    return (qualified, name) if bare else (qualified,)


def modules_in(folder: str) -> dict[str, str]:
    """Return the v1.2 modules in `folder`: name -> path of its file, sorted by name.

    Only names are looked at, nothing is opened. An unreadable or missing folder holds none.
    """
    suffixes = tuple(importlib.machinery.all_suffixes())
    try:
        entries = sorted(os.listdir(folder or os.curdir))
    except OSError:
        return {}
    found: dict[str, str] = {}
    for entry in entries:
        name = entry.partition(".")[0]
        if name not in V12_MODULES:
            continue
        path = os.path.join(folder, entry)
        if entry == name:
            path = os.path.join(path, "__init__.py")
        if path.endswith(suffixes) and os.path.isfile(path):
            found.setdefault(name, path)
    return found


def is_services_folder(folder: str, name: str) -> bool:
    """Tell whether `folder` holds v1.2 services other than `name`.

    A folder that pip fills never counts: two unrelated distributions that happen to be called ``registry`` and
    ``rate_limiter`` lie side by side there and are no v1.2 stack.
    """
    if os.path.basename(os.path.realpath(folder)) in _INSTALLATION_FOLDERS:
        return False
    return any(other != name for other in modules_in(folder))


def folders_of(spec: importlib.machinery.ModuleSpec) -> Iterable[str]:
    """Yield the folders in which the import search found the module of `spec`; none for built-in and frozen ones."""
    if spec.submodule_search_locations is not None:
        for location in spec.submodule_search_locations:
            yield os.path.dirname(os.path.abspath(location))
    elif spec.has_location and spec.origin is not None:
        yield os.path.dirname(os.path.abspath(spec.origin))
