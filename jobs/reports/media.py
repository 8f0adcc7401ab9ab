"""The videos and pictures of a page: within it, or if they are many in a folder beside it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

from infra.store import Store

OWN_NAME = re.compile(r"[0-9a-f]{20}\.(mp4|png)")
EMBEDDED_BYTES = 64_000_000  # of all of them together, which one page takes into itself


class Media:
    """Videos and pictures, each kept once, by a name that its content gives it.

    They are held in memory until they are more than a page takes. From then on they lie in `folder` of `store`.
    """

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self.folder = store, folder
        self._held: dict[str, bytes] = {}
        self._there = store.names(folder)
        self._named: set[str] = set()
        self.bytes = 0
        self.in_folder = False

    def add(self, content: bytes, suffix: str) -> str:
        """Its name. suffix: ".mp4" or ".png". Raises StorageError."""
        name = hashlib.sha256(content).hexdigest()[:20] + suffix
        if name not in self._named:
            self._named.add(name)
            self.bytes += len(content)
            self._held[name] = content
            self.in_folder = self.in_folder or self.bytes > EMBEDDED_BYTES
            if self.in_folder:
                self._spill()
        return name

    def _spill(self) -> None:
        for name, content in self._held.items():
            if name not in self._there:
                self._store.write(f"{self.folder}/{name}", content)
        self._held.clear()

    def embedded(self) -> Iterable[tuple[str, str]]:
        """(name, base64) of those that the page takes into itself."""
        return ((name, base64.b64encode(content).decode()) for name, content in self._held.items())

    def remove_stale(self) -> None:
        """Forget the files of an earlier page that this one does not show."""
        kept = self._named if self.in_folder else set()
        ours = {name for name in self._there if OWN_NAME.fullmatch(name)}  # whoever else's are left alone
        for name in ours - kept:
            self._store.remove(f"{self.folder}/{name}")
        if ours == self._there and self._there and not kept:
            self._store.remove(self.folder)
