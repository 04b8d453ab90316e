"""Root folders of small systems, in the shape of real ones, and a disk with all of them.

What parsers have to read is written by the systems' own tools where the host has them: dpkg's
status is the host's, rpm writes its databases, utmpdump the wtmp. The rest is written by hand after
the formats' documentation.
"""

from __future__ import annotations

import io
import shutil
import sqlite3
import struct
import tarfile
import zlib
from contextlib import closing
from pathlib import Path

from tests.builders.command import run
from tests.builders.in_guest import LVM_CONFIGURATION

MIB = 1 << 20
SECRET = "correct horse battery staple"
HASH = "$y$j9T$secrethash"
UUIDS = {
    "debian": "11111111-0000-4000-8000-000000000001",
    "fedora": "22222222-0000-4000-8000-000000000002",
    "alpine": "33333333-0000-4000-8000-000000000003",
    "arch": "44444444-0000-4000-8000-000000000004",
    "ubuntu": "55555555-0000-4000-8000-000000000005",
    "var": "66666666-0000-4000-8000-000000000006",
    "boot": "77777777-0000-4000-8000-000000000007",
    "hostile": "88888888-0000-4000-8000-000000000008",
    "suse": "99999999-0000-4000-8000-000000000009",
    "swap": "aaaaaaaa-0000-4000-8000-00000000000a",
}
BOOT, LOGIN, SHUTDOWN = "2024-03-01T08:00:00", "2024-03-01T08:05:10", "2024-02-29T18:00:00"
BOOT_TIME, LOGIN_TIME, SHUTDOWN_TIME = 1709280000, 1709280310, 1709229600
INSTALLED = 1705312800
"""2024-01-15T10:00:00 UTC: the mtime of everything."""

SIZES = {
    "debian": 64,
    "fedora": 128,
    "alpine": 320,
    "arch": 64,
    "lvm": 200,
    "boot": 32,
    "hostile": 64,
    "suse": 128,
}
"""Partitions in MiB, in their order on the disk."""


class Tree:
    """A root folder that is filled and then packed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def write(self, path: str, content: str | bytes = "") -> Path:
        """Write a file; folders above it are made."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return target

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link."""
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def base(self, os_release: str) -> None:
        """What every Linux of today has: /usr merged, os-release, a program."""
        self.write("usr/lib/os-release", os_release)
        self.link("etc/os-release", "../usr/lib/os-release")
        (self.folder / "usr/bin").mkdir(parents=True)
        for name in ("bin", "sbin"):
            self.link(name, "usr/bin")
        shutil.copy("/bin/true", self.folder / "usr/bin/ls")


def make_trees(folder: Path) -> None:
    """All the systems, each in a folder below this one."""
    for name, make in {
        "debian": debian,
        "fedora": fedora,
        "alpine": alpine,
        "arch": arch,
        "ubuntu": ubuntu,
        "hostile": hostile,
        "suse": suse,
    }.items():
        make(Tree(folder / name))


PASSWD = """root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
anna:x:1000:1000:Anna Müller,Room 3,,:/home/anna:/bin/zsh
"""


def debian(tree: Tree) -> None:
    """Debian 12 on ext4, with interfaces(5) and a wtmp."""
    tree.base(
        'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian"\nVERSION_ID="12"\nID=debian\n'
    )
    tree.write("etc/debian_version", "12.5\n")
    tree.write("etc/hostname", "office\n")
    tree.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    tree.write("etc/timezone", "Europe/Berlin\n")
    tree.write("etc/passwd", PASSWD)
    tree.write(
        "etc/shadow", f"root:{HASH}:19700::::::\ndaemon:*:19700::::::\nanna:!{HASH}:19700::::::\n"
    )
    tree.write("etc/resolv.conf", "search example.org\nnameserver 192.0.2.53\n")
    tree.write(
        "etc/fstab",
        f"# comment\nUUID={UUIDS['debian'].upper()} / ext4 errors=remount-ro 0 1\n"
        "/dev/sda6 /backup\\040disk ext4 noauto 0 0\nnas:/export /nas nfs ro 0 0\n"
        "UUID=deadbeef-0000-4000-8000-00000000dead /srv ext4 defaults 0 0\n",
    )
    tree.write(
        "etc/network/interfaces",
        "auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n",
    )
    tree.write(
        "etc/network/interfaces.d/lan",
        "auto eth0\niface eth0 inet static\n  address 192.0.2.10\n  netmask 255.255.255.0\n"
        "  gateway 192.0.2.1\n  dns-nameservers 192.0.2.53 192.0.2.54\n",
    )
    tree.write(
        "usr/lib/systemd/system/ssh.service", "[Service]\nExecStart=-/usr/sbin/sshd -D $OPTS\n"
    )
    tree.link(
        "etc/systemd/system/multi-user.target.wants/ssh.service", "/lib/systemd/system/ssh.service"
    )
    tree.link("lib", "usr/lib")
    tree.link("etc/rc2.d/S01ssh", "../init.d/ssh")
    tree.link("etc/rc2.d/S02legacy", "../init.d/legacy")
    tree.link("etc/rc5.d/S02legacy", "../init.d/legacy")
    tree.write("boot/vmlinuz-6.1.0-18-amd64", b"not really")
    tree.write("usr/lib/modules/6.1.0-18-amd64/modules.dep")
    tree.write("usr/lib/modules/6.1.0-17-amd64/modules.dep")
    tree.write("var/lib/dpkg/status", trimmed_status())
    tree.write("var/log/installer/status", "")
    tree.write("var/log/wtmp", wtmp())
    tree.write("var/log/lastlog", struct.pack("<i288x", LOGIN_TIME - 100))


def trimmed_status() -> bytes:
    """The first paragraphs of the host's own, one of them only configured."""
    paragraphs = Path("/var/lib/dpkg/status").read_bytes().split(b"\n\n")[:40]
    paragraphs[3] = paragraphs[3].replace(b"install ok installed", b"deinstall ok config-files")
    return b"\n\n".join(paragraphs) + b"\n\n"


