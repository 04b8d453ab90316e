"""Which running virtual machines of this host's libvirt write to the evidence.

A daemon that runs is asked, read-only; none is ever started, not even by connecting to a socket
that systemd listens on for one. The question is put by a process of its own, so that it has an end
whatever the daemon does: this module, run as a program.
"""

from __future__ import annotations

import itertools
import os
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from images.evidence import EvidenceFile
from images.process import ProcessError, run
from images.quoting import shown
from images.writer import Target, Writer

LIMIT = 1.0
"""Seconds for a daemon; all are asked at the same time."""
_SYSTEM = Path("/run")
_DAEMONS = {"virtqemud": "virtqemud-sock", "libvirtd": "libvirt-sock"}
"""Sockets by the daemons that have QEMU's domains: the modular one and the one for everything."""
_MAX_ANSWER = 4 << 20
_MAX_DOMAINS = 4096
_MAX_NAME = 200


class Disk(msgspec.Struct, frozen=True):
    """What a running domain writes to: its name and id, and the file or device."""

    domain: str
    id: int
    source: str


def domain_writers(
    files: Sequence[EvidenceFile], uris: Sequence[str] | None = None
) -> list[Writer]:
    """The running domains that have one of the files as a writable disk.

    `uris` are the connections of the daemons that run here, unless a test gives others. A daemon
    that refuses, or does not answer within LIMIT seconds, knows of nothing.
    """
    uris = running_daemons() if uris is None else uris
    if not uris or not files:
        return []
    targets = [Target.of(file) for file in files]
    # One process for each, so that a daemon that hangs does not silence another.
    with ThreadPoolExecutor(len(uris)) as pool:
        answers = list(pool.map(_ask, uris))
    return [
        Writer(target.file.path, "domain", None, None, f"{shown(disk.domain)}, id {disk.id}")
        for disk in itertools.chain.from_iterable(answers)
        for target in targets
        if target.is_at(disk.source)
    ]


def running_daemons() -> list[str]:
    """The URIs of libvirt's daemons that run now, for the system and for this account."""
    found = list(_uris("system", _SYSTEM, _SYSTEM / "libvirt", "-ro"))
    for folder in _session_folders():
        found += _uris("session", folder, folder, "")
    return found


def _session_folders() -> list[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return list(dict.fromkeys([Path(runtime) / "libvirt", Path(home) / "libvirt"]))


def _uris(kind: str, pids: Path, sockets: Path, suffix: str) -> Iterator[str]:
    for daemon, name in _DAEMONS.items():
        socket = sockets / f"{name}{suffix}"
        if _is_running(pids / f"{daemon}.pid", daemon) and socket.is_socket():
            yield f"qemu+unix:///{kind}?socket={socket}"


def _is_running(pid_file: Path, daemon: str) -> bool:
    """A daemon ends with idle domains only: one that does not run has none that run."""
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == daemon
    except (OSError, ValueError):
        return False


def _ask(uri: str) -> list[Disk]:
    # -I: neither the caller's environment nor the current folder decides what is imported.
    argv = [sys.executable, "-I", "-m", "controller.live_domains", uri]
    try:
        done = run(argv, timeout=LIMIT, output_limit=_MAX_ANSWER, env={"LIBVIRT_AUTOSTART": "0"})
        return msgspec.json.decode(done.stdout, type=list[Disk])
    except (ProcessError, msgspec.DecodeError):
        return []


def written_by(domain_xml: str) -> list[str]:
    """The files and devices that a domain may write to, by its live XML.

    libvirt makes this XML itself, from what the owner of the domain gave it. Without what only
    lies below (backing files) and disks that are read-only; with the target of a running copy.
    """
    root = ET.fromstring(domain_xml)  # noqa: S314 -- libvirt's own words
    found = []
    for disk in root.iterfind("./devices/disk"):
        sources = disk.findall("./mirror/source")
        if disk.find("readonly") is None:
            sources += disk.findall("./source")
        for source in sources:
            found += [source.get("file"), source.get("dev")]
    return [name for name in found if name]


def disks(uri: str) -> Iterator[Disk]:
    """The writable disks of all running domains that this connection knows.

    Nothing where it cannot be opened. A domain that ends meanwhile is left out.
    """
    import libvirt  # noqa: PLC0415 -- only the process that asks needs it

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = libvirt.openReadOnly(uri)
        domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    except libvirt.libvirtError:
        return
    for domain in domains[:_MAX_DOMAINS]:
        try:
            for source in written_by(domain.XMLDesc()):
                yield Disk(domain.name()[:_MAX_NAME], domain.ID(), source)
        except (libvirt.libvirtError, ET.ParseError, ValueError):  # or a name that is no UTF-8
            continue


def main() -> None:
    """Print the disks of the connection that is named as the argument, as JSON."""
    sys.stdout.buffer.write(msgspec.json.encode(list(disks(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)  # closing a connection would wait for its daemon


if __name__ == "__main__":
    main()
