"""Hashes of what an E01, gzip or xz image holds, made in the reader's sandbox.

To be compared with those that an E01 stores. The sandbox reads hostile input: a reader that was
taken over can answer with any hash, so that a match says that the image is consistent, and no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from images import reader_sandbox
from images.errors import ExportFailed
from images.evidence import EvidenceFile
from images.process import PIPE
from images.quoting import shown
from images.reader_sandbox import DEFAULT_LIMIT

_MAX_LINE = 4096
_HEX = {"md5": re.compile("[0-9a-f]{32}"), "sha1": re.compile("[0-9a-f]{40}")}
_HEX["sha256"] = re.compile("[0-9a-f]{64}")


class _Silent(Exception):
    """The reader ended, or its time was over, before it said all."""


@dataclass(frozen=True, slots=True)
class ContentHashes:
    """Hexadecimal, over the `size` bytes of the content without filling up to a sector."""

    size: int
    md5: str
    sha1: str
    sha256: str


def content_hashes(  # noqa: PLR0913
    kind: str,
    files: Sequence[EvidenceFile],
    *,
    path: Path,
    timeout: float,
    progress: Callable[[int, int], None] | None = None,
    cpu: int | None = None,
    limit: int = DEFAULT_LIMIT,
) -> ContentHashes:
    """Read everything once. `kind`, `files`, `path`, `cpu` and `limit` as for `served`.

    `timeout` in seconds is for the whole; `progress` gets the bytes that are done and how many
    there are, about once a second. Raises ExportFailed, also for a range that is damaged.
    """
    with reader_sandbox.handed_over(files) as descriptors:
        numbers = ",".join(map(str, descriptors))
        argv = ["/usr/bin/python3", "-m", "images.reader.verify", kind, numbers, str(limit)]
        deadline = time.monotonic() + timeout
        with reader_sandbox.running(argv, descriptors, path=path, cpu=cpu, stdout=PIPE) as reader:
            assert reader.process.stdout is not None  # noqa: S101
            try:
                return _answer(reader.process.stdout, deadline, path, progress)
            except _Silent as error:
                raise reader_sandbox.failure(path, str(error), reader) from error


def _answer(
    output: IO[bytes],
    deadline: float,
    path: Path,
    progress: Callable[[int, int], None] | None,
) -> ContentHashes:
    for line in _lines(output, deadline):
        untrusted = _decoded(line)
        if "error" in untrusted:
            raise ExportFailed(
                f"the reader refused it: {shown(str(untrusted['error']))}",
                path=path,
                hint=shown(str(untrusted.get("hint", ""))),
            )
        if "md5" in untrusted:
            return _hashes(untrusted)
        done, size = untrusted.get("done"), untrusted.get("size")
        if type(done) is not int or type(size) is not int or not 0 <= done <= size:
            raise _Silent("the reader said something that is no answer")
        if progress is not None:
            progress(done, size)
    raise _Silent("the reader ended without an answer")


def _decoded(line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _Silent("the reader said something that is no answer")
    return value


def _hashes(untrusted: dict[str, object]) -> ContentHashes:
    size = untrusted.get("size")
    texts = {name: str(untrusted.get(name)) for name in _HEX}
    if type(size) is not int or size < 0:
        raise _Silent("the reader said something that is no answer")
    if not all(_HEX[name].fullmatch(text) for name, text in texts.items()):
        raise _Silent("the reader said something that is no answer")
    return ContentHashes(size, texts["md5"], texts["sha1"], texts["sha256"])


def _lines(output: IO[bytes], deadline: float) -> Iterator[bytes]:
    """Lines of at most _MAX_LINE bytes, until the deadline (monotonic seconds)."""
    with contextlib.closing(selectors.DefaultSelector()) as selector:
        selector.register(output, selectors.EVENT_READ)
        rest = b""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise _Silent("the reader did not finish in time")
            block = os.read(output.fileno(), _MAX_LINE)
            if not block:
                return
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if len(rest) > _MAX_LINE:
                raise _Silent("the reader said something that is no answer")
