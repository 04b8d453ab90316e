"""The disks of a repair: each is exported with an overlay of ours that takes its writes.

What such an overlay holds afterwards is read by our own parser, and compared with the evidence.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from appliance.protocol import Disk
from controller.domain_xml import evidence_disk
from controller.errors import EnvironmentFailed, EvidenceRefused
from controller.places import RUN
from controller.shown_disks import ShownDisk
from controller.sizes import human
from controller.wire import Delta, Overlaid, WriteCopy
from images import nbd_client, qcow2_header
from images.errors import ImageError
from images.evidence import EvidenceFile, Identity
from images.export import Export, exported
from images.graph import READERS, Overlay
from images.nbd_client import NbdClient, NbdError
from images.qcow2_clusters import Cluster, clusters
from images.qcow2_output import CLUSTER, Qcow2Output
from images.quoting import shown
from images.read_ahead import Buffers, Piece

BLOCK = 4096
"""Bytes of a block in what is reported as changed."""

MAX_RANGES = 4096
_SECONDS = 3600
_ANSWER_SECONDS = 60.0
_BUFFERS = 8
_EVERY = 0.25
_RESERVE = 1 << 20
"""Bytes below which the file system that an overlay lies on is full."""

Show = Callable[[str, int, int], None]


@dataclass(slots=True)
class Attached:
    """Writable exports: what the agent is told of them, and libvirt."""

    overlays: list[Overlaid]
    disks: list[Disk] = field(default_factory=list)
    xml: list[str] = field(default_factory=list)
    exports: list[Export] = field(default_factory=list)

    def finish(self) -> None:
        """Have all that was written in the overlays' files. Raises EnvironmentFailed."""
        self.refuse_full()
        try:
            for export in self.exports:
                export.finish()
        except ImageError as error:
            self.refuse_full()
            raise EnvironmentFailed(f"the overlay could not be completed: {error}") from error
        self.refuse_full()

    def refuse_full(self) -> None:
        """Raise EnvironmentFailed for an overlay without room: then no result says anything."""
        for each in self.overlays:
            size = os.fstat(each.descriptor).st_size
            if size + CLUSTER > each.limit:
                raise EnvironmentFailed(
                    f"the overlay of disk{each.disk} is full ({human(each.limit)}); the repair "
                    "is void",
                    hint="give it more room with --overlay-size",
                )
            place = os.fstatvfs(each.descriptor)
            if place.f_bavail * place.f_frsize < _RESERVE:
                raise EnvironmentFailed(
                    f"the file system that the overlay of disk{each.disk} lies on is full; the "
                    "repair is void",
                    hint="make room there, or set TMPDIR",
                )


@contextmanager
def attached(overlays: list[Overlaid], disks: list[ShownDisk]) -> Iterator[Attached]:
    """Empty the overlays and export the disks with them. Raises ForensicError."""
    result = Attached(overlays)
    with ExitStack() as stack:
        for index, each in enumerate(overlays):
            base = disks[each.disk]
            os.ftruncate(each.descriptor, 0)
            os.pwrite(each.descriptor, each.empty, 0)
            export = _exported(each, base, stack)
            serial = os.urandom(8).hex()
            result.exports.append(export)
            result.disks.append(Disk(f"disk{each.disk}", serial, export.size, writable=True))
            result.xml.append(
                evidence_disk(
                    index,
                    str(export.socket),
                    export.name,
                    serial,
                    base.sector_size,
                    writable=True,
                )
            )
        yield result


def _exported(each: Overlaid, base: ShownDisk, stack: ExitStack) -> Export:
    try:
        with ExitStack() as while_starting:
            below = None
            if base.plan.top.driver in READERS:
                connection = while_starting.enter_context(socket.socket(socket.AF_UNIX))
                connection.connect(str(base.export.socket))
                below = connection.fileno()
            return stack.enter_context(
                exported(
                    # Of what must be unpacked, the size is known only now.
                    replace(base.plan, size=base.export.size),
                    RUN,
                    name=f"overlay{each.disk}",
                    keys=base.keys,
                    cpu=_SECONDS,
                    overlay=Overlay(each.descriptor, each.limit, below, base.export.name),
                )
            )
    except ImageError as error:
        raise EvidenceRefused(str(error), hint=error.hint) from error
    except OSError as error:
        raise EnvironmentFailed(f"no overlay for disk{each.disk}: {error}") from error


