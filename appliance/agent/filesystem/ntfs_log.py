"""Whether the $LogFile of an NTFS volume wants replaying.

Source: ntfs-3g's logfile.h (struct RESTART_PAGE_HEADER, RESTART_AREA) and
ntfs_is_logfile_clean(); little endian.
"""

from __future__ import annotations

from appliance.agent.filesystem.reading import BadSuperblock, Block, Volume

PAGE = 4096
NO_CLIENT = 0xFFFF
IS_CLEAN = 0x0002


def log_is_clean(volume: Volume, offset: int, length: int) -> bool:
    """For a log whose first `length` bytes are at `offset`.

    The newer of two restart pages says whether somebody still uses the log. An empty log, all
    ones, is what chkdsk and ntfs-3g leave. Raises BadSuperblock.
    """
    if length < 2 * PAGE:
        raise BadSuperblock("its log is too short")
    pages = [volume.block(offset + at, PAGE, "little") for at in (0, PAGE)]
    if all(page.raw(0, 4) == b"\xff\xff\xff\xff" for page in pages):
        return True
    areas = [area for page in pages if (area := _restart_area(page)) is not None]
    if not areas:
        raise BadSuperblock("its log has no restart page")
    latest = max(areas, key=lambda area: area.u64(0))
    return latest.u16(12) == NO_CLIENT or bool(latest.u16(14) & IS_CLEAN)


def _restart_area(page: Block) -> Block | None:
    """Where its fields are, no fixup of a sector's end can be."""
    at = page.u16(24)
    if page.raw(0, 4) != b"RSTR" or not 48 <= at <= 480 or at % 8:
        return None
    return Block(page.raw(at, 16), "little")
