"""Entry point of the example stack: one agent routes three messages. Prints what it imported and what arrived."""

import asyncio
import json
import multiprocessing
import os
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [ROOT, os.path.join(ROOT, "services")]

import rate_limiter  # noqa: E402
import services.rate_limiter  # noqa: E402
from message_router import MessageRouter  # noqa: E402
from peer_service import PeerService  # noqa: E402
from registry import get_registry  # noqa: E402


async def route_three():
    inbox = []
    peers = PeerService("agent")
    peers.connect("worker", inbox)
    get_registry().register("worker", ["sum"])
    router = MessageRouter(peers)
    for number in range(3):
        await router.route("sum", {"number": number})
    return inbox


def report():
    return {
        "arguments": sys.argv[1:],
        "bare": rate_limiter.__file__,
        "qualified": services.rate_limiter.__file__,
        "one_module": rate_limiter is services.rate_limiter,
        "one_limiter": rate_limiter.get_rate_limiter() is services.rate_limiter.get_rate_limiter(),
        "arrived": asyncio.run(route_three()),
    }


def _report_to(queue):
    queue.put(report())


def report_of_child(method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_report_to, args=(queue,))
    child.start()
    found = queue.get(timeout=60)
    child.join()
    return found


if __name__ == "__main__":
    reports = [report()] if not sys.argv[1:] else [report_of_child(method) for method in sys.argv[1:]]
    print(json.dumps(reports))
