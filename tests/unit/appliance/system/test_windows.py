"""What is read of a Windows: its facts by hand (tests/builders/windows.py), and hostile hives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.agent.device import Device
from appliance.agent.outcome import Outcome
from appliance.agent.system.candidate import Candidate
from appliance.agent.system.files import Files
from appliance.agent.system.mounts import Mounts
from appliance.agent.system.places import candidate_paths
from appliance.agent.system.root import opened_root
from appliance.agent.system.windows.recognise import recognise
from appliance.agent.volume import Volume
from appliance.agent.work import FileSystem, Work
from appliance.layer import (
    Content,
    Finding,
    Kind,
    Layer,
    PartitionEntry,
    Severity,
    Status,
    Table,
)
from appliance.protocol import Body, Wanted
from appliance.system import Application, Interface, MountEntry, Service, System, User
from tests.builders import windows
from tests.builders.regf import Key, binary, dword, hive, multi_sz, qword, sz, utf16
from tests.builders.regf_log import dirty, entry, new_log
from tests.builders.windows import by_guid, by_signature, hives, program

GUID = "6a1f9a3e-0c2d-4e5b-8f70-1a2b3c4d5e6f"


def disk(address: str, table: str, uuid: str) -> Layer:
    found = Table(table, uuid, 512)
    return Layer(address, Kind.DISK, [], None, 1 << 30, Status.MAPPED, table=found)


def part(disk: str, number: int, offset: int, uuid: str, *, extended: bool = False) -> Layer:
    entry = PartitionEntry(number, "7", None, None, uuid, False, extended, False)
    address, kind = f"{disk}/p{number}", Kind.PARTITION
    return Layer(address, kind, [disk], offset, 1 << 20, Status.MAPPED, partition=entry)


LAYERS = [
    disk("disk0", "dos", "0badcafe"),
    part("disk0", 1, 1 << 20, "0badcafe-01"),
    part("disk0", 2, 64 << 20, "0badcafe-02"),
    Layer("disk0/p2/bitlocker", Kind.CRYPT, ["disk0/p2"], None, 1 << 20, Status.MAPPED),
    part("disk0", 3, 96 << 20, "0badcafe-03", extended=True),
    disk("disk1", "gpt", "11111111-0c2d-4e5b-8f70-1a2b3c4d5e6f"),
    part("disk1", 1, 1 << 20, GUID),
]


@dataclass
class Seen:
    """What a recogniser reported, besides the system that it returned."""

    systems: list[System]
    sent: list[Body] = field(default_factory=list)

    @property
    def system(self) -> System | None:
        return self.systems[0] if self.systems else None

    def findings(self) -> list[tuple[Severity, str]]:
        return [(each.severity, each.code) for each in self.sent if isinstance(each, Finding)]

    def message(self, code: str) -> str:
        found = [each for each in self.sent if isinstance(each, Finding) and each.code == code]
        return found[0].message


def look(
    folder: Path, address: str = "disk0/p2", layers: list[Layer] = LAYERS, view: str = "as-found"
) -> Seen:
    sent: list[Body] = []
    outcome = Outcome(sent.append)
    outcome.layers += layers
    volume = Volume(address, Kind.PARTITION, [], 0, 1, Device("", -1, 1, 512), 0, None)
    file_system = FileSystem(volume, Content("ntfs"))
    with ExitStack() as stack, opened_root(folder) as root:
        work = Work(outcome, stack, wanted=Wanted(view))
        files, mounts = Files(root, address, outcome), Mounts(work, stack)
        found = recognise(Candidate(root, files, file_system, "/", [], mounts, work))
    return Seen(found if isinstance(found, list) else [found] if found else [], sent)


def put(folder: Path, system32: str, files: dict[str, bytes]) -> None:
    config = folder / system32 / "Config"
    config.mkdir(parents=True)
    for name, data in files.items():
        (config / name).write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    letters = {
        "C:": by_signature(0x0BADCAFE, 64 << 20),
        "D:": by_guid(GUID),
        "E:": utf16(r"\??\SCSI#CdRom&Ven_QEMU"),
        "F:": by_signature(0x0BADCAFE, 96 << 20),
        "G:": by_signature(0x12345678, 1 << 20),
        "H:": by_guid("00000000-0000-0000-0000-000000000001"),
    }
    put(tmp_path, "WINDOWS/system32", hives(letters))
    (tmp_path / "WINDOWS/system32/NTOSKRNL.exe").write_bytes(program(0x8664))
    return tmp_path


def test_product(folder: Path) -> None:
    seen = look(folder)
    system = seen.system
    assert system is not None
    assert (system.root, system.root_path) == ("disk0/p2", "/")
    assert (system.name, system.distro) == ("windows", "windows")
    assert (system.product_name, system.product_variant) == ("Windows 10 Pro", "Client")
    assert (system.version, system.major_version, system.minor_version) == ("22H2", 10, 0)
    assert (system.build_id, system.arch) == ("19045.3803", "x86_64")
    assert (system.hostname, system.domain) == ("WS-17", "corp.example")
    assert system.machine_id == windows.MACHINE_ID
    assert system.timezone == "W. Europe Standard Time"
    assert (system.install_date, system.last_shutdown) == (windows.INSTALLED, windows.SHUT_DOWN)
    assert system.install_date_from == "registry"
    assert system.windows_systemroot == "/WINDOWS"
    assert system.windows_current_control_set == "ControlSet002"
    assert seen.findings() == []


def test_users(folder: Path) -> None:
    system = look(folder).system
    assert system is not None
    assert system.users == [
        User("Administrator", f"{windows.SID}-500", locked=True),
        User(
            "alice",
            f"{windows.SID}-1001",
            full_name="Alice Müller",
            home=r"C:\Users\Alice",
            last_login=windows.LOGGED_ON,
            locked=False,
        ),
        User("systemprofile", "S-1-5-18", home=r"%systemroot%\system32\systemprofile"),
        User("bob", windows.OF_A_DOMAIN, home=r"C:\Users\bob", last_login=windows.LOADED),
    ]


def test_hashes_are_not_told(folder: Path) -> None:
    text = repr(look(folder))
    secret = windows.SECRET.decode("utf-16-le", "replace")
    assert windows.SECRET.hex() not in text
    assert not any(character in text for character in secret if character != "\ufffd")


def test_services(folder: Path) -> None:
    system = look(folder).system
    assert system is not None
    assert system.services == [
        Service("disk", "boot"),
        Service("Null", "system", r"\SystemRoot\null.sys"),
        Service("Schedule", "auto", "svchost.exe -k netsvcs"),
        Service("wuauserv", "delayed-auto"),
    ]


def test_programs(folder: Path) -> None:
    system = look(folder).system
    assert system is not None
    assert system.applications == [
        Application(
            "7-Zip",
            "23.01",
            arch="x86_64",
            display_name="7-Zip 23.01 (x64)",
            publisher="Igor Pavlov",
            install_path="C:\\Program Files\\7-Zip\\",
            install_date=1_699_920_000,
        ),
        Application("{AAAA}", "", arch="i386", display_name="Müller \U0001f600 \ufffd"),
    ]


def test_interfaces(folder: Path) -> None:
    system = look(folder).system
    assert system is not None
    where = r"SYSTEM\ControlSet002\Services\Tcpip\Parameters\Interfaces" + "\\"
    assert system.interfaces == [
        Interface(
            "Ethernet",
            "static",
            addresses=["192.0.2.10/24", "192.0.2.11/25"],
            gateways=["192.0.2.1"],
            dns=["192.0.2.53", "192.0.2.54"],
            configured_in=where + windows.LAN,
        ),
        Interface(
            "WLAN ü",
            "dhcp",
            addresses=["198.51.100.7/22"],
            gateways=["198.51.100.1"],
            dns=["198.51.100.2", "198.51.100.3"],
            configured_in=where + windows.WLAN,
        ),
    ]


def test_drive_letters(folder: Path) -> None:
    system = look(folder).system
    assert system is not None
    assert system.drive_mappings == [
        MountEntry("diskid=0badcafe offset=67108864", "C:", layer="disk0/p2"),
        MountEntry(f"guid={GUID}", "D:", layer="disk1/p1"),
        MountEntry(r"\??\SCSI#CdRom&Ven_QEMU", "E:"),
        MountEntry("diskid=0badcafe offset=100663296", "F:"),
        MountEntry("diskid=12345678 offset=1048576", "G:"),
        MountEntry("guid=00000000-0000-0000-0000-000000000001", "H:"),
    ]


def test_two_disks_of_one_signature(folder: Path) -> None:
    """The system's own disk counts, also when its file system lies deeper; else nothing is told."""
    clone = [
        disk("disk9", "dos", "0badcafe"),
        part("disk9", 2, 64 << 20, "0badcafe-02"),
        Layer("disk9/p2/bitlocker", Kind.CRYPT, ["disk9/p2"], None, 1 << 20, Status.MAPPED),
        disk("other", "dos", "00000001"),
    ]
    own = "the one on the system's own disk"
    meant = {
        "disk0/p2": ("disk0/p2", own),
        "disk9/p2/bitlocker": ("disk9/p2", own),
        "other": (None, "several fit: disk0/p2, disk9/p2"),
    }
    for address, (layer, note) in meant.items():
        system = look(folder, address, [*LAYERS, *clone]).system
        assert system is not None
        assert (system.drive_mappings[0].layer, system.drive_mappings[0].note) == (layer, note)


