"""Addresses of the network as configurations write them."""

from __future__ import annotations

import ipaddress

MAX_ADDRESSES = 64
"""Of one interface."""


def with_prefix(address: str, mask: str | None) -> str:
    """`address/length` where the mask is one; the address as it is where it has a length."""
    if "/" in address or not mask:
        return address
    try:
        length = ipaddress.ip_network(f"0.0.0.0/{mask}").prefixlen
    except ValueError:
        return f"{address}/{mask}"
    return f"{address}/{length}"


def words_of(value: str) -> list[str]:
    """What is separated by blanks, commas or semicolons, as many as are believed."""
    for sign in ",;":
        value = value.replace(sign, " ")
    return value.split()[:MAX_ADDRESSES]
