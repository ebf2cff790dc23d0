"""Native core for Python agent stacks: drop-in replacements for the Peer Communication Protocol v1.2 services.

In an existing stack, before anything imports a service::

    import peercore

    peercore.install()                       # every service that exists here; install("rate_limiter") for one
    from services.rate_limiter import ...    # now the native module, and so is the bare ``rate_limiter``

In new code import the service itself: ``from peercore.services.rate_limiter import TokenBucketRateLimiter``.

Importing this package configures no logging, opens no file, starts no thread and loads no native code.
"""

from typing import Any

from peercore.overlay import OverlayError, install, installed, uninstall

__all__ = ["OverlayError", "__version__", "install", "installed", "uninstall"]

__version__: str


def __getattr__(name: str) -> Any:
    """Give ``__version__`` (str, from the compiled core) on first use, so that a plain import loads no native code."""
    if name == "__version__":
        from peercore import _core

        version = globals()["__version__"] = _core.build_info()["version"]
        return version
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
