"""Who writes to the evidence: real processes, locks, mappings and devices."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from images import live, live_devices, live_processes
from images.evidence import opened as opened_file
from images.exporter import exported
from images.live import writers
from images.writer import Target, Writer, command_of

from .conftest import MIB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"evidence" * (MIB // 8))
    return path


def found(path: Path) -> list[Writer]:
    with opened_file(path) as file:
        return writers([file])


def hows(path: Path) -> set[tuple[str, int | None]]:
    return {(writer.how, writer.pid) for writer in found(path)}


@contextmanager
def process(*argv: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has said a line, so that it is where the test wants it."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline()
            yield child
        finally:
            child.kill()


@contextmanager
def python(script: str, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    program = f"import fcntl, mmap, os, sys, time\n{script}\nprint('ready', flush=True)\n"
    with process(sys.executable, "-c", program + "time.sleep(60)", *arguments) as child:
        yield child


@contextmanager
def qemu_io(*options: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        ["qemu-io", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            child.stdin.write(b"length\n")
            child.stdin.flush()
            assert b"MiB" in child.stdout.readline()
            yield child
        finally:
            child.kill()


@contextmanager
def without_lease(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a file of somebody else's, or on a file system that has no leases."""
    with monkeypatch.context() as patch:
        patch.setattr(live, "_can_be_written", lambda _target: "unknown")
        yield


# --- QEMU's locks -------------------------------------------------------------------------------


def test_quiet_file(path):
    assert found(path) == []


def test_qemu_that_writes(path):
    with qemu_io("-f", "raw", path) as child:
        lock, descriptor = found(path)
    assert (lock.how, lock.pid, lock.command) == ("lock", child.pid, "qemu-io")
    assert (descriptor.how, descriptor.pid) == ("descriptor", child.pid)
    assert str(lock) == (
        f"{path}: process {child.pid} (qemu-io) has locked it for writing (QEMU's lock of a writer)"
    )
    assert found(path) == []


def test_qemu_that_reads(path):
    with qemu_io("-r", "-f", "raw", path):
        assert found(path) == []


def test_image_in_use_as_a_backing_file(path, tmp_path):
    """It is read; its overlay is what is written."""
    overlay = tmp_path / "overlay.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", path, overlay]
    subprocess.run(create, check=True)
    with qemu_io("-f", "qcow2", overlay) as child:
        assert found(path) == []
        assert hows(overlay) == {("lock", child.pid), ("descriptor", child.pid)}


def test_machine_with_a_writable_disk(path):
    """QEMU as libvirt starts it: `-blockdev`, and a device that uses it."""
    disk = {"driver": "file", "filename": str(path), "node-name": "disk"}
    argv = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-qmp", "stdio",
            "-blockdev", json.dumps(disk)]  # fmt: skip
    export = {"type": "nbd", "id": "e", "node-name": "disk", "writable": True}
    with process(*argv) as child:
        start = {"addr": {"type": "unix", "data": {"path": str(path.parent / "s")}}}
        for name, arguments in (
            ("qmp_capabilities", {}), ("nbd-server-start", start), ("block-export-add", export),
        ):  # fmt: skip
            request = json.dumps({"execute": name, "arguments": arguments}).encode()
            child.stdin.write(request + b"\n")
            child.stdin.flush()
            assert b'"return"' in child.stdout.readline()
        assert ("lock", child.pid) in hows(path)


def test_storage_daemon_that_writes(path, tmp_path):
    argv = ["qemu-storage-daemon", "--blockdev", f"file,node-name=f,filename={path}",
            "--nbd-server", f"addr.type=unix,addr.path={tmp_path / 's'}",
            "--export", "nbd,id=e,node-name=f,writable=on",
            "--chardev", "stdio,id=m", "--monitor", "chardev=m"]  # fmt: skip
    with process(*argv) as child:
        time.sleep(0.2)
        assert ("lock", child.pid) in hows(path)


def test_own_exporter_is_no_writer(variants, opened, run_folder):
    image = opened(variants["qcow2-v3"])
    with exported(image.plan, run_folder, name="disk0"):
        assert writers(image.files) == []


