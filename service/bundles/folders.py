"""What lies in the bundles' folder, and how to see that it changed."""

from __future__ import annotations

from pathlib import Path

from models.bundle import find_bundles
from models.errors import FlawsmithError
from service.bundles.shelf import Key, Stamp


class FolderAway(FlawsmithError):
    """The bundles' folder cannot be read: a share that hangs, a right that was taken away."""


def stamps_in(root: Path) -> dict[Key, Stamp]:
    """Every folder <product>/<version>/ with its stamp. Blocking. Errors: FolderAway."""
    return {
        (product, version): stamp_of(folder)
        for product, versions in bundles_in(root).items()
        for version, folder in versions.items()
    }


def bundles_in(root: Path) -> dict[str, dict[str, Path]]:
    """What `find_bundles` finds. Blocking. Errors: FolderAway."""
    try:
        return find_bundles(root)
    except OSError as error:
        raise FolderAway(f"the bundles' folder cannot be read: {error.strerror}") from error


def stamp_of(folder: Path) -> Stamp:
    """Name, size and time of change of what lies in a folder; empty where it cannot be read.

    It differs as soon as a file arrives, grows or is replaced, and costs no look into one.
    """
    try:
        found = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:
        return ()
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in found)