# --- other versions -----------------------------------------------------------------------------


def with_values(tmp_path: Path, *values: object) -> System:
    """The system of a SOFTWARE hive with these values in its CurrentVersion, and nothing else."""
    root = Key("ROOT")
    root.put(windows.NT, *values)  # type: ignore[arg-type]
    put(tmp_path, "Windows/System32", {"SOFTWARE": hive(root)})
    system = look(tmp_path).system
    assert system is not None
    return system


def test_windows_11_calls_itself_10(tmp_path: Path) -> None:
    system = with_values(
        tmp_path,
        sz("ProductName", "Windows 10 Home"),
        sz("CurrentBuildNumber", "22631"),
        sz("InstallationType", "Client"),
    )
    assert system.product_name == "Windows 11 Home"


def test_server_keeps_its_name(tmp_path: Path) -> None:
    system = with_values(
        tmp_path,
        sz("ProductName", "Windows Server 2025 Datacenter"),
        sz("CurrentBuildNumber", "26100"),
        sz("InstallationType", "Server Core"),
    )
    assert system.product_name == "Windows Server 2025 Datacenter"
    assert system.product_variant == "Server Core"


def test_windows_xp(tmp_path: Path) -> None:
    software = Key("ROOT")
    software.put(
        windows.NT,
        sz("ProductName", "Microsoft Windows XP"),
        sz("CSDVersion", "Service Pack 3"),
        sz("CurrentVersion", "5.1"),
        sz("CurrentBuildNumber", "2600"),
        sz("CurrentBuild", "1.511.1 () (Obsolete data - do not use)"),
        dword("InstallDate", 1_100_000_000),
    )
    system = Key("ROOT")
    system.put("Select", dword("Current", 7))
    system.put(r"ControlSet001\Control\ProductOptions", sz("ProductType", "ServerNT"))
    system.put(r"ControlSet001\Control\ComputerName\ComputerName", sz("ComputerName", "OLD"))
    system.put(
        r"ControlSet001\Control\TimeZoneInformation",
        sz("StandardName", "@tzres.dll,-322"),
        dword("Bias", 210),
    )
    system.put(
        r"ControlSet001\Control\Session Manager\Environment", sz("PROCESSOR_ARCHITECTURE", "x86")
    )
    put(tmp_path, "WINNT/system32", {"software": hive(software), "system": hive(system, minor=3)})
    found = look(tmp_path).system
    assert found is not None
    assert (found.product_name, found.version) == ("Microsoft Windows XP", "Service Pack 3")
    assert (found.major_version, found.minor_version, found.build_id) == (5, 1, "2600")
    assert (found.hostname, found.product_variant, found.arch) == ("OLD", "Server", "i386")
    assert (found.timezone, found.windows_systemroot) == ("UTC-03:30", "/WINNT")
    assert (found.windows_current_control_set, found.users) == ("ControlSet001", [])


