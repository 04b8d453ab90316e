"""Runs a checker: with a deadline, bounded memory and bounded output, and its progress told."""

from __future__ import annotations

import base64
import os
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from subprocess import Popen  # noqa: TID251 - the type alone; command.py starts them

from appliance.agent.cgroup import ControlGroup, control_group
from appliance.agent.command import reap, start_watched
from appliance.check import Ending, ToolRun

MAX_TOTAL = 64 << 20
"""Bytes of output after which a tool is ended: one never does by itself (e2fsck on some of
e2fsprogs' own images)."""

_BLOCK = 65536
_TICK = 0.5
_DYING = 5.0

Watch = Callable[[bytes], None]
"""Gets what a tool wrote to its progress descriptor, or b"" now and then."""


@dataclass(slots=True)
class _Kept:
    """The beginning and the end of an output, `limit` bytes of it, and how long it was."""

    limit: int
    size: int = 0
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        room = max(self.limit * 3 // 4 - len(self.head), 0)
        self.head += data[:room]
        self.tail += data[room:]
        del self.tail[: -(self.limit // 4)]

    @property
    def text(self) -> str:
        return base64.b64encode(bytes(self.head + self.tail)).decode()


def supervise(  # noqa: PLR0913 - a tool, and its limits
    purpose: str,
    argv: Sequence[str],
    *,
    seconds: float,
    keep: int,
    watch: Watch,
    progress: str | None = None,
) -> ToolRun:
    """Run a tool to its end, or to that of its `seconds`, its memory, or what it may say.

    `keep` bytes of its output are kept. The argument that is `progress` becomes the number of a
    descriptor for that. Raises CommandError where it cannot be started.
    """
    begin = time.monotonic()
    reader, writer = os.pipe() if progress else (-1, -1)
    try:
        with control_group() as group:
            words = [str(writer) if word == progress else word for word in argv]
            process = start_watched(words, writer)
            group.take(process.pid)
            if progress:
                os.close(writer)
                writer = -1
            kept = _Kept(keep)
            ending = _follow(process, reader, begin + seconds, kept, watch)
            if ending is not Ending.EXITED:
                group.kill()
            status = reap(process, timeout=_DYING)
            ending = _ended(ending, status, group)
            memory = group.peak
    finally:
        for descriptor in (reader, writer):
            if descriptor >= 0:
                os.close(descriptor)
    return ToolRun(
        purpose=purpose,
        tool=argv[0].rsplit("/", 1)[-1],
        arguments=words[1:],
        ending=ending,
        status=status if ending is Ending.EXITED else None,
        output_base64=kept.text,
        output_size=kept.size,
        seconds=round(time.monotonic() - begin, 3),
        memory=memory,
    )


def _follow(
    process: Popen[bytes], reader: int, deadline: float, kept: _Kept, watch: Watch
) -> Ending:
    """Read until both outputs are closed."""
    assert process.stdout is not None  # noqa: S101 - asked for by start_watched
    output = process.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        if reader >= 0:
            selector.register(reader, selectors.EVENT_READ)
        while output in selector.get_map():
            if (left := deadline - time.monotonic()) <= 0:
                return Ending.DEADLINE
            ready = selector.select(min(left, _TICK))
            for key, _ in ready:
                data = os.read(key.fd, _BLOCK)
                if not data:
                    selector.unregister(key.fd)
                elif key.fd == output:
                    kept.add(data)
                else:
                    watch(data)
            if not ready:
                watch(b"")
            if kept.size > MAX_TOTAL:
                return Ending.TOO_MUCH_OUTPUT
    return Ending.EXITED


def _ended(ending: Ending, status: int | None, group: ControlGroup) -> Ending:
    if group.is_starved:
        return Ending.OUT_OF_MEMORY
    if ending is Ending.EXITED and (status is None or status < 0):
        return Ending.SIGNAL
    return ending
