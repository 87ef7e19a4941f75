"""The library while it is being opened: the service lives, and is not ready."""

from __future__ import annotations

import logging
import threading
from asyncio import wrap_future
from collections.abc import Callable
from concurrent.futures import Future

from models.errors import FlawsmithError
from service.bundles.library import Library
from service.priority import go_behind

LOG = logging.getLogger("service")


class StillLoading(FlawsmithError):
    """The bundles are being opened and warmed up."""


class Loading:
    """A library that a thread opens.

    The thread is a daemon: nothing can stop it in the middle of a graph, and a process that is
    told to end must not wait for it.
    """

    def __init__(self, open_it: Callable[[], Library]) -> None:
        self._opened: Future[Library] = Future()
        self._open_it = open_it
        threading.Thread(target=self._run, name="loading", daemon=True).start()

    @property
    def library(self) -> Library:
        """Errors: StillLoading, also for good where opening it failed."""
        self.require_done()
        return self._opened.result()

    def require_done(self) -> None:
        """Errors: StillLoading while there is no library."""
        if self.error is not None or not self._opened.done():
            raise StillLoading("the bundles are being loaded")

    @property
    def error(self) -> BaseException | None:
        """Why there will be no library; None while there may be."""
        return self._opened.exception() if self._opened.done() else None

    async def wait(self) -> Library:
        """The library, when it is there. Errors: those of opening it."""
        return await wrap_future(self._opened)

    def close(self) -> None:
        """Let the library, where there is one, begin no change any more."""
        if self._opened.done() and self.error is None:
            self._opened.result().close()

    def _run(self) -> None:
        go_behind()  # the graphs' own threads are begun here
        try:
            library = self._open_it()
        except BaseException as error:  # whoever asks for the library learns of any
            self._opened.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            LOG.info("the bundles are loaded")
            self._opened.set_result(library)
