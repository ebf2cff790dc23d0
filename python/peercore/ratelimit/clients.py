"""Who sent a request, and the bucket it belongs to (contract sections 5 and 6, faults F7, F10, F25).

Everything here is computed from the ASGI scope. Header values and paths are a stranger's text: they are never trusted,
and a key made from them is never longer than `MAX_KEY_LENGTH`.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import sys
from collections.abc import Iterable, MutableMapping
from types import ModuleType
from typing import Any

Scope = MutableMapping[str, Any]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN_CLIENT = "unknown"
"""Client without an address (a Unix socket, a test client): all of them share their buckets, as in v1.2 (fault F25)."""

MAX_KEY_LENGTH = 512
"""Longest key, in characters. A longer one keeps its first `_KEPT` and ends in a digest of the whole."""

_KEPT = 256
_MAX_HOPS = 32
"""Elements of X-Forwarded-For that are looked at: no chain of real proxies is longer, and a hostile one can be."""
_MAX_ADDRESS_LENGTH = 64


def bounded_key(key: str) -> str:
    """Return `key`, or for one beyond `MAX_KEY_LENGTH` characters its beginning, "~" and a digest of the whole.

    A 64 KB path must not become a 64 KB key. Different long keys stay different.
    """
    if len(key) <= MAX_KEY_LENGTH:
        return key
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
    return f"{key[:_KEPT]}~{digest}"


def client_host(scope: Scope) -> str:
    """Return the peer's address as the server reports it, `UNKNOWN_CLIENT` when it does not."""
    client = scope.get("client")
    return str(client[0]) if client else UNKNOWN_CLIENT


def url_path(scope: Scope) -> str:
    """Return what `request.url.path` is in the installed Starlette, without building a request or a URL.

    Usually that is the scope's own path. Two cases are left to Starlette, when the program uses it: a root_path, which
    versions before 0.35 prepend and later ones find in the path already (as the ASGI specification has it), and
    characters that have a meaning in URLs. The Host header, which old versions mix into the path, is left out.
    """
    path: str = scope["path"]
    plain = path[:1] == "/" and path.isprintable() and "?" not in path and "#" not in path and "\\" not in path
    if plain and not scope.get("root_path"):
        return path
    datastructures = sys.modules.get("starlette.datastructures")
    if datastructures is None or (plain and not _prepends_root_path(datastructures)):
        return path
    return _starlette_path(datastructures, scope)


@functools.lru_cache(maxsize=1)
def _prepends_root_path(datastructures: ModuleType) -> bool:
    return _starlette_path(datastructures, {"type": "http", "path": "/path", "root_path": "/root"}) != "/path"


def _starlette_path(datastructures: ModuleType, scope: Scope) -> str:
    without_host = {**scope, "headers": (), "query_string": b"", "scheme": "http", "server": ("localhost", 80)}
    return str(datastructures.URL(scope=without_host).path)


class TrustedProxies:
    """The peers whose X-Forwarded-For is believed.

    proxies: IP addresses and CIDR networks as text, one or an iterable of them; "*" believes everybody and takes the
    first element, as v1.2 did, which lets any client choose its own identity (fault F7).
    Immutable. Raises ValueError for text that is no address or network, TypeError for what is not text.
    """

    __slots__ = ("_networks", "everybody")

    def __init__(self, proxies: str | Iterable[str] = ()) -> None:
        texts = [proxies] if isinstance(proxies, str) else _texts(proxies)
        self.everybody = "*" in texts
        self._networks = tuple(_network(text) for text in texts if text != "*")

    def __repr__(self) -> str:
        return f"TrustedProxies({'*' if self.everybody else [str(network) for network in self._networks]})"

    def client(self, scope: Scope) -> str:
        """Return the client's identity: its address, or what a trusted proxy says of it.

        The peer itself unless it is trusted; then the right-most hop of X-Forwarded-For that is not trusted, or the
        left-most if all are. An element that is no address ends the search at the last hop known, so that made-up
        values never make a fresh identity.
        """
        peer = client_host(scope)
        if self.everybody:
            return _first_forwarded(scope) or peer
        if not self._networks:
            return peer
        address = _address(peer)
        if address is None or not self._trusts(address):
            return peer
        return str(self._walk(address, scope))

    def _walk(self, peer: Address, scope: Scope) -> Address:
        nearest = peer
        for text in _hops_from_the_right(scope):
            hop = _address(_without_port(text))
            if hop is None:
                break
            nearest = hop
            if not self._trusts(hop):
                break
        return nearest

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _texts(proxies: Any) -> list[str]:
    try:
        texts = list(proxies)
    except TypeError:
        raise TypeError(f"trusted_proxies must be text or an iterable of text, got {proxies!r}") from None
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"trusted_proxies must hold addresses and networks as text, got {text!r}")
    return texts


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"trusted_proxies: {text!r} is neither an IP address nor a network, nor '*'") from None


@functools.lru_cache(maxsize=1024)
def _parsed(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # One client has one identity, whichever way its address is written.
    return getattr(address, "ipv4_mapped", None) or address


def _address(text: str) -> Address | None:
    """Return the address that `text` is, None if it is none. The cache holds short texts only."""
    return _parsed(text) if len(text) <= _MAX_ADDRESS_LENGTH else None


def _without_port(hop: str) -> str:
    """Return the address part of an element: `1.2.3.4:567`, `[::1]:567` and `"[::1]"` occur."""
    hop = hop.strip().strip('"')
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _forwarded_fields(scope: Scope) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"x-forwarded-for"]


def _first_forwarded(scope: Scope) -> str:
    fields = _forwarded_fields(scope)
    return fields[0].partition(",")[0].strip() if fields else ""


def _hops_from_the_right(scope: Scope) -> Iterable[str]:
    """Yield at most `_MAX_HOPS` elements, the last first. Several fields count as one list, as HTTP has it."""
    seen = 0
    for field in reversed(_forwarded_fields(scope)):
        for hop in reversed(field.rsplit(",", _MAX_HOPS)):
            if seen == _MAX_HOPS:
                return
            seen += 1
            yield hop
