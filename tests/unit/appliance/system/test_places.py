"""Which folders of a file system are taken for the root of a system."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.agent.device import Device
from appliance.agent.system.places import candidate_paths
from appliance.agent.volume import Volume
from appliance.agent.work import FileSystem
from appliance.layer import Content, Kind

VOLUME = Volume("disk0", Kind.DISK, [], None, 0, Device("", -1, 0, 512), 0, None)
DEPLOYED = "ostree/deploy/fedora/deploy/0123abcd.0"


def paths_in(folder: Path) -> list[str]:
    return candidate_paths(folder, FileSystem(VOLUME, Content("ext4")))


@pytest.mark.parametrize(
    ("files", "links", "paths"),
    [
        ([], {}, []),
        (["etc/os-release"], {}, ["/"]),
        ([], {"etc/os-release": "../usr/lib/os-release"}, ["/"]),
        (["usr/lib/os-release"], {}, ["/"]),
        (["windows/system32/CONFIG/SYSTEM"], {}, ["/"]),
        (["bin/sh", "etc/fstab"], {}, ["/"]),
        (["etc/fstab"], {}, []),
        (["bin/sh"], {}, []),
        (["home/anna/etc/os-release"], {}, []),
        ([f"{DEPLOYED}/usr/lib/os-release"], {}, [f"/{DEPLOYED}"]),
        (["EFI/BOOT/BOOTX64.EFI"], {}, []),
        ([], {"etc": "/etc", "bin": "/bin"}, []),
        ([], {"etc": "../../../../etc", "bin": "../../../../bin"}, []),
    ],
)
def test_roots(tmp_path: Path, files: list[str], links: dict[str, str], paths: list[str]) -> None:
    """A link that leads out means nothing here: the host has an /etc."""
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name, target in links.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(target)
    assert paths_in(tmp_path) == paths
