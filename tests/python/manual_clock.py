"""A clock that only the test moves."""


class ManualClock:
    """Callable returning seconds. Starts at a number that steps of 1/64 s never round."""

    def __init__(self, now=float(2**20)):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds
