"""What the demonstration shows: a live table on a terminal, plain lines elsewhere, and the table at the end."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.live import Live
from rich.table import Table

from peercore.demo.app import BARE, BASELINE, NATIVE, limit_of
from peercore.demo.traffic import Client
from peercore.demo.versus import Versus

_LIVE_S = 0.25
_LINE_S = 2.0


def tallies(clients: list[Client], title: str = "") -> Table:
    """Return the table of all clients, as things stand: what each sent, got, and what its bucket allows.

    The limit is requests per minute and burst. Fits into 80 columns.
    """
    table = Table(title=title, title_justify="left")
    for column in ("client", "does", "limit"):
        table.add_column(column, no_wrap=True)
    for column in ("sent", "admitted", "refused", "allowed"):
        table.add_column(column, justify="right", no_wrap=True)
    for client in clients:
        per_minute, burst = limit_of(client.template)
        style = "green" if client.well_behaved else "red"
        cells = (client.sent, client.admitted, client.refused, client.allowance[1] if client.sent else 0)
        table.add_row(
            f"[{style}]{client.name}[/]",
            client.habit,
            f"{per_minute}/m, {burst}",
            *map(str, cells),
        )
    return table


async def watch(clients: list[Client], console: Console) -> None:
    """Show the tallies until cancelled: redrawn in place on a terminal, a line now and then elsewhere."""
    if console.is_terminal:
        with Live(tallies(clients), console=console, auto_refresh=False) as live:
            try:
                while True:
                    live.update(tallies(clients), refresh=True)
                    await asyncio.sleep(_LIVE_S)
            finally:
                live.update(tallies(clients), refresh=True)
    while True:
        await asyncio.sleep(_LINE_S)
        now = ", ".join(f"{client.name} {client.admitted}+{client.refused}" for client in clients)
        console.print(f"  admitted+refused: {now}", soft_wrap=True)


def side_by_side(versus: Versus) -> Table:
    """Return the comparison as a table."""
    table = Table(title="The same application, side by side", title_justify="left")
    table.add_column("")
    for column in ("no limits", "native", "plain Python", "native is"):
        table.add_column(column, justify="right")
    cpu, rate = versus.cpu_us, versus.per_second
    table.add_row(
        "CPU per request",
        *(f"{cpu[side]:.1f} µs" for side in (BARE, NATIVE, BASELINE)),
        f"{cpu[BASELINE] / cpu[NATIVE]:.1f}x",
    )
    added = {side: max(cpu[side] - cpu[BARE], 0.0) for side in (NATIVE, BASELINE)}
    table.add_row(
        "  of it the limiter", "", f"{added[NATIVE]:.1f} µs", f"{added[BASELINE]:.1f} µs", f"{versus.ratio:.1f}x"
    )
    table.add_row(
        "requests/s over HTTP",
        *(f"{rate[side]:,.0f}" for side in (BARE, NATIVE, BASELINE)),
        f"{rate[NATIVE] / rate[BASELINE]:.1f}x",
    )
    refusals = [versus.refusals[side] for side in (NATIVE, BASELINE)]
    table.add_row("over the limit: status", "", *(str(answer.status) for answer in refusals), "")
    table.add_row("  Retry-After", "", *(answer.headers.get("retry-after", "none") for answer in refusals), "")
    return table