LOCKED = """
import struct
fd = os.open(sys.argv[1], os.{mode})
fcntl.fcntl(fd, fcntl.{command}, struct.pack("hhqqi4x", fcntl.{kind}, 0, {start}, {length}, 0))
"""


@pytest.mark.parametrize("command", ["F_OFD_SETLK", "F_SETLK"])
@pytest.mark.parametrize(("start", "length"), [(0, 0), (0, 1), (MIB * 4, 1)])
def test_exclusive_lock_of_another_program(path, command, start, length):
    script = LOCKED.format(
        mode="O_RDWR", command=command, kind="F_WRLCK", start=start, length=length
    )
    with python(script, path) as child:
        assert hows(path) == {("lock", child.pid), ("descriptor", child.pid)}


@pytest.mark.parametrize("command", ["F_OFD_SETLK", "F_SETLK"])
@pytest.mark.parametrize(("start", "length"), [(0, 0), (100, 1), (200, 8)])
def test_lock_of_a_reader(path, command, start, length):
    script = LOCKED.format(
        mode="O_RDONLY", command=command, kind="F_RDLCK", start=start, length=length
    )
    with python(script, path):
        assert found(path) == []


@pytest.mark.parametrize(("start", "length"), [(101, 1), (100, 4), (103, 1)])
def test_lock_without_a_writer_that_can_be_seen(path, start, length):
    """As from another host, over a network: nobody here has it open for writing."""
    script = LOCKED.format(
        mode="O_RDONLY", command="F_OFD_SETLK", kind="F_RDLCK", start=start, length=length
    )
    with python(script, path):
        (writer,) = found(path)
    assert (writer.how, writer.pid, writer.command) == ("lock", None, None)
    assert "another program has locked it for writing" in str(writer)


# --- descriptors and mappings -------------------------------------------------------------------


@pytest.mark.parametrize("lease", [True, False])
@pytest.mark.parametrize("mode", ["O_RDWR", "O_WRONLY", "O_WRONLY | os.O_APPEND"])
def test_descriptor_for_writing(path, mode, lease, monkeypatch):
    with (
        contextlib.nullcontext() if lease else without_lease(monkeypatch),
        python(f"fd = os.open(sys.argv[1], os.{mode})", path) as child,
    ):
        (writer,) = found(path)
    assert (writer.path, writer.how, writer.pid) == (path, "descriptor", child.pid)
    assert writer.command == command_of(os.getpid()) or writer.command.startswith("python")
    assert "has it open for writing" in str(writer)


@pytest.mark.parametrize("lease", [True, False])
def test_readers_are_never_named(path, lease, monkeypatch):
    script = """
fd = os.open(sys.argv[1], os.O_RDONLY)
shared = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
private = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
"""
    with (
        contextlib.nullcontext() if lease else without_lease(monkeypatch),
        python(script, path),
    ):
        assert found(path) == []


@pytest.mark.parametrize("lease", [True, False])
def test_mapping_that_outlives_its_descriptor(path, lease, monkeypatch):
    script = """
fd = os.open(sys.argv[1], os.O_RDWR)
data = mmap.mmap(fd, 0)
for number in os.listdir("/proc/self/fd"):
    if int(number) > 2:
        try:
            os.close(int(number))
        except OSError:
            pass
"""
    with (
        contextlib.nullcontext() if lease else without_lease(monkeypatch),
        python(script, path) as child,
    ):
        (writer,) = found(path)
    assert (writer.how, writer.pid) == ("mapping", child.pid)
    assert "mapped into its memory" in str(writer)


def test_other_names_of_the_file(path, tmp_path):
    hard = tmp_path / "hard"
    os.link(path, hard)
    soft = tmp_path / "soft"
    soft.symlink_to(path)
    with python("fd = os.open(sys.argv[1], os.O_RDWR)", hard) as child:
        assert hows(soft) == {("descriptor", child.pid)}


def test_deleted_file(path):
    with (
        opened_file(path) as file,
        python("fd = os.open(sys.argv[1], os.O_RDWR)", path) as child,
    ):
        path.unlink()
        assert [writer.pid for writer in writers([file])] == [child.pid]


