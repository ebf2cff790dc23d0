"""The import overlay: v1.2 service names resolve to the native modules, without a change in the importing code.

A replaced service has two spellings, ``services.<name>`` and the bare ``<name>``; both give the one module object
``peercore.services.<name>``. Nothing native is loaded before a service is imported. Design and reasons:
cpp/doc/decisions/0003-overlay.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from types import ModuleType
from typing import Any, NamedTuple

from peercore.overlay.catalog import PACKAGE, SERVICES, is_services_folder, spellings
from peercore.overlay.finder import OverlayFinder, Target

__all__ = ["OverlayError", "install", "installed", "uninstall"]


class OverlayError(RuntimeError):
    """A service cannot be replaced any more, because its v1.2 module is imported already."""


class _Before(NamedTuple):
    """What one spelling stood for before it was taken; `_ABSENT` where there was nothing."""

    module: Any  # sys.modules entry
    attribute: Any  # attribute of the parent package


_ABSENT = object()
_finder = OverlayFinder()
_before: dict[str, _Before] = {}  # taken spelling -> what to restore
_lock = threading.RLock()


def install(*modules: str, bare: bool = True, force: bool = False) -> None:
    """Let the v1.2 names of `modules` (service names; none given: every service that exists here) import natively.

    bare: also answer for ``<name>`` without ``services.``, but only where the ordinary search would find it in a
        folder that holds other v1.2 services, or nowhere. False releases bare names taken by an earlier call.
    force: replace v1.2 modules that are imported already, in ``sys.modules`` and in the parent package. Names that
        other modules took out of them before (``from services.rate_limiter import X``) stay the old ones.

    Repeating a call changes nothing. All of `modules` are replaced or, on an error, none.
    Raises ValueError for an unknown service name, OverlayError when a v1.2 module is imported already and `force` is
    not set, ImportError when a native module is missing. Thread-safe. Source: design section 1.
    """
    names = _checked(modules)
    with _lock:
        wanted = [spelling for name in names for spelling in spellings(name, bare)]
        targets = {name: _target(name) for name in names}
        new = [spelling for spelling in wanted if spelling not in _before]
        imported = {spelling: old for spelling in new if (old := _v12_module(spelling)) is not None}
        if imported and not force:
            raise OverlayError(_already_imported(imported))
        natives = {spelling: importlib.import_module(targets[_name(spelling)].module) for spelling in imported}
        _release([spelling for name in names for spelling in spellings(name, True) if spelling not in wanted])
        for spelling in new:
            _before[spelling] = _Before(imported.get(spelling, _ABSENT), _parent_attribute(spelling))
        _finder.targets = {**_finder.targets, **{spelling: targets[_name(spelling)] for spelling in new}}
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)
        for spelling, native in natives.items():
            _swap(spelling, native)


def uninstall(*modules: str) -> None:
    """Undo `install` for `modules` (none given: for all), so that the names import as they did before.

    ``sys.modules``, the attributes of the parent package and ``sys.meta_path`` are as they were; v1.2 modules
    replaced with ``force=True`` come back. Objects taken from a native module stay valid. Does nothing when nothing is
    installed. Raises ValueError for an unknown service name. Thread-safe.
    """
    names = _checked(modules)
    with _lock:
        _release([spelling for name in names for spelling in spellings(name, True)])


def installed() -> dict[str, tuple[str, ...]]:
    """Return what is active: service name -> the spellings that give the native module in this process now.

    A bare name that belongs to an unrelated module is not listed. The dict is a fresh copy; empty when nothing is
    installed.
    """
    with _lock:
        active: dict[str, tuple[str, ...]] = {}
        for spelling, target in _finder.targets.items():
            if _resolves(spelling, target):
                active[_name(spelling)] = (*active.get(_name(spelling), ()), spelling)
        return active


def _checked(modules: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in modules if name not in SERVICES]
    if unknown:
        known = ", ".join(sorted(SERVICES))
        raise ValueError(f"no such service in peercore: {', '.join(map(repr, unknown))} (there is: {known})")
    return tuple(dict.fromkeys(modules)) or tuple(SERVICES)


def _name(spelling: str) -> str:
    return spelling.rpartition(".")[2]


def _target(name: str) -> Target:
    module = SERVICES[name]
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    return Target(module, spec)


def _v12_module(spelling: str) -> ModuleType | None:
    """Return the imported module that `spelling` stands for, if it is one of v1.2."""
    module = sys.modules.get(spelling)
    if module is None or module is sys.modules.get(SERVICES[_name(spelling)]):
        return None
    if "." in spelling:
        return module
    file = getattr(module, "__file__", None)
    folder = os.path.dirname(os.path.abspath(file)) if file else None
    return module if folder and is_services_folder(folder, spelling) else None


def _already_imported(imported: dict[str, ModuleType]) -> str:
    found = "; ".join(f"{name} from {getattr(old, '__file__', None) or 'no file'}" for name, old in imported.items())
    return (
        f"already imported: {found}. Call peercore.install() before the first import of a service, "
        "or pass force=True to replace the imported module"
    )


def _parent_attribute(spelling: str) -> Any:
    parent = sys.modules.get(PACKAGE) if "." in spelling else None
    return _ABSENT if parent is None else vars(parent).get(_name(spelling), _ABSENT)


def _swap(spelling: str, native: ModuleType) -> None:
    old = sys.modules[spelling]
    sys.modules[spelling] = native
    if _parent_attribute(spelling) is old:
        setattr(sys.modules[PACKAGE], _name(spelling), native)


def _release(released: list[str]) -> None:
    """Restore what the taken ones among `released` stood for; the last one takes the finder with it."""
    taken = [spelling for spelling in released if spelling in _before]
    _finder.targets = {spelling: target for spelling, target in _finder.targets.items() if spelling not in taken}
    for spelling in taken:
        _restore(spelling, _before.pop(spelling))
    if not _finder.targets and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
        if _finder.made_parent(sys.modules.get(PACKAGE)):
            del sys.modules[PACKAGE]


def _restore(spelling: str, before: _Before) -> None:
    native = sys.modules.get(SERVICES[_name(spelling)], _ABSENT)
    # Whatever somebody else has put there since is not ours to remove.
    if sys.modules.get(spelling) is native:
        if before.module is _ABSENT:
            del sys.modules[spelling]
        else:
            sys.modules[spelling] = before.module
    if _parent_attribute(spelling) is native and native is not _ABSENT:
        if before.attribute is _ABSENT:
            delattr(sys.modules[PACKAGE], _name(spelling))
        else:
            setattr(sys.modules[PACKAGE], _name(spelling), before.attribute)


def _resolves(spelling: str, target: Target) -> bool:
    present = sys.modules.get(spelling)
    if present is not None:
        return present is sys.modules.get(target.module)
    return "." in spelling or _finder.takes_bare(spelling)


def _renew_lock() -> None:
    # A thread of the parent may have held the lock at the fork; that thread does not exist in the child.
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
