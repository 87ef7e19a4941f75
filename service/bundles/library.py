"""Which bundles are loaded, and how that changes while they serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from models.bundle import Bundle
from models.errors import BundleError, BundleMissing, DeviceMissing
from service.bundles.folders import bundles_in, stamp_of, stamps_in
from service.bundles.memory import Returns
from service.bundles.replicas import BundleRefused, Prepare, open_replicas, warmed
from service.bundles.shelf import Key, Loaded, Note, Shelf, Stamp, Standing, in_order
from service.priority import go_behind
from service.settings import Settings
from service.telemetry import Telemetry

LOG = logging.getLogger("service")
DEMO_PRODUCT = "brushed-plate"
Answer = TypeVar("Answer")


class ProductNeeded(BundleError):
    """The default product answers who names none, so its last version cannot be unloaded."""


class Library:
    """The loaded bundles of one application.

    What is loaded is one immutable shelf, and a change replaces it in one assignment: a request
    keeps the bundle that it picked for as long as it runs, and the memory of an unloaded one goes
    back with the last of them. Changes are made in one thread of their own, one after the other;
    neither the event loop nor a worker waits for one.
    """

    def __init__(self, settings: Settings, telemetry: Telemetry, prepare: Prepare) -> None:
        self.default_product = ""
        self._root = settings.bundles
        self._devices = [settings.device_at(index) for index in settings.device_ids]
        self._telemetry = telemetry
        self._prepare = prepare
        self._shelf = Shelf()
        self._loading: Key | None = None
        self._seen: Mapping[Key, Stamp] = {}
        self._changes = ThreadPoolExecutor(1, thread_name_prefix="library", initializer=go_behind)
        self._returns = Returns()

    def pick(
        self, product: str | None = None, version: str | None = None, device: int = 0
    ) -> Bundle:
        """The bundle asked for: the default product's, and the newest, where none is named.

        Errors: BundleMissing, which lists what there is.
        """
        asked = self.default_product if product is None else product
        return self._shelf.pick(asked, version, device)

    def versions(self) -> dict[str, list[str]]:
        """Loaded products by name, each with its versions, oldest first."""
        return self._shelf.versions()

    async def load(self, product: str, version: str | None = None) -> list[Standing]:
        """Open a version as it now lies on the disk, the newest unless one is named, and serve it.

        It replaces what is loaded of its version; other versions stay.

        Errors: BundleMissing; FolderAway; BundleRefused, and what served before serves on.
        """
        return await self._change(lambda: self._load_found(product, version))

    async def unload(self, product: str, version: str | None = None) -> list[Standing]:
        """Serve no more: one version, or all of the product's. Requests that run end as they began.

        Errors: BundleMissing; ProductNeeded.
        """
        return await self._change(lambda: self._unload(self._shelf, product, version))

    async def refresh(self) -> None:
        """Follow the folder: load what is new or changed, unload what is gone.

        Only what two looks found alike counts: files that still arrive, or are just being moved,
        are left until the next look. An empty folder is one that went away, and changes nothing.

        Errors: FolderAway.
        """
        await self._change(self._refresh)

    async def index(self) -> list[Standing]:
        """How every version stands that is loaded or lies on the disk. Errors: FolderAway."""
        on_disk = await asyncio.to_thread(lambda: stamps_in(self._root))
        return self._shelf.standings(on_disk, self._loading)

    def fill(self, settings: Settings) -> None:
        """Load all that is in the folder. Blocking.

        One bad bundle fails them all, unless the folder is watched: then it may be about to be
        mended, and is noted. The default product must be there in any case.

        Errors: BundleError, which names the bundle; DeviceMissing; FolderAway.
        """
        self._seen = stamps_in(self._root)
        for key in self._seen:
            try:
                self._load(key)
            except BundleRefused as error:
                if isinstance(error.__cause__, DeviceMissing):
                    raise error.__cause__ from None  # no bundle's fault
                if not settings.watch_s:
                    raise
        self.default_product = _default_product(settings, [product for product, _ in self._seen])
        if self.default_product not in self.versions():
            raise BundleMissing(f"the default product {self.default_product!r} is not loaded")

    def close(self) -> None:
        """Begin no change any more."""
        self._changes.shutdown(wait=False, cancel_futures=True)
        self._returns.close()

    async def _change(self, change: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._changes, change)

    def _load_found(self, product: str, version: str | None) -> list[Standing]:
        versions = list(bundles_in(self._root).get(product, {}))
        if not versions:
            raise BundleMissing("the bundles' folder has no such product")
        newest_or_named = versions[-1] if version is None else version
        if newest_or_named not in versions:
            raise BundleMissing(f"the bundles' folder has the versions {', '.join(versions)}")
        self._load((product, newest_or_named))
        return [Standing(product, newest_or_named, "READY")]

    def _load(self, key: Key) -> None:
        folder = self._root.joinpath(*key)
        stamp = stamp_of(folder)
        self._loading = key
        try:
            replicas = open_replicas(folder, self._devices, self._prepare)
        except BundleRefused as error:
            self._shelf = self._shelf.noted(key, Note(error.reason, stamp))
            self._telemetry.failed_loads.labels(key[0]).inc()
            LOG.warning("%s", error, exc_info=error.__cause__)
            raise
        finally:
            self._loading = None
        for replica in replicas:
            self._returns.after(replica)
        before = self._shelf
        self._shelf = before.with_bundle(key, Loaded(replicas, stamp))
        self._tell(before)
        LOG.info("bundle %s version %s runs on %s", *key, provider_of(replicas[0]))

    def _unload(self, before: Shelf, product: str, version: str | None) -> list[Standing]:
        versions = before.versions().get(product, [])
        gone = [one for one in versions if version in (None, one)]
        if not gone:
            before.pick(product, version, 0)  # tells which of the two is missing
        if product == self.default_product and gone == versions:
            raise ProductNeeded(
                "the default product keeps one version; load another one first, or start with "
                "another SERVICE_DEFAULT_PRODUCT"
            )
        keys = frozenset((product, one) for one in gone)
        self._shelf = before.without(keys, "unloaded")
        self._tell(before)
        LOG.info("bundle %s unloaded: version %s", product, ", ".join(gone))
        return [Standing(product, one, "UNAVAILABLE", "unloaded") for one in gone]

    def _refresh(self) -> None:
        before, seen = self._seen, stamps_in(self._root)
        self._seen = seen
        if not seen:
            if before:
                LOG.warning("no bundle is left in the bundles' folder; those loaded stay")
            return
        for key, stamp in seen.items():
            if before.get(key) == stamp and not self._shelf.knows(key, stamp):
                with suppress(BundleRefused):
                    self._load(key)
        gone = self._shelf.loaded.keys() - seen.keys() - before.keys()
        for product, version in sorted(gone, key=in_order):
            with suppress(ProductNeeded):
                self._unload(self._shelf, product, version)
        self._shelf = self._shelf.with_notes_on(seen)

    def _tell(self, before: Shelf) -> None:
        """Let the metric name what is loaded now, and nothing else."""
        told = {(*key, provider_of(one.replicas[0])) for key, one in before.loaded.items()}
        now = {(*key, provider_of(one.replicas[0])) for key, one in self._shelf.loaded.items()}
        for labels in told - now:
            self._telemetry.bundles.remove(*labels)
        for labels in now:
            self._telemetry.bundles.labels(*labels).set(1)


def open_library(settings: Settings, telemetry: Telemetry, prepare: Prepare = warmed) -> Library:
    """A library of all bundles in the settings' folder. Blocking.

    Errors: BundleError, which names the bundle; BundleMissing when there is none to serve;
            DeviceMissing when a device is named and cannot be had; FolderAway.
    """
    library = Library(settings, telemetry, prepare)
    library.fill(settings)
    return library


def provider_of(bundle: Bundle) -> str:
    """The execution provider that runs the graphs, not one that merely could."""
    return bundle.providers[0]


def _default_product(settings: Settings, found: list[str]) -> str:
    """By what lies on the disk: a demo product that fails to load is not silently replaced."""
    if not found:
        raise BundleMissing(f"no bundle in {settings.bundles}")
    if settings.default_product is None:
        return DEMO_PRODUCT if DEMO_PRODUCT in found else found[0]
    return settings.default_product
