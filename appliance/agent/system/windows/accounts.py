"""Local accounts from the SAM hive, and who else has a profile, from ProfileList of SOFTWARE.

There is no specification; the layout of F and V is that of chntpw (sam.h: struct user_F, user_V)
and RegRipper (samparse). Of V, names alone are read: never the password hashes behind them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from appliance.agent.regf.hive import Hive
from appliance.agent.regf.record import Key
from appliance.agent.regf.values import decode, seconds_of, values_of
from appliance.layer import MAX_TEXT
from appliance.system import User

_ACCOUNT = "SAM\\Domains\\Account"
_PROFILES = "Microsoft\\Windows NT\\CurrentVersion\\ProfileList"

_F_LAST_LOGON, _F_FLAGS, _F_LENGTH = 8, 56, 58
_IS_DISABLED, _IS_LOCKED_OUT = 0x0001, 0x0400
_V_HEAD = 0xCC
"""Where the texts of V begin; in front of them are offset and length of each."""
_V_NAME, _V_FULL_NAME = 0x0C, 0x18
_MAX_V = 8192
_MAX_NAME = 512


def users_of(sam: Hive | None, software: Hive | None) -> list[User]:
    """Local accounts first, by number; then the others that have a profile here (SYSTEM, …, and
    accounts of a domain), named by its folder."""
    profiles = {each.uid: each for each in _profiles(software)} if software else {}
    local = list(_local(sam)) if sam else []
    known = {each.uid for each in local}
    users = [
        replace(each, home=profiles[each.uid].home) if each.uid in profiles else each
        for each in local
    ]
    return users + [each for each in profiles.values() if each.uid not in known]


def _local(sam: Hive) -> Iterator[User]:
    account = sam.find(_ACCOUNT)
    users = sam.find("Users", account) if account else None
    if not account or not users:
        return
    domain = _domain_of(sam, account)
    for key in sam.subkeys(users):
        if len(key.name) == 8 and all(each in "0123456789abcdefABCDEF" for each in key.name):
            yield _user_of(sam, key, domain)


def _user_of(sam: Hive, key: Key, domain: str | None) -> User:
    values = values_of(sam, key)
    facts = values.data("F", 80)
    names = values.data("V", _MAX_V)
    number = int(key.name, 16)
    last_logon = flags = None
    if len(facts) >= _F_LENGTH:
        last_logon = int.from_bytes(facts[_F_LAST_LOGON : _F_LAST_LOGON + 8], "little")
        flags = int.from_bytes(facts[_F_FLAGS : _F_FLAGS + 2], "little")
    return User(
        name=_text_of(names, _V_NAME) or "",
        uid=f"{domain}-{number}" if domain else str(number),
        full_name=_text_of(names, _V_FULL_NAME),
        last_login=seconds_of(last_logon),
        locked=None if flags is None else bool(flags & (_IS_DISABLED | _IS_LOCKED_OUT)),
    )


def _text_of(untrusted_v: bytes, at: int) -> str | None:
    if len(untrusted_v) < _V_HEAD:
        return None
    offset, length = struct.unpack_from("<II", untrusted_v, at)
    start = _V_HEAD + offset
    return decode(untrusted_v[start : start + min(length, _MAX_NAME)]) or None


def _domain_of(sam: Hive, account: Key) -> str | None:
    """The SID that the machine's accounts begin with: the last twelve bytes of V."""
    value = values_of(sam, account).data("V", _MAX_V)
    if len(value) < 24:
        return None
    return "S-1-5-21-{}-{}-{}".format(*struct.unpack("<III", value[-12:]))


def _profiles(software: Hive) -> Iterator[User]:
    profiles = software.find(_PROFILES)
    for key in software.subkeys(profiles) if profiles else ():
        values = values_of(software, key)
        home = values.text("ProfileImagePath")
        if not key.name.upper().startswith("S-1-") or home is None:
            continue
        high = values.number("LocalProfileLoadTimeHigh")
        low = values.number("LocalProfileLoadTimeLow")
        loaded = None if high is None or low is None else high << 32 | low
        name = home.replace("/", "\\").rstrip("\\").rpartition("\\")[2]
        yield User(
            name=name[:MAX_TEXT], uid=key.name.upper(), home=home, last_login=seconds_of(loaded)
        )
