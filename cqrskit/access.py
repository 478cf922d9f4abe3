"""API keys: who may call, and what for.

A key is text such as ``cqk_0f3a9c…_Xb7…``: a prefix by which leaks are found, the id by which it is looked up, and 256
random bits. It is shown once, when it is made; what is kept is its SHA-256. A fast hash is right here, since nobody can
guess 256 random bits, however fast; slow hashes are for what people choose.
"""

import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Protocol

import msgspec

from cqrskit.errors import ConfigurationError, CqrskitError

__all__ = [
    "ApiKey",
    "ApiKeys",
    "Forbidden",
    "MadeKey",
    "RateLimited",
    "Scope",
    "Unauthenticated",
    "key_id_in",
    "make_api_key",
]

ID_BYTES, SECRET_BYTES = 8, 32
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""Names have no space, so that a name and what a client chose stay apart where they are written side by side."""
_FORM = re.compile(r"cqk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


class Scope(StrEnum):
    """What a key is for. None includes another: a feed that posts need not be able to read."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one key. `name` is who acts with it, the actor of events; several keys may have one name."""

    id: str
    name: str
    scopes: frozenset[Scope]
    hash: bytes
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def __repr__(self) -> str:
        """Without the hash."""
        return f"ApiKey(id={self.id!r}, name={self.name!r}, scopes={sorted(self.scopes)!r})"

    def fits(self, key: str) -> bool:
        """Whether this is the key, whole. The comparison takes as long for every wrong one."""
        return compare_digest(self.hash, _hash_of(key))

    def is_usable(self, at: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


class MadeKey(msgspec.Struct, frozen=True):
    """A key that was just made: what is kept of it, and the key itself in `text`, which nobody can tell later."""

    key: ApiKey
    text: str

    def __repr__(self) -> str:
        """Without the key."""
        return f"MadeKey({self.key!r})"


class ApiKeys(Protocol):
    """Port: where keys are kept. Every method raises ServerUnavailable."""

    async def make(self, name: str, scopes: Iterable[Scope], *, expires_at: datetime | None = None) -> MadeKey:
        """Make a key and keep its hash. Raises ConfigurationError for an unusable name, or no scope."""

    async def find(self, key_ids: Sequence[str]) -> Sequence[ApiKey]:
        """Those of these ids that there are, revoked and expired ones too."""

    async def all(self) -> Sequence[ApiKey]:
        """Every key that was ever made, the oldest first."""

    async def revoke(self, key_id: str) -> ApiKey | None:
        """Let a key open nothing any more, for good; None if there is none of this id."""

    async def has_usable(self) -> bool:
        """Whether anybody can enter."""


def make_api_key(name: str, scopes: Iterable[Scope], *, expires_at: datetime | None = None) -> MadeKey:
    """A new key, not yet kept anywhere. Raises ConfigurationError for an unusable name, or no scope."""
    if not NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a key: it must have 1 to 64 letters, digits and . _ @ -, and begin with a "
            "letter or a digit"
        )
    wanted = frozenset(scopes)
    if not wanted:
        raise ConfigurationError(f"a key without scopes opens nothing: give {name!r} some of {', '.join(Scope)}")
    key_id = secrets.token_hex(ID_BYTES)
    text = f"cqk_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    made = ApiKey(
        id=key_id,
        name=name,
        scopes=wanted,
        hash=_hash_of(text),
        created_at=datetime.now(UTC),
        expires_at=expires_at,
    )
    return MadeKey(made, text)


def key_id_in(text: str) -> str | None:
    """The id that a key names; None for text that has not the form of one."""
    found = _FORM.fullmatch(text)
    return None if found is None else found[1]


def _hash_of(key: str) -> bytes:
    return sha256(key.encode("ascii")).digest()


# --- refusals


class Unauthenticated(CqrskitError):
    """A request has no API key, or none that opens anything. Why one that was sent does not, nobody is told.

    `sent`: there was a key. `wrong_scheme`: there was none, but an ``Authorization`` of another form, which is not
    repeated here, since it may hold a secret.
    """

    def __init__(self, *, sent: bool, wrong_scheme: bool = False) -> None:
        how = "`Authorization: Bearer KEY`"
        message = f"this needs an API key: send it as the header {how}"
        if wrong_scheme:
            message = f"the scheme of the header `Authorization` must be Bearer: send {how}, once, with an API key"
        super().__init__("the API key is not known, or opens nothing any more" if sent else message)
        self.sent = sent


class Forbidden(CqrskitError):
    """The API key lacks the scope that is needed."""

    def __init__(self, scope: str, name: str) -> None:
        super().__init__(f"this needs an API key with the scope '{scope}', which the key of {name!r} lacks")
        self.scope = scope
        self.name = name


class RateLimited(CqrskitError):
    """The API key has sent too many requests; nothing was done. Try again after `retry_after_seconds`."""

    def __init__(self, per_second: float, retry_after_seconds: float) -> None:
        super().__init__(
            f"this API key may send {per_second:g} requests per second; try again in {retry_after_seconds:.3g} s"
        )
        self.retry_after_seconds = retry_after_seconds
