"""An idle stream of work items is told that the server lives."""

from support import until
from support.raw import named


def test_idle_streams_get_pings(new_raw_worker, idle_since_the_beginning):
    """SDKs give up a stream that is silent for 120 seconds. The stream was opened when the tests began."""
    worker, began = idle_since_the_beginning
    until(lambda: worker.pings, seconds=65)
    assert worker.pings[0] - began < 65
    assert worker.ended_with is None
