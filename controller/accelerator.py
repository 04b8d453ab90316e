"""Whether KVM works here is proved by a boot, once; what /dev/kvm says of itself is not enough.

On some nested hosts the device opens, creates machines, and never gets a kernel past the firmware.
The verdict is remembered for this kernel, this QEMU and this device.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from controller import state
from controller.domain_xml import Accelerator
from controller.errors import CellFailed, EnvironmentFailed, GuestFailed
from controller.kvm import KVM, obstacle
from controller.store import Store

Choice = Literal["auto", "kvm", "tcg"]


class Verdict(msgspec.Struct, frozen=True):
    """Whether KVM is usable, why not, and for which host that was found out."""

    usable: bool
    reason: str
    host: dict[str, str]


def remembered(store: Store) -> Verdict | None:
    """The verdict for this host, None where KVM has not been tried on it."""
    try:
        verdict = msgspec.json.decode((store.root / "kvm.json").read_bytes(), type=Verdict)
    except (OSError, ValueError, msgspec.MsgspecError):
        return None
    return verdict if verdict.host == _host() else None


def remember(store: Store, *, usable: bool, reason: str) -> Verdict:
    """Write the verdict down."""
    verdict = Verdict(usable, reason, _host())
    (store.root / "kvm.json").write_bytes(msgspec.json.encode(verdict))
    return verdict


def _host() -> dict[str, str]:
    status = KVM.stat() if KVM.exists() else None
    return {
        "kernel": platform.release(),
        # A setting of the hypervisor below this host shows at the next boot at the latest.
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "qemu": state.program_identity(),
        "device": f"{status.st_mode}:{status.st_gid}" if status else "none",
        "account": str(os.geteuid()),
    }


def choose(
    choice: Choice,
    store: Store,
    prove: Callable[[], object],
    show: Callable[[str], None],
    *,
    require_kvm: bool,
) -> tuple[Accelerator, str]:
    """Decide the accelerator; return it and, for TCG, why.

    `prove` boots a guest with KVM and raises ForensicError where that fails; it is called once
    per host. Raises EnvironmentFailed where KVM was asked for and cannot be had.
    """
    if choice == "tcg" and not require_kvm:
        return "tcg", "it was asked for"
    reason = obstacle() or _tried(store, prove, show)
    if not reason:
        return "kvm", ""
    if choice == "kvm" or require_kvm:
        raise EnvironmentFailed(
            f"KVM cannot be used: {reason}",
            hint="run `forensic doctor`, or leave out --require-kvm and --accel kvm",
        )
    return "tcg", reason


def _tried(store: Store, prove: Callable[[], object], show: Callable[[str], None]) -> str:
    verdict = remembered(store)
    if verdict is None:
        show("try KVM (once on this host)")
        verdict = try_once(store, prove)
    return verdict.reason


def try_once(store: Store, prove: Callable[[], object]) -> Verdict:
    """Have `prove` boot a guest with KVM, and remember how that went."""
    try:
        prove()
    except CellFailed:
        raise  # that is no verdict on KVM
    except (GuestFailed, EnvironmentFailed) as error:
        first_line = error.message.splitlines()[0]
        return remember(store, usable=False, reason=f"no guest boots with KVM: {first_line}")
    return remember(store, usable=True, reason="")
