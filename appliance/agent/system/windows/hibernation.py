"""Whether the memory of a Windows that is not shut down waits in hiberfil.sys.

Its first four bytes say so: ntfs-3g (libntfs-3g/volume.c, ntfs_volume_check_hiberfile) and
"Forensics Wiki: Hiberfil.sys". Fast startup writes the same file when Windows is shut down.
"""

from __future__ import annotations

from appliance.agent.outcome import Outcome
from appliance.agent.system.files import Files
from appliance.agent.system.root import RootError
from appliance.layer import Severity

PATH = "/hiberfil.sys"
_WAITING = {b"HIBR", b"LINK"}
_USED = {b"WAKE", b"RSTR", bytes(4), b""}


def tell_hibernation(files: Files, address: str, outcome: Outcome) -> None:
    """A finding where the file system may be older than what its Windows has in memory."""
    with files.opened(PATH) as file:
        try:
            if file is None:
                return
            untrusted_head = file.read(4).upper()
        except RootError as error:
            files.tell(PATH, str(error))
            return
    if untrusted_head in _WAITING:
        message = f"Windows is hibernated, or was shut down with fast startup: {PATH[1:]} waits to"
        message += " be resumed, and what was not written by then is not in the file systems"
        outcome.find(Severity.INFO, address, "hibernation-image", message)
    elif untrusted_head not in _USED:
        files.tell(PATH, "it does not begin as a hibernation file does")
