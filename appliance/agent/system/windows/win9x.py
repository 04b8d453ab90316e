"""Windows 95, 98 and Me: named, and no more; their registry has another format (CREG).

MSDOS.SYS is a text since Windows 95, and has WinVer since 98 (Microsoft KB 118579).
"""

from __future__ import annotations

import re

from appliance.agent.system.files import Files, clipped
from appliance.system import System

_WIN_VER = re.compile(r"^\s*WinVer\s*=\s*(\d{1,3})\.(\d{1,3})(\.\d{1,6})?", re.IGNORECASE)
_PRODUCTS = {
    (4, 0): "Microsoft Windows 95",
    (4, 10): "Microsoft Windows 98",
    (4, 90): "Microsoft Windows Millennium Edition",
}
_FOLDERS = ("Windows", "Win95", "Win98")


def read_win9x(files: Files, address: str, path: str) -> System | None:
    """The system at the root of `files`, None where there is none of these."""
    folder = next((each for each in _FOLDERS if files.root.is_file(f"/{each}/System.dat")), None)
    if folder is None or not files.root.is_file("/MSDOS.SYS"):
        return None
    major, minor, build = 4, 0, None
    for line in files.lines("/MSDOS.SYS", 65536):
        if match := _WIN_VER.match(line):
            major, minor = int(match[1]), int(match[2])
            build = (match[3] or "").removeprefix(".")
    return System(
        root=address,
        root_path=path,
        name="windows",
        distro="windows",
        product_name=_PRODUCTS.get((major, minor), "Microsoft Windows 9x"),
        version=f"{major}.{minor:02}",
        major_version=major,
        minor_version=minor,
        build_id=clipped(build),
        arch="i386",
        windows_systemroot=f"/{folder}",
    )
