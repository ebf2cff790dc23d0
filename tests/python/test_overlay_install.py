"""install(): its arguments, the rule for bare names, modules that are imported already, threads."""

import pytest
from stack_process import copy_stack, run_code

import peercore


@pytest.fixture
def stack(tmp_path):
    return copy_stack(tmp_path)


@pytest.fixture
def both(stack):
    return [stack, stack / "services"]


def test_installed_names_what_is_active(both):
    code = """
        import peercore
        assert peercore.installed() == {}
        peercore.install("rate_limiter")
        assert peercore.installed() == {"rate_limiter": ("services.rate_limiter", "rate_limiter")}
        peercore.uninstall("rate_limiter")
        assert peercore.installed() == {}
    """
    run_code(code, path=both)


def test_install_is_idempotent(both):
    code = """
        import peercore, sys
        size = len(sys.meta_path)
        peercore.install()
        peercore.install("rate_limiter")
        import services.rate_limiter
        peercore.install()
        peercore.install(force=True)
        assert len(sys.meta_path) == size + 1
        peercore.uninstall()
        peercore.uninstall()
        assert len(sys.meta_path) == size and "services.rate_limiter" not in sys.modules
    """
    run_code(code, path=both)


@pytest.mark.parametrize("call", [peercore.install, peercore.uninstall])
def test_unknown_service_is_refused_with_the_list_of_known_ones(call):
    with pytest.raises(ValueError, match=r"'rate_limitr'.*there is: .*rate_limiter"):
        call("rate_limiter", "rate_limitr")
    assert peercore.installed() == {}


def test_bare_false_leaves_the_bare_name_alone(both):
    code = """
        import peercore
        peercore.install(bare=False)
        assert peercore.installed() == {"rate_limiter": ("services.rate_limiter",)}
        import rate_limiter, services.rate_limiter
        assert rate_limiter.__name__ == "rate_limiter"
        assert services.rate_limiter.__name__ == "peercore.services.rate_limiter"
    """
    run_code(code, path=both)


def test_bare_false_afterwards_releases_the_bare_name(both):
    code = """
        import peercore
        peercore.install()
        import rate_limiter, services.rate_limiter
        peercore.install(bare=False)
        old, native = __import__("rate_limiter"), services.rate_limiter
        assert old.__name__ == "rate_limiter" and native is rate_limiter
        assert peercore.installed() == {"rate_limiter": ("services.rate_limiter",)}
    """
    run_code(code, path=both)


def _module(folder):
    (folder / "rate_limiter.py").write_text("HERE = True\n")


def _package(folder):
    (folder / "rate_limiter").mkdir()
    (folder / "rate_limiter" / "__init__.py").write_text("HERE = True\n")


def _namespace(folder):
    (folder / "rate_limiter").mkdir()


@pytest.mark.parametrize("make", [_module, _package, _namespace])
def test_bare_name_of_an_unrelated_module_is_left_alone(make, stack, tmp_path):
    unrelated = tmp_path / "unrelated"
    unrelated.mkdir()
    make(unrelated)
    (unrelated / "helpers.py").write_text("")
    code = """
        import peercore
        peercore.install()
        assert peercore.installed() == {"rate_limiter": ("services.rate_limiter",)}
        import rate_limiter, services.rate_limiter
        assert rate_limiter.__name__ == "rate_limiter"
        assert services.rate_limiter.__name__ == "peercore.services.rate_limiter"
        peercore.uninstall()
        assert __import__("rate_limiter") is rate_limiter
    """
    run_code(code, path=[unrelated, stack])


@pytest.mark.parametrize("make", [_module, _package, _namespace])
@pytest.mark.parametrize("neighbour", ["registry.py", "peer_service/__init__.py", "message_router.cpython-311.so"])
def test_bare_name_among_other_v12_services_is_taken(make, neighbour, tmp_path):
    folder = tmp_path / "anything"
    (folder / neighbour).parent.mkdir(parents=True)
    (folder / neighbour).write_text("")
    suffix_known = not neighbour.endswith(".so") or neighbour.endswith(_native_suffixes())
    make(folder)
    code = f"""
        import peercore
        peercore.install()
        import rate_limiter
        assert (rate_limiter.__name__ == "peercore.services.rate_limiter") is {suffix_known}
    """
    run_code(code, path=[folder])


