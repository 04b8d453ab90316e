"""When a system was booted and who logged in last, from all the places that record it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from appliance.agent.system.files import Files
from appliance.agent.system.records import History, last_login_of, parse_wtmp
from appliance.agent.system.root import File, RootError
from appliance.system import User

_MAX_WTMP = 4 << 20
_MAX_DATABASE = 8 << 20
_MAX_ROWS = 200_000
_MAX_STEPS = 2000
"""Times a thousand instructions of SQLite's machine: a hostile schema cannot keep it busy."""
_UID_DIGITS = 11
_LASTLOG = "var/log/lastlog"
_WAL_BYTES = slice(18, 20)
_SQLITE = b"SQLite format 3\0"
# <utmp.h>'s kinds in wtmpdb's column Type (wtmpdb.h): boot, run level, login.
_BOOT, _LOGIN = 1, 3


def read_history(files: Files, arch: str | None) -> History:
    """Boots, shutdowns and logins of wtmp (also the one that was rotated last) and wtmp.db."""
    history = History()
    for path in ("var/log/wtmp.1", "var/log/wtmp"):
        _read_wtmp(files, path, arch, history)
    for path in ("var/log/wtmp.db", "var/lib/wtmpdb/wtmp.db"):
        query = "SELECT Type, User, Login, Logout FROM wtmp ORDER BY ID DESC"
        for kind, user, login, logout in _rows(files, path, query):
            _note(history, kind, user, login, logout)
    for path in ("var/lib/lastlog/lastlog2.db", "var/log/lastlog2.db"):
        for name, time in _rows(files, path, "SELECT Name, Time FROM Lastlog2"):
            if isinstance(name, str) and isinstance(time, int):
                history.login(name, time)
    return history


def with_last_login(users: list[User], history: History, files: Files, arch: str | None) -> None:
    """Put the last login into each account, from the history and lastlog."""
    with files.opened(_LASTLOG) as file:
        for index, user in enumerate(users):
            time = history.logins.get(user.name, 0)
            if file:
                try:
                    time = max(time, _last_of(file, user.uid, arch))
                except RootError as error:
                    files.tell(_LASTLOG, str(error))
            if time > 0:
                users[index] = replace(user, last_login=time)


def _last_of(file: File, uid: str, arch: str | None) -> int:
    """What lastlog has for an account; 0 for none."""
    record = last_login_of(arch)
    if not (uid.isascii() and uid.isdigit() and len(uid) < _UID_DIGITS):
        return 0
    data = file.read(record.size, int(uid) * record.size)
    return int(record.unpack(data)[0]) if len(data) == record.size else 0


def _read_wtmp(files: Files, path: str, arch: str | None, history: History) -> None:
    with files.opened(path) as file:
        if file is None:
            return
        start = 0
        if file.size > _MAX_WTMP:
            size = 4800  # a multiple of both sizes of a record, 384 and 400
            start = -(-(file.size - _MAX_WTMP) // (size * 2)) * size * 2
            files.tell(path, f"it has {file.size} bytes; only the last {_MAX_WTMP} are read")
        try:
            data = file.read(_MAX_WTMP, start)
        except RootError as error:
            files.tell(path, str(error))
            return
    if not parse_wtmp(data, arch, history):
        files.tell(path, "most of its records are not those of this system's processor")


def _note(history: History, kind: object, user: object, login: object, logout: object) -> None:
    """A row of wtmpdb; its times are microseconds."""
    if kind == _BOOT and isinstance(login, int):
        history.boot(login // 1_000_000)
        if isinstance(logout, int) and logout > 0:
            history.shutdown(logout // 1_000_000)
    elif kind == _LOGIN and isinstance(user, str) and isinstance(login, int):
        history.login(user, login // 1_000_000)


def _rows(files: Files, path: str, query: str) -> Iterator[tuple[object, ...]]:
    """Rows of a database that is read into memory; what is wrong with it is told."""
    data = files.data(path, _MAX_DATABASE)
    if data is None:
        return
    try:
        yield from query_database(data, query)
    except (sqlite3.Error, ValueError, OverflowError) as error:
        files.tell(path, f"it cannot be read as a database: {error}")


def query_database(data: bytes, query: str) -> Iterator[tuple[object, ...]]:
    """At most _MAX_ROWS rows. Raises sqlite3.Error."""
    if not data.startswith(_SQLITE):
        raise sqlite3.DatabaseError("it does not begin as one")
    image = bytearray(data)
    image[_WAL_BYTES] = b"\x01\x01"  # a log beside it would be looked for, which memory has not
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(bytes(image))
        database.execute("PRAGMA trusted_schema = OFF")
        budget = iter(range(_MAX_STEPS))
        database.set_progress_handler(lambda: next(budget, None) is None, 1000)
        for count, row in enumerate(database.execute(query)):
            if count >= _MAX_ROWS:
                return
            yield row
