"""All hostile containers by name, and how to make them."""

from pathlib import Path

from tests.builders import (
    hostile_files,
    hostile_qcow2,
    hostile_qcow2_tables,
    hostile_vmdk,
    hostile_vmdk_parents,
)
from tests.builders.benign_containers import BENIGN
from tests.builders.hostile_place import Benign, Hostile, Place

__all__ = ["BENIGN", "HOSTILE", "Benign", "Hostile", "Place", "make_case"]

HOSTILE: dict[str, Hostile] = {
    f"{kind}: {name}": case
    for kind, cases in (
        ("qcow2", hostile_qcow2.NAMES),
        ("qcow2", hostile_qcow2_tables.HEADERS),
        ("qcow2", hostile_qcow2_tables.HARMLESS),
        ("vmdk", hostile_vmdk.EXTENTS),
        ("vmdk", hostile_vmdk_parents.PARENTS),
        ("vmdk", hostile_vmdk.SPARSE),
        ("vmdk", hostile_vmdk.HARMLESS),
        ("file", hostile_files.REFUSED),
        ("file", hostile_files.HARMLESS),
    )
    for name, case in cases.items()
}


def make_case(case: Hostile | Benign, outside: Place, number: int) -> tuple[Path, Path]:
    """Make it in a folder of its own beside the secrets; return what to open, and the folder."""
    folder = outside.outside.parent / f"case{number}"
    folder.mkdir()
    return case.make(Place(folder, outside.outside, outside.token)), folder
