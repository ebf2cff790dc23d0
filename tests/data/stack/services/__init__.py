"""Services of the example stack, importable as ``services.<name>`` and, with this folder on the path, as ``<name>``."""
