"""What the tests share: the server as a process, a worker that speaks the protocol itself, and small helpers."""

import time
from typing import Any, Callable


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Asks again until it is so, for what the protocol has no wait for. Gives what the condition gave."""
    limit = time.monotonic() + seconds
    while not (got := condition()):
        assert time.monotonic() < limit, "it never came to be so"
        time.sleep(0.01)
    return got
