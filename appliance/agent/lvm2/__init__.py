"""LVM2's own structures, read without a process of LVM: label, metadata areas, their text."""
