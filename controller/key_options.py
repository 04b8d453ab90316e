"""Options of the command line for what is encrypted."""

from __future__ import annotations

from typing import Annotated

import typer

Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="ADDRESS:file:PATH",
        help="Passphrase for what is encrypted; also ADDRESS:keyfile:PATH and ADDRESS:prompt.",
    ),
]
KeysFromStdin = Annotated[
    bool,
    typer.Option("--keys-from-stdin", help="Read passphrases from stdin, a line each."),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="ADDRESS:FILE",
        help="LUKS header that is kept in a file of its own.",
    ),
]