@pytest.mark.parametrize(
    ("text", "name", "major", "minor", "build"),
    [
        (b"[Paths]\r\n", "Microsoft Windows 95", 4, 0, None),
        (b"[Options]\r\nWinVer=4.10.2222\r\n", "Microsoft Windows 98", 4, 10, "2222"),
        (b"WinVer=4.90.3000", "Microsoft Windows Millennium Edition", 4, 90, "3000"),
        (b"WinVer=99999999.1", "Microsoft Windows 95", 4, 0, None),
    ],
)
def test_windows_9x(
    tmp_path: Path, text: bytes, name: str, major: int, minor: int, build: str | None
) -> None:
    (tmp_path / "WINDOWS").mkdir()
    (tmp_path / "WINDOWS/SYSTEM.DAT").write_bytes(b"CREG")
    (tmp_path / "MSDOS.SYS").write_bytes(text)
    found = look(tmp_path).system
    assert found is not None
    assert (found.name, found.product_name, found.build_id) == ("windows", name, build)
    assert (found.major_version, found.minor_version) == (major, minor)
    assert found.version == f"{major}.{minor:02}"


def test_several_on_one_file_system(folder: Path) -> None:
    put(folder, "winnt/System32", {"SYSTEM": hive(Key("R")), "SOFTWARE": hive(Key("R"))})
    put(folder, "Windows.old/Windows/System32", {"SOFTWARE": hive(windows.software_hive())})
    found = look(folder).systems
    assert [(each.root_path, each.windows_systemroot) for each in found] == [
        ("/", "/WINDOWS"),
        ("/", "/winnt"),
        ("/Windows.old", "/Windows"),
    ]
    assert found[2].build_id == "19045.3803"


