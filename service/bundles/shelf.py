"""What is loaded at one moment: a value that a change replaces as a whole, and never alters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from models.bundle import Bundle, version_key
from models.errors import BundleMissing

Key = tuple[str, str]
"""A product and one of its versions."""
Stamp = tuple[tuple[str, int, int], ...]
"""Name, size and time of change (ns) of each file in a bundle's folder."""
State = Literal["READY", "LOADING", "UNAVAILABLE"]


@dataclass(frozen=True)
class Loaded:
    """A bundle that serves: one copy for each device, and its folder's stamp when it was opened."""

    replicas: tuple[Bundle, ...]
    stamp: Stamp


@dataclass(frozen=True)
class Note:
    """Why a folder with this stamp does not serve, or not as it now is."""

    reason: str
    stamp: Stamp


@dataclass(frozen=True)
class Standing:
    """How one version of a product stands: a row of the index."""

    product: str
    version: str
    state: State
    reason: str = ""


@dataclass(frozen=True)
class Shelf:
    """The loaded bundles by product and version, and notes on those that are not."""

    loaded: Mapping[Key, Loaded] = field(default_factory=dict)
    notes: Mapping[Key, Note] = field(default_factory=dict)

    def versions(self) -> dict[str, list[str]]:
        """Loaded products by name, each with its versions, oldest first."""
        found: dict[str, list[str]] = {}
        for product, version in sorted(self.loaded, key=in_order):
            found.setdefault(product, []).append(version)
        return found

    def pick(self, product: str, version: str | None, device: int) -> Bundle:
        """A loaded bundle, the newest version unless one is named.

        A look-up among what is loaded: a client's word never becomes a path.

        Errors: BundleMissing, which lists what there is.
        """
        everything = self.versions()
        versions = everything.get(product)
        if versions is None:
            raise BundleMissing(f"no such product; loaded are: {', '.join(everything)}")
        found = self.loaded.get((product, versions[-1] if version is None else version))
        if found is None:
            raise BundleMissing(f"no such version; loaded are: {', '.join(versions)}")
        return found.replicas[device]

    def with_bundle(self, key: Key, loaded: Loaded) -> Shelf:
        """The same with one bundle more, or in place of another of its version."""
        notes = {other: note for other, note in self.notes.items() if other != key}
        return Shelf(dict(self.loaded) | {key: loaded}, notes)

    def without(self, keys: frozenset[Key], reason: str) -> Shelf:
        """The same without these bundles, and a note why."""
        kept = {key: one for key, one in self.loaded.items() if key not in keys}
        notes = {key: Note(reason, self.loaded[key].stamp) for key in keys}
        return Shelf(kept, dict(self.notes) | notes)

    def noted(self, key: Key, note: Note) -> Shelf:
        """The same with a note on a folder that was refused; what is loaded stays."""
        return replace(self, notes=dict(self.notes) | {key: note})

    def with_notes_on(self, on_disk: Mapping[Key, Stamp]) -> Shelf:
        """The same without the notes on folders that are gone: one that returns is new."""
        return replace(self, notes={k: note for k, note in self.notes.items() if k in on_disk})

    def knows(self, key: Key, stamp: Stamp) -> bool:
        """Whether a folder in this very state serves already, or has a note why it does not."""
        known = (self.loaded.get(key), self.notes.get(key))
        return any(one is not None and one.stamp == stamp for one in known)

    def standings(self, on_disk: Mapping[Key, Stamp], loading: Key | None) -> list[Standing]:
        """Every version that is loaded or on the disk; products by name, versions oldest first."""
        keys = sorted(on_disk.keys() | self.loaded.keys(), key=in_order)
        return [Standing(*key, *self._state_of(key, key in on_disk, loading)) for key in keys]

    def _state_of(self, key: Key, is_on_disk: bool, loading: Key | None) -> tuple[State, str]:
        note = self.notes.get(key)
        if key in self.loaded:
            gone = "" if is_on_disk else "its folder is gone"
            return "READY", f"its folder now is refused: {note.reason}" if note else gone
        if key == loading:
            return "LOADING", ""
        return "UNAVAILABLE", note.reason if note else "not loaded"


def in_order(key: Key) -> tuple[str, tuple[int, ...], str]:
    """A key to sort by: products by name, versions oldest first."""
    return key[0], version_key(key[1]), key[1]
