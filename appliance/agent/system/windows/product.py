"""Which Windows it is, and for which processor: from SOFTWARE, and from the head of its kernel.

winnt.h has the machine numbers, "PE Format" (Microsoft) where they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.agent.regf.hive import Hive
from appliance.agent.regf.values import Values, values_at
from appliance.agent.system.files import Files
from appliance.agent.system.root import RootError

_CURRENT_VERSION = "Microsoft\\Windows NT\\CurrentVersion"
_FIRST_BUILD_OF_11 = 22000
_MACHINES = {
    0x014C: "i386",
    0x0166: "mips",
    0x0184: "alpha",
    0x01C0: "arm",
    0x01C4: "arm",
    0x01F0: "ppc",
    0x0200: "ia64",
    0x8664: "x86_64",
    0xAA64: "aarch64",
}
_KERNELS = ("ntoskrnl.exe", "kernel32.dll")


@dataclass(frozen=True, slots=True)
class Product:
    """What is called so in appliance.system.System."""

    name: str | None = None
    variant: str | None = None
    version: str | None = None
    major: int | None = None
    minor: int | None = None
    build: str | None = None
    machine_id: str | None = None
    install_date: int | None = None


def product_of(software: Hive) -> Product:
    """The facts of a SOFTWARE hive."""
    values = values_at(software, _CURRENT_VERSION)
    # CurrentBuild of Windows XP says "Obsolete data - do not use".
    build = values.text("CurrentBuildNumber") or values.text("CurrentBuild")
    revision = values.number("UBR")
    major, minor = _version_of(values)
    variant = values.text("InstallationType")
    versions = (values.text(each) for each in ("DisplayVersion", "ReleaseId", "CSDVersion"))
    return Product(
        name=_name_of(values.text("ProductName"), build, variant),
        variant=variant,
        version=next((each for each in versions if each), None),
        major=major,
        minor=minor,
        build=build if revision is None or build is None else f"{build[:64]}.{revision}",
        machine_id=values_at(software, "Microsoft\\Cryptography").text("MachineGuid"),
        install_date=values.number("InstallDate") or values.filetime("InstallTime"),
    )


def _name_of(name: str | None, build: str | None, variant: str | None) -> str | None:
    """Windows 11 still calls itself "Windows 10" here; as virt-inspector, the build decides."""
    is_new = (_decimal(build) or 0) >= _FIRST_BUILD_OF_11
    if name and is_new and name.startswith("Windows 10") and variant in {None, "Client"}:
        return "Windows 11" + name.removeprefix("Windows 10")
    return name


def _version_of(values: Values) -> tuple[int | None, int | None]:
    """Of Windows 10 and later; otherwise CurrentVersion, which stays "6.3" from there on."""
    major = values.number("CurrentMajorVersionNumber")
    if major is not None:
        return major, values.number("CurrentMinorVersionNumber")
    first, _, second = (values.text("CurrentVersion") or "").partition(".")
    return _decimal(first), _decimal(second)


def _decimal(text: str | None) -> int | None:
    is_number = text is not None and text.isascii() and text.isdigit() and len(text) < 10
    return int(text) if text is not None and is_number else None


def architecture_of(files: Files, system32: str) -> str | None:
    """From the head of the kernel or of a library that every program has."""
    for name in _KERNELS:
        with files.opened(f"{system32}/{name}") as file:
            try:
                head = file.read(64) if file else b""
                at = int.from_bytes(head[60:64], "little")
                pe = file.read(6, at) if file and head[:2] == b"MZ" else b""
            except RootError as error:
                files.tell(f"{system32}/{name}", str(error))
                continue
        if pe[:4] == b"PE\0\0" and (machine := int.from_bytes(pe[4:6], "little")) in _MACHINES:
            return _MACHINES[machine]
    return None
