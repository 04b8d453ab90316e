"""Which virtual machines use the evidence: libvirt's own driver, and daemons that do not behave.

libvirt's test driver (test:///, in the client's own library) lists domains as any other does.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller import live_domains
from controller.live_domains import Disk, disks, domain_writers, running_daemons, written_by
from images.evidence import opened

DISK = (
    '<disk type="{kind}" device="disk"><source {kind}="{path}"/><target dev="{to}"/>{more}</disk>'
)
DOMAIN = '<domain type="test"><name>{name}</name><devices>{disks}</devices></domain>'
NODE = """<node><domain type="test">
<name>{name}</name><memory>8192</memory><os><type>hvm</type></os>
<devices>{disks}</devices></domain></node>"""


def disk(path: object, to: str = "vda", kind: str = "file", more: str = "") -> str:
    return DISK.format(path=path, to=to, kind=kind, more=more)


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"evidence")
    return path


def node(folder: Path, name: str, *disks: str) -> str:
    """The URI of a test driver that runs one domain with these disks."""
    path = folder / f"node{len(list(folder.iterdir()))}.xml"
    path.write_text(NODE.format(name=name, disks="".join(disks)))
    return f"test://{path}"


def found(path: Path, *uris: str) -> list[str]:
    with opened(path) as file:
        return [str(writer) for writer in domain_writers([file], uris)]


# --- the XML ------------------------------------------------------------------------------------


def test_what_a_domain_writes_to():
    below = '<backingStore type="file"><source file="/below"/></backingStore>'
    copy = '<mirror type="file" job="copy"><source file="/copy"/></mirror>'
    network = '<disk type="network"><source protocol="nbd" name="x"/><target dev="vdf"/></disk>'
    empty = '<disk type="file" device="cdrom"><target dev="sda"/><readonly/></disk>'
    xml = DOMAIN.format(
        name="x",
        disks=disk("/a", more=below)
        + disk("/dev/sdz", "vdb", "dev")
        + disk("/iso", "vdc", more="<readonly/>")
        + disk("/d", "vdd", more=copy)
        + disk("/e", "vde", more="<shareable/>")
        + network
        + empty,
    )
    assert sorted(written_by(xml)) == ["/a", "/copy", "/d", "/dev/sdz", "/e"]


def test_domain_without_disks():
    assert written_by(DOMAIN.format(name="x", disks="")) == []


# --- libvirt ------------------------------------------------------------------------------------


def test_domain_that_writes(evidence, tmp_path):
    uri = node(tmp_path, "web", disk("/other"), disk(evidence, "vdb"))
    with opened(evidence) as file:
        (writer,) = domain_writers([file], [uri])
    assert (writer.path, writer.how, writer.pid) == (evidence, "domain", None)
    assert str(writer) == f"{evidence}: a running virtual machine writes to it (web, id 1)"


def test_other_names_of_the_file(evidence, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(evidence)
    hard = tmp_path / "hard"
    os.link(evidence, hard)
    for name in (link, hard):
        assert len(found(evidence, node(tmp_path, "x", disk(name)))) == 1


def test_domain_that_reads_or_uses_other_files(evidence, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"evidence")
    assert found(evidence, node(tmp_path, "a", disk(evidence, more="<readonly/>"))) == []
    assert found(evidence, node(tmp_path, "b", disk(other), disk("/missing", "vdb"))) == []


def test_several_daemons_are_asked(evidence, tmp_path):
    uris = [node(tmp_path, name, disk(evidence)) for name in ("one", "two")]
    told = found(evidence, *uris, "test:///nothing/here", "nonsense:///", "test:///default")
    assert ["one" in each or "two" in each for each in told] == [True, True]


def test_only_what_runs_there_is_told(tmp_path, evidence):
    uri = node(tmp_path, "web", disk(evidence))
    assert [each.source for each in disks(uri)] == [str(evidence)]
    # The driver's own example has a disk in some versions and none in others.
    assert str(evidence) not in [each.source for each in disks("test:///default")]
    assert list(disks("test:///nothing/here")) == []


def test_names_are_escaped(evidence, tmp_path):
    (sentence,) = found(evidence, node(tmp_path, "web\u202e", disk(evidence)))
    assert r"web\u{202e}" in sentence


def test_nothing_is_asked_without_a_daemon_or_a_file(monkeypatch, evidence):
    def run(*_args, **_options):
        raise AssertionError

    monkeypatch.setattr(live_domains, "run", run)
    assert domain_writers([], ["test:///default"]) == []
    with opened(evidence) as file:
        assert domain_writers([file], []) == []


@pytest.mark.parametrize("answer", [b"", b"{", b"[1]", b'[{"domain": "x", "id": "y"}]'])
def test_answer_that_is_none(monkeypatch, evidence, answer):
    class Done:
        stdout = answer

    monkeypatch.setattr(live_domains, "run", lambda *_args, **_options: Done)
    assert found(evidence, "test:///default") == []


# --- daemons that do not answer -----------------------------------------------------------------


@contextmanager
def silent(path: Path) -> Iterator[list[socket.socket]]:
    """A daemon that takes connections and says nothing."""
    taken: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(4)

        def take() -> None:
            try:
                while True:
                    taken.append(listener.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield taken
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in taken:
                connection.close()


def test_daemon_that_hangs_takes_a_second_and_silences_nobody(evidence, tmp_path):
    short = tmp_path / "s"
    with silent(short) as taken:
        begin = time.monotonic()
        told = found(
            evidence,
            f"qemu+unix:///system?socket={short}",
            node(tmp_path, "web", disk(evidence)),
        )
        assert 0.9 < time.monotonic() - begin < 2
        assert len(taken) == 1
    assert len(told) == 1


@pytest.mark.parametrize("kind", ["system", "session"])
def test_no_daemon_is_started(evidence, tmp_path, kind):
    """A socket that nobody listens on is how libvirt finds out that it should start one."""
    before = daemons()
    stale = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    assert found(evidence, f"qemu+unix:///{kind}?socket={stale}") == []
    assert found(evidence, f"qemu+unix:///{kind}?socket={tmp_path / 'missing'}") == []
    assert daemons() == before


def daemons() -> set[str]:
    return {
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and comm(entry) in {"libvirtd", "virtqemud"}
    }


def comm(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""


# --- which daemons run --------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path, monkeypatch) -> Path:
    """Folders of a host without any daemon."""
    folder = tmp_path / "h"
    (folder / "run/libvirt").mkdir(parents=True)
    (folder / "user/libvirt").mkdir(parents=True)
    monkeypatch.setattr(live_domains, "_SYSTEM", folder / "run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "user"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return folder


@contextmanager
def daemon(name: str, pid_file: Path, path: Path, tmp_path: Path) -> Iterator[None]:
    """A process of that name, which says so in its PID file, and a socket."""
    program = tmp_path / name
    shutil.copy("/bin/sleep", program)
    with socket.socket(socket.AF_UNIX) as listener, subprocess.Popen([program, "60"]) as process:
        listener.bind(str(path))
        pid_file.write_text(f"{process.pid}\n")
        try:
            deadline = time.monotonic() + 5
            while comm(Path(f"/proc/{process.pid}")) != name and time.monotonic() < deadline:
                time.sleep(0.01)
            yield
        finally:
            process.kill()


def test_no_daemon_runs(host):
    assert running_daemons() == []


@pytest.mark.parametrize(
    ("name", "socket_name"), [("libvirtd", "libvirt-sock"), ("virtqemud", "virtqemud-sock")]
)
def test_daemon_that_runs(host, tmp_path, name, socket_name):
    system = host / f"run/libvirt/{socket_name}-ro"
    session = host / f"user/libvirt/{socket_name}"
    with daemon(name, host / f"run/{name}.pid", system, tmp_path):
        assert running_daemons() == [f"qemu+unix:///system?socket={system}"]
    # It has ended; its files stay.
    assert system.is_socket()
    assert running_daemons() == []
    with daemon(name, host / f"user/libvirt/{name}.pid", session, tmp_path):
        assert running_daemons() == [f"qemu+unix:///session?socket={session}"]


@pytest.mark.parametrize("content", ["", "nonsense", f"{os.getpid()}", "99999999", "-1"])
def test_socket_of_a_daemon_that_systemd_would_start(host, content):
    """systemd listens on the socket already: to connect would be to start it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host / "run/libvirt/virtqemud-sock-ro"))
        listener.listen(1)
        listener.setblocking(False)
        (host / "run/virtqemud.pid").write_text(content)
        assert running_daemons() == []
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_disk_survives_the_way_between_processes():
    import msgspec  # noqa: PLC0415

    each = Disk("web", 3, "/a\u202e")
    assert msgspec.json.decode(msgspec.json.encode([each]), type=list[Disk]) == [each]
