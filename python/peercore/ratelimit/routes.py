"""Route templates of an application, so that paths which differ only in a parameter share a bucket (fault F10)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, MutableMapping
from typing import Any

UNMATCHED = "*"
"""Stands for every path that the application has no route for."""


class RouteTemplates:
    """Finds the template of the route that will serve a request, as "/items/{id}".

    The routes are those of the Starlette or FastAPI application in ``scope["app"]``, asked anew for each request, so
    that routes added later count. Without such an application every path is `UNMATCHED`.
    """

    def template(self, scope: MutableMapping[str, Any]) -> str:
        """Return the template for an HTTP scope: mounts and nested routers joined, `UNMATCHED` if no route takes it.

        A route that knows the path but not the method counts as well: its refusal is an answer of that route.
        """
        routes = getattr(scope.get("app"), "routes", None)
        if not routes:
            return UNMATCHED
        return _template(routes, dict(scope)) or UNMATCHED


def _template(routes: Iterable[Any], scope: dict[str, Any]) -> str | None:
    from starlette.routing import Match

    partial: str | None = None
    for route in _flat(routes):
        match, child_scope = route.matches(scope)
        if match is Match.NONE:
            continue
        template = _joined(route, scope, child_scope)
        if template is not None and match is Match.FULL:
            return template
        partial = partial or template
    return partial


def _flat(routes: Iterable[Any]) -> Iterable[Any]:
    """Return `routes` with those of included routers in place; newer FastAPI keeps them apart, under no path."""
    fastapi_routing = sys.modules.get("fastapi.routing")
    contexts = getattr(fastapi_routing, "iter_route_contexts", None)
    return routes if contexts is None else contexts(routes)


def _joined(route: Any, scope: dict[str, Any], child_scope: Any) -> str | None:
    """Return the template of `route` and of the routes below it; None when the path ends nowhere below it."""
    path: str = getattr(route, "path", None) or ""
    below = getattr(route, "routes", None)
    if below is None:
        return path
    if not below:
        # A mounted application that is no Starlette one, such as static files: its paths are its own affair.
        return f"{path}/{UNMATCHED}"
    rest = _template(below, {**scope, **child_scope})
    return None if rest is None else path + rest
