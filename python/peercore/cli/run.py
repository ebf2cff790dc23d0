"""``python -m peercore run``: run an unmodified program with the overlay installed, as ``python`` itself would run it.

Standard library only, arguments parsed by hand: everything behind the program belongs to the program. The program gets
a ``__main__`` module of its own that stays until the interpreter ends (`runpy` takes its one away again when the code
returns, while threads and atexit handlers of the program still need it).
"""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.machinery import BuiltinImporter, ModuleSpec, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import peercore
from peercore.overlay import children

HELP = """\
Usage: python -m peercore run [OPTIONS] (-m MODULE | -c CODE | SCRIPT) [ARGS]...

Run a Python program with its v1.2 services replaced by the native ones, in this
process and in the Python processes it starts. What follows the program is passed
to it unchanged.

Options:
  --module NAME   replace this service only; repeat it for more. Default: what
                  the variable PEERCORE_MODULES names, or every service there is
  --no-bare       leave the bare names alone (rate_limiter without services.)
  -m MODULE       run a module or package, like python -m
  -c CODE         run the text of a program, like python -c
  --help          show this message

Exit code: that of the program; 2 for wrong usage.

Examples:
  python -m peercore run -m uvicorn services.api_server:app --workers 2
  python -m peercore run --module rate_limiter run_agent.py --port 9000
  python -m peercore run -m pytest tests/
"""

_USAGE_ERROR = 2  # also what python returns for a script it cannot open


class UsageError(Exception):
    """The arguments make no sense; the text says which one."""


class Command(NamedTuple):
    """What to run and how."""

    kind: str  # "module", "code" or "script"
    program: str
    args: list[str]
    modules: tuple[str, ...]  # empty: not said
    bare: bool | None  # None: not said


class Program(NamedTuple):
    """Code to run as ``__main__`` and the attributes that module gets."""

    code: CodeType
    spec: ModuleSpec | None = None
    loader: Any = None
    file: str | None = None


def main(args: Sequence[str]) -> int:
    """Run the program that `args` (what follows ``run``) describe; return 0, or raise what the program raises."""
    if args and args[0] in ("--help", "-h"):
        print(HELP, end="")
        return 0
    try:
        command = parse(args)
        _install(command)
    except (UsageError, ValueError, peercore.OverlayError) as error:
        print(f"python -m peercore run: {error}\nTry: python -m peercore run --help", file=sys.stderr)
        return _USAGE_ERROR
    prepare = {"module": _prepare_module, "code": _prepare_code, "script": _prepare_script}[command.kind]
    program = prepare(command)
    exec(program.code, _new_main(program).__dict__)
    return 0


def parse(args: Sequence[str]) -> Command:
    """Split `args` into our options, the program and its arguments. Raises UsageError."""
    modules: list[str] = []
    bare: bool | None = None
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--no-bare":
            bare = False
        elif word == "--module" or word.startswith("--module="):
            modules += _names(_value(word, "--module", rest))
        elif word[:2] in ("-m", "-c"):
            kind = "module" if word[1] == "m" else "code"
            return Command(kind, _value(word, word[:2], rest), rest, tuple(modules), bare)
        elif word == "--" and rest:
            return Command("script", rest[0], rest[1:], tuple(modules), bare)
        elif word.startswith("-"):
            raise UsageError(f"unknown option {word}")
        else:
            return Command("script", word, rest, tuple(modules), bare)
    raise UsageError("no program given: -m MODULE, -c CODE or SCRIPT")


def _value(word: str, option: str, rest: list[str]) -> str:
    if word != option:
        return word[len(option) :].removeprefix("=" if option.startswith("--") else "")
    if not rest:
        raise UsageError(f"option {option} needs a value")
    return rest.pop(0)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError("option --module needs a value")
    return names


