"""What the registry of a Windows NT says of it; what is older than that is only named.

Paths and meanings of keys: Microsoft's documentation where there is any, otherwise those that
virt-inspector (libguestfs, inspect-fs-windows.c) and RegRipper read. "Offline" registries have no
CurrentControlSet; which control set it would be is in the key Select.
"""
