"""Serves one session: requests in, layers and findings out."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from appliance.agent.device import DeviceError
from appliance.agent.fsck.repair import repair_all
from appliance.agent.fsck.run import check_all
from appliance.agent.headers import open_headers
from appliance.agent.keyring import Keyring, parse_key
from appliance.agent.mapper import map_disks
from appliance.agent.outcome import Outcome
from appliance.agent.system.find import find_systems
from appliance.agent.versions import tool_versions
from appliance.agent.work import Work
from appliance.check import Checking
from appliance.protocol import (
    AGENT_ADDRESS,
    Body,
    Deed,
    Disk,
    Failed,
    Mapped,
    ProtocolError,
    Request,
    Wanted,
    encode_reply,
    parse_object,
    read_frame,
)
from appliance.repair import Repairing


def listen() -> socket.socket:
    """The socket that sshd forwards the session's channel to."""
    listener = socket.create_server(AGENT_ADDRESS, backlog=1)
    listener.set_inheritable(False)
    return listener


def serve(listener: socket.socket) -> None:
    """Serve the one session that this guest is for; return when it is over."""
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, ExitStack() as stack:
        while (payload := read_frame(connection.recv)) is not None:
            _answer(payload, lambda body: connection.sendall(encode_reply(body)), stack)


def _answer(payload: bytes, emit: Callable[[Body], None], stack: ExitStack) -> None:
    try:
        request = _parse_request(payload)
        emit(_map(request, emit, stack) if request.op == "map" else _nothing())
    except (ProtocolError, DeviceError) as error:
        emit(Failed("refused", str(error)))
    except (OSError, MemoryError, ValueError) as error:
        emit(Failed("failed", f"{type(error).__name__}: {error}"))


def _parse_request(payload: bytes) -> Request:
    decoded = parse_object(payload)
    try:
        return Request(
            decoded["op"],
            [Disk(**disk) for disk in decoded["disks"]],
            [parse_key(key) for key in decoded["keys"]],
            [Deed(**deed) for deed in decoded["fatal"]],
            _wanted(decoded["wanted"]),
            [Disk(**disk) for disk in decoded["headers"]],
            float(decoded["seconds"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"not a request: {error}") from None


def _wanted(decoded: dict[str, Any]) -> Wanted:
    check, repair = decoded.pop("check"), decoded.pop("repair")
    return Wanted(
        **decoded,
        check=Checking(**check) if check else None,
        repair=Repairing(**repair) if repair else None,
    )


def _map(request: Request, emit: Callable[[Body], None], stack: ExitStack) -> Mapped:
    outcome = Outcome(emit, request.fatal, time.monotonic() + request.seconds)
    keyring = Keyring(request.keys)
    stack.callback(keyring.wipe)
    headers = open_headers(request.headers, outcome, stack)
    work = Work(outcome, stack, keyring, request.wanted, headers)
    file_systems = map_disks(request.disks, work)
    keyring.wipe()
    if request.wanted.systems:
        find_systems(file_systems, work)
    if request.wanted.check:
        check_all(file_systems, request.wanted.check, outcome)
    if request.wanted.repair:
        repair_all(file_systems, request.wanted.repair, outcome)
    timings = {phase: round(s, 4) for phase, s in outcome.timings.items()}
    return Mapped(tool_versions(), timings, outcome.memory)


def _nothing() -> Mapped:
    """Answer to `ping`: the session works and the guest is fresh."""
    return Mapped({"kernel": os.uname().release}, {})
