"""The content of an EWF image, chunk by chunk, each checked against its own checksum.

Not libewf: it fills a chunk that is damaged with zeros, and its Python module can neither switch
that off nor tell. What a chunk is: libewf's "Expert Witness Compression Format", "Data chunk".
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

from images import ewf, ewf_tables
from images.errors import Unsupported
from images.evidence import MAX_READ, EvidenceFile, read_exactly
from images.ewf_sections import bad

_CACHED_CHUNKS = 32 << 20
_CACHED_ENTRIES = 4 << 20


class EwfContent:
    """See `content.Content`. Of the tables and chunks, the last used ones are kept in memory."""

    def __init__(self, files: Sequence[EvidenceFile], limit: int) -> None:
        self._files = files
        layout = ewf.layout(files)
        self._tables = layout.tables
        self._starts = [table.first_chunk for table in layout.tables]
        self._chunk_size = layout.volume.chunk_size
        self.size = layout.volume.virtual_size
        if self.size > limit:
            raise Unsupported(f"is a disk of more than {limit} bytes", path=files[0].path)
        longest = max(table.entries for table in layout.tables)
        self._entries = lru_cache(max(1, _CACHED_ENTRIES // longest))(self._load_entries)
        self._chunk = lru_cache(max(2, _CACHED_CHUNKS // self._chunk_size))(self._load_chunk)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of the disk. Raises ImageError."""
        pieces = []
        end = offset + length
        while offset < end:
            number, start = divmod(offset, self._chunk_size)
            piece = self._chunk(number)[start : start + end - offset]
            if not piece:
                raise ValueError("read beyond the end of the disk")
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)

    def _load_entries(self, table: int) -> array[int]:
        found = self._tables[table]
        return ewf_tables.entries(self._files[found.segment], found)

    def _load_chunk(self, number: int) -> bytes:
        index = bisect_right(self._starts, number) - 1
        table = self._tables[index]
        file = self._files[table.segment]
        begin, end, compressed = ewf_tables.place(
            table, self._entries(index), number - table.first_chunk
        )
        expected = min(self._chunk_size, self.size - number * self._chunk_size)
        plain = self._inflated if compressed else self._stored
        data = plain(file, begin, end, expected)
        if data is None:
            raise bad(file, f"chunk {number}, at {begin}, is damaged")
        return data

    def _inflated(
        self, file: EvidenceFile, begin: int, end: int | None, expected: int
    ) -> bytes | None:
        # zlib makes nothing longer than this (its compressBound).
        most = self._chunk_size + (self._chunk_size >> 8) + 64
        stored = end - begin if end is not None and end > begin else most
        length = max(0, min(stored, most, file.size - begin))
        decoder = zlib.decompressobj()
        try:
            data = decoder.decompress(_read(file, begin, length), self._chunk_size + 1)
        except zlib.error:
            return None
        # At its end zlib has compared the Adler-32.
        if not decoder.eof or len(data) not in (expected, self._chunk_size):
            return None
        return data[:expected]

    def _stored(
        self, file: EvidenceFile, begin: int, _end: int | None, expected: int
    ) -> bytes | None:
        # Some writers fill the last chunk of the disk up.
        for length in {expected, self._chunk_size}:
            if begin + length + 4 <= file.size:
                data = _read(file, begin, length + 4)
                if zlib.adler32(data[:-4]) == int.from_bytes(data[-4:], "little"):
                    return data[:expected]
        return None


def _read(file: EvidenceFile, offset: int, length: int) -> bytes:
    if length <= MAX_READ:
        return read_exactly(file, offset, length, "a chunk")
    return b"".join(
        read_exactly(file, start, min(MAX_READ, offset + length - start), "a chunk")
        for start in range(offset, offset + length, MAX_READ)
    )
