"""The keys of this run, in memory that is never written out, and wiped when the work is done."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.protocol import LayerKey, ProtocolError
from appliance.secret import locked, wipe

_ALL = "all"


def parse_key(untrusted: dict[str, object]) -> LayerKey:
    """A key as it came in JSON. Raises ProtocolError."""
    try:
        secret = locked(base64.b64decode(str(untrusted["secret"]), validate=True))
        return LayerKey(**{**untrusted, "secret": secret})  # type: ignore[arg-type]
    except (binascii.Error, ValueError, KeyError, TypeError):
        # Not even the reason: it could quote the key.
        raise ProtocolError("a key is not what it should be") from None


@dataclass(frozen=True, slots=True)
class Keyring:
    """Keys with the address that each is for, in the order in which they were given."""

    _keys: Sequence[LayerKey] = field(default=(), repr=False)

    def own(self, address: str) -> list[LayerKey]:
        """The keys that were given for exactly this layer."""
        return [key for key in self._keys if key.address == address]

    def fitting(self, address: str) -> list[bytearray]:
        """What to try on a layer: its own keys first, then those for all."""
        return [key.secret for key in [*self.own(address), *self.own(_ALL)]]

    def wipe(self) -> None:
        """Forget all keys."""
        for key in self._keys:
            wipe(key.secret)
