"""`forensic doctor`: is this host fit, and if not, which command mends it."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from controller import accelerator, base, kvm, state
from controller.errors import ExitCode, ForensicError
from controller.settings import DEFAULT_MEMORY
from controller.state import Variant
from controller.store import Store, damaged_files
from images.process import ProcessError
from images.process import run as run_process
from images.quoting import shown

_NEEDED_DISK = 1 << 30
_NEEDED_MEMORY = (DEFAULT_MEMORY + 256) << 20
_PROGRAMS = {
    "/usr/bin/bwrap": "bubblewrap",
    "/usr/bin/qemu-system-x86_64": "qemu-system-x86",
    "/usr/bin/setpriv": "util-linux",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/lib/libvirt/libvirt_iohelper": "libvirt-daemon",
    str(state.LIBVIRT): "libvirt-daemon-driver-qemu",
}

Grade = Literal["ok", "warning", "problem"]


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at; `remedy` is a command, "" where there is nothing to do."""

    name: str
    grade: Grade
    message: str
    remedy: str = ""


def run(*, json: bool) -> ExitCode:
    """Check, print, and return 0 if a case can run on this host, else 4."""
    checks = list(examine(Store()))
    healthy = all(check.grade != "problem" for check in checks)
    if json:
        document = {"schema": "forensic.doctor/1", "healthy": healthy, "checks": checks}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
    else:
        for check in checks:
            sys.stdout.write(f"{check.grade:8} {check.name}: {check.message}\n")
            if check.remedy:
                sys.stdout.write(f"         mend it with: {check.remedy}\n")
    return ExitCode.COMPLETE if healthy else ExitCode.ENVIRONMENT


def examine(store: Store) -> Iterator[Check]:
    """All checks, in the order in which they build on each other."""
    yield from _programs()
    yield from _modules()
    yield _sandbox()
    yield _memory()
    yield _disk(store)
    yield from _appliance(store)
    yield _accelerator(store)


def _programs() -> Iterator[Check]:
    missing = sorted({package for path, package in _PROGRAMS.items() if not Path(path).exists()})
    if missing:
        names = " ".join(missing)
        remedy = f"{_sudo()}apt-get install --no-install-recommends {names}"
        yield Check("programs", "problem", f"missing: {names}", remedy)
    else:
        yield Check("programs", "ok", "emulator, libvirt's driver, sandbox and builder are there")


