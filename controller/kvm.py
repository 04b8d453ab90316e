"""The device /dev/kvm as far as its file tells: whether trying it makes sense at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

KVM = Path("/dev/kvm")


def obstacle() -> str:
    """Why KVM cannot even be tried, "" if it can."""
    try:
        status = KVM.stat()
    except OSError:
        return "there is no /dev/kvm"
    if not stat.S_ISCHR(status.st_mode):
        return "/dev/kvm is not a device"
    if os.geteuid() != 0:
        usable = os.access(KVM, os.R_OK | os.W_OK)
    else:
        # The cell's account is not root; it may get the device's group, but nothing more.
        usable = bool(status.st_mode & 0o006 == 0o006 or kvm_group() is not None)
    return "" if usable else "/dev/kvm may not be opened by the account that runs QEMU"


def kvm_group() -> int | None:
    """The group that may use /dev/kvm, for a cell that root starts."""
    try:
        status = KVM.stat()
    except OSError:
        return None
    return status.st_gid if status.st_mode & 0o060 == 0o060 and status.st_gid != 0 else None


def remedy() -> str:
    """The command that lets the caller's account use the device."""
    return "sudo usermod --append --groups kvm $USER  # then log in again"
