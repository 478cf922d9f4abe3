"""The cases that the eventsourcing library ships for recorders.

Their module imports the library's cipher, which needs pycryptodome, though no recorder does. Where that is not
installed, a cipher of the standard library takes its place; the cases about ciphers then run with it.
"""

import hashlib
import hmac
import secrets
import sys
from base64 import b64decode, b64encode
from importlib.util import find_spec
from types import ModuleType

from eventsourcing.persistence import Cipher
from eventsourcing.utils import Environment

__all__ = [
    "AggregateRecorderTestCase",
    "ApplicationRecorderTestCase",
    "InfrastructureFactoryTestCase",
    "NonInterleavingNotificationIDsBaseCase",
    "ProcessRecorderTestCase",
    "SealingCipher",
    "TrackingRecorderTestCase",
]

SEAL_BYTES = 32


class SealingCipher(Cipher):
    """Encrypts with a key stream of SHAKE-256 and seals with HMAC. For tests: nobody has examined it."""

    CIPHER_KEY = "CIPHER_KEY"

    @staticmethod
    def create_key(num_bytes: int) -> str:
        """A key for the environment."""
        return b64encode(secrets.token_bytes(num_bytes)).decode()

    def __init__(self, environment: Environment) -> None:
        key = environment.get(self.CIPHER_KEY)
        if not key:
            raise OSError(f"{self.CIPHER_KEY!r} is not in the environment")
        self._key = b64decode(key)

    def encrypt(self, plaintext: bytes) -> bytes:
        """Nonce, seal, and what was hidden."""
        nonce = secrets.token_bytes(SEAL_BYTES)
        hidden = self._mixed(nonce, plaintext)
        return nonce + self._seal(nonce + hidden) + hidden

    def decrypt(self, ciphertext: bytes) -> bytes:
        """What was hidden; ValueError if it was sealed with another key."""
        nonce, seal = ciphertext[:SEAL_BYTES], ciphertext[SEAL_BYTES : 2 * SEAL_BYTES]
        hidden = ciphertext[2 * SEAL_BYTES :]
        if not hmac.compare_digest(seal, self._seal(nonce + hidden)):
            raise ValueError("sealed with another key")
        return self._mixed(nonce, hidden)

    def _mixed(self, nonce: bytes, content: bytes) -> bytes:
        stream = hashlib.shake_256(self._key + nonce).digest(len(content))
        return bytes(a ^ b for a, b in zip(content, stream, strict=True))

    def _seal(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")


if find_spec("Crypto") is None and "eventsourcing.cipher" not in sys.modules:
    stand_in = ModuleType("eventsourcing.cipher")
    stand_in.AESCipher = SealingCipher  # type: ignore[attr-defined]
    sys.modules["eventsourcing.cipher"] = stand_in

from eventsourcing.tests.persistence import (  # noqa: E402 (not before the cipher is there)
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    InfrastructureFactoryTestCase,
    NonInterleavingNotificationIDsBaseCase,
    ProcessRecorderTestCase,
    TrackingRecorderTestCase,
)
