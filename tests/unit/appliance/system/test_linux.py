"""Whole systems in a folder of the host, compared with what their own tools say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.agent.system import bsd, linux, unknown
from appliance.agent.system.rpm_ndb import parse_header
from appliance.system import Interface, Service, System
from tests.builders import systems
from tests.builders.systems import Tree
from tests.unit.appliance.system.candidates import HOME, candidate, messages


def read(folder: Path) -> tuple[System | None, list[str]]:
    with candidate(folder) as (here, told):
        return linux.recognise(here), messages(told)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "root")


def test_debian(tree: Tree) -> None:
    systems.debian(tree)
    system, told = read(tree.folder)
    assert system
    assert told == []
    assert (system.root, system.root_path, system.name, system.distro) == (
        HOME,
        "/",
        "linux",
        "debian",
    )
    assert system.product_name == "Debian GNU/Linux 12 (bookworm)"
    assert (system.version, system.major_version, system.minor_version) == ("12.5", 12, 5)
    assert (system.arch, system.hostname, system.domain) == ("x86_64", "office", "example.org")
    assert system.machine_id == "0123456789abcdef0123456789abcdef"
    assert system.timezone == "Europe/Berlin"
    assert system.kernels == ["6.1.0-17-amd64", "6.1.0-18-amd64"]
    assert system.last_boot == systems.BOOT_TIME
    assert system.last_shutdown == systems.SHUTDOWN_TIME
    users = {user.name: user for user in system.users}
    assert users["anna"].last_login == systems.LOGIN_TIME
    assert users["root"].last_login == systems.LOGIN_TIME - 100
    assert users["daemon"].last_login is None
    assert {name: user.locked for name, user in users.items()} == {
        "root": False,
        "daemon": True,
        "anna": True,
    }
    assert (users["anna"].full_name, users["anna"].shell) == ("Anna Müller", "/bin/zsh")
    assert system.services == [
        Service("legacy", "runlevels 2 5", "/etc/init.d/legacy"),
        Service("ssh.service", "multi-user.target", "/usr/sbin/sshd -D $OPTS"),
    ]
    assert system.interfaces[1] == Interface(
        "eth0",
        "static",
        ["192.0.2.10/24"],
        ["192.0.2.1"],
        ["192.0.2.53", "192.0.2.54"],
        configured_in="/etc/network/interfaces.d/lan",
    )
    assert systems.HASH not in repr(system)


def version_of(package: object) -> str:
    epoch, release = getattr(package, "epoch"), getattr(package, "release")  # noqa: B009
    version = getattr(package, "version")  # noqa: B009
    return (f"{epoch}:" if epoch else "") + version + (f"-{release}" if release else "")


def test_packages_are_those_of_dpkg(tree: Tree) -> None:
    systems.debian(tree)
    system, _told = read(tree.folder)
    assert system
    found = {(each.name, version_of(each), each.arch) for each in system.applications}
    assert found == systems.dpkg_says(tree.folder)
    assert len(found) > 30


def test_status_d_of_images_without_dpkg(tree: Tree) -> None:
    systems.debian(tree)
    status = tree.folder / "var/lib/dpkg/status"
    for index, paragraph in enumerate(status.read_text().split("\n\n")[:3]):
        lines = [line for line in paragraph.split("\n") if not line.startswith("Status:")]
        tree.write(f"var/lib/dpkg/status.d/{index}", "\n".join(lines))
    tree.write("var/lib/dpkg/status.d/0.md5sums", "Package: no\nVersion: 1\n")
    status.unlink()
    system, _told = read(tree.folder)
    assert system
    assert len(system.applications) == 3


def test_rpm_headers_and_ndb(tree: Tree) -> None:
    """Headers as rpm wrote them, in a container of ours; rpm itself says what is in them."""
    database = tree.folder / "usr/lib/sysimage/rpm"
    database.parent.mkdir(parents=True)
    systems.make_rpm_database(database)
    expected = systems.rpm_says(database)
    blobs = systems.header_blobs(database)
    tree.base("ID=opensuse-leap\nVERSION_ID=15.6\n")
    for path in database.glob("rpmdb*"):
        path.unlink()
    tree.write("usr/lib/sysimage/rpm/Packages.db", systems.ndb(blobs))
    system, told = read(tree.folder)
    assert system
    assert told == []
    found = {f"{each.name}-{version_of(each)}.{each.arch}" for each in system.applications}
    assert found == expected
    assert len(found) == 3
    assert all(parse_header(blob).install_date for blob in blobs)
    damaged = bytearray(systems.ndb(blobs))
    damaged[4096 + len(blobs[0]) + 64 :] = b""
    tree.write("usr/lib/sysimage/rpm/Packages.db", bytes(damaged))
    system, told = read(tree.folder)
    assert system
    assert len(system.applications) == 1
    assert "packages may be missing" in told[0]


def test_alpine_arch_and_netplan(tmp_path: Path) -> None:
    found: dict[str, System] = {}
    for make in (systems.alpine, systems.arch, systems.ubuntu):
        tree = Tree(tmp_path / make.__name__)
        make(tree)
        system, _told = read(tree.folder)
        assert system
        found[make.__name__] = system
        assert systems.SECRET not in repr(system)
    assert [version_of(each) for each in found["alpine"].applications] == [
        "1.2.4_git20230717-r4",
        "1.36.1-r15",
    ]
    assert [(each.name, each.start) for each in found["alpine"].services] == [
        ("networking", "boot"),
        ("sshd", "default"),
    ]
    assert [version_of(each) for each in found["arch"].applications] == [
        "6.7.4.arch1-1",
        "1:9.1.0000-2",
    ]
    assert found["arch"].kernels == ["6.7.4-arch1-1"]
    assert found["arch"].interfaces[0].dns == ["1.1.1.1", "9.9.9.9"]
    network = {each.name: each for each in found["ubuntu"].interfaces}
    assert network["ens3"].addresses == ["192.0.2.20/24", "2001:db8::20/64"]
    assert network["ens3"].gateways == ["192.0.2.1"]
    assert network["wl0"].method == "dhcp"


def test_what_is_missing_of_a_system_is_told(tree: Tree) -> None:
    systems.ubuntu(tree)
    with candidate(tree.folder) as (here, told):
        linux.recognise(here)
    lost = [each for each in messages(told) if "what it holds is not shown" in each]
    assert [each.split()[0] for each in lost] == ["/boot", "/var"]


def test_hostile(tree: Tree) -> None:
    systems.hostile(tree)
    os.mkfifo(tree.folder / "etc/os-release")
    for path in ("usr/lib/os-release", "var/log/wtmp", "var/log/lastlog"):
        tree.write(path)
        os.truncate(tree.folder / path, 1 << 30)
    system, told = read(tree.folder)
    assert system
    assert len(system.users) == 4096
    assert not any(user.locked for user in system.users)
    assert system.machine_id is None
    assert system.dns == []
    text = "\n".join(told)
    for words in (
        "etc/os-release: it is a FIFO",
        "etc/shadow: its symbolic links lead in a circle",
        "more than 4096 users",
        "usr/lib/os-release: it has 1073741824 bytes",
        "etc/netplan/x.yaml: it is not understood",
    ):
        assert words in text


def test_a_system_of_the_bsds(tree: Tree) -> None:
    tree.write("bin/freebsd-version", '#!/bin/sh\nUSERLAND_VERSION="14.0-RELEASE-p5"\n')
    tree.write("bin/sh", Path("/bin/true").read_bytes())
    tree.write(
        "etc/master.passwd", "root:$6$hash:0:0::0:0:C &:/root:/bin/sh\ntoor:*:0:0::0:0::/:\n"
    )
    tree.write("etc/passwd", "root:*:0:0:Charlie &:/root:/bin/sh\ntoor:*:0:0:Bourne:/root:\n")
    tree.write("etc/rc.conf", 'hostname="beastie"\n'
               'ifconfig_em0="inet 192.0.2.9 netmask 255.255.255.0"\n'
               'sshd_enable="YES"\nsendmail_enable="NO"\ndefaultrouter="192.0.2.1"\n')  # fmt: skip
    tree.write("etc/fstab", "/dev/ada0p1 / ufs rw 1 1\n")
    with candidate(tree.folder) as (here, _told):
        assert linux.recognise(here) is None
        system = bsd.recognise(here)
    assert system
    assert (system.name, system.version, system.major_version) == ("freebsd", "14.0-RELEASE-p5", 14)
    assert (system.hostname, [each.locked for each in system.users]) == ("beastie", [False, True])
    assert [each.name for each in system.services] == ["sshd"]
    assert system.interfaces[0].addresses == ["192.0.2.9/24"]
    assert system.mountpoints[0].layer == HOME
    assert "$6$hash" not in repr(system)


def test_unknown_is_not_dropped(tree: Tree) -> None:
    tree.write("etc/passwd", "x")
    with candidate(tree.folder) as (here, _told):
        assert linux.recognise(here) is None
        assert bsd.recognise(here) is None
        assert unknown.recognise(here) == System(HOME, "/", "unknown")
