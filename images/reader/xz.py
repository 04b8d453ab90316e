"""The content of an xz file, block by block, each checked against its own checksum."""

from __future__ import annotations

import lzma
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator

from images import xz
from images.errors import MalformedImage, Unsupported
from images.evidence import EvidenceFile, read_exactly

_CACHED = 256 << 20
_MEMORY = 256 << 20
_INPUT = 1 << 20


class XzContent:
    """See `content.Content`. The blocks that were used last are kept in memory, unpacked."""

    def __init__(self, file: EvidenceFile, limit: int) -> None:
        self._file = file
        index = xz.parse(file)
        self._blocks = [block for block in index.blocks if block.size]
        self._starts = [block.start for block in self._blocks]
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        # Also keeps several threads from unpacking at once: their memory would add up.
        self._lock = threading.Lock()
        self.size = index.size
        if self.size > limit:
            raise Unsupported(
                f"unpacks to more than {limit} bytes",
                path=file.path,
                hint="if that is expected, unpack it where there is room",
            )

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of the content. Raises MalformedImage."""
        if offset + length > self.size:
            raise ValueError("read beyond the end of the content")
        pieces = []
        end = offset + length
        while offset < end:
            number = bisect_right(self._starts, offset) - 1
            start = offset - self._starts[number]
            piece = self._block(number)[start : start + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def _block(self, number: int) -> bytes:
        with self._lock:
            data = self._cache.pop(number, None)
            if data is None:
                kept = sum(map(len, self._cache.values())) + self._blocks[number].size
                while self._cache and kept > _CACHED:
                    kept -= len(self._cache.popitem(last=False)[1])
                data = self._unpacked(self._blocks[number])
            self._cache[number] = data
            return data

    def _unpacked(self, block: xz.Block) -> bytes:
        try:
            return self._decoded(block)
        except (lzma.LZMAError, MemoryError) as error:
            raise self._damaged(block, str(error)) from error

    def _decoded(self, block: xz.Block) -> bytes:
        """As a stream of its own, so that liblzma checks the content and both sizes."""
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        pieces: list[bytes] = []
        left = block.size
        for data in self._stream(block):
            given = data
            while not decoder.eof:
                # One more than may come, so that it goes on to the check, and too much is seen.
                piece = decoder.decompress(given, left + 1)
                pieces.append(piece)
                left -= len(piece)
                if left < 0:
                    raise self._damaged(block, "it is longer than the index says")
                if decoder.needs_input:
                    break
                given = b""
        if left or not decoder.eof:
            raise self._damaged(block, "it is shorter than the index says")
        return b"".join(pieces)

    def _stream(self, block: xz.Block) -> Iterator[bytes]:
        header = read_exactly(self._file, block.header, xz.HEADER_SIZE, "the xz header")
        yield header
        end = block.offset + -(-block.packed // 4) * 4
        for offset in range(block.offset, end, _INPUT):
            yield read_exactly(self._file, offset, min(_INPUT, end - offset), "an xz block")
        yield xz.ending(header[6:8], block)

    def _damaged(self, block: xz.Block, reason: str) -> MalformedImage:
        return MalformedImage(
            f"damaged xz file: the block at {block.offset}: {reason}",
            path=self._file.path,
            hint="compare the file with the original; xz -t may tell more about a copy",
        )
