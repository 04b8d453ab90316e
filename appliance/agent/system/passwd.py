"""Accounts: passwd(5), and of shadow(5) only whether a password can be used. Hashes stay there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from appliance.agent.system.files import Files, clipped
from appliance.system import User

_MAX_SHADOW = 4 << 20
_FIELDS = 7


def read_users(files: Files) -> list[User]:
    """The accounts of etc/passwd, without those that another service adds (NIS)."""
    states = parse_shadow(files.lines("etc/shadow", _MAX_SHADOW))
    return files.bounded(parse_passwd(files.lines("etc/passwd"), states), "users")


def parse_passwd(lines: Iterable[str], locked: dict[str, bool]) -> Iterator[User]:
    """`locked` has the answer of shadow for those whose password is there."""
    for line in lines:
        fields = line.split(":")
        if len(fields) < _FIELDS or not fields[0] or line[0] in "#+-":
            continue
        name, password, uid, gid, gecos, home, shell = fields[:_FIELDS]
        yield User(
            name=name,
            uid=uid,
            gid=clipped(gid),
            full_name=clipped(gecos.split(",")[0]),
            home=clipped(home),
            shell=clipped(shell),
            locked=locked.get(name) if password == "x" else _is_locked(password),  # noqa: S105
        )


def parse_shadow(lines: Iterable[str]) -> dict[str, bool]:
    """Whether the password of each account is locked. The hash is not kept."""
    found: dict[str, bool] = {}
    for line in lines:
        name, colon, rest = line.partition(":")
        if name and colon:
            found[name] = _is_locked(rest.partition(":")[0])
    return found


def _is_locked(password: str) -> bool:
    """An empty one needs no password at all; what is no hash can never fit."""
    return password.startswith(("!", "*"))
