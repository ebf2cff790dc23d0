"""The overlay in child processes, and what `run` puts into the environment for them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from stack_process import TIMEOUT_S, copy_stack, python

from peercore.overlay import children


@pytest.fixture
def stack(tmp_path):
    return copy_stack(tmp_path)


def test_the_stack_alone_uses_its_own_modules(stack):
    (report,) = json.loads(python(stack / "run_agent.py").stdout)
    assert report["bare"] == str(stack / "services" / "rate_limiter.py")
    assert report["one_module"] is False
    assert [message["number"] for message in report["arrived"]] == [0, 1]


@pytest.mark.parametrize("method", [None, "fork", "spawn", "forkserver"])
def test_run_reaches_the_program_and_its_children(method, stack):
    done = python("-m", "peercore", "run", stack / "run_agent.py", *filter(None, [method]))
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    assert report["one_module"] is report["one_limiter"] is True
    assert "peercore" in report["qualified"]
    assert [message["number"] for message in report["arrived"]] == [0, 1]


def test_no_bare_reaches_children_too(stack):
    done = python("-m", "peercore", "run", "--no-bare", stack / "run_agent.py", "spawn")
    (report,) = json.loads(done.stdout)
    assert report["bare"] == str(stack / "services" / "rate_limiter.py")
    assert "peercore" in report["qualified"]


def test_interpreters_started_by_the_program_are_reached(stack):
    code = "import services.rate_limiter as found; print(found.__name__)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-W', 'error', '-c', {code!r}], check=True)"
    done = python("-m", "peercore", "run", "-c", outer, cwd=stack)
    assert (done.stdout.strip(), done.stderr) == ("peercore.services.rate_limiter", "")


def test_install_in_a_forked_child_works_while_a_thread_of_the_parent_holds_the_lock(stack):
    code = """
        import os, peercore, peercore.overlay, threading
        held, release = threading.Event(), threading.Event()
        def hold():
            with peercore.overlay._lock:
                held.set()
                release.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child == 0:
            peercore.install()
            import services.rate_limiter
            os._exit(0 if services.rate_limiter.__name__ == "peercore.services.rate_limiter" else 1)
        status = os.waitpid(child, 0)[1]
        release.set()
        thread.join()
        assert status == 0
    """
    done = python("-c", "\n".join(line[8:] for line in code.splitlines()), path=[stack])
    assert done.returncode == 0, done.stderr


STARTED = {"PEERCORE_MODULES": "rate_limiter"}
NAME_OF = "import services.rate_limiter as found; print(found.__name__)"


def _started(code, stack, *before, environ=STARTED):
    return python("-c", code, path=[children.STARTUP_FOLDER, *before, stack], environ=environ)


def test_the_variables_alone_switch_a_program_over(stack):
    assert _started(NAME_OF, stack).stdout.strip() == "peercore.services.rate_limiter"
    assert _started(NAME_OF, stack, environ={"PEERCORE_MODULES": "all"}).stdout.startswith("peercore.")
    assert _started(NAME_OF, stack, environ={}).stdout.strip() == "services.rate_limiter"


def test_a_mistyped_service_is_reported_and_the_program_runs_as_before(stack):
    done = _started(NAME_OF, stack, environ={"PEERCORE_MODULES": "rate_limitr"})
    assert done.stdout.strip() == "services.rate_limiter"
    assert "rate_limitr" in done.stderr


def test_the_hidden_sitecustomize_still_runs_and_owns_the_name(stack, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("FOUND = True\n")
    code = f"import sitecustomize, sys; print(sitecustomize.FOUND, {children.STARTUP_FOLDER!r} in sys.path); {NAME_OF}"
    assert _started(code, stack, tmp_path).stdout.split() == ["True", "False", "peercore.services.rate_limiter"]


def test_a_failing_hidden_sitecustomize_does_not_stop_the_overlay(stack, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import missing_module\n")
    done = _started(NAME_OF, stack, tmp_path)
    assert "missing_module" in done.stderr
    assert "peercore.services.rate_limiter" in done.stdout


def test_an_interpreter_without_peercore_starts_as_ever(stack):
    code = "import sys; sys.modules['peercore'] = None; import sitecustomize; print(sitecustomize.__file__)"
    environ = {**STARTED, "PYTHONPATH": children.STARTUP_FOLDER}
    done = python("-S", "-c", code, environ=environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_choice_reads_the_environment():
    assert children.choice({}) is None
    assert children.choice({"PEERCORE_MODULES": " , "}) is None
    assert children.choice({"PEERCORE_MODULES": "all"}) == ((), True)
    assert children.choice({"PEERCORE_MODULES": "a, b,", "PEERCORE_BARE": "0"}) == (("a", "b"), False)


def test_export_puts_the_startup_folder_first_and_once():
    environ = {"PYTHONPATH": os.pathsep.join(["/one", "", "/two"])}
    for _ in range(2):
        children.export(("rate_limiter",), False, environ, search_path=["/here"])
    expected = os.pathsep.join([children.STARTUP_FOLDER, "/here", "/one", "/two"])
    assert environ == {"PEERCORE_MODULES": "rate_limiter", "PEERCORE_BARE": "0", "PYTHONPATH": expected}
    assert children.choice(environ) == (("rate_limiter",), False)


def test_export_without_names_means_all():
    environ = {}
    children.export((), True, environ)
    assert children.choice(environ) == ((), True)
    assert environ["PYTHONPATH"] == children.STARTUP_FOLDER


def test_inner_run_has_the_last_word(stack):
    inner = "['-m', 'peercore', 'run', '--no-bare', '-c', 'import peercore; print(peercore.installed())']"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, *{inner}], check=True)"
    done = python("-m", "peercore", "run", "-c", outer, cwd=stack)
    assert done.stdout.strip() == "{'rate_limiter': ('services.rate_limiter',)}"


def test_uvicorn_workers_serve_through_the_native_limiter(stack):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["-m", "uvicorn", "services.api_server:app", "--workers", "2", "--port", str(port)]
    command = [sys.executable, "-m", "peercore", "run", *arguments]
    with subprocess.Popen(command, cwd=stack, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            answers = _answers_of_two_workers(server, f"http://127.0.0.1:{port}/")
        finally:
            server.send_signal(signal.SIGTERM)
            output = server.communicate(timeout=TIMEOUT_S)[0]
    assert {"peercore" in limiter for limiter in answers.values()} == {True}, output
    assert len(answers) == 2, output
    assert len(set(re.findall(r"Started server process \[(\d+)\]", output))) == 2


def _answers_of_two_workers(server, url):
    """Ask on new paths until both workers have answered; return worker -> file of its limiter."""
    answers = {}
    deadline = time.monotonic() + TIMEOUT_S / 4
    number = 0
    while len(answers) < 2 and server.poll() is None and time.monotonic() < deadline:
        number += 1
        try:
            with urllib.request.urlopen(f"{url}{number}", timeout=5) as response:
                answer = json.load(response)
        except OSError:
            time.sleep(0.05)
            continue
        answers[answer["worker"]] = answer["limiter"]
    return answers


def test_startup_folder_holds_the_sitecustomize_alone():
    found = {name for name in os.listdir(children.STARTUP_FOLDER) if name != "__pycache__"}
    assert found == {"sitecustomize.py"}