@pytest.mark.parametrize(
    "path",
    ["WINDOWS/system32/config/SYSTEM", "winnt/SYSTEM32/CONFIG/software", "Windows/SYSTEM.DAT",
     "Windows.old/windows/System32/config/SAM", "reactos/system32/config/SAM"],
)  # fmt: skip
def test_where_a_windows_is_looked_for(tmp_path: Path, path: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(b"")
    volume = Volume("disk0", Kind.DISK, [], 0, 1, Device("", -1, 1, 512), 0, None)
    assert candidate_paths(tmp_path, FileSystem(volume, Content("ntfs"))) == ["/"]


def test_no_windows(tmp_path: Path) -> None:
    (tmp_path / "Windows/System32").mkdir(parents=True)
    assert look(tmp_path).system is None


# --- what is wrong with it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "finding"),
    [
        (b"hibr", "hibernation-image"),
        (b"HIBR", "hibernation-image"),
        (b"wake", None),
        (b"\0\0\0\0", None),
        (b"", None),
        (b"what", "system-unreadable"),
    ],
)
def test_hibernation(folder: Path, head: bytes, finding: str | None) -> None:
    (folder / "HiberFil.sys").write_bytes(head.ljust(4096 if head else 0, b"\0"))
    seen = look(folder)
    assert [code for _, code in seen.findings()] == ([finding] if finding else [])
    if finding == "hibernation-image":
        assert "fast startup" in seen.message(finding)


def test_dirty(folder: Path) -> None:
    """What the log holds is shown in the recovered view alone; the file stays as it is."""
    config = folder / "WINDOWS/system32/Config"
    before, later = hive(windows.software_hive()), windows.software_hive()
    later.put(windows.UNINSTALL + r"\New", sz("DisplayName", "Installed last"))
    base = dirty(before)
    (config / "SOFTWARE").write_bytes(base)
    names = []
    for view in ("as-found", "recovered"):
        (config / "software.LOG1").write_bytes(new_log(base, [entry(8, before, hive(later))]))
        seen = look(folder, view=view)
        assert seen.findings() == [(Severity.INFO, "registry-dirty")]
        assert ("laid over" in seen.message("registry-dirty")) == (view == "recovered")
        assert seen.system is not None
        assert seen.system.product_name == "Windows 10 Pro"
        names.append([each.name for each in seen.system.applications])
    assert names == [["7-Zip", "{AAAA}"], ["7-Zip", "New", "{AAAA}"]]
    assert (config / "SOFTWARE").read_bytes() == base


