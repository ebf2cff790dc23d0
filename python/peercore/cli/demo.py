"""``python -m peercore demo``: a web application behind the native rate limiter, under real HTTP traffic."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
from typing import Annotated, Any

import typer
from rich.console import Console

from peercore.bench.baseline import NoBaseline, find
from peercore.demo import traffic, versus, view
from peercore.demo.http import Connection
from peercore.demo.server import Server, ServerFailed, running

_CHECK_FAILED, _USAGE_ERROR, _INTERRUPTED = 1, 2, 130


def demo(
    seconds: Annotated[float, typer.Option(min=3.0, max=90.0, help="How long the clients are let loose.")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON in place of tables.")] = False,
    compare: Annotated[
        bool, typer.Option(help="Measure against plain Python afterwards (in a checkout; about 20 s).")
    ] = True,
) -> None:
    """Drive a real web application behind the native rate limiter and show what it admits and refuses.

    A FastAPI application under uvicorn, in a process of its own on loopback; three well-behaved and three abusive
    clients, each from an address of its own. It checks itself: nobody well-behaved is refused, and the abusive get
    what their bucket allows. Then the same application is measured beside one with plain Python's middleware.

    Exit codes: 0 everything as it should be; 1 a check failed; 2 wrong usage or a missing package; 130 interrupted.

    Examples: python -m peercore demo; python -m peercore demo --seconds 5 --no-compare --json
    """
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        typer.echo(f"python -m peercore demo needs {' and '.join(missing)}: pip install 'peercore[bench]'", err=True)
        raise typer.Exit(_USAGE_ERROR)
    console = Console(quiet=as_json, highlight=False)
    try:
        outcome = _outcome(console, seconds, compare)
    except KeyboardInterrupt:
        typer.echo("Interrupted; the server is stopped.", err=True)
        raise typer.Exit(_INTERRUPTED) from None
    except (ServerFailed, OSError, EOFError) as error:
        typer.echo(f"python -m peercore demo: the server failed: {error}", err=True)
        raise typer.Exit(_CHECK_FAILED) from None
    if as_json:
        typer.echo(json.dumps(outcome, indent=2))
    raise typer.Exit(0 if outcome["ok"] else _CHECK_FAILED)


def _outcome(console: Console, seconds: float, compare: bool) -> dict[str, Any]:
    clients = traffic.cast()
    console.print(f"Six clients, {seconds:g} s: three behave, three do not.")
    with running() as server:
        asyncio.run(_let_loose(clients, server, seconds, console))
        server.check()
        lines = len(server.log_lines())
    console.print(view.tallies(clients, "What the native rate limiter admitted and refused"))
    refused = sum(client.refused for client in clients)
    console.print(f"The server logged {lines} lines about {refused} refusals: its log is limited, too.")
    problems = [problem for client in clients for problem in client.problems()]
    for problem in problems:
        console.print(f"[red]FAILED[/] {problem}")
    if not problems:
        console.print("[green]OK[/] nobody well-behaved was refused; the abusive got what their bucket allows.")
    outcome: dict[str, Any] = {"ok": not problems, "seconds": seconds, "log_lines": lines}
    outcome["clients"] = [client.as_dict() for client in clients]
    outcome["side_by_side"] = _compared(console) if compare else None
    return outcome


async def _let_loose(clients: list[traffic.Client], server: Server, seconds: float, console: Console) -> None:
    # Answered as soon as the application is up; the clients' time starts then.
    probe = Connection("127.0.0.1", server.port)
    ready = asyncio.ensure_future(probe.get("/health"))
    while not (await asyncio.wait([ready], timeout=0.2))[0]:
        server.check()
    ready.result()
    await probe.close()
    watching = asyncio.ensure_future(view.watch(clients, console))
    try:
        await traffic.drive(clients, server.port, seconds)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _compared(console: Console) -> dict[str, Any] | None:
    """Measure and show the comparison; None without a plain-Python side, which only the repository has."""
    try:
        find()
    except NoBaseline as error:
        console.print(f"No side-by-side table: {error}", soft_wrap=True)
        return None
    console.print()
    result = versus.measure(lambda what: console.print(f"Measuring {what} ..."))
    console.print(view.side_by_side(result))
    return result.as_dict()
