"""Who goes first on the cores: the event loop, before all that computes."""

from __future__ import annotations

import os
import sys
import threading

BEHIND = 5
"""Steps of niceness: a third of the event loop's share of a core that both want."""


def go_behind() -> None:
    """Let this thread, and those that it starts, wait for the event loop's.

    Where every core computes, a health check, a refusal or the next upload would wait for a
    turn among the graphs' threads. On Linux alone a thread has a niceness of its own.
    """
    if sys.platform == "linux":
        me = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, me, BEHIND)
