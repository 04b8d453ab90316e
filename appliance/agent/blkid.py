"""libblkid through ctypes: what is on a range of bytes, and which partitions its table lists.

One call costs microseconds here; a process costs a fifth of a second in an emulated guest. The
constants and prototypes are those of <blkid/blkid.h>, util-linux 2.41.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass

_LABEL, _LABEL_RAW, _UUID, _TYPE, _USAGE, _VERSION, _MAGIC, _BAD_CHECKSUM, _FS_INFO = (
    1 << bit for bit in (1, 2, 3, 5, 7, 8, 9, 10, 11)
)
_SUPERBLOCK_FLAGS = _LABEL | _UUID | _TYPE | _USAGE | _VERSION | _MAGIC | _BAD_CHECKSUM | _FS_INFO
_FORCE_GPT = 1 << 1
_AMBIVALENT = -2
MAX_PARTITIONS = 1024


class BlkidError(Exception):
    """libblkid could not read the range."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What libblkid recognised; `values` are its own names (TYPE, LABEL, UUID …) and raw bytes."""

    values: dict[str, bytes]

    def text(self, name: str) -> str | None:
        """The value as text, with U+FFFD for what is not UTF-8; None where there is none."""
        value = self.values.get(name)
        return None if value is None else value.decode("utf-8", "replace")

    def number(self, name: str) -> int | None:
        """The value as a number, None where there is none."""
        value = self.values.get(name, b"")
        return int(value) if value.isdigit() else None


@dataclass(frozen=True, slots=True)
class Entry:
    """One partition of a table. `start` and `size` are in bytes from the start of the range.

    `parent` is the number of the partition that the entry's own table is in, None for the outer
    table: slices of a BSD label, say, in a partition of an MBR. Numbers do not repeat.
    """

    number: int
    start: int
    size: int
    type: str
    name: str | None
    uuid: str | None
    flags: int
    extended: bool
    logical: bool
    table_type: str
    parent: int | None = None


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """A partition table; `type` is libblkid's PTTYPE."""

    type: str
    uuid: str | None
    entries: list[Entry]


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL("libblkid.so.1", use_errno=True)
    pointers = {
        "blkid_new_probe": [],
        "blkid_probe_get_partitions": [c_void_p],
        "blkid_partlist_get_table": [c_void_p],
        "blkid_partlist_get_partition": [c_void_p, c_int],
        "blkid_partition_get_table": [c_void_p],
        "blkid_parttable_get_parent": [c_void_p],
    }
    for name, arguments in pointers.items():
        getattr(library, name).restype = c_void_p
        getattr(library, name).argtypes = arguments
    for name in ("partition_get_name", "partition_get_uuid", "partition_get_type_string",
                 "parttable_get_type", "parttable_get_id"):  # fmt: skip
        getattr(library, f"blkid_{name}").restype = c_char_p
        getattr(library, f"blkid_{name}").argtypes = [c_void_p]
    for name in ("partition_get_start", "partition_get_size"):
        getattr(library, f"blkid_{name}").restype = c_int64
        getattr(library, f"blkid_{name}").argtypes = [c_void_p]
    for name in ("partition_get_partno", "partition_get_type", "partition_is_extended",
                 "partition_is_logical", "partlist_numof_partitions", "do_safeprobe",
                 "do_probe", "probe_numof_values"):  # fmt: skip
        getattr(library, f"blkid_{name}").argtypes = [c_void_p]
    library.blkid_partition_get_flags.restype = c_ulonglong
    library.blkid_partition_get_flags.argtypes = [c_void_p]
    library.blkid_free_probe.argtypes = [c_void_p]
    library.blkid_free_probe.restype = None
    library.blkid_probe_set_device.argtypes = [c_void_p, c_int, c_int64, c_int64]
    library.blkid_probe_set_sectorsize.argtypes = [c_void_p, c_uint]
    for name in ("enable_superblocks", "enable_partitions", "set_superblocks_flags",
                 "set_partitions_flags"):  # fmt: skip
        getattr(library, f"blkid_probe_{name}").argtypes = [c_void_p, c_int]
    library.blkid_probe_get_value.argtypes = [
        c_void_p, c_int, POINTER(c_char_p), POINTER(c_void_p), POINTER(c_size_t),
    ]  # fmt: skip
    return library


_BLKID = _load()


@contextmanager
def _probe(fd: int, start: int, size: int) -> Iterator[c_void_p]:
    probe = c_void_p(_BLKID.blkid_new_probe())
    try:
        if _BLKID.blkid_probe_set_device(probe, fd, start, size) != 0:
            raise BlkidError(f"libblkid cannot read {size} bytes at {start}")
        yield probe
    finally:
        _BLKID.blkid_free_probe(probe)


