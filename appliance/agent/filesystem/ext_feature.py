"""The names of ext2, ext3 and ext4 features, spelled as e2fsprogs prints them.

Source: e2fsprogs lib/e2p/feature.c (the first name where it has two). Bits are numbered from 0.
"""

from __future__ import annotations

COMPATIBLE = {
    0: "dir_prealloc",
    1: "imagic_inodes",
    2: "has_journal",
    3: "ext_attr",
    4: "resize_inode",
    5: "dir_index",
    6: "lazy_bg",
    8: "snapshot_bitmap",
    9: "sparse_super2",
    10: "fast_commit",
    11: "stable_inodes",
    12: "orphan_file",
}

INCOMPATIBLE = {
    0: "compression",
    1: "filetype",
    2: "needs_recovery",
    3: "journal_dev",
    4: "meta_bg",
    6: "extent",
    7: "64bit",
    8: "mmp",
    9: "flex_bg",
    10: "ea_inode",
    12: "dirdata",
    13: "metadata_csum_seed",
    14: "large_dir",
    15: "inline_data",
    16: "encrypt",
    17: "casefold",
}

READ_ONLY_COMPATIBLE = {
    0: "sparse_super",
    1: "large_file",
    3: "huge_file",
    4: "uninit_bg",
    5: "dir_nlink",
    6: "extra_isize",
    8: "quota",
    9: "bigalloc",
    10: "metadata_csum",
    11: "replica",
    12: "read-only",
    13: "project",
    14: "shared_blocks",
    15: "verity",
    16: "orphan_present",
}


def feature_names(compatible: int, incompatible: int, read_only: int) -> list[str]:
    """Names for three 32-bit sets, in the order of `dumpe2fs -h`; FEATURE_I31 where it has none."""
    sets = (
        ("C", COMPATIBLE, compatible),
        ("I", INCOMPATIBLE, incompatible),
        ("R", READ_ONLY_COMPATIBLE, read_only),
    )
    return [
        names.get(bit, f"FEATURE_{letter}{bit}")
        for letter, names, bits in sets
        for bit in range(32)
        if bits >> bit & 1
    ]
