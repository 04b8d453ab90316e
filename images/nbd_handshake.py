"""The beginning of an NBD connection: fixed newstyle, structured replies, one export.

Numbers and layouts are those of the protocol's document,
https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from images.nbd_wire import NbdError, Wire
from images.read_ahead import BLOCK

ALLOCATION = b"base:allocation"

_MAGIC = b"NBDMAGIC"
_OPTION_MAGIC = b"IHAVEOPT"
_REPLY_MAGIC = 0x0003E889045565A9
_FIXED_NEWSTYLE = 1
_NO_ZEROES = 2
_OPT_GO = 7
_OPT_STRUCTURED_REPLY = 8
_OPT_SET_META_CONTEXT = 10
_REP_ACK = 1
_REP_INFO = 3
_REP_META_CONTEXT = 4
_REP_ERROR = 1 << 31
_INFO_EXPORT = 0
_INFO_BLOCK_SIZE = 3
_HAS_FLAGS = 1
_READ_ONLY = 2
_SEND_DF = 1 << 7
_MAX_REPLY = 4096
_MAX_REPLIES = 32
_MAX_ALIGNMENT = 64 << 10
"""Bytes; the protocol's own bound for the smallest block."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What was negotiated: the export's size in bytes, and the id of the allocation context.

    Without a context (None) the server cannot tell what is zero. `in_one` is whether it can be
    asked to answer a read in one piece.
    """

    size: int
    context: int | None
    in_one: bool


def negotiate(wire: Wire, name: str, size: int) -> Agreed:
    """Open the export `name`, which must be read-only and have `size` bytes. Raises NbdError."""
    greeting = wire.receive(18)
    magic, option_magic, flags = struct.unpack(">8s8sH", greeting)
    if (magic, option_magic) != (_MAGIC, _OPTION_MAGIC) or not flags & _FIXED_NEWSTYLE:
        raise NbdError("the exporter does not speak NBD (fixed newstyle)")
    wire.send(struct.pack(">I", _FIXED_NEWSTYLE | (flags & _NO_ZEROES)))
    for _ in _option(wire, _OPT_STRUCTURED_REPLY, b""):
        raise NbdError("the exporter answered an option that has no answer")
    context = _meta_context(wire, name.encode())
    flags = _go(wire, name.encode(), size)
    return Agreed(size, context, bool(flags & _SEND_DF))


def _meta_context(wire: Wire, name: bytes) -> int | None:
    data = _sized(name) + struct.pack(">I", 1) + _sized(ALLOCATION)
    found: list[int] = []
    for kind, untrusted_data in _option(wire, _OPT_SET_META_CONTEXT, data):
        if kind != _REP_META_CONTEXT or untrusted_data[4:] != ALLOCATION or found:
            raise NbdError("the exporter offered a context that was not asked for")
        found.append(int.from_bytes(untrusted_data[:4], "big"))
    return found[0] if found else None


def _go(wire: Wire, name: bytes, size: int) -> int:
    """The export's flags."""
    flags = []
    data = _sized(name) + struct.pack(">HH", 1, _INFO_BLOCK_SIZE)
    for kind, untrusted_data in _option(wire, _OPT_GO, data):
        if kind != _REP_INFO or len(untrusted_data) < 2:
            raise NbdError("the exporter did not describe its export")
        info = int.from_bytes(untrusted_data[:2], "big")
        if info == _INFO_EXPORT:
            flags.append(_export_flags(untrusted_data, size))
        elif info == _INFO_BLOCK_SIZE:
            _check_block_sizes(untrusted_data, size)
    if len(flags) != 1:
        raise NbdError("the exporter did not say how large its export is")
    return flags[0]


def _export_flags(untrusted_data: bytes, expected: int) -> int:
    if len(untrusted_data) != 12:
        raise NbdError("the exporter's description has a wrong length")
    _, size, flags = struct.unpack(">HQH", untrusted_data)
    if size != expected:
        raise NbdError(f"the export has {size} bytes, expected were {expected}")
    if not flags & _HAS_FLAGS or not flags & _READ_ONLY:
        raise NbdError("the export is not read-only")
    return int(flags)


def _check_block_sizes(untrusted_data: bytes, size: int) -> None:
    if len(untrusted_data) != 14:
        raise NbdError("the exporter's block sizes have a wrong length")
    _, least, _, most = struct.unpack(">HIII", untrusted_data)
    is_power = least > 0 and least & (least - 1) == 0
    if not is_power or least > _MAX_ALIGNMENT or size % least or most < BLOCK:
        raise NbdError(f"the exporter wants blocks of {least} to {most} bytes")


def _option(wire: Wire, option: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Send an option; yield (type, content) of the replies before the one that ends it."""
    wire.expect()
    wire.send(_OPTION_MAGIC + struct.pack(">II", option, len(data)) + data)
    for _ in range(_MAX_REPLIES):
        magic, echoed, kind, length = struct.unpack(">QIII", wire.receive(20))
        if magic != _REPLY_MAGIC or echoed != option:
            raise NbdError("the exporter sent something that is no answer to an option")
        if length > _MAX_REPLY:
            raise NbdError(f"the exporter announced an answer of {length} bytes")
        untrusted_data = wire.receive(length)
        if kind & _REP_ERROR:
            reason = untrusted_data[:200].decode("utf-8", "replace")
            raise NbdError(f"the exporter refused option {option} ({kind & 0xFFFF}): {reason}")
        if kind == _REP_ACK:
            if untrusted_data:
                raise NbdError("the exporter sent an acknowledgement that is not empty")
            return
        yield kind, untrusted_data
    raise NbdError("the exporter sent too many answers to an option")


def _sized(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text
