"""Sparse files: make them, and copy between them without filling their holes."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

BLOCK = 64 * 1024


def make_sparse(path: Path, size: int) -> Path:
    """Make a file of `size` zero bytes that takes no space."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def copy_sparse(source: int, start: int, length: int, target: int, at: int) -> None:
    """Copy from one file descriptor to another, whose bytes there must be zero.

    Holes and blocks of zeros are skipped; a source that ends early counts as zeros.
    """
    for data_start, data_end in data_ranges(source, start, start + length):
        for position in range(data_start, data_end, BLOCK):
            block = os.pread(source, min(BLOCK, data_end - position), position)
            if block.count(0) != len(block):
                write_all(target, block, at + position - start)


def place_image(image: Path, disk: Path, offset: int) -> None:
    """Copy a whole image file into a disk file at `offset`."""
    with image.open("rb") as source, disk.open("r+b") as target:
        copy_sparse(source.fileno(), 0, image.stat().st_size, target.fileno(), offset)


def data_ranges(file: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges between `start` and `end` that are not holes."""
    while start < end:
        try:
            data = os.lseek(file, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if data >= end:
            return
        start = min(os.lseek(file, data, os.SEEK_HOLE), end)
        yield data, start


def write_all(file: int, data: bytes, position: int) -> None:
    """Write `data` at a position, all of it."""
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], position + written)
