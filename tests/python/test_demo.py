"""The demonstration: `python -m peercore demo`."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from peercore.demo import traffic, versus, view
from peercore.demo.app import BARE, BASELINE, NATIVE
from peercore.demo.http import Answer, Connection
from peercore.demo.server import ServerFailed, running

COMMAND = [sys.executable, "-m", "peercore", "demo"]
WAIT_S = 60


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, what: str):
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


def test_demo_shows_that_the_limiter_works():
    run = subprocess.run(
        [*COMMAND, "--seconds", "3", "--no-compare", "--json"], capture_output=True, text=True, timeout=WAIT_S
    )
    assert (run.returncode, run.stderr) == (0, "")
    outcome = json.loads(run.stdout)
    assert outcome["ok"] is True
    assert outcome["log_lines"] <= 20
    assert outcome["side_by_side"] is None
    clients = {client["name"]: client for client in outcome["clients"]}
    assert len(clients) == 6
    for client in clients.values():
        assert client["problems"] == []
        assert client["sent"] == client["admitted"] + client["refused"]
        assert (client["refused"] == 0) is client["well_behaved"]
    assert clients["scan"]["admitted"] <= 20 + 10 * 4, "paths nobody serves share one bucket"


def test_demo_prints_plain_lines_where_there_is_no_terminal():
    run = subprocess.run([*COMMAND, "--seconds", "3", "--no-compare"], capture_output=True, text=True, timeout=WAIT_S)
    assert (run.returncode, run.stderr) == (0, "")
    assert "\x1b" not in run.stdout
    assert "admitted+refused: chat" in run.stdout
    assert "OK nobody well-behaved was refused" in run.stdout


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_demo_leaves_no_process_behind(how):
    with subprocess.Popen(
        [*COMMAND, "--seconds", "60", "--no-compare"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: "admitted+refused" in process.stdout.readline(), "traffic")
        (server,) = children(process.pid)
        process.send_signal(how)
        _, errors = process.communicate(timeout=WAIT_S)
    if how is signal.SIGINT:
        assert (process.returncode, errors) == (130, "Interrupted; the server is stopped.\n")
    until(lambda: not alive(server), "the end of the server")


@pytest.mark.parametrize("arguments", [["--seconds", "1"], ["--seconds", "3600"], ["--nonsense"]])
def test_wrong_usage(arguments):
    assert subprocess.run([*COMMAND, *arguments], capture_output=True, timeout=WAIT_S).returncode == 2


def client(**tally) -> traffic.Client:
    made = traffic.Client("c", "does", "127.0.1.1", "/message", 1.0, lambda n: "/message", tally.pop("good"))
    made.first_sent, made.first_answered, made.last_sent, made.last_answered = 0.0, 0.01, 10.0, 10.01
    for name, value in tally.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("tally", "says"),
    [
        ({"good": True, "sent": 30, "admitted": 30}, None),
        ({"good": False, "sent": 500, "admitted": 50, "refused": 450}, None),
        ({"good": True, "sent": 30, "admitted": 29, "refused": 1}, "well-behaved, but refused"),
        ({"good": False, "sent": 50, "admitted": 50}, "never refused"),
        ({"good": False, "sent": 500, "admitted": 60, "refused": 440}, "admitted 60"),
        ({"good": False, "sent": 500, "admitted": 40, "refused": 460}, "admitted 40"),
        ({"good": True, "sent": 1, "admitted": 1, "faults": ["request 0: status 500"]}, "status 500"),
    ],
)
def test_the_demo_checks_itself(tally, says):
    problems = client(**tally).problems()
    assert problems == [] if says is None else says in " ".join(problems)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(429, {"retry-after": "1"}), None),
        (Answer(429, {}), "without a time"),
        (Answer(429, {"retry-after": "0"}), "without a time"),
        (Answer(500, {}), "status 500"),
    ],
)
def test_answers_are_judged(answer, fault):
    one = client(good=False)
    one._count(7, answer)
    assert (one.faults == []) is (fault is None)
    assert fault is None or fault in one.faults[0]


async def test_clients_come_from_their_own_addresses():
    seen = []

    async def serve(reader, writer):
        seen.append(writer.get_extra_info("peername")[0])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for address in ("127.0.1.1", "127.0.2.1"):
        connection = Connection(address, port)
        for _ in range(2):
            assert (await connection.get("/")).status == 204
    server.close()
    await server.wait_closed()
    assert seen == ["127.0.1.1", "127.0.1.1", "127.0.2.1", "127.0.2.1"]


def test_a_server_that_dies_is_noticed():
    with running("--measure", "native", "0", "1") as server:
        until(lambda: server._process.poll() is not None, "the end of the server")
        with pytest.raises(ServerFailed, match="requests_per_minute"):
            server.check()
    assert not alive(server._process.pid)


async def test_terminal_sees_a_live_table():
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    watching = asyncio.ensure_future(view.watch(traffic.cast(), screen))
    while "scan" not in screen.file.getvalue():
        await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.wait([watching])
    assert "…" not in screen.file.getvalue(), "the table fits into 80 columns"


def test_side_by_side(monkeypatch):
    monkeypatch.setattr(versus, "_ROUNDS", 1)
    monkeypatch.setattr(versus, "_ROUND_S", 0.1)
    monkeypatch.setattr(versus, "_CALLS", 20)
    steps = []
    result = versus.measure(steps.append)
    assert len(steps) == 3
    assert (result.refusals[NATIVE].status, result.refusals[BASELINE].status) == (429, 500)
    assert result.refusals[NATIVE].headers["retry-after"] == "1"
    assert set(result.cpu_us) == set(result.per_second) == {BARE, NATIVE, BASELINE}
    assert all(value > 0 for value in [*result.cpu_us.values(), *result.per_second.values()])
    json.dumps(result.as_dict())
    screen = Console(file=io.StringIO(), width=80)
    screen.print(view.side_by_side(result))
    assert "Retry-After" in screen.file.getvalue()
    assert "…" not in screen.file.getvalue()
