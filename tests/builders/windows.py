"""The registry of a made-up Windows, with facts that are written here by hand."""

from __future__ import annotations

import struct
import uuid

from tests.builders.regf import (
    Key,
    Value,
    binary,
    dword,
    expand_sz,
    filetime,
    hive,
    multi_sz,
    qword,
    sz,
    utf16,
)

INSTALLED = 1_600_000_000
SHUT_DOWN = 1_700_000_000
LOGGED_ON = 1_699_999_000
LOADED = 1_699_998_000
DOMAIN = (1004336348, 1177238915, 682003330)
SID = "S-1-5-21-1004336348-1177238915-682003330"
OF_A_DOMAIN = "S-1-5-21-1-2-3-1105"
MACHINE_ID = "0f3c2d1e-4b5a-6978-8796-a5b4c3d2e1f0"
LAN = "{11111111-2222-3333-4444-555555555555}"
WLAN = "{22222222-2222-3333-4444-555555555555}"
SECRET = bytes(range(0xE0, 0xF0))
"""Stands where V has password hashes; must be in no output."""

NT = r"Microsoft\Windows NT\CurrentVersion"
UNINSTALL = r"Microsoft\Windows\CurrentVersion\Uninstall"


def by_signature(signature: int, offset: int) -> bytes:
    """A letter's data for a partition of an MBR."""
    return struct.pack("<IQ", signature, offset)


def by_guid(guid: str) -> bytes:
    """A letter's data for a partition of a GPT."""
    return b"DMIO:ID:" + uuid.UUID(guid).bytes_le


def system_hive(letters: dict[str, bytes]) -> Key:
    """SYSTEM of a Windows 10, in its second control set; the first one is another one's."""
    root = Key("ROOT")
    root.put("Select", dword("Current", 2), dword("Default", 1), dword("LastKnownGood", 1))
    root.put(r"ControlSet001\Services\Tcpip\Parameters", sz("Hostname", "old-name"))
    for letter, data in letters.items():
        root.put("MountedDevices", binary(rf"\DosDevices\{letter}", data))
    root.put("MountedDevices", binary(r"\??\Volume{guid}", b"no letter"))
    now = root.at("ControlSet002")
    now.put(r"Services\Tcpip\Parameters", sz("Hostname", "WS-17"), sz("Domain", "corp.example"))
    now.put(
        r"Control\TimeZoneInformation",
        # Windows leaves what was in its buffer behind the name.
        Value("TimeZoneKeyName", 1, utf16("W. Europe Standard Time\0" + "\ud800garbage" * 8)),
        dword("Bias", -60),
    )
    now.put(r"Control\Windows", binary("ShutdownTime", struct.pack("<Q", filetime(SHUT_DOWN))))
    now.put(r"Control\Session Manager\Environment", expand_sz("PROCESSOR_ARCHITECTURE", "AMD64"))
    now.put(r"Control\Session Manager\Power", dword("HiberbootEnabled", 1))
    now.put(r"Control\ProductOptions", sz("ProductType", "WinNT"))
    _services(now)
    _interfaces(now)
    return root


def _services(control_set: Key) -> None:
    services = control_set.at("Services")
    services.put("disk", dword("Start", 0), dword("Type", 1))
    services.put("Null", dword("Start", 1), expand_sz("ImagePath", r"\SystemRoot\null.sys"))
    services.put("Schedule", dword("Start", 2), expand_sz("ImagePath", "svchost.exe -k netsvcs"))
    services.put("wuauserv", dword("Start", 2), dword("DelayedAutostart", 1))
    services.put("OnDemand", dword("Start", 3), sz("ImagePath", "never.exe"))
    services.put("Disabled", dword("Start", 4), sz("ImagePath", "never.exe"))
    services.put("Odd", sz("Start", "2"), sz("ImagePath", "never.exe"))


def _interfaces(control_set: Key) -> None:
    interfaces = control_set.at(r"Services\Tcpip\Parameters\Interfaces")
    interfaces.put(
        LAN,
        dword("EnableDHCP", 0),
        multi_sz("IPAddress", "192.0.2.10", "192.0.2.11"),
        multi_sz("SubnetMask", "255.255.255.0", "255.255.255.128"),
        multi_sz("DefaultGateway", "192.0.2.1"),
        sz("NameServer", "192.0.2.53,192.0.2.54"),
    )
    interfaces.put(
        WLAN,
        dword("EnableDHCP", 1),
        multi_sz("IPAddress", "0.0.0.0"),
        sz("NameServer", ""),
        sz("DhcpIPAddress", "198.51.100.7"),
        sz("DhcpSubnetMask", "255.255.252.0"),
        multi_sz("DhcpDefaultGateway", "198.51.100.1"),
        sz("DhcpNameServer", "198.51.100.2 198.51.100.3"),
    )
    interfaces.put("{33333333-2222-3333-4444-555555555555}", dword("EnableDHCP", 1))
    names = control_set.at(r"Control\Network\{4D36E972-E325-11CE-BFC1-08002BE10318}")
    names.put(rf"{LAN}\Connection", sz("Name", "Ethernet"))
    names.put(rf"{WLAN.upper()}\Connection", sz("Name", "WLAN ü"))


