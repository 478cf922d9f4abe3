"""What must be true after chaos: the log, replayed in the plain model, gives every reply, once each, in its order."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from tests.faults.chaos_acts import Act, Batch, Reply, decided_on_a_copy, microseconds
from tests.faults.chaos_client import Answer, Operation
from tests.ledger_model.model import LedgerModel
from tests.ledger_model.steps import Expire

__all__ = ["Replay", "assert_answers_agree", "replayed"]

LAST_EVENTS = {
    "PostTransfer": "Transfer.Posted",
    "PostEntry": "Transfer.Posted",
    "ReverseTransfer": "Transfer.Posted",
    "PlaceHold": "Transfer.Held",
    "CaptureHold": "Transfer.Captured",
    "VoidHold": "Transfer.Voided",
    "ExpireHold": "Transfer.Expired",
}
"""With what event a decision ends; account commands have one event, an atomic batch has one posting for each item."""
NEVER = float("inf")


class _Decision(msgspec.Struct):
    """The events of one command, side by side in the log."""

    correlation_id: str
    command: str
    stream_ids: list[UUID]
    types: list[str]
    position: int
    recorded_at: datetime

    @property
    def transfer_id(self) -> UUID:
        """The stream of its last event, which is the transfer's where there is one."""
        return self.stream_ids[-1]


class _Claim(msgspec.Struct):
    """What one act was answered. It was decided at a state of the log from position `first` on, and before `last`."""

    operation: Operation
    act: Act
    reply: Reply
    first: float
    last: float
    position: int | None = None
    seen: list[Any] = []


class Replay(msgspec.Struct):
    """The model after the whole log, and how much it was asked."""

    model: LedgerModel
    decisions: int = 0
    without_trace: int = 0
    expired_late_seconds: list[float] = []


def replayed(dsn: str, operations: Sequence[Operation]) -> Replay:
    """Give the log to the model, decision by decision, and find every answer in it. AssertionError with the first
    answer or event that does not fit."""
    decisions = list(_decisions_of(dsn))
    claims = _claims_of(operations, decisions)
    replay = Replay(LedgerModel(remembering=False))
    waiting = sorted((each for each in claims.values() if each.position is None), key=lambda each: each.first)
    waiting.reverse()
    open_claims: list[_Claim] = []
    decided: set[tuple[str, UUID | None]] = set()
    for decision in decisions:
        replay.decisions += 1
        replay.model.now = microseconds(decision.recorded_at)
        if decision.command == "ExpireHold":
            _expire(replay, decision)
        else:
            key = _key_of(decision)
            assert key not in decided, f"twice in the log: {decision}"
            decided.add(key)
            assert key in claims, f"nobody asked for {decision}"
            _decide(replay.model, decision, claims[key])
        while waiting and waiting[-1].first <= decision.position:
            open_claims.append(waiting.pop())
        open_claims = [
            each for each in open_claims if not _explains(replay, each, decision.position) and _may_wait(each, decision)
        ]
    lost = [each for each in claims.values() if each.position is not None and _key(each) not in decided]
    assert not lost, f"{len(lost)} acknowledged acts are not in the log, such as {lost[0]}"
    unexplained = waiting + open_claims
    assert not unexplained, f"{len(unexplained)} answers that the model never gave, such as {unexplained[0]}"
    return replay


# --- the log


def _decisions_of(dsn: str) -> Iterator[_Decision]:
    """The log, read past cqrskit, in decisions. Positions are dense."""
    current: _Decision | None = None
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT position, stream_id, type, metadata, recorded_at FROM events ORDER BY position"
        ).fetchall()
        head = connection.execute("SELECT position FROM log_head").fetchone()
    assert head == (len(rows),), f"the head is {head}, the log has {len(rows)} events"
    for expected, (position, stream_id, kind, metadata, recorded_at) in enumerate(rows, start=1):
        assert position == expected, f"position {expected} is missing"
        about = json.loads(metadata)
        same = current is not None and (current.correlation_id, current.command) == (
            about["correlation_id"],
            about["command"],
        )
        if current is None or not same:
            if current is not None:
                yield current
            current = _Decision(about["correlation_id"], about["command"], [], [], 0, recorded_at)
        current.stream_ids.append(stream_id)
        current.types.append(kind)
        current.position = position
        if current.command != "PostBatch" and kind == LAST_EVENTS.get(current.command, kind):
            yield current
            current = None
    if current is not None:
        yield current


def _key_of(decision: _Decision) -> tuple[str, UUID | None]:
    """What a decision is known by: its request, and in an independent batch also its transfer."""
    item = decision.transfer_id if decision.command == "PostTransfer" else None
    return decision.correlation_id, item


def _key(claim: _Claim) -> tuple[str, UUID | None]:
    item = next(claim.act.transfers()) if claim.act.command == "PostTransfer" else None
    return claim.operation.name, item


# --- answers


def _claims_of(
    operations: Sequence[Operation], decisions: Iterable[_Decision]
) -> dict[tuple[str, UUID | None], _Claim]:
    """What each act was answered; each item of an independent batch is one for itself."""
    order = _Order(operations, decisions)
    claims: list[_Claim] = []
    for operation in operations:
        final = operation.final
        assert final is not None, f"not settled: {operation}"
        first, last = order.last_before(operation), order.first_after(operation)
        act = operation.act
        if isinstance(act, Batch) and act.mode == "independent":
            reply = act.reply_of(final.body)
            assert isinstance(reply, dict)
            for item, code in zip(act.items, reply["results"], strict=True):
                answer = {"transfer_id": item.transfer_id.int, "status": "posted"} if code == "posted" else code
                claims.append(_Claim(operation, item, answer, first, last))
        elif final.kind == "accepted":
            claims.append(_Claim(operation, act, act.reply_of(final.body), first, last))
        else:
            claims.append(_Claim(operation, act, final.body["code"], first, last))
    found = {_key(each): each for each in claims}
    assert len(found) == len(claims), "two acts have one name"
    return found


