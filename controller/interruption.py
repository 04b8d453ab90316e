"""What happens to a run when somebody ends it."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from controller.errors import ExitCode


@contextlib.contextmanager
def taken_down(interrupted: int = ExitCode.INTERRUPTED) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP all unwind the stack, so that everything is taken down.

    `interrupted` is the status that Ctrl-C ends with.
    """

    def unwind(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    previous = {each: signal.signal(each, unwind) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("forensic: interrupted; nothing is left running\n")
        raise SystemExit(interrupted) from None
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