def software_hive() -> Key:
    """SOFTWARE of a Windows 10 Pro 22H2."""
    root = Key("ROOT")
    root.put(
        NT,
        sz("ProductName", "Windows 10 Pro"),
        sz("EditionID", "Professional"),
        sz("InstallationType", "Client"),
        sz("DisplayVersion", "22H2"),
        sz("ReleaseId", "2009"),
        sz("CurrentVersion", "6.3"),
        sz("CurrentBuild", "19045"),
        sz("CurrentBuildNumber", "19045"),
        dword("UBR", 3803),
        dword("CurrentMajorVersionNumber", 10),
        dword("CurrentMinorVersionNumber", 0),
        dword("InstallDate", INSTALLED),
        qword("InstallTime", filetime(INSTALLED)),
    )
    root.put(r"Microsoft\Cryptography", sz("MachineGuid", MACHINE_ID))
    profiles = root.at(NT + r"\ProfileList")
    profiles.put("S-1-5-18", expand_sz("ProfileImagePath", r"%systemroot%\system32\systemprofile"))
    profiles.put(f"{SID}-1001", expand_sz("ProfileImagePath", r"C:\Users\Alice"))
    loaded = filetime(LOADED)
    profiles.put(
        OF_A_DOMAIN,
        expand_sz("ProfileImagePath", r"C:\Users\bob"),
        dword("LocalProfileLoadTimeHigh", loaded >> 32),
        dword("LocalProfileLoadTimeLow", loaded),
    )
    _programs(root)
    return root


def _programs(root: Key) -> None:
    root.put(
        UNINSTALL + r"\7-Zip",
        sz("DisplayName", "7-Zip 23.01 (x64)"),
        sz("DisplayVersion", "23.01"),
        sz("Publisher", "Igor Pavlov"),
        sz("InstallLocation", "C:\\Program Files\\7-Zip\\"),
        sz("InstallDate", "20231114"),
    )
    root.put(UNINSTALL + r"\Component", sz("DisplayVersion", "1"))
    root.put(
        "Wow6432Node\\" + UNINSTALL + r"\{AAAA}",
        sz("DisplayName", "Müller \ud83d\ude00 \ud800"),
        sz("InstallDate", "20231399"),
    )


def sam_hive() -> Key:
    """SAM with two accounts: a disabled one, and Alice, who has logged on."""
    root = Key("ROOT")
    account = root.put(
        r"SAM\Domains\Account", binary("V", bytes(64) + struct.pack("<III", *DOMAIN))
    )
    account.put(
        r"Users\000001F4",
        binary("F", _account(500, last_logon=0, flags=0x0211)),
        binary("V", _names("Administrator", "")),
    )
    account.put(
        r"Users\000003E9",
        binary("F", _account(1001, last_logon=filetime(LOGGED_ON), flags=0x0214)),
        binary("V", _names("alice", "Alice Müller")),
    )
    account.put(r"Users\Names\alice", Value("", 1001, b""))
    return root


def _account(number: int, *, last_logon: int, flags: int) -> bytes:
    facts = bytearray(80)
    struct.pack_into("<Q", facts, 8, last_logon)
    struct.pack_into("<I", facts, 48, number)
    struct.pack_into("<H", facts, 56, flags)
    return bytes(facts)


def _names(name: str, full_name: str) -> bytes:
    texts = utf16(name), utf16(full_name)
    head = bytearray(0xCC)
    struct.pack_into("<II", head, 0x0C, 0, len(texts[0]))
    struct.pack_into("<II", head, 0x18, len(texts[0]), len(texts[1]))
    struct.pack_into("<II", head, 0xA8, len(texts[0]) + len(texts[1]), len(SECRET))
    return bytes(head) + texts[0] + texts[1] + SECRET


def program(machine: int) -> bytes:
    """The head of a program for a processor ("PE Format", Microsoft)."""
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 0x80)
    return dos.ljust(0x80, b"\0") + b"PE\0\0" + struct.pack("<H", machine) + bytes(18)


def hives(letters: dict[str, bytes]) -> dict[str, bytes]:
    """The three hives by their names in System32/config."""
    roots = {"SYSTEM": system_hive(letters), "SOFTWARE": software_hive(), "SAM": sam_hive()}
    return {name: hive(root) for name, root in roots.items()}
