"""Serves an image read-only as raw bytes over NBD, from a process that can reach nothing else.

The process is QEMU without a machine (`-M none`): qemu-storage-daemon has the same block layer,
but neither `add-fd`, so that it would have to see and be allowed to open the evidence itself, nor
a seccomp filter of its own.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from images import blockgraph, sandbox
from images.errors import ExportFailed, SandboxFailed
from images.graph import Overlay, Plan
from images.process import PIPE, Process, ProcessError, started
from images.qmp import Qmp, QmpClosed, QmpError
from images.quoting import shown
from images.served_socket import CONNECTIONS, Export, Stderr, end, listening

__all__ = ["Export", "exported"]

_QEMU = "/usr/bin/qemu-system-x86_64"
_FINISH_SECONDS = 120.0


@contextlib.contextmanager
def exported(  # noqa: PLR0913 - an export is what, where, under which name, with which limits
    plan: Plan,
    directory: Path | None,
    *,
    name: str,
    keys: Sequence[bytes] = (),
    timeout: float = 10.0,
    cpu: int | None = None,
    overlay: Overlay | None = None,
) -> Iterator[Export]:
    """Export what `plan` says at a Unix socket in `directory` for the length of the context.

    With an `overlay` the export is writable, and the writes go there and nowhere else.

    `keys` are tried on what is encrypted. `timeout` bounds the start in seconds; `cpu` is a limit
    of processor time in seconds. The export is ready when this yields. Raises ExportFailed, and
    Locked where no key fits. The thread that enters must outlive the context: the kernel ends the
    exporter with it.
    """
    with ExitStack() as stack:
        listener, path = stack.enter_context(listening(directory, name, plan.path))
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        with theirs:
            process, stderr = stack.enter_context(_running(plan, theirs, cpu, overlay))
        qmp = Qmp(ours, time.monotonic() + timeout, nodes=blockgraph.parts(plan))
        try:
            size = _set_up(plan, qmp, listener, name, keys, overlay)
        except QmpError as error:
            raise _failure(plan, error, process, stderr) from error
        # The exporter has its own copy: once it is gone, connecting must fail at once.
        listener.close()
        yield Export(path, name, process.pid, size, partial(_finish, plan, qmp, process, stderr))


@contextlib.contextmanager
def _running(
    plan: Plan, monitor: socket.socket, cpu: int | None, overlay: Overlay | None
) -> Iterator[tuple[Process, Stderr]]:
    limits = sandbox.limits(
        blockgraph.parts(plan), cpu=cpu, file_size=overlay.limit if overlay else 0
    )
    argv = _argv(monitor.fileno())
    if overlay:
        # A write beyond the limit must be an error that the guest sees, not the end of QEMU.
        argv = ["/usr/bin/env", "--ignore-signal=XFSZ", *argv]
    argv = sandbox.command(argv, limits)
    stderr = Stderr()
    try:
        # Killed at once: it only reads, and QEMU had crashes in its orderly NBD shutdown.
        with started(argv, pass_fds=[monitor.fileno()], stderr=PIPE, grace=0) as process:
            assert process.stderr is not None  # noqa: S101
            stderr.start(process.stderr)
            try:
                yield process, stderr
            finally:
                end(process, stderr)
    except ProcessError as error:
        raise ExportFailed(
            str(error), path=plan.path, hint="install bubblewrap and qemu-system-x86"
        ) from error


def _argv(monitor: int) -> list[str]:
    denied = "obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    return [
        _QEMU,
        *("-M", "none"),
        # There is no machine to run; this only keeps the unused code buffer small.
        *("-accel", "tcg,tb-size=1"),
        "-nodefaults",
        "-no-user-config",
        *("-display", "none"),
        *("-sandbox", f"on,{denied}"),
        *("-chardev", f"socket,id=monitor,fd={monitor}"),
        *("-mon", "chardev=monitor,mode=control"),
    ]


def _set_up(  # noqa: PLR0913, PLR0917 - what is exported, where, and how
    plan: Plan,
    qmp: Qmp,
    listener: socket.socket,
    name: str,
    keys: Sequence[bytes],
    overlay: Overlay | None,
) -> int:
    qmp.greet()
    if overlay and overlay.below is not None:
        size = blockgraph.add_served(overlay, plan.size, qmp)
    else:
        size = blockgraph.build(plan, qmp, keys)
    node = blockgraph.add_overlay(overlay, qmp) if overlay else blockgraph.TOP
    qmp.command("getfd", {"fdname": "listener"}, descriptor=listener.fileno())
    address = {"type": "fd", "data": {"str": "listener"}}
    qmp.command("nbd-server-start", {"addr": address, "max-connections": CONNECTIONS})
    export = {"type": "nbd", "id": "export", "node-name": node, "name": name}
    qmp.command("block-export-add", {**export, "writable": overlay is not None})
    return size


def _finish(plan: Plan, qmp: Qmp, process: Process, stderr: Stderr) -> None:
    """Take the export and the overlay's node away: QEMU then writes out all that it holds."""
    deadline = time.monotonic() + _FINISH_SECONDS
    qmp.extend(deadline)
    try:
        qmp.command("block-export-del", {"id": "export", "mode": "hard"})
        while qmp.command("query-block-exports"):
            time.sleep(0.01)
        qmp.command("blockdev-del", {"node-name": "overlay"})
        qmp.command("blockdev-del", {"node-name": "delta"})
    except QmpError as error:
        raise _failure(plan, error, process, stderr) from error


def _failure(plan: Plan, error: QmpError, process: Process, stderr: Stderr) -> ExportFailed:
    end(process, stderr)
    lines = "; ".join(stderr.last_lines())
    said = f" (it said: {lines})" if lines else ""
    if stderr.names_sandbox():
        return SandboxFailed(
            f"the exporter's sandbox did not start{said}",
            path=plan.path,
            hint="run `forensic doctor`",
        )
    if isinstance(error, QmpClosed):
        return ExportFailed(
            f"the exporter crashed or did not start{said}",
            path=plan.path,
            hint="if other images work, treat this one as an attack on the parser",
        )
    return ExportFailed(
        f"the exporter refused it: {shown(str(error))}{said}",
        path=plan.path,
        hint="another program may be using the image, or it is damaged",
    )
