"""Command line of peercore: ``python -m peercore doctor | bench | demo | run``.

Exit codes: 0 all went well, 1 a check failed, 2 wrong usage or a missing package. ``run`` passes on the exit code of
the program it runs. Only ``run`` works without the ``cli`` extra (typer and rich): it is what a production stack uses.

A command that is a world of its own lives in the module of its name, as a typer function of that name
(`peercore.cli.bench.bench`, `peercore.cli.demo.demo`), and is imported when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

PROGRAM = "python -m peercore"

_MISSING_EXTRA = f"""\
{PROGRAM}: this command needs the packages typer and rich: pip install 'peercore[cli]'
Without them only `{PROGRAM} run` works."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `argv` (None: ``sys.argv[1:]``) and return the exit code; commands may raise SystemExit instead."""
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] == ["run"]:
        from peercore.cli import run

        return run.main(args[1:])
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        print(_MISSING_EXTRA, file=sys.stderr)
        return 2
    from peercore.cli.app import app

    app(args, prog_name=PROGRAM)
    return 0
