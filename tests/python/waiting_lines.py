"""What the tests of `acquire` share."""

import asyncio

TIMEOUT_S = 30  # a safety net; every wait ends on a condition


class StickyLoop(asyncio.SelectorEventLoop):
    """Event loop that counts the timers set on it."""

    def __init__(self):
        super().__init__()
        self.timers = []

    def call_later(self, delay, callback, *args, context=None):
        handle = super().call_later(delay, callback, *args, context=context)
        self.timers.append(handle)
        return handle

    def live_line_timers(self):
        """Timers of waiting lines that are neither cancelled nor over."""
        now = self.time()
        return [t for t in self.timers if "_on_time" in repr(t) and not t.cancelled() and t.when() > now]


def assert_nobody_waits(limiter):
    assert limiter._waiting == 0
    assert limiter._lines == {}


async def queue_up(limiter, count, key="k", cost=1, note=None):
    """Start `count` waiters, in order; their tasks."""

    async def wait(number):
        await limiter.acquire(key, cost)
        if note is not None:
            note.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(count)]
    await asyncio.sleep(0)
    return tasks


async def cancel_all(tasks):
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)
