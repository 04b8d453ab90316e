"""The agent's way: prepare, wait on the port for orders, then serve one session over SSH.

It is the only program of the guest that lives long, started before the state is saved.
"""

from __future__ import annotations

import socket
from typing import Any

from appliance.agent import server, warm
from appliance.agent.port import Port
from appliance.agent.provision import provision, start_sshd
from appliance.protocol import VERSION, Failed, Mapped, ProtocolError, Provision


def main() -> None:
    """Serve orders until a session has been served; a second one is never offered."""
    warm.prepare()
    port = Port()
    listener = server.listen()
    while not _obey(port.read_order(), port, listener):
        pass


def _obey(order: dict[str, Any], port: Port, listener: socket.socket) -> bool:
    """Carry out one order; return whether the guest has served its purpose."""
    try:
        if order.get("op") == "provision":
            _serve(order, port, listener)
            return True
        warm.rehearse()
        start_sshd(port.fd)
        port.answer(Mapped({"protocol": str(VERSION)}, {}))
    except ProtocolError as error:
        port.answer(Failed("refused", str(error)))
    return False


def _serve(order: dict[str, Any], port: Port, listener: socket.socket) -> None:
    del order["op"]
    port.answer(provision(Provision(**order)))
    server.serve(listener)


if __name__ == "__main__":
    main()
