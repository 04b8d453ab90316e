"""The content of a gzip file (RFC 1952), with random access.

One pass over the whole learns the size and checks every CRC. On its way it keeps copies of the
decompressor's state, from which a later read goes on.
"""

from __future__ import annotations

import threading
import zlib
from bisect import bisect_right
from typing import Any

from images.errors import MalformedImage, Unsupported
from images.evidence import EvidenceFile, truncated

MAX_POINTS = 4096
"""Copies of the state, of about 40 KiB each; when there are more, every second one is dropped."""

_FIRST_INTERVAL = 1 << 20
_INPUT = 128 << 10
_STEP = 512 << 10
_CURSORS = 16
_MAGIC = b"\x1f\x8b"
_HINT = "compare the file with the original; gzip -t may tell more about a copy"


class _Cursor:
    """A place in the stream: `position` in bytes of the content, `_consumed` of the file."""

    def __init__(self, file: EvidenceFile) -> None:
        self._file = file
        self._consumed = 0
        self._decoder: Any = None  # zlib does not offer the type's name
        self.position = 0

    def copy(self) -> _Cursor:
        other = _Cursor(self._file)
        other._consumed = self._consumed
        other._decoder = self._decoder.copy() if self._decoder is not None else None
        other.position = self.position
        return other

    def step(self, most: int) -> bytes | None:
        """At most `most` of the next bytes, perhaps none; None at the end of the content."""
        if self._decoder is None:
            if not self._begin_member():
                return None
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
        block = self._file.read(self._consumed, _INPUT)
        data = self._advance(block, most)
        if not block and not data and self._decoder is not None:
            raise truncated(self._file, self._file.size + 1, "the gzip stream")
        return data

    def settle(self) -> None:
        """Let go of input that was not needed, which a copy would keep; may skip a byte."""
        if self._decoder is not None:
            self._advance(b"", 1)

    def _advance(self, block: bytes, most: int) -> bytes:
        try:
            data: bytes = self._decoder.decompress(block, most)
        except zlib.error as error:
            raise self._damaged(str(error)) from error
        left = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
        self._consumed += len(block) - len(left)
        self.position += len(data)
        if self._decoder.eof:
            self._decoder = None
        return data

    def _begin_member(self) -> bool:
        """Whether another member begins here; behind the last there may only be zeros."""
        if self._consumed and self._consumed >= self._file.size:
            return False
        head = self._file.read(self._consumed, 2)
        if head == _MAGIC:
            return True
        if self._consumed == 0:
            raise self._damaged("the signature is missing")
        for offset in range(self._consumed, self._file.size, _INPUT):
            if any(self._file.read(offset, _INPUT)):
                raise self._damaged("something else follows the compressed data")
        return False

    def _damaged(self, reason: str) -> MalformedImage:
        end = min(self._consumed + _INPUT, self._file.size)
        return MalformedImage(
            f"damaged gzip file, before its byte {end}: {reason}",
            path=self._file.path,
            hint=_HINT,
        )


class GzipContent:
    """See `content.Content`. Raises Unsupported when there are more than `limit` bytes."""

    def __init__(self, file: EvidenceFile, limit: int) -> None:
        self._points: list[_Cursor] = []
        self._cursors: list[_Cursor] = []
        self._lock = threading.Lock()
        self.size = self._scan(file, limit)
        if self.size == 0:
            raise MalformedImage("holds no data", path=file.path, hint=_HINT)
        self._positions = [point.position for point in self._points]

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of the content. Raises MalformedImage if the file has changed."""
        if offset + length > self.size:
            raise ValueError("read beyond the end of the content")
        cursor = self._cursor(offset)
        pieces = []
        while cursor.position < offset + length:
            before = cursor.position
            target = offset if before < offset else offset + length
            data = cursor.step(min(_STEP, target - before))
            if data is None:
                raise cursor._damaged("it ends earlier than when it was opened")
            if before >= offset:
                pieces.append(data)
        with self._lock:
            self._cursors = [*self._cursors[1 - _CURSORS :], cursor]
        return b"".join(pieces)

    def _scan(self, file: EvidenceFile, limit: int) -> int:
        cursor = _Cursor(file)
        interval = _FIRST_INTERVAL
        self._points.append(cursor.copy())
        while cursor.step(_STEP) is not None:
            if cursor.position > limit:
                raise Unsupported(
                    f"unpacks to more than {limit} bytes",
                    path=file.path,
                    hint="if that is expected, unpack it where there is room",
                )
            if cursor.position - self._points[-1].position >= interval:
                cursor.settle()
                self._points.append(cursor.copy())
            if len(self._points) > MAX_POINTS:
                self._points = self._points[::2]
                interval *= 2
        return cursor.position

    def _cursor(self, offset: int) -> _Cursor:
        """The nearest place before: where an earlier read ended, or a point."""
        point = self._points[bisect_right(self._positions, offset) - 1]
        with self._lock:
            near = [cursor for cursor in self._cursors if cursor.position <= offset]
            best = max(near, key=lambda cursor: cursor.position, default=None)
            if best is not None and best.position >= point.position:
                self._cursors.remove(best)
                return best
        return point.copy()
