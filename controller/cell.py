"""The cell: one bubblewrap sandbox for everything that touches the guest.

In it run the controller's core, libvirt's embedded driver, QEMU and the exporters, with user, PID,
mount, network, IPC and UTS namespaces of their own and a private tmpfs for every socket and temp
file. Its first process dies with the command that started it, however that dies, and takes all the
others along: the kernel does that, not code of ours that might not get to run.

The evidence is not mounted in it at all; it comes in as open, read-only descriptors.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import controller
from controller.errors import EnvironmentFailed
from controller.places import RUN
from controller.wire import Link
from images.process import PIPE, Process, ProcessError, started, wait
from images.quoting import shown
from images.sandbox import kill

ACCOUNT = 64087
"""The unprivileged account of a cell that root starts: a number that nothing else uses (Debian
policy 9.2.2 keeps 60000 to 64999 for itself and allocates none here), so that no other process
may signal or trace what runs in it."""

_RUN_BYTES = 256 << 20
_STDERR_BYTES = 16384
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Binds:
    """What the cell sees of the host besides the programs: cell path -> host path."""

    read_only: Mapping[str, Path]
    writable: Mapping[str, Path]
    kvm: bool
    kvm_group: int | None = None


def owner() -> int:
    """The account that QEMU and the exporters run as; artifacts must be readable for it."""
    return ACCOUNT if os.geteuid() == 0 else os.geteuid()


@contextmanager
def cell(binds: Binds, descriptors: Sequence[int]) -> Iterator[Link]:
    """Start a cell and yield the link to the core in it.

    When this ends, everything that ran in the cell is dead: waiting for its first process waits
    for all of its PID namespace (pid_namespaces(7)). Raises EnvironmentFailed.
    """
    ours, theirs = socket.socketpair()
    with ExitStack() as stack:
        stack.enter_context(ours)
        with theirs:
            number = theirs.fileno()
            argv = [*_bubblewrap(binds), *_core(binds, number)]
            try:
                process = stack.enter_context(
                    started(argv, pass_fds=[number, *descriptors], stderr=PIPE, grace=0)
                )
            except ProcessError as error:
                raise EnvironmentFailed(str(error), hint="run `forensic doctor`") from error
        stack.callback(_end, process)
        yield Link(ours, lambda: _last_words(process))


def _end(process: Process) -> None:
    """Kill the first process of the PID namespace, and wait until the kernel has ended the rest.

    bwrap itself ends when it has collected that process, which the kernel only hands out once
    nothing else lives in the namespace.
    """
    kill(process.pid)
    if not wait(process, _END_SECONDS):
        process.kill()  # then the kernel does the same by way of the parent-death signal
        process.wait()


def _last_words(process: Process) -> str:
    """What the cell wrote to standard error before it ended."""
    _end(process)
    if process.stderr is None:
        return ""
    return "\n".join(shown(line) for line in process.stderr.read(_STDERR_BYTES).splitlines()[-12:])


def _drop_root(kvm_group: int | None) -> list[str]:
    groups = "--clear-groups" if kvm_group is None else f"--groups={kvm_group}"
    return ["/usr/bin/setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", groups,
            "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all",
            "--"]  # fmt: skip


def _core(binds: Binds, descriptor: int) -> list[str]:
    drop = _drop_root(binds.kvm_group) if os.geteuid() == 0 else []
    # -I: neither the caller's environment nor the current folder decides what is imported.
    return [*drop, sys.executable, "-I", "-m", "controller.core", str(descriptor)]


def _bubblewrap(binds: Binds) -> list[str]:
    is_root = os.geteuid() == 0
    options = ["/usr/bin/bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
               "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv",
               "--hostname", "cell", "--cap-drop", "ALL"]  # fmt: skip
    if is_root:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            options += ["--cap-add", capability]
    else:
        options += ["--unshare-user", "--uid", str(os.geteuid()), "--gid", str(os.getegid())]
    code = {str(folder): folder for folder in _code_folders()}
    # bwrap, started in here once more for the exporters, wants an empty /tmp to begin from.
    options += _folders([*code, *binds.read_only, *binds.writable, "/etc/x", "/tmp/x"])  # noqa: S108
    options += _system()
    for target, source in code.items():
        options += ["--ro-bind", str(source), target]
    options += ["--perms", "1777", "--size", str(_RUN_BYTES), "--tmpfs", str(RUN)]
    for target, source in binds.read_only.items():
        options += ["--ro-bind", str(source), target]
    for target, source in binds.writable.items():
        options += ["--bind", str(source), target]
    if binds.kvm:
        options += ["--dev-bind", "/dev/kvm", "/dev/kvm"]
    for name, value in _environment().items():
        options += ["--setenv", name, value]
    return [*options, "--remount-ro", "/", "--chdir", "/", "--"]


def _folders(paths: Iterable[str]) -> list[str]:
    """The folders above mount points; those that bwrap makes itself only root could enter."""
    parents = {str(parent) for path in paths for parent in Path(path).parents} - {"/"}
    ordered = sorted(parents, key=lambda path: path.count("/"))
    return [option for path in ordered for option in ("--perms", "0755", "--dir", path)]


def _system() -> list[str]:
    """Programs and libraries, and an empty rest."""
    options = ["--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
    options += [
        "--ro-bind-try",
        "/etc/ld.so.cache",
        "/etc/ld.so.cache",
        "--ro-bind",
        "/sys",
        "/sys",
    ]
    for name in ("bin", "lib", "lib32", "lib64", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    return options


def _code_folders() -> list[Path]:
    """Where this program and its interpreter are, outermost first, each once."""
    source = Path(controller.__file__).resolve().parent.parent
    executable = Path(sys.executable).resolve().parent.parent
    folders: list[Path] = []
    for folder in sorted({Path(sys.prefix), Path(sys.base_prefix), executable, source}):
        covered = any(folder.is_relative_to(each) for each in [Path("/usr"), *folders])
        if not covered:
            folders.append(folder)
    return folders


def _environment() -> dict[str, str]:
    return {
        "PATH": "/usr/sbin:/usr/bin",
        "LANG": "C.UTF-8",
        "HOME": str(RUN),
        "TMPDIR": str(RUN),
        "XDG_RUNTIME_DIR": str(RUN),
        "XDG_CACHE_HOME": str(RUN / "cache"),
        "XDG_CONFIG_HOME": str(RUN / "config"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
