"""`forensic os`: an inspection of which only the operating systems are shown."""

from __future__ import annotations

import typer

from appliance.protocol import Wanted
from controller.interruption import taken_down
from controller.options import (
    Accel,
    Add,
    AllowDir,
    HashChoice,
    Headers,
    Images,
    Json,
    KeepLog,
    Keys,
    KeysFromStdin,
    Live,
    Memory,
    Open,
    Quiet,
    RequireKvm,
    SectorSize,
    Snapshot,
    Timeout,
    Verbose,
    Verify,
    View,
)


def show(  # noqa: PLR0913, PLR0917 - a command has its options
    images: Images,
    add: Add = None,
    allow_dir: AllowDir = None,
    snapshot: Snapshot = None,
    key: Keys = None,
    keys_from_stdin: KeysFromStdin = False,
    header: Headers = None,
    hash_: HashChoice = "none",
    verify: Verify = False,
    live: Live = False,
    sector_size: SectorSize = 512,
    view: View = "as-found",
    open_: Open = None,
    json: Json = False,
    memory: Memory = None,
    accel: Accel = "auto",
    require_kvm: RequireKvm = False,
    timeout: Timeout = 300.0,
    keep_log: KeepLog = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show which operating systems are on disk images: version, users, packages, mounts, network.

    All layers are opened as by inspect, but not shown. Exit status: as of inspect.
    """
    from controller.inspection import Inspecting, run  # noqa: PLC0415 - not for --help

    order = Inspecting(
        images=[*images, *(add or [])],
        allowed=allow_dir or [],
        snapshot=snapshot,
        keys=key or [],
        keys_from_stdin=keys_from_stdin,
        headers=header or [],
        hash=hash_,
        verify=verify,
        live=live,
        sector_size=sector_size,
        wanted=Wanted(view, False, open_ or [], True),
        json=json,
        memory=memory,
        accelerator=accel,
        require_kvm=require_kvm,
        timeout=timeout,
        keep_log=keep_log,
        quiet=quiet,
        verbose=verbose,
        only_systems=True,
    )
    with taken_down():
        raise typer.Exit(run(order))
