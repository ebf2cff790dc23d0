"""RateLimitMiddleware: limits every HTTP request of an ASGI application (contract section 5)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from peercore.ratelimit import headers as wire
from peercore.ratelimit.clients import MAX_KEY_LENGTH, UNKNOWN_CLIENT, bounded_key, client_host, url_path
from peercore.ratelimit.denial_log import DenialLog
from peercore.ratelimit.limiter import check_compat
from peercore.ratelimit.refusal import http_exception
from peercore.ratelimit.routes import RouteTemplates
from peercore.ratelimit.target import Target

if TYPE_CHECKING:
    from starlette.requests import Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
KeyFunction = Callable[["Request"], str | Awaitable[str]]

DEFAULT_EXCLUDED = ("/health", "/docs", "/openapi.json")


class RateLimitMiddleware:
    """Answers 429 to a client that is over its limit; everything else passes through.

    Pure ASGI: works around any ASGI application, with or without Starlette or FastAPI
    (``app.add_middleware(RateLimitMiddleware, rate_limiter=...)``). Only HTTP is limited; websocket and lifespan scopes
    pass untouched.

    app: the application. rate_limiter: a TokenBucketRateLimiter, or an EndpointRateLimiter, whose limits by path then
    apply; they also do when its inner `_rate_limiter` is given (fault F8).
    key_func: Starlette Request -> key of the bucket, or an awaitable of it; it sees no request body. Default:
    "<client host or 'unknown'>:<url path>". Keys beyond 512 characters are shortened with a digest.
    exclude_paths: paths never limited, compared exactly; None: /health, /docs, /openapi.json; empty: none (fault F21).
    include_headers: tell the limit in answers that were admitted too; refusals always do.

    Options, beside v1.2's:
    raise_on_limit: raise HTTPException(429) as v1.2 did, which servers turn into a 500 (fault F1); needs Starlette.
    integer_retry_after: whole seconds, rounded up, in the body; None: as the limiter reports it. The header is always
    whole.
    apply_endpoint_limits: False ignores the paths' own limits.
    key_by: "route" puts the route's template into the key instead of the path ("/items/{id}"), and one "*" for
    everything the application has no route for, so that a client gains nothing by varying paths (fault F10).
    headers: "x-ratelimit" (v1.2), "ratelimit" (draft-ietf-httpapi-ratelimit-headers-10) or "both".
    problem_json: answer refusals as application/problem+json.
    compat: "v1.2" selects v1.2's side of these decisions.

    Stacked middlewares all judge a request; the header fields are those of the stricter one.
    Clients without an address share the client "unknown" (fault F25). X-Forwarded-For is not looked at.
    Errors of key_func, limiter and application propagate. Raises ValueError and TypeError for arguments out of range,
    ImportError when an option needs Starlette and it is missing.
    """

    def __init__(
        self,
        app: ASGIApp,
        rate_limiter: Any,
        key_func: KeyFunction | None = None,
        exclude_paths: Iterable[str] | None = None,
        include_headers: bool = True,
        *,
        raise_on_limit: bool = False,
        integer_retry_after: bool | None = None,
        apply_endpoint_limits: bool = True,
        key_by: str = "path",
        headers: str = wire.X_RATELIMIT,
        problem_json: bool = False,
        compat: str | None = None,
    ) -> None:
        v1_2 = check_compat(compat)
        if key_func is not None and not callable(key_func):
            raise TypeError(f"key_func must be callable, got {key_func!r}")
        self.app = app
        self.rate_limiter = rate_limiter
        self.key_func = self._default_key_func if key_func is None else key_func
        self.exclude_paths = _excluded(exclude_paths, v1_2)
        self.include_headers = include_headers
        self._raise_on_limit = raise_on_limit or v1_2
        self._integer_retry_after = True if v1_2 else integer_retry_after
        self._apply_endpoint_limits = apply_endpoint_limits and not v1_2
        self._routes = RouteTemplates() if _one_of("key_by", key_by, ("path", "route")) == "route" else None
        self._family = _one_of("headers", headers, wire.FAMILIES)
        self._problem_json = problem_json
        self._denials = DenialLog()
        self._target = Target(rate_limiter, self._apply_endpoint_limits)
        self._request_class = _request_class() if self.key_func is not _DEFAULT_KEY_FUNC else None
        if self._raise_on_limit:
            http_exception()

    @staticmethod
    def _default_key_func(request: Request) -> str:
        """Key of a request: "<client host or 'unknown'>:<url path>"."""
        return f"{request.client.host if request.client else UNKNOWN_CLIENT}:{request.url.path}"

    def __repr__(self) -> str:
        by = "route" if self._routes is not None else "path"
        return f"<{type(self).__name__} key_by={by} excludes={sorted(self.exclude_paths)} {self.rate_limiter!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge one request and pass it on or refuse it; pass other scopes on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = url_path(scope)
        if path in self.exclude_paths:
            return await self.app(scope, receive, send)
        target = self._target
        if target.limiter is not self.rate_limiter:
            target = self._target = Target(self.rate_limiter, self._apply_endpoint_limits)
        if self._routes is not None and path not in target.paths:
            path = self._routes.template(scope)
        if self.key_func is _DEFAULT_KEY_FUNC:
            key: Any = f"{client_host(scope)}:{path}"
        else:
            key = await self._own_key(scope)
        if type(key) is str and len(key) > MAX_KEY_LENGTH:
            key = bounded_key(key)
        allowed, info = await target.check(key, path)
        if not allowed:
            return await self._refuse(key, path, info, send)
        if not self.include_headers:
            return await self.app(scope, receive, send)
        return await self.app(scope, receive, self._telling(info, key, path, send))

    async def _own_key(self, scope: Scope) -> Any:
        """Return what a caller's key_func says, awaited if need be."""
        if self._request_class is None:
            self._request_class = _request_class()
        key = self.key_func(self._request_class(scope))
        if type(key) is not str and inspect.isawaitable(key):
            key = await key
        return key

    def _telling(self, info: wire.Info, key: Any, path: str, send: Send) -> Send:
        """Return `send` with the limit added to the header of the response."""

        # Not a coroutine function: it hands out the one of `send`, so that a message costs no frame more.
        def send_with_limit(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                policy = None if self._family == wire.X_RATELIMIT else self._target.policy(key, path, info)
                ours = wire.fields(self._family, info, policy)
                # A new message: the list may belong to a response object that is sent again.
                message = {**message, "headers": wire.merged(message.get("headers", ()), ours)}
            return send(message)

        return send_with_limit

    async def _refuse(self, key: Any, path: str, info: wire.Info, send: Send) -> None:
        """Log the refusal and answer it: 429, the header fields, a JSON body."""
        self._denials.denied(key)
        if self._integer_retry_after:
            info = {**info, "retry_after": wire.retry_after_seconds(info["retry_after"])}
        detail = wire.denial_detail(info, with_limit=True)
        if self._raise_on_limit:
            raise http_exception()(429, detail=detail, headers=wire.denial_header_texts(info))
        policy = None
        if self._problem_json or self._family != wire.X_RATELIMIT:
            policy = self._target.policy(key, path, info)
        if self._problem_json and policy is not None:
            content_type, body = b"application/problem+json", wire.problem_body(detail, policy)
        else:
            content_type, body = b"application/json", wire.json_body(detail)
        fields = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        fields += wire.denial_fields(self._family, info, policy)
        await send({"type": "http.response.start", "status": 429, "headers": fields})
        await send({"type": "http.response.body", "body": body})


_DEFAULT_KEY_FUNC = RateLimitMiddleware._default_key_func


def _request_class() -> Any:
    try:
        from starlette.requests import Request
    except ImportError:
        raise ImportError("key_func is called with a Starlette request: install starlette") from None
    return Request


def _excluded(paths: Any, v1_2: bool) -> set[str]:
    """Return the set of excluded paths; v1.2 took an empty list for "the defaults"."""
    if paths is None or (v1_2 and not paths):
        return set(DEFAULT_EXCLUDED)
    if isinstance(paths, (str, bytes)) or not isinstance(paths, Iterable):
        raise TypeError(f"exclude_paths must be an iterable of paths, got {paths!r}")
    excluded = set(paths)
    for path in excluded:
        if not isinstance(path, str):
            raise TypeError(f"exclude_paths must hold text, got {path!r}")
    return excluded


def _one_of(field: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field} must be text, got {value!r}")
    if value not in choices:
        raise ValueError(f"{field} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
