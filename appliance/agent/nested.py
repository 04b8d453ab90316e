"""Disk images in file systems: opens those that are wanted, and lists all that are there.

The mapper calls this when a round of its own is over; what an image holds joins the same worklist.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from appliance.agent.device import DeviceError, open_device
from appliance.agent.image_disk import NestedDisk, open_disk_image
from appliance.agent.image_parser import KeyNeeded, ParserError, block_device, start_seconds
from appliance.agent.image_search import Bounds, Candidate, Search
from appliance.agent.mount import MountError, mounted
from appliance.agent.outcome import LeftAlone
from appliance.agent.volume import Volume
from appliance.agent.work import FileSystem, Work
from appliance.image import NestedImage
from appliance.layer import MAX_TEXT, Finding, Kind, Layer, Severity, Status
from images.errors import ImageError
from images.quoting import shown, unshown

MAX_DEPTH = 8
"""Images in one another that are opened."""
_MISSING = (FileNotFoundError, NotADirectoryError)
_READING, _PARSING = "read the image's header", "open the image"
_OPEN_SECONDS = 60
_MOST_LISTED = 4000
"""Images of all file systems together; the host takes 5,000."""
_MOST_TEXT = 2 << 20
"""Characters of their names together, of which each can be twelve bytes in JSON."""
_SEARCH_SECONDS = 150
"""A search has a limit of its own; this leaves room for the mount and one slow file."""


class NestedImages:
    """What one mapping has opened so far, and what it still waits for."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._outcome = work.outcome
        self._pending = list(dict.fromkeys(_canonical(word) for word in work.wanted.open))
        self._tried: dict[str, list[str]] = {word: [] for word in self._pending}
        self._mounts: dict[str, Path | None] = {}
        self._images_left, self._text_left = _MOST_LISTED, _MOST_TEXT

    def open_wanted(self, file_systems: Sequence[FileSystem]) -> list[Volume]:
        """The disks of those wanted images whose file system is there by now.

        A word can fit several file systems: `a:/b:/c` is `/b:/c` in `a`, or `/c` in `a:/b`. At most
        one of them has such a file, since `/b` cannot be a folder and an image.
        """
        volumes: list[Volume] = []
        for word in list(self._pending):
            for each in file_systems:
                address = each.volume.address
                if not word.startswith(f"{address}:/") or address in self._tried[word]:
                    continue
                self._tried[word].append(address)
                if (volume := self._opened(each, word)) is not None:
                    volumes.append(volume)
                if word not in self._pending:
                    break
        return volumes

    def tell_missing(self) -> None:
        """Findings for what was wanted and is nowhere."""
        for word in self._pending:
            tried = max(self._tried[word], key=len, default=None)
            reason = "there is no such file" if tried else "there is no such file system"
            message = f"--open {word}: {reason}"[:MAX_TEXT]
            finding = Finding(Severity.WARNING, tried, "no-such-image", message)
            self._outcome.repeat([finding])

    def list_all(self, file_systems: Sequence[FileSystem], bounds: Bounds | None = None) -> None:
        """Report every image that is a file in one of them."""
        for each in file_systems:
            address = each.volume.address
            try:
                with self._outcome.phase("search for images", address, "search", _SEARCH_SECONDS):
                    self._search(address, Search(self._root(each), bounds))
            except MountError as error:
                message = f"not searched for images: it could not be mounted ({error})"
                self._outcome.find(Severity.WARNING, address, "not-searched", message)
            except LeftAlone:
                continue

    def _search(self, address: str, search: Search) -> None:
        for found in search.run():
            image = _described(address, found)
            if image is None:
                search.left_out.setdefault("its path is too long", found.path)
                continue
            self._images_left -= 1
            self._text_left -= len(image.address) + len(image.path)
            if self._images_left < 0 or self._text_left < 0:
                search.left_out["there are more images than are told of all"] = found.path
                break
            self._outcome.list_image(image)
        for reason, path in search.left_out.items():
            message = f"not all was searched for images: {reason}: {shown(path)[:2000]}"
            self._outcome.find(Severity.WARNING, address, "search-limit", message)

    def _root(self, file_system: FileSystem) -> Path:
        """Where it is mounted, as long as the work lasts. Raises MountError."""
        volume = file_system.volume
        if volume.address not in self._mounts:
            self._mounts[volume.address] = None
            self._mounts[volume.address] = self._work.stack.enter_context(
                mounted(volume, file_system.content.type, self._work.wanted.view)
            )
        root = self._mounts[volume.address]
        if root is None:
            raise MountError("tried before")
        return root

    def _opened(self, file_system: FileSystem, word: str) -> Volume | None:
        """Open the image, unless there is no such file: then it may be elsewhere."""
        parent = file_system.volume.address
        try:
            with ExitStack() as own:
                with self._outcome.phase(_READING, word, "chain", _OPEN_SECONDS):
                    self._check_depth(parent, word)
                    path = unshown(word[len(parent) + 1 :])
                    found = open_disk_image(self._root(file_system), path, own)
                volume = self._disk(found, word, parent, own)
                self._work.stack.push(own.pop_all())
        except _MISSING:
            return None
        except LeftAlone:
            volume = None
        except (ImageError, ParserError, MountError, DeviceError, OSError) as error:
            volume = None
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._outcome.find(Severity.WARNING, parent, "not-opened", f"--open {word}: {reason}")
        self._pending.remove(word)
        return volume

    def _check_depth(self, parent: str, word: str) -> None:
        if self._outcome.depth(parent) >= MAX_DEPTH:
            raise ParserError(f"it lies in {MAX_DEPTH} images already, one in the other")
        if len(word) > MAX_TEXT:
            raise ParserError("its address is too long")

    def _disk(self, found: NestedDisk, word: str, parent: str, own: ExitStack) -> Volume | None:
        """The block device as a layer to be explored; None where a key is missing."""
        plan = found.image.plan
        keys = self._work.keyring.fitting(word)
        seconds = int(start_seconds(plan)) + _OPEN_SECONDS
        notes = [Finding(Severity.INFO, word, "container", note[:MAX_TEXT]) for note in found.notes]
        try:
            with self._outcome.phase(_PARSING, word, "parser", seconds):
                device = open_device(own.enter_context(block_device(plan, keys)))
        except KeyNeeded as error:
            size = plan.size or 0
            layer = Layer(word, Kind.DISK, [parent], None, size, Status.LOCKED, image=found.facts)
            self._outcome.add(layer)
            self._outcome.repeat([*notes, _locked(word, error.tried)])
            return None
        own.callback(device.close)
        self._outcome.repeat(notes)
        return Volume(
            address=word,
            kind=Kind.DISK,
            parents=[parent],
            offset=None,
            size=device.size,
            device=device,
            start=0,
            node=device.path,
            image=found.facts,
        )


def _canonical(word: str) -> str:
    """The word as the layer's address, however the user has escaped it and divided its path."""
    address, colon, path = word.rpartition(":/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return shown(unshown(address + colon + "/".join(parts)))


def _locked(word: str, tried: int) -> Finding:
    if tried:
        message = f"encrypted, and none of the keys that were given for it fits (tried: {tried})"
        return Finding(Severity.WARNING, word, "wrong-key", message)
    message = (
        "encrypted, and no key was given; what is inside is not shown "
        f"(--key {word[:2000]}:file:PATH)"
    )
    return Finding(Severity.WARNING, word, "locked", message)


def _described(layer: str, found: Candidate) -> NestedImage | None:
    """As it is reported; None where its path is longer than what can be said."""
    text = found.path.decode("utf-8", "replace")
    exact = text.encode() == found.path
    address = f"{layer}:{shown(found.path)}"
    if len(address) > MAX_TEXT:
        return None
    return NestedImage(
        layer=layer,
        address=address,
        path=text,
        path_base64=None if exact else base64.b64encode(found.path).decode(),
        format=found.format,
        content=found.content,
        virtual_size=found.virtual_size,
        file_size=found.file_size,
        allocated_size=found.allocated_size,
    )
