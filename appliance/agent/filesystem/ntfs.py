"""NTFS: the boot sector, $Volume and $Bitmap.

Source: the NTFS documentation of the Linux-NTFS project and Linux fs/ntfs3/ntfs.h (struct
NTFS_BOOT, VOLUME_INFO); little endian.
"""

from __future__ import annotations

from appliance.agent.filesystem.account import (
    Problem,
    Usage,
    account,
    counted,
    needs_recovery,
    not_clean,
)
from appliance.agent.filesystem.ntfs_log import log_is_clean
from appliance.agent.filesystem.ntfs_record import (
    DATA,
    VOLUME_INFORMATION,
    Record,
    Run,
    data_runs,
    file_record,
    find_attribute,
)
from appliance.agent.filesystem.reading import (
    MAX_MAP,
    BadSuperblock,
    Block,
    Volume,
    power_of_two,
)
from appliance.layer import Severity

MFT, LOG, VOLUME, BITMAP = 0, 2, 3, 6
IS_DIRTY = 0x0001


def read_ntfs(volume: Volume) -> Usage:
    """Size in whole clusters, as Windows shows it; used is what $Bitmap marks."""
    boot = volume.block(0, 512, "little")
    if boot.raw(3, 8) != b"NTFS    ":
        raise BadSuperblock("it does not have the name of NTFS")
    sector = power_of_two(boot.u16(11), 256, 4096, "the sector size")
    cluster = _times(boot.u8(13), sector, sector)
    power_of_two(cluster, 256, 2 * 1024 * 1024, "the cluster size")
    clusters = boot.u64(40) * sector // cluster
    problems: list[Problem] = []
    free = counted(lambda: _free(volume, boot, (cluster, clusters), problems), problems)
    return account(
        volume,
        block_size=cluster,
        size=clusters * cluster,
        free=None if free is None else free * cluster,
        problems=problems,
    )


def _times(value: int, unit: int, negative_unit: int) -> int:
    """Sizes are stored as a number of units, or as the negative of a power of two."""
    return negative_unit << min(256 - value, 32) if value > 0x80 else value * unit


def _free(volume: Volume, boot: Block, layout: tuple[int, int], problems: list[Problem]) -> int:
    """In clusters. The MFT is read through its own first record, as it may be fragmented."""
    cluster, clusters = layout
    size = _times(boot.u8(64), cluster, 1)
    power_of_two(size, 512, 8192, "the file record size")
    first = file_record(volume.bytes_at(boot.u64(48) * cluster, size))
    mft = data_runs(find_attribute(first, DATA))
    if _dirty(_record(volume, mft, cluster, VOLUME * size, size)):
        problems.append(not_clean())
    _check_log(volume, mft, (cluster, size), problems)
    bitmap = data_runs(find_attribute(_record(volume, mft, cluster, BITMAP * size, size), DATA))
    return clusters - _used(volume, bitmap, cluster, clusters)


def _check_log(
    volume: Volume, mft: list[Run], sizes: tuple[int, int], problems: list[Problem]
) -> None:
    cluster, size = sizes
    try:
        log = data_runs(find_attribute(_record(volume, mft, cluster, LOG * size, size), DATA))
        if log and log[0].start is not None:
            start, length = log[0].start * cluster, log[0].clusters * cluster
            if not log_is_clean(volume, start, length):
                problems.append(needs_recovery())
    except BadSuperblock as error:
        message = f"The state of the journal is not known: {error}."
        problems.append(Problem(Severity.WARNING, "journal-unreadable", message))


def _record(volume: Volume, mft: list[Run], cluster: int, at: int, size: int) -> Record:
    """The file record at byte `at` of the MFT."""
    untrusted_record = b""
    while len(untrusted_record) < size:
        offset, room = _place(mft, cluster, at + len(untrusted_record))
        length = min(room, size - len(untrusted_record))
        untrusted_record += volume.bytes_at(offset, length)
    return file_record(untrusted_record)


def _place(runs: list[Run], cluster: int, at: int) -> tuple[int, int]:
    """Where byte `at` of a file is on the volume, and how many bytes follow it in its run."""
    for run in runs:
        length = run.clusters * cluster
        if at < length and run.start is not None:
            return run.start * cluster + at, length - at
        at -= length
        if at < 0:
            break
    raise BadSuperblock("the file table does not have its first records")


def _dirty(record: Record) -> bool:
    information = find_attribute(record, VOLUME_INFORMATION).value()
    return bool(information.u16(10) & IS_DIRTY)


def _used(volume: Volume, bitmap: list[Run], cluster: int, clusters: int) -> int:
    """Set bits of the first `clusters` in the bitmap; a hole in it is all zeros."""
    if clusters > MAX_MAP * 8:
        raise BadSuperblock(f"a bitmap of {clusters} clusters is larger than is counted")
    used, bits_left = 0, clusters
    for run in bitmap:
        bits = min(run.clusters * cluster * 8, bits_left)
        if run.start is not None:
            used += volume.set_bits(run.start * cluster, bits)
        bits_left -= bits
    if bits_left:
        raise BadSuperblock("the bitmap of clusters is incomplete")
    return used
