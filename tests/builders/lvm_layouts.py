"""One group with every layout, made by LVM itself in a guest: the host has no device-mapper.

Five disks of 160 MiB. Each volume has an ext4 with the volume's name as its label; what lies under
a cache has the label "stale" on the slow volume. On a sixth disk is the group `twin`, whose labels
begin with "first-".
"""

from __future__ import annotations

from pathlib import Path

from controller.base import RECIPE, find
from controller.store import Store
from tests.builders.in_guest import LVM_CONFIGURATION, run_in_guest

MIB = 1 << 20
DISKS = 5

SCRIPT = f"""
cat > /etc/lvm/lvm.conf <<'END'
{LVM_CONFIGURATION}
END
lvm <<'END'
pvcreate -q -y --pvmetadatacopies 2 /dev/sda
pvcreate -q -y /dev/sdb /dev/sdc /dev/sdd /dev/sde
vgcreate -q -s 1M vg /dev/sda /dev/sdb /dev/sdc /dev/sdd /dev/sde
lvcreate -q -y -Wn -Zn -n linear -L 16M vg /dev/sda
lvcreate -q -y -Wn -Zn -n plain -L 4M vg /dev/sda
lvcreate -q -y -Wn -Zn -n gone -L 4M vg /dev/sdb
lvcreate -q -y -Wn -Zn -n partly -l 8 vg /dev/sda
lvextend -q -y -l +8 vg/partly /dev/sdb
lvcreate -q -y -Wn -Zn -n stripes -i 2 -L 16M vg /dev/sda /dev/sdb
lvcreate -q -y -Wn -Zn -n three -i 3 -I 16k -L 12M vg /dev/sda /dev/sdc /dev/sdd
lvcreate -q -y -Wn -Zn -n raidzero --type raid0 -i 2 -L 8M vg /dev/sdc /dev/sdd
lvcreate -q -y -Wn -Zn -n raidone --type raid1 -m 1 -L 8M vg /dev/sda /dev/sdb
lvcreate -q -y -Wn -Zn -n raidfive --type raid5 -i 2 -L 8M vg /dev/sda /dev/sdb /dev/sdc
lvcreate -q -y -Wn -Zn -n raidsix --type raid6 -i 3 -L 12M vg
lvcreate -y -Wn -Zn -n raidten --type raid10 -i 2 -m 1 -L 8M vg /dev/sda /dev/sdb /dev/sdc /dev/sdd
lvcreate -q -y -Wn -Zn -n legs --type mirror --mirrorlog core -m 1 -L 8M vg /dev/sda /dev/sdb
lvcreate -q -y -Wn -Zn -n checked --type raid1 --raidintegrity y -m 1 -L 8M vg /dev/sdc /dev/sdd
lvcreate -q -y -Zn --type thin-pool -L 24M -n pool vg /dev/sdd
lvcreate -q -y -V 48M --thinpool pool -n thin vg
lvcreate -q -y -Wn -Zn -n volcached -L 8M vg /dev/sda
lvcreate -q -y -Wn -Zn -n poolcached -L 8M vg /dev/sda
lvcreate -q -y -Wn -Zn -n written -L 8M vg /dev/sda
lvcreate -q -y -Wn -Zn -n fastvol -L 16M vg /dev/sde
lvcreate -q -y -Wn -Zn -n writevol -L 8M vg /dev/sde
lvcreate -q -y --type cache-pool -L 8M -n fastpool vg /dev/sde
END
for name in volcached poolcached written; do
    /usr/sbin/mke2fs -q -F -t ext4 -O ^has_journal -L stale /dev/vg/$name
done
sync
lvm <<'END'
lvchange -an vg/fastvol vg/writevol
lvconvert -q -y --type cache --cachevol fastvol --cachemode writeback --chunksize 64k vg/volcached
lvconvert -q -y --type cache --cachepool fastpool --cachemode writeback vg/poolcached
lvchange -an vg/written
lvconvert -q -y --type writecache --cachevol writevol vg/written
lvchange -ay vg/written
END
# Without bandwidth for migrations, nothing that is dirty is written back while the cache idles.
for name in volcached poolcached; do
    dmsetup message vg-$name 0 migration_threshold 0
done
for name in linear plain gone partly stripes three raidzero raidone raidfive raidsix raidten legs \\
        checked thin; do
    /usr/sbin/mke2fs -q -F -t ext4 -L $name /dev/vg/$name
done
for name in volcached poolcached written; do
    truncate -s 8M /tmp/$name
    /usr/sbin/mke2fs -q -F -t ext4 -O ^has_journal -L $name /tmp/$name
    for round in 1 2 3; do
        dd if=/tmp/$name of=/dev/vg/$name bs=64k count=16 oflag=direct status=none
    done
done
sync
lvm <<'END'
lvcreate -q -y -s -L 4M -n old vg/linear /dev/sde
lvcreate -q -y -s -n thincopy vg/thin
END
/usr/sbin/e2label /dev/vg/linear changed
/usr/sbin/e2label /dev/vg/thin changedthin
sync
sleep 1
for name in volcached poolcached written; do
    echo "STATUS $name $(dmsetup status vg-$name)"
done
lvs --noheadings --units b --nosuffix --separator '|' -o lv_name,lv_layout,lv_role,lv_size vg \\
    | sed 's/^ */LVS /'
vgs --noheadings --units b --nosuffix --separator '|' \\
    -o vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,pv_count vg | sed 's/^ */VGS /'
dmsetup table | sed 's/^/TABLE /'
cd /usr/lib/forensic
python3 -B tables.py
lvm <<'END'
pvcreate -q -y /dev/sdf
vgcreate -q -s 1M twin /dev/sdf
lvcreate -q -y -Wn -Zn -n plain -L 4M twin
lvcreate -q -y -Wn -Zn -n based -L 4M twin
lvcreate -q -y -Zn --type thin-pool -L 8M -n pool twin
lvcreate -q -y -V 16M --thinpool pool -n thin twin
END
for name in plain based thin; do
    /usr/sbin/mke2fs -q -F -t ext4 -O ^metadata_csum,^has_journal -L first-$name /dev/twin/$name
done
sync
lvcreate -q -y -s -L 1M -n copy twin/based
/usr/sbin/e2label /dev/twin/based first-new
sync
vgchange -q -an
"""

