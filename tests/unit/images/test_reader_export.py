"""What the sandboxed reader serves over NBD, in which surroundings, and how it fails."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from images import ewf, reader_export, reader_sandbox, seccomp, xz
from images.errors import ExportFailed, ImageError, SandboxFailed
from images.evidence import opened as open_evidence
from images.hashing import Cancelled, ReadFailed, digest_export
from images.reader_export import served
from tests.builders import ewf as builder

from .conftest import descendants, listing

MIB = 1 << 20
ROOT = {"bin", "dev", "lib", "lib32", "lib64", "reader", "run", "sbin", "usr"}


@pytest.fixture(scope="session")
def disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    chance = random.Random(11)
    path.write_bytes((chance.randbytes(3 * MIB) + b"text " * 400_000).ljust(9 * MIB + 512, b"\0"))
    return path


@pytest.fixture(scope="session")
def packed(tmp_path_factory, disk):
    """The same disk in every kind: (kind, first file)."""
    folder = tmp_path_factory.mktemp("packed")
    made = {}
    for name, options in {
        "e01-fast": ("-f", "encase6", "-c", "fast", "-S", "1MiB"),
        "e01-none": ("-f", "encase6", "-c", "none", "-S", "1MiB"),
        "s01": ("-f", "smart", "-c", "fast", "-S", "1MiB"),
    }.items():
        made[name] = ("ewf", builder.acquire(disk, folder / name, *options)[0])
    data = disk.read_bytes()
    (folder / "disk.gz").write_bytes(gzip.compress(data, 1))
    made["gzip"] = ("gzip", folder / "disk.gz")
    command = ["xz", "-0", "--block-size=1MiB", "-c", str(disk)]
    with (folder / "disk.xz").open("wb") as file:
        subprocess.run(command, stdout=file, check=True)
    made["xz"] = ("xz", folder / "disk.xz")
    for path in folder.iterdir():
        path.chmod(0o400)
    return made


@pytest.fixture
def open_files():
    """All files of the image that begins with this one, as the controller opens them."""
    with ExitStack() as stack:

        def open_all(kind, first):
            names = ewf.segment_names(first.name) if kind == "ewf" else [first.name]
            files = []
            for name in names:
                files.append(stack.enter_context(open_evidence(first.with_name(name))))
                if kind != "ewf" or not ewf.continues(files[-1]):
                    return files
            return files

        yield open_all


def expected_size(kind, files):
    if kind == "ewf":
        return ewf.parse(files).virtual_size
    return xz.parse(files[0]).size if kind == "xz" else None


@pytest.fixture
def serve(open_files, run_folder):
    @contextlib.contextmanager
    def start(kind, first, **options):
        files = open_files(kind, first)
        options = {"size": expected_size(kind, files), "name": "disk0", **options}
        with served(kind, files, run_folder, path=first, **options) as export:
            yield export

    return start


def url(export) -> str:
    return f"nbd+unix:///{export.name}?socket={export.socket}"


def fetch(export, target: Path) -> bytes:
    command = ["qemu-img", "convert", "-f", "raw", "-O", "raw", url(export), str(target)]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return target.read_bytes()


def reader_of(export) -> Path:
    """/proc folder of the process that parses the image."""
    (pid,) = [
        pid
        for pid in descendants(export.pid)
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/usr/bin/python3\0")
    ]
    return Path(f"/proc/{pid}")


NAMES = ["e01-fast", "e01-none", "s01", "gzip", "xz"]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_is_served_byte_for_byte(name, packed, disk, serve, run_folder):
    kind, first = packed[name]
    with serve(kind, first) as export:
        assert export.size == disk.stat().st_size
        assert fetch(export, run_folder / "out") == disk.read_bytes()
    assert not export.socket.exists()


def test_content_is_what_ewfexport_makes_of_it(packed, serve, run_folder):
    kind, first = packed["e01-fast"]
    command = ["ewfexport", "-u", "-q", "-f", "raw", "-t", str(run_folder / "theirs"), str(first)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with serve(kind, first) as export:
        assert fetch(export, run_folder / "ours") == (run_folder / "theirs.raw").read_bytes()


def test_odd_sizes_are_filled_up_to_a_sector(tmp_path, serve, run_folder):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"x" * 777))
    with serve("gzip", path) as export:
        assert export.size == 1024
        assert fetch(export, run_folder / "out") == (b"x" * 777).ljust(1024, b"\0")


def test_eight_clients_at_once(packed, disk, serve, run_folder):
    kind, first = packed["e01-fast"]
    with serve(kind, first) as export:
        clients = [
            subprocess.Popen(
                ["qemu-img", "convert", "-f", "raw", "-O", "raw", url(export), run_folder / f"{n}"]
            )
            for n in range(7)
        ]
        assert [client.wait(60) for client in clients] == [0] * 7
    assert {(run_folder / f"{n}").read_bytes() for n in range(7)} == {disk.read_bytes()}


def test_export_cannot_be_written(packed, serve):
    kind, first = packed["e01-none"]
    before = first.read_bytes()
    with serve(kind, first) as export:
        command = ["qemu-io", "-f", "raw", "-c", "write 0 512", url(export)]
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert first.read_bytes() == before


@pytest.mark.parametrize("level", ["none", "fast"])
def test_damaged_chunk_is_an_input_error_for_its_range_alone(level, disk, tmp_path, serve):
    (path,) = builder.acquire(disk, tmp_path / "x", "-c", level, "-f", "encase6")
    data = bytearray(path.read_bytes())
    place = data.index(b"sectors\0") + 76 + 10 * 32772 + 100
    data[place] ^= 0xFF
    path.write_bytes(data)
    content = disk.read_bytes()
    bad = []
    with serve("ewf", path) as export:
        reads = [f"read -v {offset} 32768" for offset in range(0, 20 * 32768, 32768)]
        for number, read in enumerate(reads):
            command = ["qemu-io", "-r", "-f", "raw", "-c", read, url(export)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if "Input/output error" in done.stdout + done.stderr:
                bad.append(number)
            else:
                start = content[number * 32768 :][:16].hex(" ")
                assert start in done.stdout
    assert bad == [10]


# --- surroundings -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["e01-fast", "gzip"])
def test_sandbox_holds_nothing_but_the_evidence(name, packed, serve, open_files):
    kind, first = packed[name]
    evidence = {str(file.resolved) for file in open_files(kind, first)}
    with serve(kind, first) as export:
        process = reader_of(export)
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        assert status["Uid"].split()[0] != "0"
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == "2"
        assert int(status["Seccomp_filters"]) >= 2
        assert listing(process / "root/dev") == ["null"]
        assert listing(process / "root/run") == []
        assert set(listing(process / "root")) <= ROOT
        assert listing(process / "root/reader") == ["images"]
        assert listing(process / "root/reader/images") == listing(Path(ewf.__file__).parent)
        assert (process / "net/unix").read_text().count("\n") <= 2
        links = {fd: str((process / "fd" / fd).readlink()) for fd in listing(process / "fd")}
        assert evidence <= set(links.values())
        for fd, target in links.items():
            plain = target.startswith(("socket:", "pipe:"))
            assert plain or target in {"/dev/null", "/memfd:filter (deleted)", *evidence}
            if target in evidence:
                flags = (process / "fdinfo" / fd).read_text().split("flags:")[1].split()[0]
                assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY


def in_the_sandbox(program: str) -> tuple[str, int]:
    """What a Python program prints where the reader runs, and its status."""
    argv = ["/usr/bin/python3", "-c", program]
    with reader_sandbox.running(argv, [], path=Path("x"), cpu=5, stdout=subprocess.PIPE) as running:
        output = running.process.stdout.read().decode()
        status = running.process.wait(20)
    return output, status


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/status", "/home", "/tmp", "/work"])
def test_no_file_of_the_host_is_seen(path):
    program = f"import os\nprint(os.path.exists({path!r}), flush=True)"
    assert in_the_sandbox(program) == ("False\n", 0)


def test_nothing_can_be_written():
    program = """
