"""Swap areas of Linux, and the hibernation images in them.

Source: Linux include/linux/swap.h (union swap_header), kernel/power/swap.c (struct
swsusp_header) and mkswap(8); the signature is the last ten bytes of the first page.
"""

from __future__ import annotations

from typing import Literal

from appliance.agent.filesystem.account import Problem, Usage, account
from appliance.agent.filesystem.reading import BadSuperblock, Volume
from appliance.layer import Severity

PAGE_SIZES = (4096, 8192, 16384, 32768, 65536)
SWAP = (b"SWAPSPACE2", b"SWAP-SPACE")
HIBERNATION = (b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001")
TUXONICE = b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c"


def read_swap(volume: Volume) -> Usage:
    """Size from the header, its page included. Swap keeps no account of what is in use."""
    page, untrusted_signature = _signature(volume)
    problems = []
    if untrusted_signature not in SWAP:
        message = "The swap area holds a hibernation image: the memory of a suspended machine."
        problems.append(Problem(Severity.INFO, "hibernation-image", message))
    size = None if untrusted_signature == b"SWAP-SPACE" else _size(volume, page)
    if size is None:
        return Usage(block_size=page, problems=tuple(problems))
    return account(volume, block_size=page, size=size, free=None, problems=problems)


def _signature(volume: Volume) -> tuple[int, bytes]:
    for page in PAGE_SIZES:
        if page > volume.size:
            break
        untrusted_signature = volume.bytes_at(page - 10, 10)
        hibernated = untrusted_signature in HIBERNATION or untrusted_signature.startswith(TUXONICE)
        if untrusted_signature in SWAP or hibernated:
            return page, untrusted_signature
    raise BadSuperblock("it does not have the signature of swap")


def _size(volume: Volume, page: int) -> int | None:
    """In bytes; the header is in the byte order of the machine that made it."""
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    for order in orders:
        header = volume.block(1024, 12, order)
        if header.u32(0) == 1:
            return (header.u32(4) + 1) * page
    return None
