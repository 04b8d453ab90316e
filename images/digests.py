"""Hashes in the making: several algorithms over one content, each content read once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Literal, get_args

from images.read_ahead import BLOCK, Cancelled, Produce, Stop, ahead, as_function

Algorithm = Literal["sha256", "sha1", "md5"]
"""sha1 and md5 only to compare with what an image has stored; neither proves anything by itself."""

_ZEROS = bytes(BLOCK)


def hash_content(
    produce: Produce,
    buffers: int,
    algorithms: Sequence[Algorithm],
    progress: Callable[[int], None],
    stop: Stop,
) -> tuple[dict[Algorithm, str], int]:
    """The digests in hex by algorithm, and how many bytes were known to be zero without reading.

    `buffers` is how many blocks may be read ahead; `progress` gets the bytes done so far, in the
    thread of the caller. Raises what `produce` raises, and Cancelled.
    """
    stopped = as_function(stop)
    done = holes = 0
    with _Digests(algorithms) as digests, contextlib.closing(ahead(produce, buffers, stop)) as made:
        for piece in made:
            holes += piece.length if piece.is_zero else 0
            for length in _steps(piece.length):
                if stopped():
                    raise Cancelled
                digests.update(_ZEROS[:length] if piece.is_zero else piece.buffer[:length])
                done += length
                progress(done)
    return digests.hex(), holes


def _steps(length: int) -> Iterator[int]:
    whole, rest = divmod(length, BLOCK)
    for _ in range(whole):
        yield BLOCK
    if rest:
        yield rest


class _Digests:
    """One thread for each algorithm: md5 alone is slower than most disks."""

    def __init__(self, algorithms: Sequence[Algorithm]) -> None:
        if not algorithms or not set(algorithms) <= set(get_args(Algorithm)):
            raise ValueError(f"not algorithms: {algorithms!r}")
        self._all = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
        self._pool: ThreadPoolExecutor | None = None
        self._stack = ExitStack()

    def __enter__(self) -> _Digests:
        if len(self._all) > 1:
            self._pool = self._stack.enter_context(ThreadPoolExecutor(len(self._all) - 1))
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def update(self, block: memoryview | bytes) -> None:
        """Take in the next bytes; they may be overwritten afterwards."""
        first, *others = self._all.values()
        waiting = [self._pool.submit(each.update, block) for each in others if self._pool]
        first.update(block)
        for each in waiting:
            each.result()

    def hex(self) -> dict[Algorithm, str]:
        return {name: each.hexdigest() for name, each in self._all.items()}
