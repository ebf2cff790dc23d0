"""The command line: doctor, the parts that are loaded when called, help texts and exit codes."""

import importlib
import json
import sys
import types

import pytest
import typer
from stack_process import copy_stack, python

import peercore
from peercore import _core, cli
from peercore.cli import doctor
from peercore.overlay import catalog


def call(*arguments):
    """Run the command line in this process; return its exit code."""
    try:
        return cli.main(arguments)
    except SystemExit as ended:
        return ended.code or 0


@pytest.fixture
def stack(tmp_path):
    return copy_stack(tmp_path)


def doctor_report(capsys, *arguments):
    code = call("doctor", "--json", *arguments)
    return code, json.loads(capsys.readouterr().out)


def test_doctor_reports_versions_and_native_paths(capsys, stack):
    code, report = doctor_report(capsys, str(stack))
    assert code == 0
    assert report["ok"] is True
    assert report["peercore"] == peercore.__version__
    assert report["python"]["version"] == sys.version.split()[0]
    assert report["build"] == _core.build_info()
    assert report["native_paths"] == _core.native_paths()
    assert set(report["packages"]) >= {"starlette", "typer", "rich"}
    assert {check["name"] for check in report["checks"]} >= {
        "native core loads",
        "native paths",
        "rate_limiter imports",
    }


@pytest.mark.parametrize("inside", ["", "services"])
def test_doctor_says_what_the_overlay_would_replace(inside, capsys, stack):
    overlay = doctor_report(capsys, str(stack / inside))[1]["overlay"]
    services = stack / "services"
    assert overlay["folder"] == str(services)
    assert overlay["replaced"] == [
        {
            "name": "rate_limiter",
            "file": str(services / "rate_limiter.py"),
            "module": "peercore.services.rate_limiter",
            "spellings": ["services.rate_limiter", "rate_limiter"],
        }
    ]
    assert set(overlay["kept"]) == {"api_server", "connection_pool", "message_router", "peer_service", "registry"}
    assert overlay["installed"] == {}


def test_doctor_finds_the_stack_from_its_working_directory_without_importing_it(stack):
    (stack / "services" / "__init__.py").write_text("raise SystemExit('imported')\n")
    done = python("-m", "peercore", "doctor", "--json", cwd=stack)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["overlay"]["folder"] == str(stack / "services")


def test_doctor_finds_the_stack_on_the_import_path(stack, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.syspath_prepend(str(stack / "services"))
    assert doctor.services_folder(None) == str(stack / "services")


def test_doctor_without_a_stack(capsys, tmp_path):
    code, report = doctor_report(capsys, str(tmp_path))
    assert code == 0
    assert report["overlay"]["folder"] is None
    assert report["overlay"]["replaced"][0]["spellings"] == ["services.rate_limiter", "rate_limiter"]
    assert call("doctor", str(tmp_path)) == 0
    assert "none found here" in capsys.readouterr().out


def test_doctor_leaves_a_lone_bare_module_out(capsys, tmp_path):
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "rate_limiter.py").write_text("")
    overlay = doctor_report(capsys, str(tmp_path))[1]["overlay"]
    assert overlay["replaced"][0]["spellings"] == ["services.rate_limiter"]


def test_doctor_prints_tables(capsys, stack):
    assert call("doctor", str(stack)) == 0
    printed = capsys.readouterr().out
    for expected in (peercore.__version__, "native paths", "replaces rate_limiter", "keeps registry", "checks"):
        assert expected in printed


def test_doctor_fails_without_the_native_core(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "peercore._core", None)
    code, report = doctor_report(capsys, str(tmp_path))
    assert code == 1
    assert report["ok"] is False
    assert next(check["name"] for check in report["checks"] if not check["ok"]) == "native core loads"
    assert call("doctor", str(tmp_path)) == 1
    assert "FAILED" in capsys.readouterr().out


def test_doctor_fails_when_a_native_path_is_not_active(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(_core, "native_paths", lambda: {"fast": True, "slow": False})
    code, report = doctor_report(capsys, str(tmp_path))
    assert code == 1
    assert {"name": "native paths", "ok": False, "detail": "not active: slow"} in report["checks"]


def test_doctor_fails_when_a_service_does_not_import(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(catalog.SERVICES, "registry", "peercore.services.missing")
    code, report = doctor_report(capsys, str(tmp_path))
    assert code == 1
    assert [check["name"] for check in report["checks"] if not check["ok"]] == ["registry imports"]


def test_doctor_refuses_a_folder_that_does_not_exist(capsys, tmp_path):
    assert call("doctor", str(tmp_path / "missing")) == 2
    assert "does not exist" in capsys.readouterr().err


def test_version(capsys, monkeypatch):
    assert call("--version") == 0
    assert capsys.readouterr().out.strip() == peercore.__version__
    monkeypatch.delitem(vars(peercore), "__version__", raising=False)
    monkeypatch.setitem(sys.modules, "peercore._core", None)
    monkeypatch.delattr(peercore, "_core", raising=False)
    assert call("--version") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_help_lists_every_command_with_examples_and_exit_codes(capsys):
    assert call("--help") == 0
    printed = capsys.readouterr().out
    for expected in ("doctor", "bench", "demo", "run", "Examples:", "Exit codes:"):
        assert expected in printed


@pytest.mark.parametrize("command", ["doctor", "bench", "demo", "run"])
def test_every_command_has_help_with_examples(command, capsys):
    assert call(command, "--help") == 0
    printed = capsys.readouterr().out
    assert f"python -m peercore {command}" in printed
    assert "Example" in printed


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["--nonsense"], ["doctor", "--nonsense"], ["demo", "--nonsense"]]
)
def test_wrong_usage_ends_with_2_and_a_word_on_stderr(arguments, capsys):
    assert call(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err
    assert captured.out == ""


@pytest.mark.parametrize("command", ["bench", "demo"])
def test_parts_are_imported_when_called_and_get_their_arguments(command, capsys, monkeypatch):
    def part(component: str = "all", as_json: bool = typer.Option(False, "--json")) -> None:
        typer.echo(f"{component} {as_json}")
        raise typer.Exit(1)

    part.__name__ = command
    module = types.ModuleType(f"peercore.cli.{command}")
    setattr(module, command, part)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert call(command, "--json", "--component", "rate_limiter") == 1
    assert capsys.readouterr().out == "rate_limiter True\n"


def test_help_imports_no_part():
    code = (
        "import sys; from peercore.cli import app; from typer.testing import CliRunner; "
        "assert CliRunner().invoke(app.app, ['--help']).exit_code == 0; "
        "print([name for name in sys.modules if name in ('peercore.cli.bench', 'peercore.cli.demo', 'peercore._core')])"
    )
    assert python("-c", code).stdout == "[]\n"


def test_run_is_a_command_of_the_application_too(capsys):
    from typer.testing import CliRunner

    app = importlib.import_module("peercore.cli.app").app
    assert CliRunner().invoke(app, ["run", "--help"]).exit_code == 0
    assert CliRunner().invoke(app, ["run", "--nonsense"]).exit_code == 2


def test_module_runs_as_a_program():
    assert python("-m", "peercore", "--version").stdout.strip() == peercore.__version__
