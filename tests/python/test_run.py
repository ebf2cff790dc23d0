"""``python -m peercore run``: like ``python`` itself, with the overlay installed; works without the ``cli`` extra."""

import py_compile
import zipfile
from pathlib import Path

import pytest
from stack_process import copy_stack, python

import peercore
from peercore.cli import run

PROBE = """\
import sys
spec = __spec__ and (__spec__.name, __spec__.origin)
print(__name__, sys.argv, sys.path[0], globals().get("__file__"), __package__, spec, type(__loader__).__name__)
print(sys.modules["__main__"].__dict__ is globals(), __doc__, sorted(name for name in globals() if name[0] != "_"))
"""


@pytest.fixture
def programs(tmp_path):
    """A folder with the probe in every form that python runs."""
    (tmp_path / "probe.py").write_text(PROBE)
    py_compile.compile(tmp_path / "probe.py", cfile=tmp_path / "compiled.pyc")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(PROBE)
    (tmp_path / "folder" / "__init__.py").write_text("")
    (tmp_path / "folder" / "inner.py").write_text(PROBE)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.py").symlink_to(tmp_path / "probe.py")
    (tmp_path / "-odd.py").write_text(PROBE)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("__main__.py", PROBE)
    return tmp_path


FORMS = {
    "script": ["probe.py", "a", "-m", "--help"],
    "script here": ["./probe.py"],
    "script in a folder": ["elsewhere/../probe.py"],
    "symbolic link": ["elsewhere/link.py"],
    "compiled": ["compiled.pyc", "a"],
    "folder": ["folder", "a"],
    "zip file": ["packed.zip"],
    "module": ["-m", "probe", "-c", "a"],
    "joined": ["-mprobe"],
    "package": ["-m", "folder", "a"],
    "module of a package": ["-m", "folder.inner"],
    "after dashes": ["--", "-odd.py", "--"],
    "code": ["-c", PROBE, "a", "-m"],
    "missing script": ["missing.py"],
    "missing module": ["-m", "missing"],
    "missing inner module": ["-m", "folder.missing"],
    "missing outer package": ["-m", "missing.inner"],
    "folder without main": ["elsewhere"],
    "exit code": ["-c", "import sys; sys.exit(7)"],
    "exit text": ["-c", "import sys; sys.exit('no good')"],
    "exit in the midst": ["-c", "raise SystemExit"],
}


@pytest.mark.parametrize("form", FORMS)
def test_same_as_python_itself(form, programs):
    arguments = FORMS[form]
    expected = python(*arguments, cwd=programs)
    found = python("-m", "peercore", "run", *arguments, cwd=programs)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout), found.stderr
    if "missing" not in form:
        assert found.stderr == expected.stderr
    else:
        assert len(found.stderr.splitlines()) == 1
        assert "missing" in found.stderr


def test_uncaught_exception_gives_traceback_and_exit_code_1(programs):
    (programs / "broken.py").write_text("def fail():\n    raise LookupError('on purpose')\n\n\nfail()\n")
    done = python("-m", "peercore", "run", "broken.py", cwd=programs)
    assert done.returncode == 1
    assert 'broken.py", line 2, in fail' in done.stderr
    assert done.stderr.endswith("LookupError: on purpose\n")


def test_ctrl_c_ends_it_as_it_ends_python(programs):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    found = python("-m", "peercore", "run", "-c", code)
    assert found.returncode == python("-c", code).returncode
    assert "KeyboardInterrupt" in found.stderr


def test_main_module_lives_until_the_interpreter_ends(programs):
    (programs / "late.py").write_text(
        "import atexit, sys, threading\n"
        "def name(): return sys.modules['__main__'].__file__.rpartition('/')[2], VALUE\n"
        "VALUE = 3\n"
        "atexit.register(lambda: print('exit', *name()))\n"
        "go = threading.Event()\n"
        "threading.Thread(target=lambda: (go.wait(), print('thread', *name()))).start()\n"
        "threading.Timer(0.05, go.set).start()\n"
    )
    done = python("-m", "peercore", "run", "late.py", cwd=programs)
    assert done.stdout.splitlines() == ["thread late.py 3", "exit late.py 3"], done.stderr


