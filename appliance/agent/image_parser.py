"""Block devices with the content of disk images, each parsed by a process without rights.

qemu-nbd reads what QEMU knows, behind it images/reader what only that knows; the kernel's NBD
client takes it from there. A raw image needs no parser: it gets a loop device.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from appliance.agent.block_options import KEY, BlockOptions
from appliance.agent.command import PARSER_ACCOUNT, CommandError, Parser, start_parser
from appliance.agent.loop import loop_device
from appliance.agent.nbd import nbd_device
from images.graph import READERS, Node, Plan
from images.nbd_wire import NbdError

_SECONDS = 60.0
_UNPACKED = 2 << 20
"""Bytes of a packed image that are unpacked in a second, before it can be read."""
_LARGEST = 1 << 40
"""Bytes of the largest disk that is unpacked."""
_WRONG_KEY = "Invalid password"
"""What QEMU says (crypto/block-luks.c) when no key slot opens."""
_CODE = Path(__file__).resolve().parents[2]
_READER = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from images.reader.__main__ import main; sys.exit(main())"
)


class ParserError(Exception):
    """The image could not be parsed; the message is the parser's own."""


class KeyNeeded(Exception):
    """The image is encrypted and none of `tried` keys opens it."""

    def __init__(self, tried: int) -> None:
        super().__init__(tried)
        self.tried = tried


def start_seconds(plan: Plan) -> float:
    """How long it may take until the device is there."""
    unpacking = sum(file.size for file in plan.files) / _UNPACKED if plan.size is None else 0.0
    return _SECONDS + unpacking


@contextmanager
def block_device(plan: Plan, keys: Sequence[bytes | bytearray]) -> Iterator[str]:
    """Yield the node of a read-only device with the disk that the image holds.

    The `keys` are tried where it is encrypted. Raises ParserError and KeyNeeded.
    """
    with ExitStack() as stack:
        try:
            if (size := _plain_size(plan)) is not None:
                node = stack.enter_context(loop_device(plan.files[0].fd, size))
            else:
                node = _parsed(plan, keys, stack)
        except OSError as error:
            raise ParserError(error.strerror or str(error)) from error
        yield node


def _plain_size(plan: Plan) -> int | None:
    """The size of a disk that is the first bytes of its only file, None where it is not so."""
    top = plan.top
    if top.driver != "raw" or top.file != 0 or len(plan.files) != 1:
        return None
    return plan.size if plan.size is not None and plan.size <= plan.files[0].size else None


def _parsed(plan: Plan, keys: Sequence[bytes | bytearray], stack: ExitStack) -> str:
    if not _is_encrypted(plan.top):
        return stack.enter_context(_parser(plan, None))
    for key in keys:
        with ExitStack() as own:
            try:
                node = own.enter_context(_parser(plan, key))
            except ParserError as error:
                if _WRONG_KEY not in str(error):
                    raise
            else:
                stack.push(own.pop_all())
                return node
    raise KeyNeeded(len(keys))


def _is_encrypted(node: Node | None) -> bool:
    if node is None:
        return False
    below = (node.source, node.backing, node.data)
    return bool(node.encryption) or any(_is_encrypted(each) for each in below)


@contextmanager
def _parser(plan: Plan, key: bytes | bytearray | None) -> Iterator[str]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="image", dir="/run")))
        os.chown(folder, PARSER_ACCOUNT, PARSER_ACCOUNT)
        parsers: list[Parser] = []
        words: list[str] = []
        stack.callback(lambda: words.extend(parser.close() for parser in reversed(parsers)))
        try:
            server = stack.enter_context(_started(plan, key, folder, parsers))
            device = nbd_device(server, plan.size, timeout=start_seconds(plan))
            node = stack.enter_context(device)
        except (NbdError, CommandError, OSError) as error:
            stack.close()
            said = "; ".join(filter(None, words))
            raise ParserError(f"{error}{f' (it said: {said})' if said else ''}") from error
        yield node


@contextmanager
def _started(
    plan: Plan, key: bytes | bytearray | None, folder: Path, parsers: list[Parser]
) -> Iterator[socket.socket]:
    """A connection to what serves the image; what was started is added to `parsers`."""
    with ExitStack() as own:
        if plan.top.driver in READERS:
            parsers.append(_reader(plan, folder))
            descriptors: list[int] = []
            name = _behind(folder)
        else:
            options = BlockOptions(plan.files, own)
            name, descriptors = options.name(plan.top), options.descriptors
        secret = _secret(key, descriptors, own) if key is not None else ()
        path = folder / "parser"
        argv = ["qemu-nbd", "--read-only", f"--socket={path}", "--shared=1", *secret, name]
        parsers.append(start_parser(argv, descriptors))
        with _connected(path, parsers[-1], start_seconds(plan)) as server:
            yield server


def _secret(key: bytes | bytearray, descriptors: list[int], stack: ExitStack) -> tuple[str, str]:
    memory = os.memfd_create("key", os.MFD_CLOEXEC)
    stack.callback(os.close, memory)
    os.write(memory, key)
    descriptors.append(memory)
    return "--object", f"secret,id={KEY},file=/proc/self/fd/{memory}"


def _reader(plan: Plan, folder: Path) -> Parser:
    """It takes the first connections from a socket that it is handed."""
    path = folder / "reader"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        os.chown(path, PARSER_ACCOUNT, PARSER_ACCOUNT)
        listener.listen(4)
        descriptors = [plan.files[number].fd for number in plan.top.chain]
        kind = plan.top.driver.removeprefix("reader:")
        numbers = ",".join(map(str, descriptors))
        python = ["/usr/bin/python3", "-I", "-S", "-X", "utf8", "-c", _READER, str(_CODE)]
        argv = [*python, kind, numbers, str(_LARGEST), "reader"]
        return start_parser(argv, descriptors, stdin=listener.fileno())


def _behind(folder: Path) -> str:
    """qemu-nbd in front of the reader: the kernel's client knows only NBD's simple replies."""
    server = f'{{"type":"unix","path":"{folder}/reader"}}'
    source = f'{{"driver":"nbd","server":{server},"export":"reader","read-only":true}}'
    return f'json:{{"driver":"raw","read-only":true,"file":{source}}}'


@contextmanager
def _connected(path: Path, parser: Parser, seconds: float) -> Iterator[socket.socket]:
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        while True:
            try:
                client.connect(str(path))
                break
            except OSError:
                if parser.has_ended or time.monotonic() > deadline:
                    raise NbdError("the parser did not take the image") from None
                time.sleep(0.003)
        yield client
