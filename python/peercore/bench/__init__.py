"""The benchmark behind ``python -m peercore bench``: native services measured beside plain Python ones.

It lives in the package, so that an installed one can measure a user's own services folder (``--against``). Our own
baseline stays in the repository, under benchmarks/baseline; benchmarks/README.md says how to read the figures.
"""
