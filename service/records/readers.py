"""Threads that ask a place which may be away: a question that hangs there holds up nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Found = TypeVar("Found")


class Readers:
    """So many questions at once, in threads of their own; others wait for one of these."""

    def __init__(self, name: str, threads: int) -> None:
        self._most = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._asked: set[Future[Any]] = set()

    @property
    def are_busy(self) -> bool:
        """Whether another question would wait, also for one that nobody waits for any more."""
        return len(self._asked) >= self._most

    async def ask(self, question: Callable[[], Found], within_s: float | None = None) -> Found:
        """The answer to a blocking question, which is never begun when nobody waits any more.

        Errors: TimeoutError, and the question's own.
        """
        asking = self._threads.submit(question)
        self._asked.add(asking)
        asking.add_done_callback(self._asked.discard)
        async with asyncio.timeout(within_s):
            return await asyncio.wrap_future(asking)

    def close(self) -> None:
        """Take no more questions, and wait for none."""
        self._threads.shutdown(wait=False, cancel_futures=True)