def _native_suffixes():
    import importlib.machinery

    return tuple(importlib.machinery.EXTENSION_SUFFIXES)


def test_bare_name_of_an_installed_distribution_is_left_alone(tmp_path):
    folder = tmp_path / "lib" / "site-packages"
    for name in ("rate_limiter", "registry"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    code = """
        import peercore
        peercore.install()
        import rate_limiter
        assert rate_limiter.__name__ == "rate_limiter"
    """
    run_code(code, path=[folder])


def test_unrelated_bare_module_that_is_imported_is_no_obstacle(stack, tmp_path):
    _module(tmp_path)
    code = """
        import rate_limiter, peercore, sys, types
        peercore.install()
        assert sys.modules["rate_limiter"] is rate_limiter and rate_limiter.HERE
        peercore.uninstall()
        sys.modules["rate_limiter"] = types.ModuleType("made_up")
        peercore.install(force=True)
        assert sys.modules["rate_limiter"].__name__ == "made_up"
    """
    run_code(code, path=[tmp_path, stack])


@pytest.mark.parametrize("name", ["services.rate_limiter", "rate_limiter"])
def test_installing_after_the_old_module_is_an_error_that_names_it(name, both, stack):
    code = f"""
        import {name}, peercore, sys
        modules, meta_path = dict(sys.modules), list(sys.meta_path)
        try:
            peercore.install()
        except peercore.OverlayError as error:
            print(error)
        assert modules == {{name: sys.modules[name] for name in modules}} and meta_path == sys.meta_path
        assert peercore.installed() == {{}}
    """
    message = run_code(code, path=both)
    assert f"{name} from {stack / 'services' / 'rate_limiter.py'}" in message
    assert "force=True" in message


def test_force_swaps_and_uninstall_brings_back(both):
    code = """
        import rate_limiter as bare, services.rate_limiter as qualified, services, peercore, sys
        peercore.install(force=True)
        import peercore.services.rate_limiter as native
        assert services.rate_limiter is sys.modules["services.rate_limiter"] is sys.modules["rate_limiter"] is native
        import rate_limiter
        assert rate_limiter is native
        peercore.uninstall()
        assert services.rate_limiter is sys.modules["services.rate_limiter"] is qualified
        assert sys.modules["rate_limiter"] is bare
    """
    run_code(code, path=both)


def test_force_without_the_native_module_changes_nothing(both):
    code = """
        import services.rate_limiter as old, services, peercore, sys
        sys.modules["peercore.services.rate_limiter"] = None
        meta_path = list(sys.meta_path)
        try:
            peercore.install(force=True)
        except (ImportError, ValueError):
            assert sys.modules["services.rate_limiter"] is services.rate_limiter is old
            assert sys.meta_path == meta_path and peercore.installed() == {}
        else:
            raise AssertionError("installed without a native module")
    """
    run_code(code, path=both)


def test_threads_that_import_all_spellings_at_once_get_one_module(both):
    code = """
        import importlib, peercore, sys, threading
        sys.setswitchinterval(1e-6)
        names = ("rate_limiter", "services.rate_limiter", "peercore.services.rate_limiter")
        for _ in range(30):
            peercore.install()
            start, found = threading.Barrier(9), []
            def load(name):
                start.wait()
                found.append(importlib.import_module(name))
            threads = [threading.Thread(target=load, args=(name,)) for name in names * 3]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            assert len(found) == 9 and len(set(map(id, found))) == 1
            assert found[0].__spec__.name == "peercore.services.rate_limiter"
            peercore.uninstall()
            del sys.modules["peercore.services.rate_limiter"]
    """
    run_code(code, path=both)


def test_threads_that_install_and_uninstall_leave_a_clean_state(both):
    code = """
        import peercore, sys, threading
        sys.setswitchinterval(1e-6)
        before = list(sys.meta_path)
        def work():
            for _ in range(100):
                peercore.install()
                peercore.installed()
                peercore.uninstall()
        threads = [threading.Thread(target=work) for _ in range(6)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert sys.meta_path == before and peercore.installed() == {}
    """
    run_code(code, path=both)