def _decide(model: LedgerModel, decision: _Decision, claim: _Claim) -> None:
    """The model decides as the log says, and its reply is what the client was told, with the position of now."""
    assert decision.command == claim.act.command, f"{decision} for {claim.operation}"
    new = [each.int for each in claim.act.transfers() if each.int not in model.transfers]
    postings = [kind for kind in decision.types if kind in ("Transfer.Posted", "Transfer.Held")]
    assert len(postings) in (0, len(new)), f"{len(new)} new transfers, but the log has {decision}"
    reply, changes = decided_on_a_copy(model, claim.act, now=model.now)
    assert changes, f"the log has {decision}, which the model answers with {reply}"
    claim.act.decide(model)
    assert reply == claim.reply, f"told {claim.reply}, {reply} is due: {decision} for {claim.operation}"
    assert decision.position > claim.first, f"{decision} is older than what came before {claim.operation}"
    assert decision.position < claim.last, f"{decision} is newer than what came after {claim.operation}"
    claim.position = decision.position
    final = claim.operation.final
    assert final is not None
    told = final.body["position"]
    independent = claim.act is not claim.operation.act
    assert told >= decision.position if independent else told == decision.position, f"{decision}: {claim.operation}"


def _explains(replay: Replay, claim: _Claim, position: int) -> bool:
    """Whether the model, as it is now, gives the answer without changing anything. Holds may have expired meanwhile."""
    if claim.position is not None:
        return True
    if position >= claim.last:
        return False
    for moment in (claim.operation.attempts[0].begun, _settled(claim.operation)):
        reply, changes = decided_on_a_copy(replay.model, claim.act, now=int(moment * 1_000_000))
        if reply == claim.reply and not changes:
            replay.without_trace += 1
            return True
        claim.seen = [*claim.seen[-2:], (position, reply)]
    return False


def _may_wait(claim: _Claim, decision: _Decision) -> bool:
    assert claim.last > decision.position, f"an answer that the model never gave before position {claim.last}: {claim}"
    return True


def _expire(replay: Replay, decision: _Decision) -> None:
    """A hold expires once, when it is held, and never before its time."""
    hold = replay.model.transfers[decision.transfer_id.int]
    assert hold.state == "held", f"{decision}: the hold is {hold}"
    assert hold.expires_at is not None
    late = replay.model.now - hold.expires_at
    assert late >= 0, f"{decision} is {-late} microseconds too early: {hold}"
    replay.expired_late_seconds.append(late / 1_000_000)
    replay.model.decide(Expire(decision.transfer_id.int))
    assert hold.state == "expired"


def assert_answers_agree(operations: Iterable[Operation]) -> None:
    """All answers to one operation are one; only one attempt was the first, and a replay has something to replay.

    Of an independent batch that is sent twice at once, each attempt may be the first for some of the transfers.
    """
    for operation in operations:
        finals = [each for each in operation.attempts if each.answer is not None and each.answer.is_final]
        outcomes: list[Any] = []
        firsts = 0
        for attempt in finals:
            answer = attempt.answer
            assert isinstance(answer, Answer)
            if answer.outcome not in outcomes:
                outcomes.append(answer.outcome)
            firsts += not answer.replayed
            others = [each for each in operation.attempts if each is not attempt]
            possible = any(each.may_have_taken_effect and each.begun <= (attempt.ended or NEVER) for each in others)
            assert possible or not answer.replayed, f"a first reply is called a replay: {operation}"
        assert len(outcomes) == 1, f"two answers to one operation: {operation}"
        shared = isinstance(operation.act, Batch) and operation.act.mode == "independent"
        assert firsts <= 1 or shared, f"it took effect twice: {operation}"


class _Order:
    """What was told before what was sent, by the clock of the clients."""

    def __init__(self, operations: Iterable[Operation], decisions: Iterable[_Decision]) -> None:
        positions: dict[str, int] = {}
        for decision in decisions:
            if decision.command != "ExpireHold":
                positions.setdefault(decision.correlation_id, decision.position)
        ends: list[tuple[float, int]] = []
        begins: list[tuple[float, int]] = []
        for each in operations:
            final = each.final
            if final is not None and final.kind == "accepted":
                ends.append((_settled(each), final.body["position"]))
            if each.name in positions:
                begins.append((each.attempts[0].begun, positions[each.name]))
        ends.sort()
        begins.sort()
        self._ended, self._begun = [time for time, _ in ends], [time for time, _ in begins]
        self._highest = list(accumulate((position for _, position in ends), max))
        self._lowest = list(accumulate((position for _, position in reversed(begins)), min))
        self._lowest.reverse()

    def last_before(self, operation: Operation) -> int:
        """The highest position that was told to anybody before this was first sent."""
        place = bisect_left(self._ended, operation.attempts[0].begun)
        return self._highest[place - 1] if place else 0

    def first_after(self, operation: Operation) -> float:
        """The lowest position of what was first sent after this was settled; infinite if there is none."""
        place = bisect_right(self._begun, _settled(operation))
        return self._lowest[place] if place < len(self._lowest) else NEVER


def _settled(operation: Operation) -> float:
    """When the first answer came that settled it."""
    return min(
        each.ended
        for each in operation.attempts
        if each.ended is not None and each.answer is not None and each.answer.is_final
    )
