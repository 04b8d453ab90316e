"""How a case is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.accelerator import Choice
from controller.errors import UsageError

MIN_MEMORY = 256
DEFAULT_MEMORY = 512


@dataclass(frozen=True, slots=True)
class Settings:
    """`memory` of the guest in MiB; timeouts in seconds; `store` is the appliances' folder, None
    for the caller's cache."""

    memory: int = DEFAULT_MEMORY
    accelerator: Choice = "auto"
    require_kvm: bool = False
    timeout: float = 300.0
    start_timeout: float = 60.0
    store: Path | None = None

    def __post_init__(self) -> None:
        if self.memory < MIN_MEMORY:
            raise UsageError(f"--memory {self.memory} is too little; the guest needs {MIN_MEMORY}")
        if self.timeout <= 0:
            raise UsageError("--timeout must be above 0")
