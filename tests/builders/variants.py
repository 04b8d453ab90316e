"""One raw disk in every container format that `forensic` takes."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.builders.command import run
from tests.builders.sparse import make_sparse, place_image


@dataclass(frozen=True)
class Recipe:
    """How qemu-img makes one variant: the format's name, options and the file's name."""

    name: str
    format: str
    filename: str
    options: tuple[str, ...] = ()
    subformat: str | None = None


@dataclass(frozen=True)
class Variant:
    """A made container: `path` is what to give to `forensic`, `files` all that belongs to it."""

    name: str
    format: str
    subformat: str | None
    path: Path
    files: tuple[Path, ...]


def vmdk(subformat: str) -> Recipe:
    """The recipe of one VMDK subformat."""
    options = ("-o", f"subformat={subformat}")
    return Recipe(f"vmdk-{subformat}", "vmdk", f"{subformat}.vmdk", options, subformat)


RECIPES = (
    Recipe("raw", "raw", "disk.raw"),
    Recipe("qcow2-v2", "qcow2", "v2.qcow2", ("-o", "compat=0.10"), "compat=0.10"),
    Recipe("qcow2-v3", "qcow2", "v3.qcow2", ("-o", "compat=1.1"), "compat=1.1"),
    Recipe("qcow2-compressed", "qcow2", "compressed.qcow2", ("-c",), "compressed"),
    vmdk("monolithicSparse"),
    vmdk("streamOptimized"),
    vmdk("monolithicFlat"),
    vmdk("twoGbMaxExtentSparse"),
    vmdk("twoGbMaxExtentFlat"),
)


def make_variants(disk: Path, folder: Path) -> tuple[Variant, ...]:
    """Make every variant of a raw disk below `folder`, each in a folder of its own name."""
    return tuple(make_variant(recipe, disk, folder / recipe.name) for recipe in RECIPES)


def make_variant(recipe: Recipe, disk: Path, folder: Path) -> Variant:
    """Make one variant in an own, new folder; it replaces what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / recipe.filename
    if recipe.format == "raw":
        make_sparse(path, disk.stat().st_size)
        place_image(disk, path, 0)
    else:
        convert(disk, path, recipe.format, recipe.options)
    files = tuple(sorted(folder.iterdir()))
    return Variant(recipe.name, recipe.format, recipe.subformat, path, files)


def convert(disk: Path, target: Path, target_format: str, options: tuple[str, ...] = ()) -> Path:
    """Convert a raw disk with qemu-img."""
    run("qemu-img", "convert", "-q", "-f", "raw", "-O", target_format, *options, disk, target)
    return target
