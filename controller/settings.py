"""How a case is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from appliance.layer import MAX_TEXT
from appliance.protocol import Wanted
from controller.accelerator import Choice
from controller.errors import UsageError
from controller.headers import DetachedHeader
from controller.keys import Key

Hashes = Literal["none", "files", "all"]

MIN_MEMORY = 256
DEFAULT_MEMORY = 512
MAX_MEMORY = 65536
MAX_TIMEOUT = 7 * 86400
SECTOR_SIZES = (512, 4096)
MAX_OPENED = 64
VIEWS = ("as-found", "recovered")


@dataclass(frozen=True, slots=True)
class Settings:
    """`memory` of the guest in MiB; where it is not fixed, the guest gets more if deriving a key
    needs that. Timeouts in seconds; `store` is the appliances' folder, None for the caller's
    cache. References of the images are followed below the `allowed` folders too; `snapshot` is an
    internal snapshot of the only image, `keys` are for what is encrypted, `headers` for LUKS
    volumes that have none themselves. `hash` says what is hashed: nothing, the files, or also the
    content of the disks; `verify` hashes the files again at the end. `live` permits evidence that
    somebody else can write to. `sector_size` is that of the disks, in bytes; `wanted` is what is
    done in the guest besides finding layers."""

    memory: int = DEFAULT_MEMORY
    memory_is_fixed: bool = False
    accelerator: Choice = "auto"
    require_kvm: bool = False
    timeout: float = 300.0
    start_timeout: float = 60.0
    store: Path | None = None
    allowed: tuple[Path, ...] = ()
    snapshot: str | None = None
    keys: tuple[Key, ...] = ()
    headers: tuple[DetachedHeader, ...] = ()
    hash: Hashes = "files"
    verify: bool = False
    live: bool = False
    sector_size: int = 512
    wanted: Wanted = field(default_factory=Wanted)

    def __post_init__(self) -> None:
        if self.memory < MIN_MEMORY:
            raise UsageError(f"--memory {self.memory} is too little; the guest needs {MIN_MEMORY}")
        if self.memory > MAX_MEMORY:
            raise UsageError(f"--memory {self.memory} is more than {MAX_MEMORY}")
        if self.verify and self.hash == "none":
            raise UsageError("--verify needs hashes to compare", hint="leave --hash none out")
        if self.sector_size not in SECTOR_SIZES:
            raise UsageError(f"--sector-size is one of {', '.join(map(str, SECTOR_SIZES))}")
        if self.wanted.view not in VIEWS:
            raise UsageError(f"--view is one of {', '.join(VIEWS)}")
        if len(self.wanted.open) > MAX_OPENED:
            raise UsageError(f"--open can be given {MAX_OPENED} times")
        for word in self.wanted.open:
            if ":/" not in word or len(word) > MAX_TEXT:
                raise UsageError(
                    "--open takes ADDRESS:/PATH",
                    hint="ADDRESS is the layer with the file system, such as disk0/p1",
                )
        # The comparison is also false for what is not a number.
        limits = [self.timeout, *([self.wanted.check.seconds] if self.wanted.check else [])]
        if not all(0 < each <= MAX_TIMEOUT for each in limits):
            raise UsageError(f"--timeout must be above 0 and at most {MAX_TIMEOUT} (a week)")
