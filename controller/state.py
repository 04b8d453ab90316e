"""Saved states: a booted, warmed guest on disk, from which every case gets its own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import appliance
import images
from appliance.protocol import VERSION
from controller import base
from controller.cell import Binds, cell, owner
from controller.domain_xml import Accelerator, domain
from controller.errors import ApplianceInvalid
from controller.initramfs import pack
from controller.kvm import kvm_group
from controller.places import APPLIANCE, OUTPUT, PATHS
from controller.store import MANIFEST, Manifest, Store, finish, read_manifest
from controller.wire import Appliance, MakeState, ProveKvm, Step

_CODE = Path(appliance.__file__).resolve().parent
_IMAGES = Path(images.__file__).resolve().parent
_HOST_ONLY = frozenset(
    f"{name}.py"
    for name in (
        *("allocation", "blockgraph", "digests", "export", "exporter", "file_content", "hashing"),
        *("live", "live_devices", "live_processes", "nbd_client", "process", "qmp"),
        *("reader_export", "reader_sandbox", "sandbox", "served_socket", "writer"),
    )
)
"""Modules of images/ that have no business in the guest."""

_QEMU = Path("/usr/bin/qemu-system-x86_64")
LIBVIRT = Path("/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so")
"""Where Debian and Ubuntu put the driver."""

BOOT_SECONDS = 240.0
PROOF_SECONDS = 7.0
"""A kernel that KVM runs is past its first lines within a second or two."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What a saved state is for; `memory` in MiB.

    Two processors, where the host has them, let the SSH server work beside the agent:
    measured, a session is open in 1.3 instead of 1.8 seconds.
    """

    accelerator: Accelerator
    memory: int
    processors: int = min(2, len(os.sched_getaffinity(0)))


def ingredients(base_folder: Path, variant: Variant) -> dict[str, str]:
    """Everything that a saved state depends on. If one changes, a new state is made."""
    facts = {
        "base": base_folder.name,
        "agent": _hash_of_code(),
        "protocol": str(VERSION),
        "domain": _sha256(
            domain(variant.accelerator, variant.memory, variant.processors, PATHS).encode()
        ),
        "qemu": _identity(_QEMU),
        "libvirt": _identity(LIBVIRT),
        "accelerator": variant.accelerator,
        "memory": str(variant.memory),
        "account": str(owner()),
    }
    if variant.accelerator == "kvm":
        facts["processor"] = _processor()
    return facts


def is_current(folder: Path, base_folder: Path) -> bool:
    """Whether a saved state would be made the same way today."""
    try:
        made_from = read_manifest(folder).made_from
    except ApplianceInvalid:
        return False
    accelerator: Accelerator = "kvm" if made_from.get("accelerator") == "kvm" else "tcg"
    memory = made_from.get("memory", "")
    if not memory.isdigit():
        return False
    return made_from == ingredients(base_folder, Variant(accelerator, int(memory)))


def find(store: Store, base_folder: Path, variant: Variant) -> Path | None:
    """The finished state, None where it has not been made."""
    folder = store.folder("state", ingredients(base_folder, variant))
    return folder if (folder / MANIFEST).is_file() else None


def make(
    store: Store,
    base_folder: Path,
    variant: Variant,
    show: Callable[[str], None],
) -> Path:
    """Boot, warm and save a guest; call it under the store's lock. Raises ForensicError."""
    made_from = ingredients(base_folder, variant)
    target = store.folder("state", made_from)
    with store.building(target) as folder:
        (folder / "initramfs").write_bytes(_initramfs(base_folder))
        output = folder / "capabilities"
        output.mkdir()
        _open_for_cell(folder, output)
        manifest = read_manifest(base_folder)
        initramfs = folder / "initramfs"
        binds = Binds(
            read_only={
                PATHS.kernel: base_folder / "vmlinux",
                PATHS.rootfs: base_folder / "rootfs.erofs",
                PATHS.initramfs: initramfs,
            },
            writable={str(OUTPUT): output},
            kvm=variant.accelerator == "kvm",
            kvm_group=kvm_group(),
        )
        hashes = {
            PATHS.kernel: manifest.hashes["vmlinux"],
            PATHS.rootfs: manifest.hashes["rootfs.erofs"],
            PATHS.initramfs: _sha256(initramfs.read_bytes()),
        }
        order = MakeState(
            Appliance(hashes, variant.accelerator, variant.memory, variant.processors), BOOT_SECONDS
        )
        with cell(binds, ()) as link:
            done = link.call(order, lambda step: _show(step, show), seconds=BOOT_SECONDS + 60)
        (output / "state").rename(folder / "state")
        finish(folder, made_from, done.tools, done.timings)
    return target


