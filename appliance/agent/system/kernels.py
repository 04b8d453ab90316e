"""Which kernels are installed: by their images in /boot, and by their modules."""

from __future__ import annotations

from appliance.agent.system.files import Files
from appliance.agent.system.root import RootError, text_of

_IMAGES = ("vmlinuz", "vmlinux", "kernel-", "bzImage", "Image")
_MODULES = ("usr/lib/modules", "lib/modules")
_HEAD = 65536
_MAX_KERNELS = 64
_MAX_NAME = 255


def read_kernels(files: Files) -> list[str]:
    """Their versions as uname -r has them, sorted, as far as an image or its name tells them."""
    found: set[str] = set()
    for name in files.names("boot"):
        if name.startswith(_IMAGES):
            version = _version_of_image(files, f"boot/{name}") or _version_of_name(text_of(name))
            if version:
                found.add(version)
    for folder in _MODULES:
        for name in files.names(folder, 1024):
            if files.root.exists(f"{folder}/{name}/modules.dep") or files.root.is_dir(
                f"{folder}/{name}/kernel"
            ):
                found.add(text_of(name)[:_MAX_NAME])
    return files.bounded(sorted(found), "kernels", _MAX_KERNELS)


def parse_image(data: bytes) -> str | None:
    """The version in the head of x86 kernels (kernel_version, Documentation/arch/x86/boot.rst)."""
    if data[0x202:0x206] != b"HdrS":
        return None
    start = int.from_bytes(data[0x20E:0x210], "little") + 0x200
    words = data[start : start + _MAX_NAME].split(b"\0")[0].split()
    return text_of(words[0]) if words and start > 0x200 else None


def _version_of_image(files: Files, path: str) -> str | None:
    try:
        return parse_image(files.root.read(path, _HEAD))
    except RootError:  # another kind of file; its name still counts
        return None


def _version_of_name(name: str) -> str | None:
    """What is behind the first dash, where it is a version: not of vmlinuz-linux or -lts."""
    version = name.partition("-")[2]
    return version[:_MAX_NAME] if version[:1].isdigit() else None
