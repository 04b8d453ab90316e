"""File systems that a program in user space opens, through FUSE, and never for writing.

The program is started as root without fusermount: it mounts by itself and goes into the
background, and ends when it is unmounted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from appliance.agent import mount_call
from appliance.agent.command import CommandError, run
from appliance.agent.mount_call import MountError

_SECONDS = 45
_MAX_WORDS = 600


@contextmanager
def shown_by(argv: Sequence[str], node: str) -> Iterator[Path]:
    """Yield the folder where the program shows what is on the device.

    `argv` is the program and its options; device and folder are added. Raises MountError.
    """
    folder = Path(tempfile.mkdtemp(prefix="mount", dir="/run"))
    try:
        _start([*argv, node, str(folder)], folder)
        mount_call.restrict(folder)
    except MountError:
        mount_call.unmount(folder)
        raise
    try:
        yield folder
    finally:
        mount_call.unmount(folder)


def _start(argv: list[str], folder: Path) -> None:
    try:
        done = run(argv, timeout=_SECONDS)
    except CommandError as error:
        raise MountError(str(error)) from error
    if done.status != 0 or not os.path.ismount(folder):
        said = (done.stderr + done.stdout).decode("utf-8", "replace")
        words = "; ".join(line.strip() for line in said.splitlines() if line.strip())
        raise MountError(f"{argv[0]}: {words[:_MAX_WORDS] or f'status {done.status}'}")
