"""What a handler has scheduled, or taken back, as what is stored with its decision."""

import msgspec

from cqrskit.commands import HandlerRegistry
from cqrskit.event_store import DueChange
from cqrskit.repository import Repository
from cqrskit.submissions import Waiting

__all__ = ["due_changes"]

encode_command = msgspec.json.Encoder().encode


def due_changes(repository: Repository, handlers: HandlerRegistry, waiting: Waiting) -> list[DueChange]:
    """Take what the handler of this command scheduled and took back.

    Raises TypeError if nothing would tell whether it was stored, or if nobody handles what it scheduled.
    """
    if not (repository.pending or waiting.keys):
        raise TypeError(
            "it schedules a command, but appends no event and has no idempotency key: after a lost answer nothing "
            "would tell whether that took effect; do either"
        )
    changes = []
    for wish in repository.scheduled:
        if wish.command is None:
            changes.append(DueChange(wish.key, None))
            continue
        handlers.handler_of(wish.command)
        content = encode_command(wish.command)
        changes.append(DueChange(wish.key, wish.at, type(wish.command).__name__, content, waiting.metadata))
    repository.scheduled = []
    return changes