def test_dirty_without_a_log(folder: Path) -> None:
    config = folder / "WINDOWS/system32/Config"
    (config / "SOFTWARE").write_bytes(hive(windows.software_hive(), dirty=True))
    (config / "SOFTWARE.LOG1").write_bytes(b"")
    (config / "SOFTWARE.LOG2").symlink_to("/dev/zero")
    seen = look(folder, view="recovered")
    assert seen.findings() == [(Severity.INFO, "registry-dirty")]
    assert "none of its transaction logs fits" in seen.message("registry-dirty")
    assert seen.system is not None
    assert seen.system.product_name == "Windows 10 Pro"


def test_a_damaged_hive_leaves_the_others(folder: Path) -> None:
    config = folder / "WINDOWS/system32/Config"
    (config / "SOFTWARE").write_bytes(b"regf" + bytes(9000))
    (config / "SAM").write_bytes(hive(windows.sam_hive())[:4200])
    seen = look(folder)
    assert seen.findings() == [(Severity.WARNING, "system-unreadable")] * 2
    assert seen.system is not None
    assert (seen.system.hostname, seen.system.product_name) == ("WS-17", None)
    assert seen.system.users == []


def test_no_file_is_no_hive(folder: Path) -> None:
    config = folder / "WINDOWS/system32/Config"
    (config / "SOFTWARE").unlink()
    (config / "SOFTWARE").symlink_to("/dev/zero")
    (config / "SAM").unlink()
    (config / "SAM").mkdir()
    seen = look(folder)
    assert seen.system is not None
    assert seen.system.hostname == "WS-17"
    assert [code for _, code in seen.findings()] == ["system-unreadable"]


def test_lists_and_numbers_beyond_reason(tmp_path: Path) -> None:
    software, system = Key("ROOT"), Key("ROOT")
    software.put(
        windows.NT,
        qword("CurrentMajorVersionNumber", 2**64 - 1),
        dword("UBR", 0xFFFFFFFF),
        sz("CurrentBuildNumber", "9" * 5000),
        sz("ProductName", "Windows 10" + "x" * 5000),
        qword("InstallTime", 2**63 - 2),
        qword("InstallDate", 2**64 - 1),
    )
    software.put(windows.NT + r"\ProfileList\S-1-5-18", sz("ProfileImagePath", "y" * 5000))
    interfaces = r"ControlSet001\Services\Tcpip\Parameters\Interfaces\{x}"
    system.put(
        interfaces,
        multi_sz("IPAddress", "1" * 5000, *["2 " * 1500] * 20),
        multi_sz("SubnetMask", "4" * 5000),
        sz("NameServer", "z," * 2000),
    )
    system.put(r"ControlSet001\Services\Tcpip\Parameters", sz("Hostname", "h" * 9000))
    system.put(r"ControlSet001\Control\TimeZoneInformation", dword("Bias", 0x7FFFFFFF))
    system.put("MountedDevices", sz(r"\DosDevices\C:", "w" * 9000), binary(r"\DosDevices\DD:", b""))
    for number in range(5000):
        system.put(f"ControlSet001\\Services\\s{number}", dword("Start", 2))
    put(tmp_path, "WINNT/system32", {"SOFTWARE": hive(software), "SYSTEM": hive(system)})
    seen = look(tmp_path)
    assert seen.system is not None
    assert seen.system.major_version is None
    assert seen.system.timezone is None
    assert len(seen.system.services) == 4096
    assert len(seen.system.interfaces[0].addresses) == 256
    assert seen.findings() == [(Severity.WARNING, "system-limit")]


SEEDS = hives({"C:": by_signature(1, 2)})


@contextlib.contextmanager
def changed(changes: list[tuple[int, bytes]]) -> Iterator[Path]:
    with TemporaryDirectory() as name:
        files = {}
        for seed, data in SEEDS.items():
            copy = bytearray(data)
            for at, change in changes:
                copy[at % len(copy) : at % len(copy) + len(change)] = change
            files[seed] = bytes(copy)
        put(Path(name), "Windows/System32", files)
        yield Path(name)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(4096, 32768), st.binary(min_size=1, max_size=6)),
        min_size=1,
        max_size=40,
    )
)
def test_any_hive_gives_a_system_in_bounds(changes: list[tuple[int, bytes]]) -> None:
    with changed(changes) as folder:
        assert look(folder).system is not None
