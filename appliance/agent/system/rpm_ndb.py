"""Rpm's "ndb" database (Packages.db), which SUSE has and Debian's rpm cannot read.

Layout: lib/backend/ndb/rpmpkg.c of rpm. Pages of slots, each of which names the blocks of a blob;
a blob is a package's header as lib/header.c has it: an index of tags, then the data.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from appliance.agent.system.descriptor import File
from appliance.agent.system.files import clipped
from appliance.agent.system.root import text_of
from appliance.layer import MAX_TEXT
from appliance.system import MAX_APPLICATIONS, Application

NAME = "Packages.db"

_HEADER = struct.Struct("<4s4I")
_SLOT = struct.Struct("<4s3I")
_BLOB = struct.Struct("<4s3I")
_INDEX = struct.Struct(">4I")
_PAGE = 4096
_BLOCK = 16
_HEADER_SIZE = 32
_MAX_PAGES = 1024
_MAX_BLOB = 16 << 20
_MAX_ENTRIES = 4096
_INT32, _STRING, _I18N_STRING = 4, 6, 9
# lib/rpmtag.h
_TAGS = {
    1000: "name",
    1001: "version",
    1002: "release",
    1003: "epoch",
    1004: "summary",
    1008: "time",
    1011: "vendor",
    1022: "arch",
}


class NdbError(ValueError):
    """It is no such database, or a part of it makes no sense."""


def parse_database(file: File) -> Iterator[Application]:
    """The packages in the order of the slots. Raises NdbError, also for the first bad one."""
    head = file.read(_HEADER_SIZE)
    if len(head) < _HEADER_SIZE:
        raise NdbError("it is too short")
    magic, version, _generation, pages, _next = _HEADER.unpack_from(head)
    if magic != b"RpmP" or version != 0 or pages > _MAX_PAGES:
        raise NdbError("its header makes no sense")
    slots = file.read(pages * _PAGE)[_HEADER_SIZE:]
    count = 0
    for magic, number, block, _blocks in _SLOT.iter_unpack(slots[: len(slots) // 16 * 16]):
        if magic != b"Slot":
            raise NdbError("a slot makes no sense")
        if block and count <= MAX_APPLICATIONS:
            count += 1
            yield parse_header(_blob(file, number, block * _BLOCK))


def parse_header(data: bytes) -> Application:
    """A package's header. Raises NdbError."""
    if len(data) < 8:
        raise NdbError("a package's header is too short")
    entries = int.from_bytes(data[:4], "big")
    start = 8 + entries * _INDEX.size
    if entries > _MAX_ENTRIES or start > len(data):
        raise NdbError("a package's header makes no sense")
    words: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for tag, kind, offset, count in _INDEX.iter_unpack(data[8:start]):
        name = _TAGS.get(tag)
        if name is None or not count:
            continue
        if kind in {_STRING, _I18N_STRING}:
            words[name] = text_of(data[start + offset :][:MAX_TEXT].split(b"\0")[0])
        elif kind == _INT32:
            numbers[name] = int.from_bytes(data[start + offset :][:4], "big")
    if not words.get("name"):
        raise NdbError("a package has no name")
    epoch = numbers.get("epoch")
    return Application(
        name=words["name"],
        version=words.get("version", ""),
        release=clipped(words.get("release")),
        epoch=None if epoch is None else str(epoch),
        arch=clipped(words.get("arch")),
        display_name=clipped(words.get("summary")),
        publisher=clipped(words.get("vendor")),
        install_date=numbers.get("time"),
    )


def _blob(file: File, number: int, offset: int) -> bytes:
    head = file.read(_BLOB.size, offset)
    if len(head) < _BLOB.size:
        raise NdbError("a package lies behind the end")
    magic, owner, _time, length = _BLOB.unpack(head)
    if magic != b"BlbS" or owner != number or length > _MAX_BLOB:
        raise NdbError("a package is not where its slot says")
    return file.read(length, offset + _BLOB.size)
