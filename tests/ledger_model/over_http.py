"""Steps as requests, one after another, and their replies in the model's words."""

from typing import Any, ClassVar
from uuid import uuid4

import msgspec
from hypothesis.stateful import rule

from tests.acceptance.api import LedgerClient
from tests.ledger_model.at_work import Loop
from tests.ledger_model.books import Outcome
from tests.ledger_model.held_to_it import assert_details
from tests.ledger_model.machine import Item, Remembering
from tests.ledger_model.model import LedgerModel
from tests.ledger_model.steps import (
    Batch,
    Capture,
    Close,
    Describe,
    Enter,
    Expire,
    Freeze,
    Hold,
    Open,
    Post,
    Reverse,
    SetLimit,
    Step,
    Unfreeze,
    Void,
)
from tests.ledger_model.words import Words

__all__ = ["OverHttp"]

LONG_SECONDS = 1_000_000
CONFLICTS = {"transfer_conflict", "idempotency_conflict", "already_exists"}
ON_ACCOUNTS = (Freeze, Unfreeze, Close, SetLimit, Describe)
PATHS: dict[type[Step], str] = {
    Open: "/accounts",
    Freeze: "/accounts/{}/freeze",
    Unfreeze: "/accounts/{}/unfreeze",
    Close: "/accounts/{}/close",
    SetLimit: "/accounts/{}/overdraft-limit",
    Describe: "/accounts/{}/metadata",
    Post: "/transfers",
    Enter: "/entries",
    Hold: "/holds",
    Capture: "/holds/{}/capture",
    Void: "/holds/{}/void",
    Reverse: "/transfers/{}/reverse",
    Batch: "/transfers/batch",
}
IN_PATH = {Capture: "hold_id", Void: "hold_id", Reverse: "transfer_id"} | dict.fromkeys(ON_ACCOUNTS, "account_id")
CREATING = (Open, Post, Enter, Hold, Reverse)