def find_signature(fd: int, start: int, size: int) -> Signature | list[Signature] | None:
    """Recognise what occupies `size` bytes at `start` of `fd`.

    Returns None where nothing was recognised, and a list of all where several exclude each other
    (libblkid calls that ambivalent). Raises BlkidError where the range cannot be read.
    """
    with _probe(fd, start, size) as probe:
        _BLKID.blkid_probe_enable_superblocks(probe, 1)
        _BLKID.blkid_probe_set_superblocks_flags(probe, _SUPERBLOCK_FLAGS)
        result = _BLKID.blkid_do_safeprobe(probe)
        if result == 0:
            return Signature(_values(probe))
        if result == 1:
            return None
    if result != _AMBIVALENT:
        raise BlkidError(f"libblkid failed on {size} bytes at {start}")
    return _all_signatures(fd, start, size)


def _all_signatures(fd: int, start: int, size: int) -> list[Signature]:
    signatures: list[Signature] = []
    with _probe(fd, start, size) as probe:
        _BLKID.blkid_probe_enable_superblocks(probe, 1)
        _BLKID.blkid_probe_set_superblocks_flags(probe, _SUPERBLOCK_FLAGS)
        while len(signatures) < 64 and _BLKID.blkid_do_probe(probe) == 0:
            signatures.append(Signature(_values(probe)))
    return signatures


def _values(probe: c_void_p) -> dict[str, bytes]:
    values = {}
    for index in range(_BLKID.blkid_probe_numof_values(probe)):
        name, data, length = c_char_p(), c_void_p(), c_size_t()
        if _BLKID.blkid_probe_get_value(probe, index, byref(name), byref(data), byref(length)) != 0:
            raise BlkidError("libblkid does not give a value that it counted")
        # libblkid's values end with NUL, which its length counts.
        value = ctypes.string_at(data, length.value) if data.value else b""
        values[(name.value or b"").decode("ascii")] = value.rstrip(b"\0")
    return values


def find_partitions(fd: int, size: int, sector_size: int, start: int = 0) -> PartitionTable | None:
    """Read the partition table of `size` bytes at `start` of `fd`, None where there is none.

    `sector_size` is the disk's logical sector in bytes. Where the first copy of a GPT is damaged,
    libblkid reads the second one. Raises BlkidError.
    """
    with _probe(fd, start, size) as probe:
        _BLKID.blkid_probe_set_sectorsize(probe, sector_size)
        _BLKID.blkid_probe_enable_partitions(probe, 1)
        _BLKID.blkid_probe_set_partitions_flags(probe, _FORCE_GPT)
        partitions = _BLKID.blkid_probe_get_partitions(probe)
        table = _BLKID.blkid_partlist_get_table(partitions) if partitions else None
        if not table:
            return None
        count = min(_BLKID.blkid_partlist_numof_partitions(partitions), MAX_PARTITIONS)
        entries = [
            _entry(_BLKID.blkid_partlist_get_partition(partitions, index)) for index in range(count)
        ]
        return PartitionTable(
            type=_text(_BLKID.blkid_parttable_get_type(table)) or "",
            uuid=_text(_BLKID.blkid_parttable_get_id(table)),
            entries=entries,
        )


def _entry(partition: int) -> Entry:
    # MBR-like tables have a type number, GPT and APM a type string.
    type_string = _text(_BLKID.blkid_partition_get_type_string(partition))
    table = _BLKID.blkid_partition_get_table(partition)
    parent = _BLKID.blkid_parttable_get_parent(table) if table else None
    # libblkid counts in sectors of 512 bytes, whatever those of the disk are.
    return Entry(
        number=_BLKID.blkid_partition_get_partno(partition),
        start=_BLKID.blkid_partition_get_start(partition) * 512,
        size=_BLKID.blkid_partition_get_size(partition) * 512,
        type=type_string or f"0x{_BLKID.blkid_partition_get_type(partition):02x}",
        name=_text(_BLKID.blkid_partition_get_name(partition)),
        uuid=_text(_BLKID.blkid_partition_get_uuid(partition)),
        flags=_BLKID.blkid_partition_get_flags(partition),
        extended=bool(_BLKID.blkid_partition_is_extended(partition)),
        logical=bool(_BLKID.blkid_partition_is_logical(partition)),
        table_type=_text(_BLKID.blkid_parttable_get_type(table)) or "" if table else "",
        parent=_BLKID.blkid_partition_get_partno(parent) if parent else None,
    )


def _text(value: bytes | None) -> str | None:
    return value.decode("utf-8", "replace") if value else None


def library_version() -> str:
    """libblkid's own version, such as 2.41."""
    version = c_char_p()
    _BLKID.blkid_get_library_version(byref(version), None)
    return (version.value or b"?").decode("ascii", "replace")