import os
for path in ("/x", "/reader/x", "/reader/images/x", "/run/x", "/dev/x", "/usr/x"):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        print(error.strerror, flush=True)
    else:
        print("written", path, flush=True)
"""
    output, status = in_the_sandbox(program)
    assert set(output.splitlines()) <= {"Read-only file system", "Permission denied"}
    assert status == 0


@pytest.mark.parametrize(
    "call",
    [
        "libc.ptrace(0, 0, 0, 0)",
        "libc.unshare(0x10000000)",
        "libc.syscall(425, 1, 0)",
        "libc.mount(b'none', b'/run', b'tmpfs', 0, None)",
    ],
)
def test_denied_call_kills(call):
    program = f"import ctypes\nlibc = ctypes.CDLL(None)\nprint(1, flush=True)\n{call}\nprint(2)"
    output, status = in_the_sandbox(program)
    assert output == "1\n"
    assert status == 128 + signal.SIGSYS


def test_no_socket_can_be_made():
    program = "import socket\ntry:\n    socket.socket()\nexcept OSError as e:\n    print(e.errno)"
    assert in_the_sandbox(program) == ("13\n", 0)


def test_times_of_the_evidence_stay(packed, disk, serve, tmp_path, run_folder):
    path = tmp_path / "x.gz"
    path.write_bytes(packed["gzip"][1].read_bytes())
    os.utime(path, (10**9, 10**9))
    before = path.stat()
    with serve("gzip", path) as export:
        assert fetch(export, run_folder / "out") == disk.read_bytes()
    assert path.stat() == before


def test_start_is_quick(packed, serve):
    kind, first = packed["e01-fast"]
    begin = time.monotonic()
    with serve(kind, first):
        assert time.monotonic() - begin < 1.5


# --- how it fails -------------------------------------------------------------------------------


def refusal(serve, kind, path, **options) -> ImageError:
    with pytest.raises(ExportFailed) as failure, serve(kind, path, **options):
        pass
    text = str(failure.value) + failure.value.hint
    assert text.isprintable()
    assert failure.value.hint
    assert "segment" not in text
    return failure.value


def test_what_the_reader_refuses_is_named(tmp_path, serve):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(os.urandom(100_000))[:-2])
    assert "the reader refused it: truncated" in str(refusal(serve, "gzip", path))
    path.write_bytes(gzip.compress(bytes(100_000)))
    error = refusal(serve, "gzip", path, limit=50_000)
    assert "more than 50000 bytes" in str(error)
    assert "unpack it" in error.hint


def test_another_size_than_expected(packed, serve):
    kind, first = packed["e01-fast"]
    assert "the header says 512" in str(refusal(serve, kind, first, size=512))


def test_bomb_is_bounded_in_memory(tmp_path, serve):
    """Zeros packed a thousandfold: served, without ever being in memory."""
    member = gzip.compress(bytes(64 * MIB), 9)
    path = tmp_path / "bomb.gz"
    path.write_bytes(member * 48)
    with serve("gzip", path, timeout=120) as export:
        assert export.size == 3 << 30
        read = ["-c", f"read -P 0 {2 << 30} 4096", "-c", "read -P 0 1M 4096"]
        command = ["qemu-io", "-r", "-f", "raw", *read, url(export)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert "failed" not in done.stdout
        status = (reader_of(export) / "status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0])
        assert peak < 300 << 10  # KiB


def test_bomb_is_bounded_in_time(tmp_path, serve):
    """10 GiB of zeros in 10 MiB."""
    member = gzip.compress(bytes(64 * MIB), 9)
    path = tmp_path / "bomb.gz"
    path.write_bytes(member * 160)
    begin = time.monotonic()
    assert "did not answer within 1 seconds" in str(refusal(serve, "gzip", path, timeout=1))
    assert time.monotonic() - begin < 3
    refusal(serve, "gzip", path, timeout=60, cpu=1)
    assert time.monotonic() - begin < 20


def test_memory_is_limited(packed, serve):
    kind, first = packed["e01-fast"]
    with serve(kind, first) as export:
        limits = (reader_of(export) / "limits").read_text()
        (space,) = [line.split()[3] for line in limits.splitlines() if "address space" in line]
        assert int(space) == 3 << 30


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["/usr/bin/false"], "the reader failed"),
        (["/usr/bin/sleep", "60"], "did not answer within"),
        (["/usr/bin/perl", "-e", 'die "bad \\x1b[31m"'], r"\x1b[31m"),
        (["/nothing"], "sandbox did not start"),
        (["/usr/bin/python3", "-c", "import nothing"], "No module named"),
        (["/usr/bin/perl", "-e", "print STDERR 'x' x 100 . qq(\\n) for 1..200000"], "xxx"),
    ],
)
def test_broken_reader_is_named(argv, reason, packed, serve, run_folder, monkeypatch):
    monkeypatch.setattr(reader_export, "_argv", lambda *_: argv)
    error = refusal(serve, *packed["e01-fast"], timeout=0.5)
    assert reason in str(error)
    assert len(str(error)) < 3000
    assert listing(run_folder) == []


def test_server_that_lies_in_the_handshake(packed, serve, monkeypatch):
    for answer in (b"HTTP/1.1 400 Bad request\r\n", b"NBDMAGICIHAVEOPT\0\3" + b"\xff" * 200):
        script = (
            "use Socket; open(my $s, '+<&=', 0); accept(my $c, $s);"
            f"syswrite $c, pack('H*', '{answer.hex()}'); sleep 9"
        )
        monkeypatch.setattr(reader_export, "_argv", lambda *_, s=script: ["/usr/bin/perl", "-e", s])
        assert "the reader failed" in str(refusal(serve, *packed["e01-fast"], timeout=2))


def test_missing_programs_are_named(packed, serve, monkeypatch):
    monkeypatch.setattr(reader_sandbox, "NEEDED", {"/nothing/python3": "python3"})
    error = refusal(serve, *packed["e01-fast"])
    assert isinstance(error, SandboxFailed)
    assert "/nothing/python3" in str(error)
    assert error.hint == "install python3"


def test_unknown_machine_fails_closed(packed, serve, monkeypatch):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "mips")
    assert "mips" in str(refusal(serve, *packed["e01-fast"]))


def test_socket_problems_are_named(packed, open_files, tmp_path, run_folder):
    kind, first = packed["gzip"]
    files = open_files(kind, first)
    for folder, text in (
        (tmp_path / ("x" * 100), "too long"),
        (run_folder / "missing", "could not create the socket"),
    ):
        with (
            pytest.raises(ExportFailed, match=text),
            served(kind, files, folder, name="d", size=None, path=first),
        ):
            pass
    with (
        pytest.raises(ValueError, match="export name"),
        served(kind, files, run_folder, name="../x", size=None, path=first),
    ):
        pass


def test_crash_is_seen_by_the_client_and_leaves_nothing(packed, serve):
    with serve(*packed["e01-fast"]) as export:
        os.kill(int(reader_of(export).name), signal.SIGSEGV)
        deadline = time.monotonic() + 5
        while descendants(export.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(str(export.socket))
    assert not export.socket.exists()


ENDLESS = """
import sys, time
from pathlib import Path
from images.evidence import opened
from images.reader_export import served
path, folder = map(Path, sys.argv[1:])
with opened(path) as file, served("gzip", [file], folder, name="d", size=None, path=path) as export:
    print(export.pid, flush=True)
    time.sleep(60)
