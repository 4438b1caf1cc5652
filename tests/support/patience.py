"""How long the tests wait for what comes sooner or later."""

import time
from collections.abc import Callable

# Seconds. Only so that what hangs ends: no test passes or fails by how fast the machine is.
PATIENCE_S = 180.0


def wait_until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.005)
