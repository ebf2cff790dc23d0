"""The rate limiter across fork, the end of the interpreter and Ctrl-C: quiet and defined."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from stack_process import TIMEOUT_S, python, run_code


def test_fork_gives_each_process_buckets_of_its_own():
    printed = run_code("""
        import asyncio, os
        from peercore.services.rate_limiter import RateLimitConfig, TokenBucketRateLimiter
        limiter = TokenBucketRateLimiter(RateLimitConfig(1, 5))

        async def use(count):
            await limiter.start()
            answers = [await limiter.allow("k") for _ in range(count)]
            await limiter.stop()
            return sum(answers)

        print("before", asyncio.run(use(2)), flush=True)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        print("parent" if child else "child", asyncio.run(use(4)), flush=True)
        if not child:
            os._exit(0)
    """)
    assert printed == "before 2\nchild 3\nparent 3\n"


EXITS = {
    "waiters on a loop that was never closed": """
        loop = asyncio.new_event_loop()
        async def wait():
            return [asyncio.ensure_future(limiter.acquire("k")) for _ in range(3)]
        waiting = loop.run_until_complete(wait())
        loop.run_until_complete(asyncio.sleep(0.01))
        for task in waiting:
            task._log_destroy_pending = False
    """,
    "waiters cancelled by asyncio.run": """
        async def main():
            for _ in range(3):
                asyncio.ensure_future(limiter.acquire("k"))
            await asyncio.sleep(0.01)
        asyncio.run(main())
    """,
    "a cleanup task on a loop that was never closed": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(limiter.start())
        limiter._cleanup_task._log_destroy_pending = False
    """,
    "a waiter in a daemon thread": """
        import threading
        ready = threading.Event()
        async def main():
            asyncio.get_running_loop().call_later(0.01, ready.set)
            await limiter.acquire("k")
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        ready.wait()
    """,
    "checks from a finaliser at the very end": """
        import sys
        class Late:
            def __del__(self, limiter=limiter):
                limiter.allow_now("late")
                limiter.check_now(("late",))
        sys.late = Late()
        limiter.me = limiter
    """,
    "a coroutine that was closed": """
        limiter.coroutine = limiter.check_rate_limit("k")
        limiter.coroutine.close()
    """,
    "keys of Python objects": """
        class Key:
            def __del__(self):
                limiter.allow_now(("again",))
        for _ in range(10):
            limiter.allow_now(Key())
    """,
}


@pytest.mark.parametrize("what", EXITS)
def test_interpreter_exit_is_quiet(what):
    setup = """
        import asyncio
        from peercore.services.rate_limiter import RateLimitConfig, TokenBucketRateLimiter
        limiter = TokenBucketRateLimiter(RateLimitConfig(1, 1))
        limiter.allow_now("k")
    """
    code = textwrap.dedent(setup) + textwrap.dedent(EXITS[what]) + "\nprint('end')\n"
    # CPython abandons a daemon thread's frames at exit, which a leak check would report whatever the thread was doing.
    environ = {"ASAN_OPTIONS": "detect_leaks=0"} if "daemon" in what else None
    # No -W error: it would only turn the tear-down order of the loop's own sockets into text.
    done = python("-c", code, environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


CTRL_C = {
    "waiting": "await limiter.acquire('k')",
    "waiting on a line": "await asyncio.gather(*(limiter.acquire('k') for _ in range(1000)))",
    "checking": """
    while True:
        limiter.allow_now('k')
        await limiter.check_rate_limit('k')
        await asyncio.sleep(0)
""",
}


@pytest.mark.parametrize("what", CTRL_C)
def test_ctrl_c_ends_the_program(what):
    code = f"""
import asyncio
from peercore.services.rate_limiter import RateLimitConfig, TokenBucketRateLimiter
limiter = TokenBucketRateLimiter(RateLimitConfig(1, 1))

async def main():
    limiter.allow_now('k')
    asyncio.get_running_loop().call_later(0.05, lambda: print('ready', flush=True))
    {CTRL_C[what]}

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print('interrupted', limiter._waiting, limiter._lines)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, printed, errors) == (0, "interrupted 0 {}\n", "")
