"""The import overlay: what the v1.2 names give after install(), and that uninstall() leaves no trace."""

import pkgutil

import pytest
from stack_process import copy_stack, result_of, run_code

import peercore.services
from peercore.overlay import catalog


@pytest.fixture
def stack(tmp_path):
    return copy_stack(tmp_path)


@pytest.fixture
def both(stack):
    """Import path of a v1.2 stack: the workspace root and the services folder."""
    return [stack, stack / "services"]


IMPORT_FORMS = {
    "as": "import services.rate_limiter as found",
    "dotted": "import services.rate_limiter; found = services.rate_limiter",
    "from package": "from services import rate_limiter as found",
    "bare": "import rate_limiter as found",
    "import_module": "import importlib; found = importlib.import_module('services.rate_limiter')",
    "dunder": "found = __import__('services.rate_limiter', fromlist=['x'])",
    "relative": "exec('from . import rate_limiter as found', namespace := {'__package__': 'services'});"
    "found = namespace['found']",
    "from module": "import sys; from services.rate_limiter import get_rate_limiter; found = "
    "sys.modules['services.rate_limiter']",
    "resolve_name": "import pkgutil; found = pkgutil.resolve_name('services.rate_limiter')",
}


@pytest.mark.parametrize("form", IMPORT_FORMS)
def test_every_import_form_gives_the_native_module(form, both):
    code = f"""
        import peercore
        peercore.install()
        {IMPORT_FORMS[form]}
        import peercore.services.rate_limiter as native
        assert found is native
    """
    run_code(code, path=both)


def test_f27_all_spellings_are_one_module_object(both):
    code = """
        import peercore
        peercore.install()
        import rate_limiter, services, services.rate_limiter, peercore.services.rate_limiter as native
        assert rate_limiter is services.rate_limiter is native
        assert rate_limiter.get_rate_limiter() is services.rate_limiter.get_rate_limiter()
    """
    run_code(code, path=both)


def test_services_that_are_not_here_stay_and_use_the_native_one(both):
    code = """
        import peercore
        peercore.install()
        import services.connection_pool as pool, message_router
        import peercore.services.rate_limiter as native
        assert pool.__name__ == "services.connection_pool"
        assert pool.get_rate_limiter is message_router.get_rate_limiter is native.get_rate_limiter
    """
    run_code(code, path=both)


def test_module_keeps_its_own_identity(both):
    code = """
        import importlib, peercore, sys
        peercore.install()
        import rate_limiter as found, services.rate_limiter
        assert found.__name__ == found.__spec__.name == "peercore.services.rate_limiter"
        assert found.__package__ == found.__spec__.parent == "peercore.services"
        assert found.__loader__.get_code("peercore.services.rate_limiter")
        assert found.__spec__._initializing is False
    """
    run_code(code, path=both)


def test_reload_keeps_one_module_object(both):
    code = """
        import importlib, peercore, sys
        peercore.install()
        import rate_limiter, services.rate_limiter
        rate_limiter.get_rate_limiter()
        assert importlib.reload(services.rate_limiter) is rate_limiter
        names = ("rate_limiter", "services.rate_limiter", "peercore.services.rate_limiter")
        assert {id(sys.modules[name]) for name in names} == {id(rate_limiter)}
        assert rate_limiter.__spec__.name == "peercore.services.rate_limiter"
    """
    run_code(code, path=both)


@pytest.mark.parametrize("name", ["services.rate_limiter", "rate_limiter"])
def test_pickle_written_under_a_v12_name_loads(name, both):
    code = f"""
        import peercore, pickle
        peercore.install()
        found = pickle.loads(b"c{name}\\nRateLimitConfig\\n(I30\\nI5\\ntR.")
        from peercore.services.rate_limiter import RateLimitConfig
        assert type(found) is RateLimitConfig and found.burst_size == 5
        assert pickle.loads(pickle.dumps(found)) == found
    """
    run_code(code, path=both)


def test_find_spec_names_the_native_file_without_loading_it(both):
    code = """
        import importlib.util, peercore, sys
        peercore.install()
        for name in ("services.rate_limiter", "rate_limiter"):
            spec = importlib.util.find_spec(name)
            assert spec.name == name
            assert spec.origin == importlib.util.find_spec("peercore.services.rate_limiter").origin
            assert "RateLimit" in spec.loader.get_source(name) and not spec.loader.is_package(name)
        assert "peercore.services.rate_limiter" not in sys.modules
        import services.rate_limiter
        assert importlib.util.find_spec("services.rate_limiter") is services.rate_limiter.__spec__
    """
    run_code(code, path=both)


