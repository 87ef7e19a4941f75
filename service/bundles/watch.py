"""The bundles' folder, looked at again and again while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from models.errors import FlawsmithError
from service.bundles.folders import FolderAway
from service.bundles.loading import Loading

LOG = logging.getLogger("service")


@asynccontextmanager
async def watched(loading: Loading, every_s: float) -> AsyncIterator[None]:
    """Once it is open, the library follows its folder until the end; 0 seconds never looks."""
    if not every_s:
        yield
        return
    watching = asyncio.create_task(_watch(loading, every_s))
    try:
        yield
    finally:
        watching.cancel()


async def _watch(loading: Loading, every_s: float) -> None:
    try:
        library = await loading.wait()
    except FlawsmithError:
        return  # told where the start is waited for
    while True:
        await asyncio.sleep(every_s)
        try:
            await library.refresh()
        except FolderAway as error:
            LOG.warning("%s", error)
        except Exception:  # the next look may find it mended
            LOG.exception("the bundles' folder cannot be followed")
