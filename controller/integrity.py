"""Hashes of a case's evidence: made beside the analysis, and once more afterwards if wanted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

from controller.errors import EvidenceRefused
from controller.keys import Key, keys_for
from controller.live_domains import domain_writers
from controller.settings import Settings
from images.errors import ImageError
from images.evidence import EvidenceFile
from images.ewf import EwfImage
from images.export import exported
from images.hashing import (
    Algorithm,
    Cancelled,
    ExportHash,
    FileHash,
    Hashing,
    ReadFailed,
    digest_export,
)
from images.image import Image
from images.live import writers
from images.quoting import shown

Watch = Callable[[str, int, int], None]
"""Called with what is being done, and how many bytes of how many."""


class Integrity:
    """The hashes that the settings ask for, of all files (`others` too) and of all disks.

    A context: entering starts, leaving ends all work at once. `watch` is called while somebody
    waits in `files` or `disks`.
    """

    def __init__(
        self,
        images: Sequence[Image],
        settings: Settings,
        watch: Watch,
        others: Sequence[EvidenceFile] = (),
    ) -> None:
        self._images = images
        self._all_files = [*(file for image in images for file in image.files), *others]
        self._settings = settings
        self._watch = watch
        self._stack = ExitStack()
        self._hashing: Hashing | None = None
        self._disks: _Disks | None = None

    def __enter__(self) -> Integrity:
        if self._settings.hash != "none":
            self._hashing = self._stack.enter_context(Hashing(self._all_files))
        wanted = [self._is_wanted(image) for image in self._images]
        if any(wanted):
            disks = _Disks(self._images, wanted, self._settings.keys)
            self._disks = self._stack.enter_context(disks)
        return self

    def _is_wanted(self, image: Image) -> bool:
        """Whether the disk is to be hashed: asked for, or to be compared with a stored hash."""
        has_stored = bool(stored_hashes(image)) and self._settings.hash != "none"
        return has_stored or self._settings.hash == "all"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def files(self) -> dict[int, FileHash | ReadFailed]:
        """The outcome for each file by its descriptor; empty where none was asked for."""
        if self._hashing is None:
            return {}
        outcomes = self._hashing.outcomes(lambda *done: self._watch("hash the evidence", *done))
        return {file.fd: outcome for file, outcome in zip(self._all_files, outcomes, strict=True)}

    def disks(self) -> list[ExportHash | ImageError | None]:
        """The outcome for each image's disk; None where there was nothing to hash it for."""
        if self._disks is None:
            return [None] * len(self._images)
        return self._disks.join(lambda *done: self._watch("hash the disks", *done))

    def differences(self) -> list[str]:
        """Hash all files once more and name each that differs; for after the guest is gone."""
        before = self.files()
        with Hashing(self._all_files) as again:
            after = again.outcomes(lambda *done: self._watch("hash the evidence again", *done))
        return [
            f"{shown(str(file.path))}: {difference}"
            for file, now in zip(self._all_files, after, strict=True)
            if (difference := _difference(before.get(file.fd), now))
        ]


def _difference(before: FileHash | ReadFailed | None, now: FileHash | ReadFailed) -> str:
    if isinstance(before, FileHash) and isinstance(now, FileHash):
        changed = before.sha256 != now.sha256
        return f"SHA-256 was {before.sha256}, is {now.sha256}" if changed else ""
    if isinstance(before, FileHash) and isinstance(now, ReadFailed):
        return f"could be read before, now no more: {now.message}"
    return ""


class _Disks:
    """Hashes the content of each image's disk, through an exporter of its own."""

    def __init__(
        self, images: Sequence[Image], wanted: Sequence[bool], keys: Sequence[Key]
    ) -> None:
        self._images = images
        self._wanted = wanted
        self._keys = keys
        self._stop = threading.Event()
        self._done = 0
        self._outcomes: list[ExportHash | ImageError | None] = []
        self._failure: BaseException | None = None
        # The exporter dies with the thread that started it, so one thread does all.
        self._thread = threading.Thread(target=self._work, daemon=True, name="hash disks")

    def __enter__(self) -> _Disks:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def join(self, watch: Callable[[int, int], None]) -> list[ExportHash | ImageError | None]:
        """Wait for all; `watch` gets the bytes done and those in all."""
        chosen = zip(self._images, self._wanted, strict=True)
        total = sum(image.virtual_size or 0 for image, wanted in chosen if wanted)
        while self._thread.is_alive():
            self._thread.join(0.1)
            watch(self._done, total)
        if self._failure is not None:
            raise self._failure
        return self._outcomes

    def _work(self) -> None:
        try:
            for index, image in enumerate(self._images):
                keys = keys_for(f"disk{index}", self._keys)
                self._outcomes.append(self._hash(image, keys) if self._wanted[index] else None)
        except Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by whoever joins
            self._failure = error

    def _hash(self, image: Image, keys: list[bytes]) -> ExportHash | ImageError:
        before = self._done

        def progress(done: int) -> None:
            self._done = before + done

        try:
            with exported(image.plan, None, name="hash", keys=keys, stop=self._stop) as export:
                return digest_export(
                    export.socket,
                    export.name,
                    export.size,
                    path=image.path,
                    algorithms=("sha256", *stored_hashes(image)),
                    progress=progress,
                    stop=self._stop,
                )
        except ImageError as error:
            return error


def stored_hashes(image: Image) -> dict[Algorithm, str]:
    """The hashes of the disk that an image stores itself, in hexadecimal; E01 does."""
    details = image.chain[0].details
    if not isinstance(details, EwfImage):
        return {}
    stored: dict[Algorithm, str | None] = {"md5": details.stored_md5, "sha1": details.stored_sha1}
    return {algorithm: digest for algorithm, digest in stored.items() if digest is not None}


def check_writers(
    images: Sequence[Image], headers: Sequence[EvidenceFile], *, live: bool
) -> list[list[str]]:
    """A list for each image of who else can write to it, in words.

    Raises EvidenceRefused where there is anyone, unless the evidence may be `live`.
    """
    found = [
        [str(each) for each in [*writers(image.files), *domain_writers(image.files)]]
        for image in images
    ]
    of_headers = [str(each) for each in writers(tuple(headers))] if headers else []
    if not live:
        refuse_writers([*(sentence for each in found for sentence in each), *of_headers])
    return found


def refuse_writers(sentences: Sequence[str]) -> None:
    """Raise EvidenceRefused where somebody else can write to the evidence."""
    if sentences:
        raise EvidenceRefused(
            "somebody else can write to the evidence now:\n" + "\n".join(sentences),
            hint="end what uses it; or give --live, and the output will say that it was live",
        )
