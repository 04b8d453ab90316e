"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AllowDir = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow-dir",
        metavar="DIR",
        readable=False,
        help="Images may refer to files anywhere below DIR, besides those in their own folder.",
    ),
]
Snapshot = Annotated[
    str | None,
    typer.Option("--snapshot", metavar="NAME", help="Show this internal snapshot of a qcow2."),
]
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
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no notes.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Everything that is known.")]

Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE...", help="Disk images.", readable=False)
]
Add = Annotated[
    list[Path] | None,
    typer.Option(
        "-a", "--add", metavar="IMAGE", readable=False, help="One more disk of the same system."
    ),
]
HashChoice = Annotated[
    str,
    typer.Option(
        "--hash", metavar="none|files|all", help="SHA-256 of the files, or of the disks too."
    ),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Hash the files again at the end, and compare.")
]
Live = Annotated[
    bool, typer.Option("--live", help="Permit evidence that somebody else can write to.")
]
SectorSize = Annotated[
    int, typer.Option("--sector-size", metavar="512|4096", help="Bytes in a sector of the disks.")
]
View = Annotated[
    str,
    typer.Option(
        "--view",
        metavar="as-found|recovered",
        help="Replay journals on a throw-away overlay, or not at all.",
    ),
]
Open = Annotated[
    list[str] | None,
    typer.Option("--open", metavar="ADDRESS:/PATH", help="Look into this one of them, too."),
]
Memory = Annotated[
    int | None,
    typer.Option(
        metavar="MIB", help="Memory of the guest in MiB; without it 512, or what a key needs."
    ),
]
Accel = Annotated[
    str, typer.Option(metavar="auto|kvm|tcg", help="How the guest's processor is run.")
]
RequireKvm = Annotated[bool, typer.Option("--require-kvm", help="Refuse to run without KVM.")]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="Time limit for the work in the guest.")
]
KeepLog = Annotated[
    Path | None,
    typer.Option(metavar="FILE", readable=False, help="Write the guest's console to FILE."),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="ADDRESS:FILE",
        help="LUKS header that is kept in a file of its own.",
    ),
]
Repair = Annotated[
    bool,
    typer.Option("--repair", help="Repair what has errors, on an overlay; no image is changed."),
]
SaveOverlay = Annotated[
    Path | None,
    typer.Option(
        "--save-overlay",
        metavar="FILE.qcow2",
        readable=False,
        help="Keep the overlay: a qcow2 on top of the image.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="NEW.qcow2|NEW.raw",
        readable=False,
        help="Write a whole repaired copy of the disk.",
    ),
]
OverlaySize = Annotated[
    str | None,
    typer.Option("--overlay-size", metavar="SIZE", help="What a repair may write, as 512M or 4G."),
]
ForceLogZeroing = Annotated[
    bool,
    typer.Option("--force-log-zeroing", help="Throw away a log of XFS that cannot be replayed."),
]