def dpkg_says(tree: Path) -> set[tuple[str, str, str]]:
    """Name, version and architecture of what dpkg itself calls installed."""
    form = "${Package}\\t${Version}\\t${Architecture}\\t${db:Status-Status}\\n"
    text = run("dpkg-query", f"--admindir={tree}/var/lib/dpkg", "-W", "-f", form).decode()
    rows = [line.split("\t") for line in text.splitlines()]
    return {(name, version, arch) for name, version, arch, state in rows if state == "installed"}


def wtmp() -> bytes:
    """Three records, made by utmpdump from text as it prints them."""
    rows = [
        ("1", "00000", "~~  ", "shutdown", "~", SHUTDOWN),
        ("2", "00000", "~~  ", "reboot", "~", BOOT),
        ("7", "01234", "ts/0", "anna", "pts/0", LOGIN),
    ]
    text = "".join(
        f"[{kind}] [{pid}] [{ident}] [{user:<8}] [{line:<12}] [{'host':<20}] "
        f"[{'0.0.0.0':<15}] [{time},000000+00:00]\n"
        for kind, pid, ident, user, line, time in rows
    )
    return run("utmpdump", "-r", stdin=text.encode())


def fedora(tree: Tree) -> None:
    """Fedora on btrfs, with rpm's SQLite database and NetworkManager."""
    tree.base('NAME="Fedora Linux"\nPRETTY_NAME="Fedora Linux 40 (Server Edition)"\nID=fedora\n'
              "VERSION_ID=40\nVARIANT_ID=server\n")  # fmt: skip
    tree.write("etc/hostname", "fedora.example.org\n")
    tree.write("etc/passwd", PASSWD)
    tree.link("etc/localtime", "../usr/share/zoneinfo/America/New_York")
    tree.write(
        "etc/fstab",
        f"UUID={UUIDS['fedora']} / btrfs subvol=root,compress=zstd:1 0 0\n"
        f"UUID={UUIDS['fedora']} /home btrfs subvol=home 0 0\n",
    )
    tree.write(
        "etc/NetworkManager/system-connections/wifi.nmconnection",
        "[connection]\nid=Home\ntype=wifi\ninterface-name=wlan0\n[wifi]\nssid=Home\n"
        f"[wifi-security]\nkey-mgmt=wpa-psk\npsk={SECRET}\n"
        "[ipv4]\nmethod=manual\naddress1=198.51.100.7/24,198.51.100.1\ndns=198.51.100.1;\n"
        "[ipv6]\nmethod=auto\n",
    )
    make_rpm_database(tree.folder / "usr/lib/sysimage/rpm")


