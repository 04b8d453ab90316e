"""The command line that puts the exporter into its sandbox.

No evidence is visible in it: the files arrive as open descriptors.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from images.process import Limits

# An account that owns nothing; root must never run a parser of hostile input.
_NOBODY = "65534"
_DROP_ROOT = (
    "/usr/bin/setpriv",
    f"--reuid={_NOBODY}",
    f"--regid={_NOBODY}",
    "--clear-groups",
    "--no-new-privs",
    "--",
)
_MERGED = ("bin", "lib", "lib32", "lib64", "sbin")


_ADDRESS_SPACE = 6 << 30


@dataclass(frozen=True, slots=True)
class Extras:
    """What one kind of exporter needs besides.

    `folders` of the host, each seen read-only at the path that it is mapped to. `filter` is a
    descriptor from which bubblewrap reads a filter of system calls (images.seccomp).
    """

    folders: Mapping[Path, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    filter: int | None = None

    def argv(self) -> list[str]:
        """As bubblewrap takes them."""
        options: list[str] = []
        for source, target in self.folders.items():
            options += ["--ro-bind", str(source), target]
        for name, value in self.environment.items():
            options += ["--setenv", name, value]
        if self.filter is not None:
            options += ["--seccomp", str(self.filter)]
        return options


def limits(
    files: int,
    *,
    cpu: int | None = None,
    address_space: int = _ADDRESS_SPACE,
    file_size: int = 0,
) -> Limits:
    """For an exporter that holds `files` evidence files open.

    `cpu` in seconds of processor time, `address_space` and `file_size` (of what it may write) in
    bytes.
    """
    return Limits(
        # By default for QEMU, which reads with up to 64 threads, each with a stack of 8 MiB and an
        # arena of 64 MiB of addresses. Measured: with 1 GiB, one in ten images of small clusters
        # gave read errors.
        address_space=address_space,
        open_files=256 + 4 * files,
        processes=64,
        file_size=file_size,
        core=0,
        cpu=cpu,
        locked_memory=0,
        message_queues=0,
    )


def command(
    argv: Sequence[str], resource_limits: Limits, extras: Extras | None = None
) -> list[str]:
    """`argv` inside the sandbox; descriptors that the caller passes on stay open in it.

    The limits apply inside: there the number of processes counts only the sandbox's own.
    """
    drop = _DROP_ROOT if os.geteuid() == 0 else ()
    more = extras.argv() if extras is not None else []
    return [*drop, *_bubblewrap(more), *resource_limits.argv(), *argv]


def kill(pid: int) -> None:
    """Kill what runs in the sandbox whose outermost process is `pid`.

    bwrap then collects it and ends. If bwrap were killed first, its child would be left to an
    init that may never collect it.
    """
    for child in _children(pid):
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(child)
            try:
                # Only now, with the handle held, is it certain that the number was not reused.
                if child in _children(pid):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _bubblewrap(more: Sequence[str]) -> list[str]:
    return [
        "/usr/bin/bwrap",
        "--unshare-user",
        "--unshare-all",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        *("--cap-drop", "ALL"),
        "--clearenv",
        *("--hostname", "exporter"),
        *("--ro-bind", "/usr", "/usr"),
        *_links_into_usr(),
        # QEMU tries file locks on it before it uses them.
        *("--dev-bind", "/dev/null", "/dev/null"),
        *("--dir", "/run"),
        *more,
        *("--remount-ro", "/"),
        *("--chdir", "/"),
        "--",
    ]


def _links_into_usr() -> list[str]:
    """/lib and its like as the host has them: links into /usr, or folders of their own."""
    options: list[str] = []
    for name in _MERGED:
        path = Path("/") / name
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    return options
