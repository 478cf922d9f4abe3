"""Receipts: what each idempotency key was used for, and what its command's caller was told.

A receipt is written in the transaction of the command's events, so that both are there or neither. It keeps the
command's content, which shows a retry to be one and names the field where a key is used for something else, and the
outcome: the reply, or the refusal, which a retry gets again though the state has changed since.
"""

from contextlib import suppress
from datetime import datetime
from hashlib import blake2b
from typing import Any, get_type_hints

import msgspec

from cqrskit.commands import Command, HandlerRegistry
from cqrskit.errors import Rejected, remembered_refusal

__all__ = ["NewReceipt", "Receipt", "ReceiptCodec", "RecordedReceipt"]

CONTENT_BYTES_MAX = 1_024
"""A longer content is kept with digests in place of its long fields."""
FIELD_BYTES_MAX = 64
DIGEST = b'"blake2b:'

encode_reply = msgspec.json.Encoder().encode


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """One kept receipt. `command` and `outcome` are UTF-8 JSON; `position` is that of the first reply."""

    key: str
    command: bytes
    outcome: bytes
    position: int


class RecordedReceipt(Receipt, frozen=True, gc=False):
    """A kept receipt as one who looks at all of them sees it: with the time of its decision."""

    recorded_at: datetime


class NewReceipt(msgspec.Struct, frozen=True, gc=False):
    """A receipt to be written with a batch: at `position`, or `place` positions after the batch's previous head.

    `place` counts the batch's events up to and including the command's own; it counts where `position` is None.
    """

    key: str
    command: bytes
    outcome: bytes
    position: int | None
    place: int
    recorded_at: datetime


class _Refusal(msgspec.Struct):
    code: str
    message: str
    details: dict[str, object] = {}


class _Outcome(msgspec.Struct):
    reply: msgspec.Raw = msgspec.Raw(b"null")
    refused: _Refusal | None = None


class ReceiptCodec:
    """Makes receipts of commands and their outcomes, and outcomes of receipts."""

    def __init__(self, handlers: HandlerRegistry) -> None:
        self._encode = msgspec.json.Encoder(enc_hook=str).encode
        self._prefixes = {each: f'{{"{each.__name__}":'.encode() for each in handlers.command_classes}
        self._replies = {each: msgspec.json.Decoder(handlers.reply_type_of(each)) for each in handlers.command_classes}
        self._outcomes = msgspec.json.Decoder(_Outcome)

    def content_of(self, command: Command) -> bytes:
        """The command as ``{"Name":{...}}``, long fields by their digests if the whole is long."""
        content = self._encode(command)
        if len(content) > CONTENT_BYTES_MAX:
            fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
            content = self._encode({name: _short(value) for name, value in fields.items()})
        return self._prefixes[type(command)] + content + b"}"

    def differing_field(self, before: bytes, command: Command, content: bytes) -> str | None:
        """The first field in which a command differs from the content kept under its key; None for a retry of it.

        Values are compared, not bytes: one moment may be written in two ways.
        """
        if before == content:
            return None
        fields_before, fields_now = (
            msgspec.json.decode(each, type=dict[str, msgspec.Raw]) for each in (before, content)
        )
        if fields_before.keys() != fields_now.keys():
            return "command"
        ((kept,), (given,)) = (fields_before.values(), fields_now.values())
        if DIGEST not in bytes(kept):
            with suppress(msgspec.ValidationError):  # its class may have changed since
                first = msgspec.json.decode(kept, type=type(command))
                names = command.__struct_fields__
                return next((each for each in names if getattr(first, each) != getattr(command, each)), None)
        return _differing_value(kept, given, get_type_hints(type(command)))

    def outcome_of_reply(self, reply: object) -> bytes:
        """The outcome of a command that was accepted."""
        return b'{"reply":' + encode_reply(reply) + b"}"

    def outcome_of_refusal(self, refusal: Rejected) -> bytes:
        """The outcome of a command that was refused."""
        return self._encode({"refused": _Refusal(refusal.code, str(refusal), dict(refusal.details))})

    def outcome(self, receipt: Receipt, command_class: type[Command]) -> Any:
        """The first reply, as its handler's annotation says, or the first refusal (a `Rejected`)."""
        kept = self._outcomes.decode(receipt.outcome)
        if kept.refused is not None:
            refused = kept.refused
            return remembered_refusal(refused.code, refused.message, refused.details, receipt.position)
        return self._replies[command_class].decode(kept.reply)


def _short(value: msgspec.Raw) -> msgspec.Raw:
    """A field's JSON, or a digest in place of a long one."""
    encoded = bytes(value)
    if len(encoded) <= FIELD_BYTES_MAX:
        return value
    return msgspec.Raw(DIGEST + blake2b(encoded, digest_size=16).hexdigest().encode() + b'"')


def _differing_value(before: msgspec.Raw, now: msgspec.Raw, hints: dict[str, Any]) -> str | None:
    """Compare field by field, as values where neither side is a digest and both still fit the field's type."""
    fields_before, fields_now = (msgspec.json.decode(each, type=dict[str, msgspec.Raw]) for each in (before, now))
    for name in {**fields_now, **fields_before}:
        values = [bytes(fields.get(name, b"")) for fields in (fields_before, fields_now)]
        if values[0] == values[1]:
            continue
        if all(values) and not any(each.startswith(DIGEST) for each in values):
            with suppress(msgspec.ValidationError):
                one, other = (msgspec.json.decode(each, type=hints.get(name, Any)) for each in values)
                if one == other:
                    continue
        return name
    return None
