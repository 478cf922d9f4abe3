"""Commands within a command: each is decided as if it had come alone, and all take effect or none does.

A batch of transfers contains transfers that may have been given before, alone or in another batch, and may be given
again after it. So what was decided under the key of a contained command is its outcome here too, and once the whole is
durable, so are receipts of all that it contains. A whole that is refused fixes nothing for what it contains.
"""

from typing import Any

from cqrskit.batch import Batch, Decision
from cqrskit.commands import Command, HandlerRegistry
from cqrskit.errors import IdempotencyConflict, Rejected, remembered_refusal
from cqrskit.receipts import Receipt, ReceiptCodec
from cqrskit.repository import Repository
from cqrskit.submissions import Waiting

__all__ = ["ContainedCommands"]


class ContainedCommands:
    """Decides what the command contains that a handler is being run for."""

    def __init__(self, handlers: HandlerRegistry, codec: ReceiptCodec, repository: Repository) -> None:
        """From now on `Repository.decide` comes here."""
        self._handlers = handlers
        self._codec = codec
        self._repository = repository
        self._batch = Batch([])
        self._waiting: Waiting | None = None
        self._keys: frozenset[str] = frozenset()
        self._receipts: dict[str, Receipt] = {}
        self._decided: dict[str, Decision] = {}
        self._seen: set[str] = set()
        self._rests_on: int | None = 0
        self._refused = False
        repository.decide_contained = self._decide

    def begin(self, batch: Batch, waiting: Waiting, receipts: dict[str, Receipt]) -> None:
        """A handler is about to be run, perhaps again. `receipts` has those of the keys, as far as there are any."""
        self._waiting = waiting
        self._keys = frozenset(waiting.contained_keys)
        if self._keys:
            self._batch, self._receipts = batch, receipts
            self._decided, self._seen = {}, set()
            self._rests_on, self._refused = 0, False

    def require_whole(self) -> None:
        """The handler has accepted, and its events can still be undone. TypeError if it accepts in part."""
        if self._refused or self._keys != self._seen:
            raise TypeError(
                "it accepts what it contains in part: all or nothing, so let it have each of its contained_commands "
                "decided, and raise the refusal of one, or another in its place"
            )

    def add_to(self, decision: Decision) -> None:
        """It is accepted as a whole."""
        decision.contains = list(self._decided.values())
        decision.rests_on = self._rests_on

    def _decide(self, command: Command) -> Any:
        key = command.idempotency_key()
        if key is None or self._repository.pending.probing:
            return self._handle(command)
        waiting = self._waiting
        if waiting is None or key not in self._keys:
            raise TypeError(f"{type(command).__name__} is not one of the contained_commands of the command")
        self._seen.add(key)
        known = self._decided.get(key) or self._batch.first_with(key) or self._receipts.get(key)
        content = self._codec.content_of(command)
        if known is not None:
            return self._again(known, command, content, key)
        reply = self._handle(command)
        outcome = self._codec.outcome_of_reply(reply)
        decision = Decision(waiting, self._repository.now, [], [], reply, None, outcome, content)
        decision.remembered_under = (key,)
        self._decided[key] = decision
        return reply

    def _handle(self, command: Command) -> Any:
        try:
            return self._handlers.handler_of(command)(command, self._repository)
        except Rejected:
            self._refused = True
            raise

    def _again(self, known: Decision | Receipt, command: Command, content: bytes, key: str) -> Any:
        """The outcome of then; the refusal of a command that has another content."""
        before = known.command if isinstance(known, Receipt) else known.content
        assert before is not None
        field = self._codec.differing_field(before, command, content)
        if field is not None:
            self._refused = True
            raise self._conflict(command, key, field)
        outcome = self._first_outcome(known, command)
        if isinstance(outcome, Rejected):
            self._refused = True
            raise outcome
        return outcome

    def _conflict(self, command: Command, key: str, field: str) -> Rejected:
        """What the handler refuses it for that wants to see this, else IdempotencyConflict."""
        handler = self._handlers.handler_of(command)
        if vars(handler).get("sees_key_conflicts"):
            self._repository.conflicting_field = field
            try:
                handler(command, self._repository)
            except Rejected as refusal:
                return refusal
            finally:
                self._repository.conflicting_field = None
        return IdempotencyConflict(key, field)

    def _first_outcome(self, known: Decision | Receipt, command: Command) -> Any:
        while isinstance(known, Decision) and known.replay_of is not None:
            known = known.replay_of
        if isinstance(known, Receipt):
            if self._rests_on is not None:
                self._rests_on = max(self._rests_on, known.position)
            return self._codec.outcome(known, type(command))
        self._rests_on = None
        if isinstance(known.error, Rejected):
            return remembered_refusal(known.error.code, str(known.error), known.error.details, None)
        return known.reply
