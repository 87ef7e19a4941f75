"""The error tree; nothing here knows HTTP.

FlawsmithError
├── BundleError            a bundle that must not be run
│   ├── BundleMissing          no such product, version or folder
│   ├── BundleAltered          a file is missing, unknown, changed, misplaced or reaches outside
│   └── BundleTooNew           its manifest's schema is newer than this code
├── InputError             the caller's input; the message says which part and why
│   ├── PictureFormatUnknown   bytes of no accepted format
│   ├── PictureUnreadable      an accepted format, but broken or of a kind that is not taken
│   ├── PictureTooLarge        more pixels in the header, or more bytes, than allowed
│   ├── PictureTooSmall        a side shorter than the bundle's least
│   ├── MaskMismatch           a client's mask of another size, of nothing, or of too many regions
│   └── ParameterInvalid       a parameter that cannot be met; has `field`
└── DeviceLost             a graph's run failed: its device, or the graph itself
    └── DeviceMissing          a device was named and cannot be had
"""

from __future__ import annotations


class FlawsmithError(Exception):
    """Anything this project raises on purpose."""


class BundleError(FlawsmithError):
    """A bundle that must not be run."""


class BundleMissing(BundleError):
    """No such product, version or folder."""


class BundleAltered(BundleError):
    """A file is missing, unknown, changed, misplaced, or reaches out of the folder."""


class BundleTooNew(BundleError):
    """The manifest's schema is newer than this code reads."""


class InputError(FlawsmithError):
    """The caller's input cannot be used; the message says which part and why."""


class PictureFormatUnknown(InputError):
    """Bytes of no accepted format."""


class PictureUnreadable(InputError):
    """An accepted format, but broken or of a kind that is not taken."""


class PictureTooLarge(InputError):
    """More pixels in the header, or more bytes, than allowed."""


class PictureTooSmall(InputError):
    """A side shorter than the bundle's least."""


class MaskMismatch(InputError):
    """A client's mask of another size than its picture, of nothing, or of too many regions."""


class ParameterInvalid(InputError):
    """A parameter that cannot be met; `field` names it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field


class DeviceLost(FlawsmithError):
    """A graph's run failed: its device stopped answering, or the graph itself is at fault."""


class DeviceMissing(DeviceLost):
    """A device was named and cannot be had; nothing else is taken in its place."""