def _install(command: Command) -> None:
    asked_modules, asked_bare = children.choice() or ((), True)
    modules = command.modules or asked_modules
    bare = asked_bare if command.bare is None else command.bare
    peercore.uninstall()  # below another `run` its choice is installed already; this one's counts
    peercore.install(*modules, bare=bare)
    children.export(modules, bare, search_path=_own_search_path())


def _own_search_path() -> list[str]:
    # Started in the folder that holds the package, this process found peercore through sys.path[0]: nobody else does.
    root = os.path.dirname(os.path.dirname(os.path.abspath(peercore.__file__)))
    return [root] if sys.path[:1] == [root] and root not in sys.path[1:] else []


def _new_main(program: Program) -> ModuleType:
    module = ModuleType("__main__")
    namespace: dict[str, Any] = {
        "__builtins__": builtins,
        "__spec__": program.spec,
        "__loader__": program.loader,
        "__package__": None if program.spec is None else program.spec.parent,
    }
    if program.file is not None:
        namespace["__file__"] = program.file
        namespace["__cached__"] = None if program.spec is None else program.spec.cached
    module.__dict__.update(namespace)
    sys.modules["__main__"] = module
    return module


def _set_search_path(first: str, always: bool = False) -> None:
    """Put the program's own folder where python put ours. With -P and -I there is none, unless `always`."""
    if not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated:
        sys.path[0] = first
    elif always:
        sys.path.insert(0, first)


def _prepare_code(command: Command) -> Program:
    _set_search_path("")
    sys.argv[:] = ["-c", *command.args]
    return Program(compile(command.program, "<string>", "exec", dont_inherit=True), loader=BuiltinImporter)


def _prepare_script(command: Command) -> Program:
    script = command.program
    sys.argv[:] = [script, *command.args]
    path = os.path.join(os.getcwd(), script)  # absolute but not normalised, as python has it
    importer: Any = pkgutil.get_importer(path)
    if importer is not None:  # a folder or a zip file with a __main__ module
        _set_search_path(path, always=True)
        spec = importer.find_spec("__main__")
        if spec is None:
            raise SystemExit(f"{sys.executable}: can't find '__main__' module in {path!r}")
        return _load(spec)
    _set_search_path(os.path.dirname(os.path.realpath(path)))
    if path.endswith(".pyc"):
        sourceless = SourcelessFileLoader("__main__", path)
        return Program(_checked(sourceless.get_code("__main__"), path), loader=sourceless, file=path)
    # SourceFileLoader.get_code would leave a .pyc of the script behind.
    code = compile(_read(path), path, "exec", dont_inherit=True)
    return Program(code, loader=SourceFileLoader("__main__", path), file=path)


def _read(path: str) -> bytes:
    try:
        with io.open_code(path) as file:
            return file.read()
    except OSError as error:
        print(f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
        raise SystemExit(_USAGE_ERROR) from None


def _prepare_module(command: Command) -> Program:
    _set_search_path(os.getcwd())
    sys.argv[:] = ["-m", *command.args]  # what python shows while it looks for the module
    program = _load(_find_main(command.program))
    sys.argv[0] = program.file or command.program
    return program


def _find_main(name: str) -> ModuleSpec:
    """Find module `name`, or ``name.__main__`` for a package. Ends the process if there is none."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    if spec is None:
        package, _, last = name.rpartition(".")
        reason = f"; {package!r} is a package and cannot be directly executed" if last == "__main__" else ""
        raise SystemExit(f"{sys.executable}: No module named {name}{reason}")
    return spec if spec.submodule_search_locations is None else _find_main(f"{name}.__main__")


def _load(spec: ModuleSpec) -> Program:
    get_code = getattr(spec.loader, "get_code", None)
    code = None if get_code is None else get_code(spec.name)
    return Program(_checked(code, spec.name), spec, spec.loader, spec.origin)


def _checked(code: CodeType | None, name: str) -> CodeType:
    if code is None:
        raise SystemExit(f"{sys.executable}: No code object available for {name}")
    return code
