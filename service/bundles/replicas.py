"""Folder -> a bundle's copies for serving, opened, proved and warm; or one reason why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from models.bundle import Bundle, open_bundle, warm_up
from models.devices import Device
from models.errors import BundleError, FlawsmithError

Prepare = Callable[[Bundle], Bundle]
"""An opened bundle -> the same, warm and fit to serve."""
FOLDERS = re.compile(r"(?<![\w.])/(?:[^/\s:'\"]+/)+")
MOST_WORDS = 400


class BundleRefused(BundleError):
    """A bundle that was not loaded. `reason` names its files, and no folder of this machine."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"bundle {folder.parent.name}/{folder.name}: {reason}")
        self.reason = reason


def open_replicas(folder: Path, devices: Sequence[Device], prepare: Prepare) -> tuple[Bundle, ...]:
    """One warm copy of a bundle for each device. Blocking, for seconds.

    Errors: BundleRefused, whatever is wrong with it: a graph may fail in any way when it first
            runs.
    """
    try:
        return tuple(prepare(open_bundle(folder, device)) for device in devices)
    except Exception as error:
        raise BundleRefused(folder, reason_of(error, folder)) from error


def warmed(bundle: Bundle) -> Bundle:
    """A bundle after its first run, and nothing round it."""
    warm_up(bundle)
    return bundle


def reason_of(error: Exception, folder: Path) -> str:
    """An error's words without the machine's folders; only the kind where nobody expected it."""
    if isinstance(error, OSError):
        return f"a file cannot be read: {error.strerror or type(error).__name__}"
    if not isinstance(error, FlawsmithError | ValueError):
        return f"it fails when it first runs: {type(error).__name__}"
    words = str(error).replace(f"{folder}/", "").replace(f"{folder.resolve()}/", "")
    return FOLDERS.sub("", words)[:MOST_WORDS]
