"""Which tools of the guest speak in a result."""

from __future__ import annotations

import os
import platform
from functools import cache

from appliance.agent.blkid import library_version
from appliance.agent.lvm import lvm_version


@cache
def tool_versions() -> dict[str, str]:
    """Name -> version. Asked once before the state is saved, so that it costs nothing later."""
    return {
        "kernel": os.uname().release,
        "libblkid": library_version(),
        "lvm": lvm_version(),
        "python": platform.python_version(),
    }
