"""The agent's way: prepare, wait on the port for orders, then serve one session over SSH.

It is the only program of the guest that lives long, started before the state is saved.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeVar

from appliance.agent import server, ssh_server, warm
from appliance.agent.port import Port
from appliance.agent.provision import provision
from appliance.protocol import VERSION, Failed, Mapped, ProtocolError, Provision

T = TypeVar("T")


def main() -> None:
    """Obey the two orders, each once and in this order: `warm`, then `provision`."""
    warm.prepare()
    port = Port()
    listener = server.listen()
    connection = _until_done(port, lambda order: _warm(order, port))
    _until_done(port, lambda order: _serve(order, port, connection, listener))


def _until_done(port: Port, obey: Callable[[dict[str, Any]], T]) -> T:
    """Read orders until one was carried out; say why each of the others was not."""
    while True:
        order = port.read_order()
        try:
            return obey(order)
        except ProtocolError as error:
            port.answer(Failed("refused", str(error)))


def _warm(order: dict[str, Any], port: Port) -> socket.socket:
    if order.get("op") != "warm":
        raise ProtocolError("the guest was not prepared yet")
    warm.rehearse()
    connection = ssh_server.start()
    port.answer(Mapped({"protocol": str(VERSION)}, {}))
    return connection


def _serve(
    order: dict[str, Any], port: Port, connection: socket.socket, listener: socket.socket
) -> None:
    if order.pop("op", None) != "provision":
        raise ProtocolError("the guest is prepared already")
    port.answer(provision(Provision(**order)))
    ssh_server.relay(port.fd, connection)
    server.serve(listener)


if __name__ == "__main__":
    main()