def _modules() -> Iterator[Check]:
    for name in ("libvirt", "paramiko", "cryptography", "msgspec", "rich"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            yield Check("python", "problem", f"{name}: {error}", "./forensic --version")
            return
    yield Check("python", "ok", f"Python {sys.version.split()[0]} and its packages")


def _sandbox() -> Check:
    """Start a sandbox in a sandbox, as every case does."""
    inner = ["/usr/bin/bwrap", "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "true"]
    outer = ["/usr/bin/bwrap", "--unshare-all", "--unshare-user", "--ro-bind", "/", "/", "--proc",
             "/proc", "--dev", "/dev", *inner]  # fmt: skip
    drop = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    try:
        done = run_process([*(drop if os.geteuid() == 0 else []), *outer], timeout=5.0)
    except ProcessError as error:
        return Check("sandbox", "problem", str(error), _namespace_remedy())
    if done.returncode != 0:
        words = shown(done.stderr.splitlines()[-1]) if done.stderr else "it gives no reason"
        return Check(
            "sandbox", "problem", f"bubblewrap does not work: {words}", _namespace_remedy()
        )
    return Check("sandbox", "ok", "bubblewrap works for an unprivileged account, also nested")


def _namespace_remedy() -> str:
    if Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists():
        return f"{_sudo()}sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    if Path("/proc/sys/kernel/unprivileged_userns_clone").exists():
        return f"{_sudo()}sysctl -w kernel.unprivileged_userns_clone=1"
    return f"{_sudo()}sysctl -w user.max_user_namespaces=15000"


def _memory() -> Check:
    rows = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(row.split()[1]) << 10 for row in rows if row.startswith("MemAvailable"))
    message = f"{available >> 20} MiB are free, a case needs about {_NEEDED_MEMORY >> 20} MiB"
    if available < _NEEDED_MEMORY:
        return Check("memory", "problem", message, "free some, then run `forensic doctor` again")
    return Check("memory", "ok", message)


def _disk(store: Store) -> Check:
    folder = store.root
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"{shown(str(folder))} may not be written to"
        return Check("disk", "problem", message, "export XDG_CACHE_HOME=FOLDER_OF_YOUR_OWN")
    free = shutil.disk_usage(folder).free
    message = f"{free >> 20} MiB are free in {shown(str(folder))}"
    if free < _NEEDED_DISK and base.find(store) is None:
        return Check("disk", "problem", f"{message}, a build needs {_NEEDED_DISK >> 20} MiB",
                     "export XDG_CACHE_HOME=FOLDER_ON_A_LARGER_DISK")  # fmt: skip
    return Check("disk", "ok", message)


def _appliance(store: Store) -> Iterator[Check]:
    found = base.find(store)
    if found is None:
        yield Check("appliance", "warning", "not built yet; the first inspection builds it",
                    "./forensic appliance build")  # fmt: skip
        yield from _unshare()
        return
    folders = [found, *(each for each in _states(store, found))]
    try:
        damaged = [name for folder in folders for name in damaged_files(folder)]
    except ForensicError as error:
        damaged = [error.message]
    if damaged:
        yield Check("appliance", "problem", f"not what was built: {', '.join(damaged)}",
                    "./forensic appliance build --force")  # fmt: skip
    elif len(folders) == 1:
        yield Check("appliance", "warning", "built, but no guest is saved; the next run saves one",
                    "./forensic appliance build")  # fmt: skip
    else:
        yield Check("appliance", "ok", f"{found.name}, saved guests: {len(folders) - 1}")


def _states(store: Store, base_folder: Path) -> Iterator[Path]:
    for kind in ("kvm", "tcg"):
        folder = state.find(store, base_folder, Variant(kind, DEFAULT_MEMORY))
        if folder:
            yield folder


def _unshare() -> Iterator[Check]:
    """Without root, the build needs a range of subordinate ids."""
    if os.geteuid() == 0:
        return
    user = os.environ.get("USER", str(os.geteuid()))
    names = {user, str(os.geteuid())}
    rows = [
        row.split(":")[0]
        for path in ("/etc/subuid", "/etc/subgid")
        if Path(path).exists()
        for row in Path(path).read_text().splitlines()
    ]
    if shutil.which("newuidmap") is None:
        yield Check("build", "problem", "newuidmap is missing", f"{_sudo()}apt-get install uidmap")
    elif sum(row in names for row in rows) < 2:
        remedy = f"{_sudo()}usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
        yield Check("build", "problem", "this account has no subordinate ids", remedy)
    else:
        yield Check("build", "ok", "this account can build the appliance")


def _accelerator(store: Store) -> Check:
    obstacle = kvm.obstacle()
    if obstacle:
        message = f"{obstacle}; the guest's processor is emulated, about ten times slower"
        remedy = "" if "no /dev/kvm" in obstacle else kvm.remedy()
        return Check("accelerator", "warning", message, remedy)
    verdict = accelerator.remembered(store) or _prove(store)
    if verdict is None:
        return Check("accelerator", "ok", "KVM opens; the first build proves it by a boot")
    if verdict.usable:
        return Check("accelerator", "ok", "KVM: proved by a boot on this host")
    message = f"KVM does not work here ({verdict.reason}); the guest's processor is emulated"
    return Check("accelerator", "warning", message)


def _prove(store: Store) -> accelerator.Verdict | None:
    found = base.find(store)
    if found is None:
        return None
    proof: Callable[[], object] = lambda: state.prove_kvm(found, DEFAULT_MEMORY)  # noqa: E731
    return accelerator.try_once(store, proof)


def _sudo() -> str:
    return "" if os.geteuid() == 0 else "sudo "