def prove_kvm(base_folder: Path, memory: int, *, seconds: float = PROOF_SECONDS) -> None:
    """Boot the appliance's kernel with KVM. Raises GuestFailed or EnvironmentFailed."""
    manifest = read_manifest(base_folder)
    files = {
        PATHS.kernel: "vmlinux",
        PATHS.rootfs: "rootfs.erofs",
        PATHS.initramfs: "base.cpio",
    }
    binds = Binds(
        read_only={path: base_folder / name for path, name in files.items()},
        writable={},
        kvm=True,
        kvm_group=kvm_group(),
    )
    hashes = {path: manifest.hashes[name] for path, name in files.items()}
    with cell(binds, ()) as link:
        order = ProveKvm(Appliance(hashes, "kvm", memory, 1), seconds)
        link.call(order, lambda _step: None, seconds=seconds)


def _show(step: Step, show: Callable[[str], None]) -> None:
    show(step.operation)


def _open_for_cell(folder: Path, output: Path) -> None:
    """Let the cell's account write its result; the folders above keep everybody else out."""
    os.chown(output, owner(), -1)
    os.chown(folder / "initramfs", owner(), -1)


def binds_of(base_folder: Path, state_folder: Path, variant: Variant) -> Binds:
    """What a cell must see to restore this state."""
    return Binds(
        read_only={
            PATHS.kernel: base_folder / "vmlinux",
            PATHS.rootfs: base_folder / "rootfs.erofs",
            PATHS.initramfs: state_folder / "initramfs",
            str(APPLIANCE / "state"): state_folder / "state",
            str(APPLIANCE / "capabilities"): state_folder / "capabilities",
        },
        writable={},
        kvm=variant.accelerator == "kvm",
        kvm_group=kvm_group(),
    )


def appliance_of(base_folder: Path, state_folder: Path, variant: Variant) -> Appliance:
    """The hashes that the core checks before it restores this state."""
    made: Manifest = read_manifest(state_folder)
    built: Manifest = read_manifest(base_folder)
    hashes = {
        PATHS.kernel: built.hashes["vmlinux"],
        PATHS.rootfs: built.hashes["rootfs.erofs"],
        PATHS.initramfs: made.hashes["initramfs"],
        str(APPLIANCE / "state"): made.hashes["state"],
    }
    for name, digest in made.hashes.items():
        if name.startswith("capabilities/"):
            hashes[str(APPLIANCE / name)] = digest
    return Appliance(hashes, variant.accelerator, variant.memory, variant.processors)


def _initramfs(base_folder: Path) -> bytes:
    files = {f"forensic/{name}": path.read_bytes() for name, path in guest_code().items()}
    for name in ("first", "modules.txt"):
        files[f"forensic/{name}"] = (base.RECIPE / name).read_bytes()
    return (base_folder / "base.cpio").read_bytes() + pack(files, frozenset({"forensic/first"}))


def guest_code() -> dict[str, Path]:
    """The Python files of the guest, by their path below the folder that it imports from."""
    files = {f"appliance/{path.relative_to(_CODE)}": path for path in _CODE.rglob("*.py")}
    files |= {f"images/{path.relative_to(_IMAGES)}": path for path in _IMAGES.rglob("*.py")}
    return {
        name: path
        for name, path in sorted(files.items())
        if not name.startswith("appliance/recipe/")
        and name not in {f"images/{each}" for each in _HOST_ONLY}
    }


def _hash_of_code() -> str:
    digest = hashlib.sha256()
    for name, path in [*guest_code().items(), ("first", base.RECIPE / "first")]:
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _identity(path: Path) -> str:
    """Changes whenever the program is replaced, and costs no process to find out."""
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size}-{status.st_mtime_ns}"


def program_identity() -> str:
    """Which QEMU is installed, without starting it."""
    return _identity(_QEMU)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    kept = [line for line in lines if line.startswith(("model name", "flags", "microcode"))]
    return _sha256("\n".join(kept).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