def test_pkgutil_walks_the_stack(both):
    code = """
        import json, peercore, pkgutil
        peercore.install()
        import services, services.rate_limiter
        print(json.dumps([module.name for module in pkgutil.walk_packages(services.__path__, "services.")]))
    """
    found = result_of(code, path=both)
    assert {"services.rate_limiter", "services.registry"} <= set(found)


@pytest.mark.parametrize("statement", ["import services.rate_limiter as found", "import rate_limiter as found"])
def test_works_where_no_services_package_exists(statement, tmp_path):
    code = f"""
        import peercore, sys
        peercore.install()
        {statement}
        assert found is sys.modules["peercore.services.rate_limiter"]
        import services, pkgutil
        assert list(pkgutil.iter_modules(services.__path__)) == []
        try:
            import services.registry
        except ModuleNotFoundError as error:
            assert error.name == "services.registry"
        peercore.uninstall()
        assert not [name for name in sys.modules if name.startswith("services") or name == "rate_limiter"]
    """
    run_code(code, cwd=tmp_path)


def test_parent_may_be_a_namespace_package(stack):
    (stack / "services" / "__init__.py").unlink()
    code = """
        import peercore
        peercore.install()
        from services import rate_limiter, registry
        assert rate_limiter.__name__ == "peercore.services.rate_limiter" and registry.__name__ == "services.registry"
    """
    run_code(code, path=[stack])


def test_uninstall_restores_everything(both):
    code = """
        import peercore, sys, services
        def state():
            names = ("services", "services.rate_limiter", "rate_limiter")
            return list(sys.meta_path), [sys.modules.get(name) for name in names], dict(vars(services))
        before = state()
        peercore.install()
        import services.rate_limiter, rate_limiter
        native = rate_limiter
        peercore.uninstall()
        assert state() == before and peercore.installed() == {}
        import services.rate_limiter, rate_limiter
        assert services.rate_limiter.__name__ == "services.rate_limiter" and rate_limiter.__name__ == "rate_limiter"
        assert native.get_rate_limiter() is native.get_rate_limiter()
        peercore.uninstall()
    """
    run_code(code, path=both)


def test_uninstall_restores_a_parent_attribute_of_another_kind(both, stack):
    (stack / "services" / "__init__.py").write_text("rate_limiter = 'not a module'\n")
    code = """
        import peercore, services, sys
        peercore.install()
        import services.rate_limiter
        assert services.rate_limiter.__name__ == "peercore.services.rate_limiter"
        peercore.uninstall()
        assert services.rate_limiter == "not a module"
    """
    run_code(code, path=both)


def test_uninstall_leaves_what_others_put_there(both):
    code = """
        import peercore, sys, types
        peercore.install()
        import services.rate_limiter
        theirs = sys.modules["services.rate_limiter"] = services.rate_limiter = types.ModuleType("theirs")
        assert peercore.installed() == {"rate_limiter": ("rate_limiter",)}
        peercore.uninstall()
        assert sys.modules["services.rate_limiter"] is services.rate_limiter is theirs
    """
    run_code(code, path=both)


def test_import_is_light_and_silent(both):
    code = """
        import sys, threading
        before = set(sys.modules)
        import peercore
        peercore.install()
        heavy = {"logging", "asyncio", "typer", "rich", "starlette", "fastapi", "peercore._core"}
        assert not heavy & (set(sys.modules) - before)
        assert threading.active_count() == 1
    """
    assert run_code(code, path=both) == ""


def test_version_is_that_of_the_core(both):
    code = """
        import peercore, peercore._core
        assert peercore.__version__ == peercore._core.build_info()["version"]
        assert not hasattr(peercore, "nothing_of_the_kind")
    """
    run_code(code)


def test_catalog_lists_every_service_there_is():
    found = {module.name for module in pkgutil.iter_modules(peercore.services.__path__)}
    assert set(catalog.SERVICES) == found
    assert set(catalog.SERVICES) <= catalog.V12_MODULES
