"""``python -m peercore``: see `peercore.cli`."""

import sys

from peercore.cli import main

if __name__ == "__main__":
    sys.exit(main())