@pytest.mark.parametrize(("program", "first"), [("probe.py", "unchanged"), ("folder", "folder")])
def test_isolated_interpreter_gets_no_folder_of_a_script(program, first, programs):
    root = str(Path(peercore.__file__).parents[1])
    code = (
        f"import sys; sys.path[:0] = ['unchanged', {root!r}]; from peercore.cli import main; main(['run', {program!r}])"
    )
    done = python("-I", "-c", code, cwd=programs)
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()[2]
    assert found == (str(programs / first) if first == program else first)


def test_script_leaves_no_compiled_file_behind(programs):
    environ = {"PYTHONDONTWRITEBYTECODE": ""}
    assert python("-m", "peercore", "run", "probe.py", cwd=programs, environ=environ).returncode == 0
    assert not (programs / "__pycache__").exists()


def test_run_m_of_a_replaced_service(tmp_path):
    stack = copy_stack(tmp_path)
    done = python("-m", "peercore", "run", "-m", "services.rate_limiter", cwd=stack)
    assert (done.returncode, done.stderr) == (0, "")


def test_modules_can_be_chosen_by_option_and_by_variable(tmp_path):
    stack = copy_stack(tmp_path)
    show = "import os, peercore; print(sorted(peercore.installed()), os.environ['PEERCORE_MODULES'])"
    for options, environ in (
        (["--module", "rate_limiter"], {}),
        (["--module=rate_limiter"], {}),
        ([], {"PEERCORE_MODULES": "rate_limiter"}),
    ):
        done = python("-m", "peercore", "run", *options, "-c", show, cwd=stack, environ=environ)
        assert done.stdout == "['rate_limiter'] rate_limiter\n", done.stderr
    done = python("-m", "peercore", "run", "-c", show, cwd=stack)
    assert done.stdout.endswith(" all\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "no program given"),
        (["--no-bare"], "no program given"),
        (["--modul", "rate_limiter", "probe.py"], "unknown option --modul"),
        (["-x"], "unknown option -x"),
        (["-m"], "option -m needs a value"),
        (["-c"], "option -c needs a value"),
        (["--module"], "option --module needs a value"),
        (["--module=", "probe.py"], "option --module needs a value"),
        (["--module", "rate_limitr", "-c", "pass"], "'rate_limitr'"),
        (["--"], "unknown option --"),
    ],
)
def test_wrong_usage_is_one_reason_and_exit_code_2(arguments, reason, capsys):
    assert run.main(arguments) == 2
    captured = capsys.readouterr()
    assert reason in captured.err.splitlines()[0]
    assert captured.out == ""


def test_help_has_examples(capsys):
    assert run.main(["--help"]) == 0
    assert "Examples:" in capsys.readouterr().out


def test_parse_stops_at_the_program():
    command = run.parse(["--module", "a,b", "--module=c", "--no-bare", "main.py", "--module", "d"])
    assert command == run.Command("script", "main.py", ["--module", "d"], ("a", "b", "c"), False)
    assert run.parse(["-cprint()", "x"]) == run.Command("code", "print()", ["x"], (), None)


def test_works_without_the_cli_extra(programs):
    (programs / "blocked.py").write_text(
        "import sys\n"
        "sys.modules['typer'] = sys.modules['rich'] = sys.modules['click'] = None\n"
        "from peercore.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = python("blocked.py", "run", "-c", "print('ran')", cwd=programs)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    for command in (["doctor"], ["bench"], [], ["--help"]):
        done = python("blocked.py", *command, cwd=programs)
        assert done.returncode == 2
        assert "pip install 'peercore[cli]'" in done.stderr
