"""Start-up module of the interpreters below ``python -m peercore run``: installs the overlay, then steps aside.

PYTHONPATH reaches every Python below, also another version or an environment without peercore: those start as if this
file were not there. It hides the sitecustomize of the environment, so it runs that one first.
"""

import importlib
import os
import sys


def _run_hidden_sitecustomize() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
    ours = sys.modules.pop(__name__)
    try:
        importlib.import_module(__name__)  # the next one on the path; from here on it owns the name
    except ImportError as error:
        if error.name != __name__:
            raise
        sys.modules[__name__] = ours


def _install_overlay() -> None:
    try:
        from peercore.overlay.children import install_from_environment
    except (ImportError, SyntaxError):
        return
    install_from_environment()


try:
    _run_hidden_sitecustomize()
finally:
    _install_overlay()