TABLES = """
import os
from contextlib import ExitStack
from appliance.agent.device import Device
from appliance.agent.lvm2 import choice
from appliance.agent.lvm2.layout import Layout
from appliance.agent.lvm2.table import Place, Tables
from appliance.agent.volume import Volume
from appliance.layer import Kind

volumes = []
for letter in "abcde":
    path = f"/dev/sd{letter}"
    fd = os.open(path, os.O_RDONLY)
    size = os.lseek(fd, 0, os.SEEK_END)
    volumes.append(Volume(letter, Kind.DISK, [], None, size, Device(path, fd, size, 512), 0, path))
reading = choice.read(volumes)
assert reading.findings == [] and reading.unread == [], reading
(found,) = reading.groups
places = {
    name: Place(f"8:{16 * 'abcde'.index(member.volume.address)}", member.volume.size // 512)
    for name, member in found.members.items()
}
layout = Layout(found.group)
for volume in layout.visible():
    if layout.is_direct(volume):
        for row in Tables(found.group, places).rows(volume, ExitStack()):
            print(f"OURS vg-{volume.name}: {row.start} {row.sectors} {row.target} {row.parameters}")
"""


def make_layouts(folder: Path) -> tuple[list[Path], str]:
    """Build the disks in `folder`; return them, and what the guest's console said."""
    base = find(Store())
    assert base
    disks = [folder / f"{number}.raw" for number in range(DISKS + 1)]
    for disk in disks:
        with disk.open("wb") as file:
            file.truncate((160 if disk is not disks[-1] else 40) * MIB)
    files = agent_code() | {"tables.py": TABLES.encode()}
    return disks, run_in_guest(base, RECIPE, SCRIPT, disks, folder, files=files)


def agent_code() -> dict[str, bytes]:
    """The agent as it is in a guest."""
    root = Path(__file__).resolve().parents[2]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in (root / "appliance").rglob("*.py")
        if "recipe" not in path.parts
    }
