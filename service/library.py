"""Which bundles are loaded: found, opened and warmed up before the first request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.bundle import Bundle, find_bundles, open_bundle, warm_up
from models.devices import Device
from models.errors import BundleError, BundleMissing, DeviceMissing, FlawsmithError
from service.settings import Settings
from service.telemetry import Telemetry

LOG = logging.getLogger("service")
Prepare = Callable[[Bundle], Bundle]
"""What is put round an opened bundle's graphs before it serves."""
DEMO_PRODUCT = "brushed-plate"


@dataclass(frozen=True)
class Library:
    """The loaded bundles: product -> version -> bundle, versions oldest first."""

    bundles: dict[str, dict[str, Bundle]]
    default_product: str

    def pick(self, product: str | None = None, version: str | None = None) -> Bundle:
        """The bundle asked for, the default product's or newest where none is named.

        A look-up among what is loaded: a client's word never becomes a path.

        Errors: BundleMissing, which lists what there is.
        """
        versions = self.bundles.get(self.default_product if product is None else product)
        if versions is None:
            raise BundleMissing(f"no such product; loaded are: {', '.join(self.bundles)}")
        bundle = versions.get(next(reversed(versions)) if version is None else version)
        if bundle is None:
            raise BundleMissing(f"no such version; loaded are: {', '.join(versions)}")
        return bundle


def open_library(
    settings: Settings, telemetry: Telemetry, prepare: Prepare = lambda b: b
) -> Library:
    """Open every bundle of the settings' folder; one bad bundle fails them all.

    Errors: BundleError, which names the bundle; BundleMissing when there is none to serve;
            DeviceMissing when a device is named and cannot be had.
    """
    device = settings.device_at(settings.device_ids[0])
    bundles = {
        product: {
            version: prepare(_open(folder, device, telemetry)) for version, folder in found.items()
        }
        for product, found in find_bundles(settings.bundles).items()
    }
    return Library(bundles, _default_product(settings, bundles))


def _open(folder: Path, device: Device, telemetry: Telemetry) -> Bundle:
    try:
        bundle = open_bundle(folder, device)
        warm_up(bundle)
    except DeviceMissing:
        raise  # no bundle's fault
    except (FlawsmithError, ValueError, OSError) as error:
        raise BundleError(f"bundle {folder.parent.name}/{folder.name}: {error}") from error
    told = (bundle.manifest.product, bundle.manifest.version, provider_of(bundle))
    telemetry.bundles.labels(*told).set(1)
    LOG.info("bundle %s version %s runs on %s", *told)
    return bundle


def provider_of(bundle: Bundle) -> str:
    """The execution provider that runs the graphs, not one that merely could."""
    return bundle.providers[0]


def _default_product(settings: Settings, bundles: dict[str, dict[str, Bundle]]) -> str:
    if not bundles:
        raise BundleMissing(f"no bundle in {settings.bundles}")
    if settings.default_product is None:
        return DEMO_PRODUCT if DEMO_PRODUCT in bundles else next(iter(bundles))
    if settings.default_product not in bundles:
        raise BundleMissing(f"the default product {settings.default_product!r} is not loaded")
    return settings.default_product