def delta(each: Overlaid, base: ShownDisk) -> Delta:
    """Which blocks of the disk differ from the evidence. Raises EnvironmentFailed."""
    found = Delta(each.disk, 0, 0, 0, [])
    with _reading(each, base) as (client, own):
        for cluster in own:
            found.allocated += cluster.length
            new = _content(each, cluster)
            old = client.read(cluster.start, cluster.length)
            for start in range(0, cluster.length, BLOCK):
                if new[start : start + BLOCK] != old[start : start + BLOCK]:
                    _add(found, cluster.start + start, min(BLOCK, cluster.length - start))
    return found


def _add(found: Delta, offset: int, length: int) -> None:
    found.changed += length
    if found.ranges:
        begin, before = found.ranges[-1]
        if begin + before == offset:
            found.ranges[-1] = (begin, before + length)
            return
    found.count += 1
    if found.count <= MAX_RANGES:
        found.ranges.append((offset, length))


def write_copy(order: WriteCopy, base: ShownDisk, show: Show) -> None:
    """Write the whole repaired disk. Raises EnvironmentFailed."""
    size = base.export.size
    output = Qcow2Output(order.descriptor, size) if order.form == "qcow2" else None
    deadline = time.monotonic() + order.seconds
    told = at = 0
    shown_at = 0.0
    try:
        with _reading(order.overlay, base) as (client, own):
            buffers = Buffers(_BUFFERS, lambda: False)
            pieces = _given_back(client.content(buffers), buffers)
            for data, length in _merged(pieces, own, order.overlay):
                if time.monotonic() > deadline:
                    raise EnvironmentFailed("the copy was not written within its time")
                _write(output, order.descriptor, at, data, length)
                at += length
                if time.monotonic() - shown_at > _EVERY and at > told:
                    told, shown_at = at, time.monotonic()
                    show("write the repaired copy", at, size)
        if output:
            output.finish()
        else:
            os.ftruncate(order.descriptor, size)
    except OSError as error:
        raise EnvironmentFailed(f"the copy could not be written: {error.strerror}") from error


def _given_back(pieces: Iterable[Piece], buffers: Buffers) -> Iterator[Piece]:
    for piece in pieces:
        yield piece
        buffers.give(piece.buffer)


def _write(
    output: Qcow2Output | None, descriptor: int, at: int, data: memoryview | None, length: int
) -> None:
    if output:
        if data is None:
            output.skip(length)
        else:
            output.write(data)
        return
    if data is None:
        return
    while data:
        done = os.pwrite(descriptor, data, at)
        data, at = data[done:], at + done


def _merged(
    pieces: Iterable[Piece], own: Iterator[Cluster], each: Overlaid
) -> Iterator[tuple[memoryview | None, int]]:
    """(bytes, None for zeros; length) of the disk in order, the overlay's before the evidence's."""
    cluster = next(own, None)
    content = memoryview(b"")
    piece_start = 0
    for piece in pieces:
        at, end = piece_start, piece_start + piece.length
        while at < end:
            if cluster is None or cluster.start >= end:
                stop = end
            elif cluster.start > at:
                stop = cluster.start
            else:
                if cluster.start == at:
                    content = memoryview(_content(each, cluster))
                stop = min(end, cluster.start + cluster.length)
                yield content[at - cluster.start : stop - cluster.start], stop - at
                if stop == cluster.start + cluster.length:
                    cluster = next(own, None)
                at = stop
                continue
            part = piece.buffer[at - piece_start : stop - piece_start]
            yield None if piece.is_zero else part, stop - at
            at = stop
        piece_start = end


def _content(each: Overlaid, cluster: Cluster) -> bytes:
    """The file may end inside its last cluster; the rest is zeros then."""
    if cluster.place is None:
        return bytes(cluster.length)
    data = os.pread(each.readable, cluster.length, cluster.place)
    return data.ljust(cluster.length, b"\0")


@contextmanager
def _reading(each: Overlaid, base: ShownDisk) -> Iterator[tuple[NbdClient, Iterator[Cluster]]]:
    export = base.export
    path = Path(f"overlay of disk{each.disk}")
    file = EvidenceFile(path, path, each.readable, Identity.of(os.fstat(each.readable)))
    try:
        header = qcow2_header.parse(file)
        if header.virtual_size != export.size or header.cluster_size != CLUSTER:
            raise EnvironmentFailed("the overlay is not what was made for this disk")
        if header.snapshots or header.has_data_file or header.extended_l2 or header.encryption:
            raise EnvironmentFailed("the overlay has features that were not asked for")
        with nbd_client.connected(
            export.socket, export.name, export.size, lambda: False, _ANSWER_SECONDS
        ) as client:
            yield client, clusters(file, header)
    except (ImageError, NbdError) as error:
        raise EnvironmentFailed(f"the overlay cannot be compared: {shown(str(error))}") from error
