"""Finding and loading the plain-Python services that the native ones are measured against."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import peercore

IN_CHECKOUT = Path("benchmarks") / "baseline"
MODULE_PREFIX = "peercore_measured_"


class NoBaseline(Exception):
    """Nothing to measure against; the text says what to do."""


@dataclass(frozen=True)
class Opponent:
    """A services folder whose modules are the other side of the comparison."""

    folder: Path
    name: str

    def file(self, component: str) -> Path:
        """Return the file of `component`. Raises NoBaseline."""
        path = self.folder / f"{component}.py"
        if not path.is_file():
            raise NoBaseline(f"no {component}.py in {self.folder}")
        return path

    def load(self, component: str) -> ModuleType:
        """Import `component` from the folder, whatever is installed in its place. Raises NoBaseline."""
        return load_file(self.file(component))


def load_file(path: Path) -> ModuleType:
    """Import the service in `path` under a name of our own; its neighbours are importable while it loads.

    Raises NoBaseline when an import inside it fails."""
    name = f"{MODULE_PREFIX}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        with _on_path(path.parent, path.parent.parent):
            spec.loader.exec_module(module)
    except ImportError as error:
        del sys.modules[name]
        raise NoBaseline(f"{path} cannot be imported: {error}") from error
    return module


@contextmanager
def _on_path(*folders: Path) -> Iterator[None]:
    added = [str(folder) for folder in folders]
    sys.path[:0] = added
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:
                sys.path.remove(folder)


def find(against: Path | None = None) -> Opponent:
    """Return `against` (a services folder, or a workspace root that holds one), or else our own baseline.

    Ours is in the repository: looked for from the working folder upwards, then around the package. Raises NoBaseline.
    """
    if against is not None:
        inner = against / "services"
        return Opponent((inner if inner.is_dir() else against).resolve(), "your services")
    package = Path(peercore.__file__).resolve().parent
    for root in [Path.cwd(), *Path.cwd().parents, *package.parents]:
        if (root / IN_CHECKOUT).is_dir():
            return Opponent(root / IN_CHECKOUT, "baseline")
    raise NoBaseline(
        f"the plain-Python baseline is part of the repository ({IN_CHECKOUT}), not of the installed package: "
        "run this inside a checkout, or name a services folder with --against FOLDER"
    )
