"""The keys of this run, in memory that is never written out: the guest has no swap."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field

from appliance.protocol import LayerKey, ProtocolError

_ALL = "all"


@dataclass(frozen=True, slots=True)
class Keyring:
    """Keys with the address that each is for, in the order in which they were given."""

    _keys: list[tuple[str, bytes]] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, keys: Sequence[LayerKey]) -> Keyring:
        """Raises ProtocolError."""
        try:
            return cls([(key.address, base64.b64decode(key.secret, validate=True)) for key in keys])
        except (binascii.Error, ValueError):
            raise ProtocolError("a key is not base64") from None

    def own(self, address: str) -> list[bytes]:
        """The keys that were given for exactly this layer."""
        return [secret for target, secret in self._keys if target == address]

    def fitting(self, address: str) -> list[bytes]:
        """What to try on a layer: its own keys first, then those for all."""
        return [*self.own(address), *self.own(_ALL)]
