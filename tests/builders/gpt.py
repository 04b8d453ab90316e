"""Change GPT partition names to bytes that no tool would write, with valid checksums."""

import zlib
from pathlib import Path

from tests.builders.disk import SECTOR

NAME_OFFSET = 56
NAME_BYTES = 72


def set_gpt_name(disk: Path, number: int, name: bytes) -> None:
    """Store a name, given in UTF-16LE or what claims to be that, in both copies of the table."""
    if len(name) > NAME_BYTES:
        raise ValueError(f"a GPT name has at most {NAME_BYTES} bytes, not {len(name)}")
    content = bytearray(disk.read_bytes())
    for header in (SECTOR, len(content) - SECTOR):
        rename_in_table(content, header, number, name)
    with disk.open("r+b") as file:
        for start, end in changed_areas(content):
            file.seek(start)
            file.write(content[start:end])


def rename_in_table(content: bytearray, header: int, number: int, name: bytes) -> None:
    """Change one copy of the table: the entry, its array's checksum, the header's checksum."""
    if content[header : header + 8] != b"EFI PART":
        raise ValueError("no GPT header")
    first, count, size = (
        read_number(content, header + 72, 8) * SECTOR,
        read_number(content, header + 80, 4),
        read_number(content, header + 84, 4),
    )
    start = first + (number - 1) * size + NAME_OFFSET
    content[start : start + NAME_BYTES] = name.ljust(NAME_BYTES, b"\0")
    write_number(content, header + 88, zlib.crc32(content[first : first + count * size]))
    write_number(content, header + 16, 0)
    length = read_number(content, header + 12, 4)
    write_number(content, header + 16, zlib.crc32(content[header : header + length]))


def changed_areas(content: bytearray) -> list[tuple[int, int]]:
    """The parts of a disk that hold the two copies: 34 sectors at its start, 33 at its end."""
    return [(SECTOR, 34 * SECTOR), (len(content) - 33 * SECTOR, len(content))]


def read_number(content: bytearray, offset: int, length: int) -> int:
    """A little-endian number."""
    return int.from_bytes(content[offset : offset + length], "little")


def write_number(content: bytearray, offset: int, value: int) -> None:
    """Store a little-endian number of 32 bits."""
    content[offset : offset + 4] = value.to_bytes(4, "little")
