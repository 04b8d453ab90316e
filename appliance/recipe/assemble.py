"""Assembles the artifacts of the appliance. Runs once, inside the new root, as part of the build.

Takes the unpacked kernel in /tmp/kernel and the recipe in /tmp/recipe; writes to /tmp/out:
vmlinux (uncompressed, with the PVH entry that saves the firmware's work), base.cpio (initramfs
with busybox and the early modules) and rootfs.erofs.
"""

import lzma
import shutil
import struct
import subprocess
from pathlib import Path

RECIPE = Path("/tmp/recipe")
KERNEL = Path("/tmp/kernel")
OUT = Path("/tmp/out")
INITRAMFS = Path("/tmp/initramfs")
TREE = Path("/tmp/tree")
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")

UNWANTED = [
    "usr/games", "usr/include", "usr/share/bash-completion", "usr/share/bug", "usr/share/common-licenses", "usr/share/doc", "usr/share/i18n", "usr/share/info",
    "usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/share/perl5", "usr/share/zoneinfo",
    "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/perl-base", "usr/lib/systemd",
    "usr/lib/udev", "usr/bin/perl", "usr/lib/apt", "usr/lib/dpkg", "var/cache", "var/lib/apt", "var/log",
    "var/lib/dpkg", "etc/machine-id", "etc/ssh/ssh_host_ecdsa_key", "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_ecdsa_key.pub", "etc/ssh/ssh_host_ed25519_key.pub",
    "etc/ssh/ssh_host_rsa_key.pub", "usr/lib/python3.13/test", "usr/lib/python3.13/ensurepip",
]  # fmt: skip


def extract_vmlinux(bzimage: bytes) -> bytes:
    """Unpack the kernel's ELF image; the header's fields are in Documentation/arch/x86/boot.rst."""
    setup_sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    if payload[:4] != b"\x28\xb5\x2f\xfd":
        raise SystemExit(f"the kernel is compressed in an unexpected way: {payload[:4].hex()}")
    # The last four bytes are the unpacked size, not part of the zstd frame.
    done = subprocess.run(["zstd", "-dqc"], input=payload[:-4], stdout=subprocess.PIPE, check=True)
    return done.stdout


def module_name(path: str) -> str:
    return Path(path).name.removesuffix(".xz").removesuffix(".ko").replace("-", "_")


def read_dependencies(modules: Path) -> dict[str, list[str]]:
    """Name -> paths in load order, the module itself last, from depmod(8)'s modules.dep."""
    dependencies = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        dependencies[module_name(path)] = [*reversed(needs.split()), path]
    return dependencies


def read_builtin(modules: Path) -> set[str]:
    """Names of what is part of the kernel itself and needs no loading."""
    lines = (modules / "modules.builtin").read_text().splitlines()
    return {module_name(line) for line in lines}


def wanted_modules() -> dict[str, list[str]]:
    stages: dict[str, list[str]] = {"early": [], "late": []}
    for line in (RECIPE / "modules.txt").read_text().splitlines():
        if words := line.split("#")[0].split():
            stages[words[0]].append(words[1])
    return stages


def install_modules(stages: dict[str, list[str]]) -> list[tuple[str, bytes]]:
    """Keep only the listed modules in the root; return the early ones in load order, unpacked."""
    (release,) = (KERNEL / "usr/lib/modules").iterdir()
    subprocess.run(["depmod", "-b", str(KERNEL / "usr"), release.name], check=True)
    dependencies = read_dependencies(release) | dict.fromkeys(read_builtin(release), [])
    target = Path("/usr/lib/modules") / release.name
    early: list[tuple[str, bytes]] = []
    seen: set[str] = set()
    for stage, names in stages.items():
        for name in names:
            for path in dependencies[name]:
                packed = (release / path).read_bytes()
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(packed)
                if stage == "early" and path not in seen:
                    early.append((Path(path).name.removesuffix(".xz"), lzma.decompress(packed)))
                seen.add(path)
    for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        shutil.copy(release / name, target / name)
    subprocess.run(["depmod", release.name], check=True)
    return early


def make_initramfs(early: list[tuple[str, bytes]]) -> None:
    for folder in ("bin", "dev", "proc", "sys", "lower", "upper", "root", "modules"):
        (INITRAMFS / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", INITRAMFS / "bin/busybox")
    shutil.copy(RECIPE / "init", INITRAMFS / "init")
    for name, data in early:
        (INITRAMFS / "modules" / name).write_bytes(data)
    order = "".join(f"{name}\n" for name, _ in early)
    (INITRAMFS / "modules/order").write_text(order)
    names = sorted(str(path.relative_to(INITRAMFS)) for path in INITRAMFS.rglob("*"))
    done = subprocess.run(
        ["busybox", "cpio", "-o", "-H", "newc", "-R", "0:0"],
        input="\n".join(names).encode(), stdout=subprocess.PIPE, cwd=INITRAMFS, check=True,
    )  # fmt: skip
    (OUT / "base.cpio").write_bytes(done.stdout)


def make_rootfs() -> None:
    """Link what belongs into the root into a tree of its own, and pack that."""
    TREE.mkdir()
    for entry in sorted(Path("/").iterdir()):
        if entry.name not in MOUNT_POINTS and entry.name != "boot":
            subprocess.run(["cp", "-al", str(entry), str(TREE)], check=True)
    for path in UNWANTED:
        subprocess.run(["rm", "-rf", str(TREE / path)], check=True)
    for name in MOUNT_POINTS:
        (TREE / name).mkdir()
    subprocess.run(
        ["mkfs.erofs", "--quiet", "-T0", "--all-root", "-U", "clear", str(OUT / "rootfs.erofs"), str(TREE)],
        check=True,
    )  # fmt: skip


def main() -> None:
    OUT.mkdir()
    (image,) = (KERNEL / "boot").glob("vmlinuz-*")
    (OUT / "vmlinux").write_bytes(extract_vmlinux(image.read_bytes()))
    make_initramfs(install_modules(wanted_modules()))
    make_rootfs()
    shutil.copy(RECIPE / "packages.installed", OUT / "packages.txt")


main()
