"""Asks an NBD server of ours whether it is ready, and how large its export is, or opens that.

Layouts: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, "Fixed newstyle
negotiation". The server has parsed hostile input: what it says is bounded and checked.
"""

from __future__ import annotations

import struct

from images.nbd_wire import NbdError, Wire

_GREETING = struct.Struct(">8s8sH")
_REPLY = struct.Struct(">QIII")
_REPLY_MAGIC = 0x0003E889045565A9
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_ABORT, _OPT_INFO, _OPT_GO = 2, 6, 7
_REP_ACK, _REP_INFO, _REP_ERROR = 1, 3, 1 << 31
_INFO_EXPORT = 0
_READ_ONLY = 1 << 1
_MAX_REPLY = 4096
_MAX_REPLIES = 16


def export_size(wire: Wire, name: str) -> int:
    """The size in bytes of the export `name`. Raises NbdError, also if it can be written to.

    Nothing else can be done with the connection afterwards.
    """
    size, _ = _asked(wire, name, _OPT_INFO)
    _send(wire, _OPT_ABORT, b"")
    return size


def opened_export(wire: Wire, name: str) -> tuple[int, int]:
    """Open the export: its size in bytes and its transmission flags. Raises NbdError.

    Simple replies follow on the connection, the only ones that Linux' own client knows.
    """
    return _asked(wire, name, _OPT_GO)


def _asked(wire: Wire, name: str, option: int) -> tuple[int, int]:
    magic, option_magic, flags = _GREETING.unpack(wire.receive(_GREETING.size))
    if (magic, option_magic) != (b"NBDMAGIC", b"IHAVEOPT") or not flags & _FIXED_NEWSTYLE:
        raise NbdError("it does not speak NBD")
    wire.send(struct.pack(">I", _FIXED_NEWSTYLE | (flags & _NO_ZEROES)))
    encoded = name.encode()
    # No more than the size is asked for.
    _send(wire, option, struct.pack(">I", len(encoded)) + encoded + b"\0\0")
    found: tuple[int, int] | None = None
    for _ in range(_MAX_REPLIES):
        kind, untrusted_data = _reply(wire, option)
        if kind == _REP_ACK and found is not None:
            return found
        if kind != _REP_INFO:
            raise NbdError(f"it answered with {kind:#x}")
        if len(untrusted_data) == 12 and untrusted_data[:2] == _INFO_EXPORT.to_bytes(2, "big"):
            size, transmission = struct.unpack(">2xQH", untrusted_data)
            if not transmission & _READ_ONLY:
                raise NbdError("its export could be written to")
            found = size, transmission
    raise NbdError("it does not stop answering")


def _send(wire: Wire, option: int, data: bytes) -> None:
    wire.send(b"IHAVEOPT" + struct.pack(">II", option, len(data)) + data)


def _reply(wire: Wire, asked: int) -> tuple[int, bytes]:
    magic, option, kind, length = _REPLY.unpack(wire.receive(_REPLY.size))
    if magic != _REPLY_MAGIC or option != asked or length > _MAX_REPLY:
        raise NbdError("it sent something that is no answer")
    data = wire.receive(length)
    if kind & _REP_ERROR:
        raise NbdError(f"it refused: {data[:200].decode('utf-8', 'replace')}")
    return kind, data