def suse(tree: Tree) -> None:
    """openSUSE on btrfs in a snapshot that is the default subvolume, with rpm's ndb database."""
    tree.base('NAME="openSUSE Leap"\nPRETTY_NAME="openSUSE Leap 15.6"\nID="opensuse-leap"\n'
              'ID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n')  # fmt: skip
    tree.write("etc/hostname", "gecko\n")
    tree.write("etc/fstab", f"UUID={UUIDS['suse']} / btrfs defaults 0 0\n"
               f"UUID={UUIDS['suse']} /var btrfs subvol=/@/var 0 0\n")  # fmt: skip
    tree.write("etc/sysconfig/network/ifcfg-eth0", "BOOTPROTO='static'\nIPADDR='203.0.113.5/24'\n")
    database = tree.folder / "usr/lib/sysimage/rpm"
    make_rpm_database(database)
    tree.write("usr/lib/sysimage/rpm/Packages.db", ndb(header_blobs(database)))
    for path in database.glob("rpmdb*"):
        path.unlink()


SPEC = """Name: {name}
Version: {version}
Release: 2.test
Epoch: 1
Summary: A package of {name}
License: none
Vendor: Nobody
BuildArch: noarch
%description
Nothing.
%files
"""


def make_rpm_database(folder: Path) -> None:
    """Three packages in a database of rpm's own making."""
    work = folder.parent / "rpmbuild"
    work.mkdir(parents=True)
    folder.mkdir()
    for name, version in (("alpha", "1.0"), ("beta", "2.5~rc1"), ("gamma", "10")):
        spec = work / f"{name}.spec"
        spec.write_text(SPEC.format(name=name, version=version))
        run("rpmbuild", "--quiet", "--define", f"_topdir {work}", "-bb", spec)
    packages = sorted(work.glob("RPMS/noarch/*.rpm"))
    run("rpm", "--dbpath", folder, "--justdb", "--nodeps", "-i", *packages)
    shutil.rmtree(work)
    (folder / ".rpm.lock").unlink(missing_ok=True)


def rpm_says(folder: Path) -> set[str]:
    """Name-epoch:version-release.arch of what rpm itself finds."""
    form = "%{NAME}-%{EPOCH}:%{VERSION}-%{RELEASE}.%{ARCH}\\n"
    return set(run("rpm", "--dbpath", folder, "-qa", "--queryformat", form).decode().split())


def header_blobs(folder: Path) -> list[bytes]:
    """The packages' headers as rpm has written them into its SQLite database."""
    with closing(sqlite3.connect(folder / "rpmdb.sqlite")) as database:
        return [row[0] for row in database.execute("SELECT blob FROM Packages ORDER BY hnum")]


