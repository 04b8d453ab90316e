"""A system's files for those who parse them: what is wrong with one is told, and the others go on.

Absent files are ordinary and told by nobody; the answer is None or empty. Everything else that
keeps a file from being read whole becomes a finding, once for each path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from appliance.agent.outcome import Outcome
from appliance.agent.system.root import File, Missing, Root, RootError, text_of
from appliance.layer import MAX_LIST, MAX_TEXT, Severity

MAX_FILE = 4 << 20
"""Bytes of a text file that are read."""

MAX_FOLDER = 4096
"""Entries of a folder that are looked at."""

_MAX_TOLD = 50
"""Findings about one system; what goes wrong more often goes wrong everywhere."""

T = TypeVar("T")


class Files:
    """Reads files of `root`, the root of the system on the layer at `address`."""

    def __init__(self, root: Root, address: str, outcome: Outcome) -> None:
        self.root = root
        self._address = address
        self._outcome = outcome
        self._told: set[str] = set()

    def text(self, path: str, limit: int = MAX_FILE) -> str | None:
        """The file as text, at most `limit` bytes; what is not UTF-8 becomes U+FFFD."""
        data = self.data(path, limit)
        return None if data is None else text_of(data)

    def data(self, path: str, limit: int = MAX_FILE) -> bytes | None:
        """The file's first `limit` bytes; a finding says where there are more."""
        with self.opened(path) as file:
            if file is None:
                return None
            if file.size > limit:
                self.tell(path, f"it has {file.size} bytes; only the first {limit} are read")
            return self._tried(path, lambda: file.read(limit))

    @contextmanager
    def opened(self, path: str) -> Iterator[File | None]:
        """The open file, None where there is none. Read errors inside are the caller's."""
        context = self.root.opened(path)
        file = self._tried(path, context.__enter__)
        try:
            yield file
        finally:
            if file is not None:
                context.__exit__(None, None, None)

    def lines(self, path: str, limit: int = MAX_FILE) -> list[str]:
        """The lines of a text file, without their ends and without what is above MAX_TEXT."""
        text = self.text(path, limit) or ""
        return [line.removesuffix("\r")[:MAX_TEXT] for line in text.split("\n")]

    def first_line(self, path: str) -> str | None:
        """The first line that is not empty and not a comment, stripped."""
        lines = (line.strip() for line in self.lines(path, 1 << 16))
        return next((line for line in lines if line and not line.startswith("#")), None)

    def names(self, path: str, limit: int = MAX_FOLDER) -> list[str]:
        """The sorted names in a folder, for paths; `text_of` makes them fit to be sent."""
        listing = self._tried(path, lambda: self.root.listdir(path, limit))
        if listing is None:
            return []
        if listing.cut:
            self.tell(path, f"it has more than {limit} entries; the others are left out")
        return listing.names

    def link(self, path: str) -> str | None:
        """Where a symbolic link points to; None where it is none."""
        target = self._tried(path, lambda: self.root.readlink(path))
        return None if target is None else text_of(target)[:MAX_TEXT]

    def changed(self, path: str) -> int | None:
        """When it was last changed (mtime), in seconds since the epoch."""
        facts = self._tried(path, lambda: self.root.stat(path))
        return None if facts is None else int(facts.st_mtime)

    def tell(self, path: str, reason: str) -> None:
        """Report that `path` could not be read, or not wholly, or not understood."""
        if path in self._told or len(self._told) > _MAX_TOLD:
            return
        self._told.add(path)
        message = f"{text_of(path)}: {reason}"
        if len(self._told) > _MAX_TOLD:
            message = "more files of this system could not be read; they are not named"
        self._outcome.find(Severity.WARNING, self._address, "system-unreadable", message)

    def bounded(self, items: Iterable[T], what: str, limit: int = MAX_LIST) -> list[T]:
        """At most `limit` of them; a finding says where there are more."""
        found = list(islice(items, limit + 1))
        if len(found) > limit:
            message = f"there are more than {limit} {what}; the others are left out"
            self._outcome.find(Severity.WARNING, self._address, "system-limit", message)
        return found[:limit]

    def _tried(self, path: str, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except Missing:
            return None
        except RootError as error:
            self.tell(path, str(error))
            return None


def clipped(text: str | None) -> str | None:
    """What fits into a field; None for nothing."""
    return (text or "").strip()[:MAX_TEXT] or None