def test_several_files_and_processes(path, tmp_path):
    other, quiet = tmp_path / "other", tmp_path / "quiet"
    for each in (other, quiet):
        each.write_bytes(b"x")
    script = "fds = [os.open(name, os.O_RDWR) for name in sys.argv[1:] * 3]"
    with (
        python(script, path, other) as one,
        python(script, path) as two,
        opened_file(path) as first,
        opened_file(other) as second,
        opened_file(quiet) as third,
    ):
        all_ = writers([first, second, third])
    assert {(writer.path, writer.pid) for writer in all_} == {
        (path, one.pid), (path, two.pid), (other, one.pid),
    }  # fmt: skip
    assert len(all_) == 3


def test_this_process_is_not_named(path, monkeypatch):
    with path.open("r+b"):
        assert found(path) == []
        with without_lease(monkeypatch):
            assert found(path) == []


def test_writer_that_cannot_be_seen_is_still_told(path, monkeypatch):
    """As one in another container: the lease shows it, /proc does not."""
    monkeypatch.setattr(live_processes, "_processes", list)
    with python("fd = os.open(sys.argv[1], os.O_RDWR)", path):
        (writer,) = found(path)
    assert (writer.how, writer.pid) == ("descriptor", None)
    assert "cannot be seen" in str(writer)


def test_refused_lease_proves_nothing_on_a_network_file_system(path, monkeypatch):
    monkeypatch.setattr(live_processes, "_processes", list)
    monkeypatch.setattr(live, "_file_system", lambda _device: "nfs4")
    with python("fd = os.open(sys.argv[1], os.O_RDWR)", path):
        assert found(path) == []


def test_names_are_escaped_and_bounded(path):
    script = "open('/proc/self/comm', 'wb').write(b'\\x1b[31mred\\n')\n"
    with python(script + "fd = os.open(sys.argv[1], os.O_RDWR)", path):
        (writer,) = found(path)
    assert writer.command is not None
    assert writer.command.startswith(r"\x1b[31mred")
    assert "\x1b" not in str(writer)
    assert command_of(1 << 30) is None


def test_lease_leaves_no_trace(path):
    """Others can open the file for writing at once, before, meanwhile and after."""
    loop = """
import threading
def work():
    while True:
        os.close(os.open(sys.argv[1], os.O_RDWR))
threading.Thread(target=work, daemon=True).start()
"""
    before = path.stat()
    default = signal.getsignal(signal.SIGIO)
    with python(loop, path) as child:
        for _ in range(300):
            found(path)
        assert child.poll() is None
    begin = time.monotonic()
    with path.open("r+b"):
        assert time.monotonic() - begin < 0.5
    assert signal.getsignal(signal.SIGIO) == default
    after = path.stat()
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_processes_that_end_meanwhile(path, monkeypatch):
    with without_lease(monkeypatch):
        for _ in range(20):
            children = [subprocess.Popen(["/bin/true"]) for _ in range(10)]
            assert found(path) == []
            for child in children:
                child.wait()


def test_without_root(path, monkeypatch):
    """Another account sees its own processes alone, and that must not be an error."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to give it up")
    path.chmod(0o644)
    script = """
from pathlib import Path
from images.evidence import opened
from images.live import writers
sys.stdout = sys.stderr
with opened(Path("/proc/self/fd/0").resolve()) as file:
    os.setgroups([]); os.setgid(1234); os.setuid(1234)
    print(*writers([file]), sep="|", flush=True)