def ndb(blobs: list[bytes]) -> bytes:
    """An ndb database of them, by hand after rpm's lib/backend/ndb/rpmpkg.c: no rpm of Debian
    writes one."""
    slots, data = b"", b""
    for number, blob in enumerate(blobs, start=1):
        blocks = -(-(16 + len(blob) + 12) // 16)
        slots += struct.pack("<4s3I", b"Slot", number, 256 + len(data) // 16, blocks)
        head = struct.pack("<4s3I", b"BlbS", number, 0, len(blob))
        padded = (head + blob).ljust(blocks * 16 - 12, b"\0")
        data += padded + struct.pack("<2I4s", zlib.adler32(padded), len(blob), b"BlbE")
    header = struct.pack("<4s4I", b"RpmP", 0, 1, 1, len(blobs) + 1).ljust(32, b"\0")
    return (header + slots + b"Slot".ljust(16, b"\0") * 300)[:4096] + data


def alpine(tree: Tree) -> None:
    """Alpine on xfs, with OpenRC."""
    tree.write("etc/alpine-release", "3.19.1\n")
    tree.write(
        "etc/os-release",
        'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.19.1\nPRETTY_NAME="Alpine Linux v3.19"\n',
    )
    tree.write("bin/busybox", Path("/bin/true").read_bytes())
    tree.link("bin/sh", "/bin/busybox")
    tree.write("etc/passwd", PASSWD)
    tree.write("etc/hostname", "alp\n")
    tree.write("etc/fstab", f"UUID={UUIDS['alpine']} / xfs rw 0 1\n")
    tree.write("etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n")
    tree.link("etc/runlevels/default/sshd", "/etc/init.d/sshd")
    tree.link("etc/runlevels/boot/networking", "/etc/init.d/networking")
    tree.write(
        "lib/apk/db/installed",
        "C:Q1abc=\nP:musl\nV:1.2.4_git20230717-r4\nA:x86_64\nT:the musl c library\nm:Timo\n\n"
        "P:busybox\nV:1.36.1-r15\nA:x86_64\nF:bin\nR:busybox\n\n",
    )


def arch(tree: Tree) -> None:
    """Arch on ext4, with pacman and networkd."""
    tree.base('NAME="Arch Linux"\nPRETTY_NAME="Arch Linux"\nID=arch\nBUILD_ID=rolling\n')
    tree.write("etc/hostname", "archie\n")
    tree.write("etc/fstab", "PARTLABEL=arch / ext4 rw 0 1\n/swapfile none swap defaults 0 0\n")
    tree.write("boot/vmlinuz-linux", kernel_image("6.7.4-arch1-1"))
    tree.write(
        "etc/systemd/network/20-wired.network",
        "[Match]\nName=enp1s0\n[Network]\nDHCP=yes\nDNS=1.1.1.1 9.9.9.9\n",
    )
    for name, version in (("linux", "6.7.4.arch1-1"), ("vim", "1:9.1.0000-2")):
        tree.write(
            f"var/lib/pacman/local/{name}-{version}/desc",
            f"%NAME%\n{name}\n\n%VERSION%\n{version}\n\n%DESC%\nThe {name}\n\n%ARCH%\nx86_64\n\n"
            "%INSTALLDATE%\n1705312801\n\n%PACKAGER%\nSomeone <x@example.org>\n\n",
        )
    tree.write("var/lib/pacman/local/ALPM_DB_VERSION", "9\n")


def kernel_image(version: str) -> bytes:
    """The head of a bzImage with its version string."""
    head = bytearray(4096)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x600).to_bytes(2, "little")
    text = f"{version} (builder@host) #1 SMP".encode()
    head[0x800 : 0x800 + len(text)] = text
    return bytes(head)


def ubuntu(tree: Tree) -> None:
    """Ubuntu on LVM with a separate /var and /boot, and netplan. Its packages are on /var."""
    tree.base(
        'PRETTY_NAME="Ubuntu 22.04.4 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\n'
        "ID_LIKE=debian\n"
    )
    tree.write("etc/hostname", "jammy\n")
    tree.write(
        "etc/fstab",
        "/dev/mapper/srv--vg-root / ext4 defaults 0 1\n"
        f"/dev/disk/by-uuid/{UUIDS['boot']} /boot ext4 defaults 0 1\n"
        "/dev/srv-vg/var /var ext4 defaults 0 1\n"
        f"UUID={UUIDS['swap']} none swap sw 0 0\ntmpfs /tmp tmpfs defaults 0 0\n",
    )
    tree.write(
        "etc/netplan/01-net.yaml",
        "network:\n  version: 2\n  ethernets:\n    ens3:\n      dhcp4: no\n"
        '      addresses: [ "192.0.2.20/24", "2001:db8::20/64" ]\n'
        "      routes:\n      - to: default\n        via: 192.0.2.1\n"
        "      nameservers:\n        addresses:\n        - 192.0.2.53\n"
        "  wifis:\n    wl0:\n      dhcp4: true\n      access-points:\n        Home:\n"
        f"          password: '{SECRET}'\n",
    )
    for name in ("boot", "var", "lib/modules"):
        (tree.folder / name).mkdir(parents=True)


def hostile(tree: Tree) -> None:
    """Files that are no files, too large, endless, or full of nonsense; the guest adds the rest."""
    tree.write("etc/debian_version", b"\xff\xfe\x00\x1b[2J12\n")
    tree.write("etc/passwd", "u:x:1:1::/:/bin/sh\n" * 300_000)
    tree.write("etc/fstab", "\0 \x1b[31m\n" + "x " * 100_000 + "\n" + "/dev/sda1 / ext4\n" * 5000)
    tree.write("etc/hostname", "\x1b]0;owned\x07\u202e\n")
    tree.link("etc/shadow", "/etc/loop1")
    tree.link("etc/loop1", "loop2")
    tree.link("etc/loop2", "/etc/loop1")
    tree.link("etc/machine-id", "../../../../../../etc/hostname")
    tree.link("etc/resolv.conf", "/proc/self/environ")
    tree.write("etc/netplan/x.yaml", "network: {a: [b\n" * 100)
    tree.write(
        "etc/network/interfaces", "source /etc/network/interfaces\niface " + "e" * 5000 + "\n"
    )
    tree.write("var/lib/dpkg/status", "Package: " + "p" * 10_000 + "\nVersion: \x00\n\nPackage\n\n")
    (tree.folder / "bin").mkdir()


def make_systems_disk(folder: Path) -> tuple[Path, Path, str]:
    """The empty partitioned disk, the archive of all trees, and the script for the guest that
    fills one from the other (tests/builders/in_guest.py)."""
    trees = folder / "trees"
    make_trees(trees)
    archive = folder / "trees.tar"
    pack_trees(trees, archive)
    disk = folder / "systems.raw"
    with disk.open("wb") as file:
        file.truncate((sum(SIZES.values()) + 4) * MIB)
    rows = [f'size={size}MiB, name="{name}"' for name, size in SIZES.items()]
    script = "\n".join(["label: gpt", *rows, ""]).encode()
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk, stdin=script)
    return disk, archive, fill_script()