class OverHttp(Remembering):
    """A machine on the ledger's API; `client` and its `loop` are set by the test. No hold is over within the test."""

    loop: ClassVar[Loop]
    client: ClassVar[LedgerClient]
    requests_sent: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.words = Words(uuid4().int & (2**40 - 1))
        self.model = LedgerModel(remembering=True, head=self.loop.run(self.client.runtime.event_store.head()))

    def give(self, step: Step, key: str | None) -> None:
        """Send it, and compare."""
        if isinstance(step, Expire):
            return
        if isinstance(step, Hold) and step.seconds is not None:
            step = msgspec.structs.replace(step, seconds=LONG_SECONDS)
        expected = self.model.decide(step, key)
        body: Any = msgspec.to_builtins(self.words.command(step))
        place = body.pop(IN_PATH[type(step)]) if type(step) in IN_PATH else None
        if isinstance(step, Batch):
            body["mode"] = "atomic"
        if not body and not isinstance(step, Capture):
            body = None
        path = PATHS[type(step)].format(place)
        status, replayed, found = self.send(path, body, key, put=isinstance(step, SetLimit | Describe))
        if isinstance(step, Batch):
            self.compare_batch(step, expected, status, replayed, found)
        elif expected.code is not None:
            self.compare_refusal(step, expected, status, replayed, found)
        else:
            self.compare_reply(step, expected, status, replayed, found)

    def send(self, path: str, body: Any, key: str | None, *, put: bool = False) -> tuple[int, bool, dict[str, Any]]:
        """The status, whether it was there before, and the body."""
        type(self).requests_sent += 1
        headers = {} if key is None else {"Idempotency-Key": str(self.words.key(key))}
        ask = self.client.http.request("PUT" if put else "POST", path, json=body, headers=headers)
        reply = self.loop.run(ask)
        if "position" in reply.json():
            assert reply.headers["Consistency-Position"] == str(reply.json()["position"])
        return reply.status_code, reply.headers.get("Idempotent-Replay") == "true", reply.json()

    def compare_reply(self, step: Step, expected: Outcome, status: int, replayed: bool, found: dict[str, Any]) -> None:
        """A reply as the documentation has it."""
        assert replayed == expected.replayed, (step, found)
        assert status == (201 if isinstance(step, CREATING) and not replayed else 200), (step, found)
        position = found.pop("position")
        assert position == expected.position or (expected.position is None and position <= self.model.head)
        if "expires_at" in found:
            assert (found.pop("expires_at") is None) == (expected.reply["expires_at"] is None)
        due = {name: value for name, value in expected.reply.items() if name != "expires_at"}
        if isinstance(step, Post | Enter):
            due["status"] = "posted"
        if isinstance(step, Reverse):
            due["transfer_id"] = step.original
        ids = {name for name in found if name.endswith("_id")}
        numbers = {name: self.words.number(msgspec.convert(found[name], type=type(uuid4()))) for name in ids}
        assert {**found, **numbers} == due, step

    def compare_refusal(
        self, step: Step, expected: Outcome, status: int, replayed: bool, found: dict[str, Any]
    ) -> None:
        """A problem as the documentation has it."""
        assert (found["code"], replayed) == (expected.code, expected.replayed), (step, found)
        missing = expected.code in ("hold_not_found", "transfer_not_found") or (
            expected.code == "account_not_found" and isinstance(step, ON_ACCOUNTS)
        )
        assert status == found["status"] == (409 if expected.code in CONFLICTS else 404 if missing else 422), found
        assert_details(step, expected, found.get("details", {}), self.words)

    def compare_batch(self, step: Batch, expected: Outcome, status: int, replayed: bool, found: dict[str, Any]) -> None:
        """All are posted, or all are rejected."""
        if expected.code == "idempotency_conflict":
            self.compare_refusal(step, expected, status, replayed, found)
            return
        results = [
            {"transfer_id": str(self.words.transfer_id(each.transfer)), "status": "posted"} for each in step.items
        ]
        if expected.code is not None:
            for number, each in enumerate(results):
                culprit = number == expected.about["place"]
                each |= {"status": "rejected", "code": expected.about["code"] if culprit else "batch_aborted"}
        assert (status, found["results"]) == (200, results)
        assert replayed == (expected.replayed or (expected.code is None and not expected.appended)), (step, found)
        assert expected.position in (None, found["position"])

    def batch(self, how: str, drawn: list[Item]) -> None:
        """An independent one is a request too."""
        if how == "atomic":
            super().batch(how, drawn)
            return
        items: list[Post] = []
        for each in drawn:
            items.append(self.item(items, *each))
        self.key = None
        outcomes = [self.model.decide(item) for item in items]
        self.given += [(item, None) for item in items]
        self.numbers += [item.transfer for item in items if item.transfer not in self.numbers]
        body = {"mode": "independent", "transfers": [msgspec.to_builtins(self.words.command(item)) for item in items]}
        status, replayed, found = self.send("/transfers/batch", body, None)
        results = []
        for item, outcome in zip(items, outcomes, strict=True):
            result = {"transfer_id": str(self.words.transfer_id(item.transfer)), "status": "posted"}
            results.append(result if outcome.code is None else {**result, "status": "rejected", "code": outcome.code})
        assert (status, found["results"]) == (200, results)
        assert replayed == all(outcome.replayed for outcome in outcomes)

    def pass_time(self, seconds: int, *, expiring: bool) -> None:
        """The API has the time of the world."""

    @rule()
    def look(self) -> None:
        """Every account and every transfer as it is shown."""
        self.client.position = self.model.head
        for number, account in self.model.accounts.items():
            found = self.loop.run(self.client.get(f"/accounts/{self.words.account_id(number)}"))
            expected = {
                **account.counters,
                "balance": account.balance,
                "available": account.available,
                "status": account.status,
                "overdraft_limit": account.limit,
            }
            assert {name: found[name] for name in expected} == expected, number
        for number, transfer in self.model.transfers.items():
            found = self.loop.run(self.client.get(f"/transfers/{self.words.transfer_id(number)}"))
            assert (found["status"], found.get("reversed_amount", 0)) == (transfer.shown_state, transfer.reversed)

    def teardown(self) -> None:
        if self.model.accounts:
            self.look()