"""


def test_killed_controller_takes_the_reader_along(packed, run_folder):
    argv = [sys.executable, "-c", ENDLESS, str(packed["gzip"][1]), str(run_folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(ewf.__file__).parents[1])}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment) as controller:
        outer = int(controller.stdout.readline())
        processes = [Path(f"/proc/{pid}") for pid in (outer, *descendants(outer))]
        assert len(processes) == 3
        controller.kill()
        controller.wait()
    deadline = time.monotonic() + 5
    while any(map(running, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(running, processes))


def running(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


# --- hashes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_hashes_of_the_content(name, packed, disk, open_files):
    kind, first = packed[name]
    files = open_files(kind, first)
    algorithms = ("md5", "sha1", "sha256")
    with served(kind, files, None, name="d", size=None, path=first) as export:
        found = digest_export(
            export.socket, export.name, export.size, path=first, algorithms=algorithms
        )
    for algorithm in algorithms:
        command = [f"{algorithm}sum", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert found.digests[algorithm] == done.stdout.split()[0]
    if kind == "ewf":
        assert found.digests["md5"] == ewf.parse(files).stored_md5


def test_hashing_fails_at_a_damaged_chunk(disk, tmp_path, open_files):
    (path,) = builder.acquire(disk, tmp_path / "x", "-c", "fast", "-f", "encase6")
    data = bytearray(path.read_bytes())
    data[700_000] ^= 1
    path.write_bytes(data)
    files = open_files("ewf", path)
    with (
        served("ewf", files, None, name="d", size=None, path=path) as export,
        pytest.raises(ReadFailed, match="could not be read"),
    ):
        digest_export(export.socket, export.name, export.size, path=path)


def test_unpacking_can_be_stopped(tmp_path, open_files):
    """The first pass over a bomb takes long; whoever waits for it is free at once."""
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes(64 * MIB), 9) * 100)
    files = open_files("gzip", path)
    stop = threading.Event()
    threading.Timer(1, stop.set).start()
    begin = time.monotonic()
    options = {"name": "d", "size": None, "path": path, "timeout": 120, "stop": stop}
    with pytest.raises(Cancelled), served("gzip", files, None, **options):
        pytest.fail("it was unpacked")
    assert time.monotonic() - begin < 3