def pack_trees(trees: Path, archive: Path) -> None:
    """A tar file with fixed owners and times, padded as a disk has to be."""
    with archive.open("wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for path in sorted(trees.rglob("*")):
            info = tar.gettarinfo(str(path), str(path.relative_to(trees)))
            info.mtime, info.uid, info.gid, info.uname, info.gname = INSTALLED, 0, 0, "", ""
            data = io.BytesIO(path.read_bytes()) if info.isreg() else None
            tar.addfile(info, data)
    size = archive.stat().st_size
    with archive.open("ab") as file:
        file.truncate(-(-size // MIB) * MIB)


def fill_script() -> str:
    """Makes the file systems and unpacks the trees into them."""
    number = {name: index for index, name in enumerate(SIZES, start=1)}
    ext4 = "\n".join(
        f"ext4 {UUIDS[name]} ${{d}}{number[name]}\nunpack {name} $m\numount $m"
        for name in ("debian", "arch")
    )
    return f"""
cat > /etc/lvm/lvm.conf <<'E'
{LVM_CONFIGURATION}
E
m=/run/m; mkdir $m
# Disks appear in any order, and their partitions a little later.
until [ -b /dev/sda1 ] || [ -b /dev/sdb1 ]; do sleep 0.1; done
if [ -b /dev/sda1 ]; then d=/dev/sda; t=/dev/sdb; else d=/dev/sdb; t=/dev/sda; fi
until [ -b "${{d}}{len(SIZES)}" ]; do sleep 0.1; done
unpack() {{ mkdir -p "$2"; tar -C "$2" -xf $t --strip-components=1 "$1"; }}
ext4() {{ /usr/sbin/mke2fs -q -F -t ext4 -U "$1" "$2"; mount "$2" $m; }}
{ext4}
ext4 {UUIDS["hostile"]} ${{d}}{number["hostile"]}
unpack hostile $m
mkfifo $m/etc/os-release $m/etc/timezone
mkdir -p $m/usr/lib $m/var/log $m/var/lib/rpm
truncate -s 1G $m/usr/lib/os-release $m/var/log/wtmp $m/var/log/lastlog
mknod $m/etc/localtime b 8 0
umount $m
mkfs.btrfs -q -U {UUIDS["fedora"]} ${{d}}{number["fedora"]}
mount ${{d}}{number["fedora"]} $m
btrfs subvolume create $m/root
btrfs subvolume create $m/home
unpack fedora $m/root
umount $m
mkfs.btrfs -q -U {UUIDS["suse"]} ${{d}}{number["suse"]}
mount ${{d}}{number["suse"]} $m
btrfs subvolume create $m/@
btrfs subvolume create $m/@/var
mkdir -p $m/@/.snapshots/1
btrfs subvolume create $m/@/.snapshots/1/snapshot
unpack suse $m/@/.snapshots/1/snapshot
btrfs subvolume set-default $m/@/.snapshots/1/snapshot
umount $m
mkfs.xfs -q -m uuid={UUIDS["alpine"]} ${{d}}{number["alpine"]}
mount ${{d}}{number["alpine"]} $m
unpack alpine $m
umount $m
pvcreate -q -y ${{d}}{number["lvm"]}
vgcreate -q srv-vg ${{d}}{number["lvm"]}
for each in root:64 var:64 swap:16; do
    lvcreate -q -y -Wn -Zn -L "${{each#*:}}M" -n "${{each%:*}}" srv-vg
done
/usr/sbin/mkswap -q -U {UUIDS["swap"]} /dev/srv-vg/swap
ext4 {UUIDS["ubuntu"]} /dev/srv-vg/root
unpack ubuntu $m
umount $m
ext4 {UUIDS["var"]} /dev/srv-vg/var
tar -C $m -xf $t --strip-components=2 debian/var
umount $m
ext4 {UUIDS["boot"]} ${{d}}{number["boot"]}
: > $m/vmlinuz-5.15.0-94-generic
umount $m
sync
vgchange -q -an srv-vg
"""
