"""What is being done now, on standard error: one line that changes on a terminal, else plain lines.

Operations and details can come from the guest and are shown escaped. Nothing here may stop a
case: where standard error is gone, the progress is silent.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, TYPE_CHECKING, TextIO, cast

from controller.sizes import duration, human
from images.quoting import shown

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

PER_MILLE = "\u2030"
"""The unit of what counts in thousandths of itself."""

_REFRESHES_PER_SECOND = 4
_SETTLED = 2.0
"""Seconds before a rate means something."""

Clock = Callable[[], float]


@dataclass
class _Task:
    """The operation of the moment; `done` of `total` units, None where it cannot be told.

    `begin` and `first` are the time in seconds and the units that were done when it started.
    """

    operation: str
    begin: float
    detail: str = ""
    unit: str = "B"
    done: int | None = None
    total: int | None = None
    first: int = field(default=0)

    def words(self) -> str:
        """What is done, and on what."""
        return shown(f"{self.operation} {self.detail}".strip())

    def line(self, now: float) -> str:
        """The operation in words, with rate and time left where they are known."""
        parts = [self.words()]
        if self.done is not None and self.total:
            share = min(100, max(0, 100 * self.done // self.total))
            parts.append(f"{share}%" if self.unit == PER_MILLE else self._share(share, self.total))
            parts += self._speed(now, self.done, self.total)
        elif self.done is not None:
            parts.append(self._amount(self.done))
        return ", ".join(parts)

    def _share(self, share: int, total: int) -> str:
        return f"{share}% of {self._amount(total)}"

    def _speed(self, now: float, done: int, total: int) -> list[str]:
        seconds = now - self.begin
        if seconds < _SETTLED or done <= self.first:
            return []
        rate = (done - self.first) / seconds
        left = duration(max(0, total - done) / rate)
        if self.unit == PER_MILLE:
            return [f"about {left} left"]
        return [f"{self._amount(max(1, int(rate)))}/s", f"{left} left"]

    def _amount(self, number: int) -> str:
        return human(number) if self.unit == "B" else f"{number} {self.unit}"


class _Stream:
    """A text stream that never fails: characters that it lacks become ?, a closed one is silent.

    Just what rich asks of a file; rich itself would end the program on a broken pipe.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Write and flush."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        """Whether a line can be changed after it was written."""
        try:
            return self._stream.isatty() and os.environ.get("TERM") not in {"dumb", ""}
        except ValueError:  # closed
            return False


class Progress:
    """Shows steps while its context is open.

    `stream` is standard error unless a test gives another. On a terminal there is one line that
    is gone afterwards; elsewhere a line for each new operation; with `quiet` nothing at all.
    """

    def __init__(
        self, *, quiet: bool = False, stream: TextIO | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._stream = _Stream(stream or sys.stderr)
        self._quiet = quiet
        self._clock = clock
        self._begin = clock()
        self._task: _Task | None = None
        self._live: Live | None = None

    def __enter__(self) -> Progress:
        self._begin = self._clock()
        if not self._quiet and self._stream.isatty():
            self._live = self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        live, self._live = self._live, None
        if live is not None:
            try:
                live.stop()
            finally:  # a second Ctrl-C must not leave the terminal without its cursor
                live.console.show_cursor(True)

    def step(
        self,
        operation: str,
        detail: str = "",
        done: int | None = None,
        total: int | None = None,
        unit: str = "B",
    ) -> None:
        """Say what is being done now, and on what.

        `done` and `total` count bytes, or whatever else `unit` names (files, packages).
        """
        task = self._task
        is_new = task is None or task.operation != operation
        if task is None or is_new or task.unit != unit:
            task = _Task(operation, self._clock(), unit=unit, first=done or 0)
        task.detail, task.done, task.total = detail, done, total
        self._task = task
        if is_new and self._live is None:
            self._print(task.words())

    def note(self, text: str) -> None:
        """Say something that stays to be read; names in it are already escaped."""
        for line in text.splitlines():
            # A backslash of an escape that was made before is not doubled.
            self._print(shown(line).replace("\\\\", "\\"))

    def status(self) -> str:
        """The line that a terminal shows now: seconds since the start, and the operation."""
        now = self._clock()
        doing = self._task.line(now) if self._task else "starting"
        return f"{duration(now - self._begin):>5}  {doing}"

    def _print(self, line: str) -> None:
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(_text(line), soft_wrap=True)
        else:
            self._stream.write(line + "\n")

    def _start(self) -> Live:
        from rich.console import Console  # noqa: PLC0415 - costs 40 ms, only terminals need it
        from rich.live import Live  # noqa: PLC0415

        console = Console(
            file=cast("IO[str]", self._stream),
            force_terminal=True,
            color_system=None,
            highlight=False,
        )
        live = Live(
            get_renderable=lambda: _text(self.status()),
            console=console,
            transient=True,
            refresh_per_second=_REFRESHES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        live.start()
        return live


def _text(line: str) -> Text:
    from rich.text import Text  # noqa: PLC0415

    return Text(line, no_wrap=True, overflow="ellipsis")
