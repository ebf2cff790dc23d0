"""The meta-path finder that answers for the replaced names, and the loader that hands out the one module object."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from peercore.overlay.catalog import PACKAGE, folders_of, is_services_folder


class Target(NamedTuple):
    """What a replaced name stands for."""

    module: str  # full name of the module in peercore
    spec: ModuleSpec  # where that module comes from


_own_specs: dict[str, ModuleSpec] = {}  # module in peercore -> the spec it was imported with


class OverlayFinder:
    """Answers for the replaced names; every other name is left to the finders behind it.

    Thread safety: `targets` is replaced as a whole and never changed in place, so lookups need no lock.
    The import system holds its global lock during `find_spec`, so nothing is imported here.
    """

    def __init__(self) -> None:
        self.targets: Mapping[str, Target] = {}
        self._parent_mark = object()

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """Return a spec for a replaced name, or for the parent package when no other finder has one."""
        found = self.targets.get(fullname)
        if found is not None:
            if "." not in fullname and not self.takes_bare(fullname):
                return None
            loader: Any = OverlayLoader(found)  # not an importlib.abc.Loader: that module takes 8 ms to import
            return ModuleSpec(fullname, loader, origin=found.spec.origin)
        if fullname == PACKAGE and self.targets and self.search_elsewhere(PACKAGE) is None:
            # Without a loader importlib makes it a namespace package, here one with nowhere to search.
            return ModuleSpec(PACKAGE, None, is_package=True, loader_state=self._parent_mark)
        return None

    def takes_bare(self, name: str) -> bool:
        """Tell whether bare `name` is a v1.2 service: found among other v1.2 services, or found nowhere at all."""
        spec = self.search_elsewhere(name)
        return spec is None or any(is_services_folder(folder, name) for folder in folders_of(spec))

    def search_elsewhere(self, name: str) -> ModuleSpec | None:
        """Return what the ordinary search of the import system would find for top-level `name`."""
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(name, None, None)
            if spec is not None:
                return spec
        return None

    def made_parent(self, module: ModuleType | None) -> bool:
        """Tell whether `module` is the stand-in parent package that this finder made."""
        return getattr(getattr(module, "__spec__", None), "loader_state", None) is self._parent_mark


class OverlayLoader:
    """Gives the existing module object for another of its names; the inspection calls read the module's own source."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the replacing module under its own name (once per process) and return that object."""
        module = importlib.import_module(self._target.module)
        own = module.__spec__
        # Another thread may be between these two methods for another spelling; it has noted the spec then.
        if own is not None and own.name == self._target.module:
            _own_specs[self._target.module] = own
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back: importlib has just set the one of the other name on it."""
        # Left in place, reload() and find_spec() would go by the other name and run the source a second time.
        module.__spec__ = _own_specs[self._target.module]

    def is_package(self, fullname: str) -> bool:
        """Services are plain modules."""
        return False

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code of the replacing module, which is what ``python -m services.<name>`` runs."""
        code: CodeType | None = self._source_loader().get_code(self._target.module)
        return code

    def get_source(self, fullname: str) -> str | None:
        """Return the source text of the replacing module."""
        source: str | None = self._source_loader().get_source(self._target.module)
        return source

    def _source_loader(self) -> Any:
        return self._target.spec.loader