"""
    program = f"import os, sys\n{script}"
    with qemu_io("-f", "raw", path) as child, path.open("rb") as given:
        done = subprocess.run(
            [sys.executable, "-c", program], stdin=given, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(live.__file__).parents[1])}, check=True,
        )  # fmt: skip
    assert "QEMU's lock of a writer" in done.stderr
    assert str(child.pid) not in done.stderr


def test_fast_among_many_processes(path, monkeypatch):
    with opened_file(path) as file:
        children = [
            subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL) for _ in range(300)
        ]
        try:
            begin = time.monotonic()
            assert writers([file]) == []
            assert time.monotonic() - begin < 0.02
            with without_lease(monkeypatch):
                begin = time.monotonic()
                assert writers([file]) == []
                assert time.monotonic() - begin < 0.3
        finally:
            for child in children:
                child.kill()
            for child in children:
                child.wait()


# --- devices ------------------------------------------------------------------------------------


@contextmanager
def loop_device(path: Path, *options: str) -> Iterator[Path]:
    done = subprocess.run(
        ["losetup", "--find", "--show", *options, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_loop_device(path):
    with loop_device(path) as device:
        (writer,) = found(path)
    assert (writer.how, writer.pid) == ("loop device", None)
    assert str(device) in str(writer)


def test_read_only_loop_device(path):
    with loop_device(path, "--read-only"):
        assert found(path) == []


def test_mounted_loop_device(tmp_path):
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    folder = tmp_path / "mount\t\\point"
    folder.mkdir()
    with loop_device(path) as device:
        if subprocess.run(["mount", device, folder], check=False).returncode != 0:
            pytest.skip("may not mount")
        try:
            (writer,) = found(path)
        finally:
            subprocess.run(["umount", folder], check=True)
    assert writer.how == "loop device"
    assert r"mount\x09\\point" in str(writer)


def as_target(device: Path) -> Target:
    """A block device as the evidence itself."""
    with opened_file(Path(__file__)) as file:
        number = device.stat().st_rdev
        assert stat.S_ISBLK(device.stat().st_mode)
        return Target(file, number, 0, is_block=True)


def test_device_that_is_mounted(tmp_path):
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    folder = tmp_path / "mounted"
    folder.mkdir()
    with loop_device(path) as device:
        target = as_target(device)
        assert live_devices.device_writers([target]) == []
        for options, expected in (("rw", ["mount"]), ("ro", [])):
            if subprocess.run(["mount", "-o", options, device, folder], check=False).returncode:
                pytest.skip("may not mount")
            try:
                found_ = live_devices.device_writers([target])
            finally:
                subprocess.run(["umount", folder], check=True)
            assert [writer.how for writer in found_] == expected
            assert all(f"at {folder}" in str(writer) for writer in found_)


def test_partition_that_is_mounted_and_what_lies_on_it(tmp_path, monkeypatch):
    """sysfs in small: a disk, its partition, a writable and a read-only volume on that."""
    disk = tmp_path / "block/sdz"
    for folder, number, read_only in (
        (disk, "8:240", 0), (disk / "sdz1", "8:241", 0),
        (tmp_path / "block/dm-8", "253:8", 0), (tmp_path / "block/dm-9", "253:9", 1),
    ):  # fmt: skip
        (folder / "holders").mkdir(parents=True)
        (folder / "dev").write_text(f"{number}\n")
        (folder / "ro").write_text(f"{read_only}\n")
    (disk / "sdz1/partition").write_text("1\n")
    for name in ("dm-8", "dm-9"):
        (disk / "sdz1/holders" / name).symlink_to(tmp_path / "block" / name)
        # A loop of holders cannot be, but must not be followed for ever.
        (tmp_path / "block" / name / "holders/sdz").symlink_to(disk)
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers/8:240").symlink_to(disk)
    monkeypatch.setattr(live_devices, "_BY_NUMBER", tmp_path / "numbers")
    mounts = {"8:241": ["/boot"], "253:8": ["/srv"]}
    monkeypatch.setattr(live_devices, "_mounts", lambda: mounts)
    with opened_file(Path(__file__)) as file:
        target = Target(file, os.makedev(8, 240), 0, is_block=True)
    told = {(writer.how, writer.detail) for writer in live_devices.device_writers([target])}
    assert {("mount", "sdz1 at /boot"), ("mount", "dm-8 at /srv"), ("holder", "/dev/dm-8")} <= told
    assert not any("dm-9" in detail for _, detail in told)


def test_process_that_has_a_device_open(path):
    with loop_device(path) as device:
        target = as_target(device)
        with python("fd = os.open(sys.argv[1], os.O_RDWR)", device) as child:
            (use,) = live_processes.open_for_writing([target])
            assert use.pid == child.pid
        with python("fd = os.open(sys.argv[1], os.O_RDONLY)", device):
            assert live_processes.open_for_writing([target]) == []
