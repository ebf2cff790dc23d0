"""General contract G3-G7 and G10: native classes behave as plain Python ones, on the baseline and on ours."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import inspect
import pickle
import pydoc
import re
import sys
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from service_catalog import (
    IMPLEMENTATIONS,
    NATIVE,
    SERVICES,
    Class,
    Method,
    SelfCall,
    Service,
    each_class,
    each_method,
    native_module,
    v1_2_signature,
)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    return request.param


def each(entries: list[Any], name: Callable[[Any], str]) -> Any:
    return functools.partial(pytest.mark.parametrize, argvalues=entries, ids=[name(entry) for entry in entries])


CLASSES = list(each_class())
METHODS = list(each_method())
FUNCTIONS = [(service, function) for service in SERVICES for function in service.functions]
DATACLASSES = [(service, name) for service in SERVICES for name in service.dataclasses]
SELF_CALLS = [(service, call) for service in SERVICES for call in service.self_calls]

per_class = each(CLASSES, lambda entry: entry[1].name)
per_method = each(METHODS, lambda entry: f"{entry[1].name}.{entry[2].name}")
per_function = each(FUNCTIONS, lambda entry: entry[1].name)
per_dataclass = each(DATACLASSES, lambda entry: entry[1])
per_self_call = each(SELF_CALLS, lambda entry: f"{entry[1].class_name}.{entry[1].outer.name}-{entry[1].inner}")


def run(result: Any) -> Any:
    """The result of a method, awaited if it has to be."""

    async def wait() -> Any:
        return await result

    return asyncio.run(wait()) if inspect.isawaitable(result) else result


# -- G3


@per_method("entry")
def test_g3_coroutine_functions_are_known_as_such(entry: tuple[Service, Class, Method], implementation: str) -> None:
    service, class_, method = entry
    instance = class_.make(service.module(implementation))
    for found in (getattr(type(instance), method.name), getattr(instance, method.name)):
        assert inspect.iscoroutinefunction(found) is method.is_async
        assert asyncio.iscoroutinefunction(found) is method.is_async
        assert inspect.isroutine(found)
        assert callable(found)


@per_function("entry")
def test_g3_functions(entry: tuple[Service, Method], implementation: str) -> None:
    service, function = entry
    assert inspect.iscoroutinefunction(getattr(service.module(implementation), function.name)) is function.is_async


@per_method("entry")
def test_g3_mocks_made_from_the_class(entry: tuple[Service, Class, Method], implementation: str) -> None:
    service, class_, method = entry
    cls = getattr(service.module(implementation), class_.name)
    mocks = [mock.MagicMock(spec=cls), mock.create_autospec(cls, instance=True)]
    if method.is_async:
        mocks.append(mock.AsyncMock(spec=cls))
    for made in mocks:
        double = getattr(made, method.name)
        double.return_value = "mocked"
        assert isinstance(double, mock.AsyncMock) is method.is_async
        assert run(double(*method.args)) == "mocked"
    with pytest.raises(TypeError):
        run(getattr(mock.create_autospec(cls, instance=True), method.name)(1, 2, 3, 4, 5))


# -- G4


@per_method("entry")
def test_g4_method_signatures(entry: tuple[Service, Class, Method], implementation: str) -> None:
    service, class_, method = entry
    instance = class_.make(service.module(implementation))
    assert v1_2_signature(getattr(type(instance), method.name)) == method.signature
    bound = method.signature.replace("(self, ", "(").replace("(self)", "()")
    assert v1_2_signature(getattr(instance, method.name)) == bound


@per_class("entry")
def test_g4_constructor_signatures(entry: tuple[Service, Class], implementation: str) -> None:
    service, class_ = entry
    assert v1_2_signature(getattr(service.module(implementation), class_.name)) == class_.signature


@per_function("entry")
def test_g4_function_signatures(entry: tuple[Service, Method], implementation: str) -> None:
    service, function = entry
    assert v1_2_signature(getattr(service.module(implementation), function.name)) == function.signature


@per_method("entry")
def test_g4_keyword_calls(entry: tuple[Service, Class, Method], implementation: str) -> None:
    service, class_, method = entry
    module = service.module(implementation)
    by_position = run(getattr(class_.make(module), method.name)(*method.args))
    by_keyword = run(getattr(class_.make(module), method.name)(**method.kwargs))
    assert type(by_position) is type(by_keyword)
    # Built at run time, so not the interned object that the call looks for first.
    spelled = {"".join(list(name)): value for name, value in method.kwargs.items()}
    assert type(run(getattr(class_.make(module), method.name)(**spelled))) is type(by_keyword)


@per_method("entry")
def test_g4_wrong_arguments_raise_type_error_at_the_call(
    entry: tuple[Service, Class, Method], implementation: str
) -> None:
    service, class_, method = entry
    instance = class_.make(service.module(implementation))
    required = method.signature.count(",") + 1 - method.signature.count("=") - 1
    with pytest.raises(TypeError, match=method.name):
        getattr(instance, method.name)(*range(6))
    with pytest.raises(TypeError, match="unknown_argument"):
        getattr(instance, method.name)(*method.args, unknown_argument=1)
    if required:
        with pytest.raises(TypeError, match=method.name):
            getattr(instance, method.name)()
        with pytest.raises(TypeError, match=method.name):
            getattr(instance, method.name)(*method.args, **dict(list(method.kwargs.items())[:1]))


@per_class("entry")
def test_g4_help(entry: tuple[Service, Class], implementation: str) -> None:
    service, class_ = entry
    text = pydoc.plain(pydoc.render_doc(getattr(service.module(implementation), class_.name)))
    for method in class_.methods:
        if not method.name.startswith("_"):
            assert re.search(rf"\b{method.name}\([\s|]*self\b", text)  # newer Pythons wrap long signatures


# -- G5


@per_method("entry")
def test_g5_subclasses_override_and_call_super(entry: tuple[Service, Class, Method], implementation: str) -> None:
    service, class_, method = entry
    base = type(class_.make(service.module(implementation)))
    calls = []

    def override(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return getattr(super(derived, self), method.name)(*args, **kwargs)

    derived = type("Derived", (base,), {method.name: override})
    expected = run(getattr(base(), method.name)(*method.args))
    assert type(run(getattr(derived(), method.name)(*method.args))) is type(expected)
    assert calls == [method.args]


@per_method("entry")
@pytest.mark.parametrize("target", ["instance", "class"])
def test_g5_patched_methods(entry: tuple[Service, Class, Method], implementation: str, target: str) -> None:
    service, class_, method = entry
    instance = class_.make(service.module(implementation))
    before = inspect.getattr_static(type(instance), method.name)
    with mock.patch.object(instance if target == "instance" else type(instance), method.name) as double:
        double.return_value = "patched"
        assert isinstance(double, mock.AsyncMock) is method.is_async
        assert run(getattr(instance, method.name)(*method.args)) == "patched"
    assert inspect.getattr_static(type(instance), method.name) is before
    assert method.name not in vars(instance)
    assert run(getattr(instance, method.name)(*method.args)) != "patched"


def target_of(instance: Any, call: SelfCall) -> Any:
    return getattr(instance, call.path) if call.path else instance


def outcome(instance: Any, call: SelfCall) -> bool:
    """Whether a call of the outer method shows the override."""
    return call.seen(run(getattr(instance, call.outer.name)(*call.outer.args)))


@per_self_call("entry")
def test_g5_overrides_are_honoured_where_v1_2_calls_through_self(
    entry: tuple[Service, SelfCall], implementation: str
) -> None:
    service, call = entry
    module = service.module(implementation)
    instance = getattr(module, call.class_name)()
    target = target_of(instance, call)
    assert not outcome(instance, call)
    derived = type("Derived", (type(target),), {call.inner: call.override})
    if call.path:
        setattr(instance, call.path, derived())
    else:
        instance = derived()
    assert outcome(instance, call)


@per_self_call("entry")
@pytest.mark.parametrize("on_class", [False, True], ids=["instance", "class"])
def test_g5_patches_are_honoured_and_end(entry: tuple[Service, SelfCall], implementation: str, on_class: bool) -> None:
    service, call = entry
    module = service.module(implementation)
    instance, other = getattr(module, call.class_name)(), getattr(module, call.class_name)()
    target = target_of(instance, call)
    override: Any = call.override if on_class else functools.partial(call.override, target)
    for _ in range(3):
        assert not outcome(instance, call)
        with mock.patch.object(type(target) if on_class else target, call.inner, override):
            assert outcome(instance, call)
            assert outcome(other, call) is on_class
        assert not outcome(instance, call)


@per_self_call("entry")
def test_g5_the_native_path_is_back_after_a_patch(entry: tuple[Service, SelfCall]) -> None:
    service, call = entry
    instance = getattr(service.module(NATIVE), call.class_name)()
    target = target_of(instance, call)
    outer = getattr(instance, call.outer.name)
    assert python_functions_run(lambda: outer(*call.outer.args)) == []
    with mock.patch.object(type(target), call.inner, call.override):
        assert "_shows" not in python_functions_run(lambda: outer(*call.outer.args))
        assert call.override.__name__ in python_functions_run(lambda: outer(*call.outer.args))
    assert python_functions_run(lambda: outer(*call.outer.args)) == []
    setattr(target, "_unrelated", 1)  # noqa: B010  # an attribute of the caller's own
    assert python_functions_run(lambda: outer(*call.outer.args)) == []


def python_functions_run(make: Callable[[], Any]) -> list[str]:
    """Names of the Python functions entered while the coroutine that `make` makes runs to its end."""
    entered = []

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            entered.append(frame.f_code.co_name)

    coroutine = make()
    sys.setprofile(note)
    try:
        coroutine.send(None)
    except StopIteration:
        pass
    finally:
        sys.setprofile(None)
    return entered


@per_class("entry")
def test_g5_attributes_and_weak_references(entry: tuple[Service, Class], implementation: str) -> None:
    service, class_ = entry
    instance = class_.make(service.module(implementation))
    instance.note = "the caller's own"
    assert vars(instance)["note"] == instance.note
    del instance.note
    assert not hasattr(instance, "note")
    reference = weakref.ref(instance)
    registry = weakref.WeakKeyDictionary({instance: 1})
    assert reference() is instance
    del instance
    assert (reference(), len(registry)) == (None, 0)


@per_class("entry")
def test_g5_diamonds_and_mixins(entry: tuple[Service, Class], implementation: str) -> None:
    service, class_ = entry
    base = getattr(service.module(implementation), class_.name)

    class Mixin:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.mixed = True

    class Derived(Mixin, base):  # type: ignore[misc,valid-type]
        pass

    assert Derived().mixed
    assert isinstance(Derived(), base)
    assert type("Slotted", (base,), {"__slots__": ("own",)})()


# -- G6


@per_dataclass("entry")
def test_g6_dataclasses_are_real(entry: tuple[Service, str], implementation: str) -> None:
    service, name = entry
    one = service.dataclasses[name](service.module(implementation))
    names = [field.name for field in dataclasses.fields(one)]
    values = [getattr(one, field) for field in names]
    assert dataclasses.is_dataclass(type(one))
    assert dataclasses.asdict(one) == dict(zip(names, values, strict=True))
    assert dataclasses.astuple(one) == tuple(values)
    assert type(one)(*values) == type(one)(**dict(zip(names, values, strict=True))) == one
    assert type(one).__match_args__ == tuple(names)
    assert repr(one) == f"{name}({', '.join(f'{k}={v!r}' for k, v in zip(names, values, strict=True))})"
    assert one != object()
    assert one != type(one)()
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


@per_dataclass("entry")
def test_g6_copies_replacements_and_pickles(entry: tuple[Service, str], implementation: str) -> None:
    service, name = entry
    one = service.dataclasses[name](service.module(implementation))
    one.extra = "the caller's own"
    copies = [copy.copy(one), copy.deepcopy(one), *(pickle.loads(pickle.dumps(one, p)) for p in range(6))]
    assert copies == [one] * 8
    assert {copied.extra for copied in copies} == {"the caller's own"}
    assert all(type(copied) is type(one) for copied in copies)
    assert dataclasses.replace(one) == one
    first = dataclasses.fields(one)[0].name
    changed = dataclasses.replace(one, **{first: 77})
    assert getattr(changed, first) == 77
    assert changed != one


@per_dataclass("entry")
def test_g6_pickles_written_by_v1_2_load_in_place(entry: tuple[Service, str], monkeypatch: pytest.MonkeyPatch) -> None:
    service, name = entry
    theirs = service.dataclasses[name](service.module("baseline"))
    for spelling in (f"services.{service.name}", service.name):
        monkeypatch.setattr(type(theirs), "__module__", spelling)
        # What install() leaves behind, as far as pickle can see: both spellings are the native module.
        stand_in(monkeypatch, spelling, service.module("baseline"))
        written = pickle.dumps(theirs)
        stand_in(monkeypatch, spelling, native_module(service.name))
        ours = pickle.loads(written)
        assert type(ours) is getattr(native_module(service.name), name)
        assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
        assert vars(theirs).items() <= {field: getattr(ours, field) for field in vars(theirs)}.items()


def stand_in(monkeypatch: pytest.MonkeyPatch, spelling: str, module: ModuleType) -> None:
    monkeypatch.setitem(sys.modules, "services", ModuleType("services"))
    monkeypatch.setitem(sys.modules, spelling, module)


# -- G7


@per_class("entry")
def test_g7_objects_are_truthy(entry: tuple[Service, Class], implementation: str) -> None:
    service, class_ = entry
    instance = class_.make(service.module(implementation))
    assert instance
    assert not hasattr(type(instance), "__len__")
    assert not hasattr(type(instance), "__bool__")


@per_dataclass("entry")
def test_g7_dataclasses_are_truthy(entry: tuple[Service, str], implementation: str) -> None:
    service, name = entry
    assert service.dataclasses[name](service.module(implementation))
    assert getattr(service.module(implementation), name)()


# -- G10


@per_class("entry")
def test_g10_repr_names_the_class(entry: tuple[Service, Class], implementation: str) -> None:
    service, class_ = entry
    base = getattr(service.module(implementation), class_.name)
    assert class_.name in repr(class_.make(service.module(implementation)))
    assert "Derived" in repr(type("Derived", (base,), {})())


@per_method("entry")
def test_g10_repr_does_not_show_what_callers_passed(entry: tuple[Service, Class, Method]) -> None:
    service, class_, method = entry
    instance = class_.make(service.module(NATIVE))
    run(getattr(instance, method.name)(*(f"s3cret-{a}" if isinstance(a, str) else a for a in method.args)))
    assert "s3cret" not in repr(instance)


@per_method("entry")
def test_g10_names(entry: tuple[Service, Class, Method], implementation: str) -> None:
    service, class_, method = entry
    cls = getattr(service.module(implementation), class_.name)
    found = getattr(cls, method.name)
    assert (found.__name__, found.__qualname__) == (method.name, f"{class_.name}.{method.name}")
    assert method.name in repr(getattr(class_.make(service.module(implementation)), method.name))


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_g10_everything_public_has_a_docstring(service: Service) -> None:
    module = service.module(NATIVE)
    undocumented = []
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value):
            members = vars(value).items() if isinstance(value, type) else ()
            public = {f"{name}.{key}": member for key, member in members if key[0] != "_" and callable(member)}
            undocumented += [key for key, item in {name: value, **public}.items() if not inspect.getdoc(item)]
    assert module.__doc__
    assert undocumented == []
