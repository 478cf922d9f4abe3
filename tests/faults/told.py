"""What callers were told: every attempt at every command, and its answer. Kept as JSON lines between processes."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import httpx
import msgspec

from cqrskit import CommitUnknown, CqrskitError, Executor, Rejected
from example_ledger.transfers import PostTransfer

__all__ = ["Answer", "Attempt", "Submit", "Told", "submitting_over_http", "submitting_to"]


class Answer(msgspec.Struct, frozen=True):
    """What one attempt got.

    ``acknowledged``: it is in the log, up to `position`. ``refused``: the ledger said no, for the reason `code`.
    ``unchanged``: it failed and changed nothing. ``unknown``: it may have taken effect or not.
    """

    kind: Literal["acknowledged", "refused", "unchanged", "unknown"]
    position: int = 0
    replayed: bool = False
    code: str = ""
    details: dict[str, Any] = {}
    message: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the caller knows now what became of the command."""
        return self.kind in ("acknowledged", "refused")


class Attempt(msgspec.Struct):
    """One sending of a command; times are of the machine's monotonic clock, so that processes can be compared.

    Without an answer the caller's process, or its connection, was gone before one came.
    """

    begun: float
    ended: float | None = None
    answer: Answer | None = None

    @property
    def may_have_taken_effect(self) -> bool:
        """Whether the log may hold the command because of this attempt."""
        return self.answer is None or self.answer.kind in ("acknowledged", "unknown")


class Told(msgspec.Struct):
    """One command, and all attempts at it in order."""

    command: PostTransfer
    attempts: list[Attempt] = []

    @property
    def final(self) -> Answer | None:
        """The first answer that settled it."""
        return next((each.answer for each in self.attempts if each.answer is not None and each.answer.is_final), None)


Submit = Callable[[PostTransfer], Awaitable[Answer]]


def submitting_to(executor: Executor) -> Submit:
    """Sends commands to an executor in this process."""

    async def submit(command: PostTransfer) -> Answer:
        try:
            result = await executor.execute(command)
        except Rejected as refusal:
            return Answer("refused", code=refusal.code, details=refusal.details, message=str(refusal))
        except CommitUnknown as error:
            return Answer("unknown", code=type(error).__name__, message=str(error))
        except CqrskitError as error:
            return Answer("unchanged", code=type(error).__name__, message=str(error))
        assert result.reply.transfer_id == command.transfer_id
        return Answer("acknowledged", result.position, result.replayed)

    return submit


def submitting_over_http(client: httpx.AsyncClient) -> Submit:
    """Sends commands to the ledger's API; a connection that breaks leaves the outcome unknown."""

    async def submit(command: PostTransfer) -> Answer:
        try:
            reply = await client.post("/transfers", content=msgspec.json.encode(command))
        except httpx.ConnectError as error:
            return Answer("unchanged", code="ConnectError", message=str(error))
        except httpx.TransportError as error:
            return Answer("unknown", code=type(error).__name__, message=str(error))
        body = reply.json()
        if reply.status_code in (200, 201):
            assert body["transfer_id"] == str(command.transfer_id)
            replayed = reply.headers.get("Idempotent-Replay") == "true"
            assert replayed == (reply.status_code == 200)
            return Answer("acknowledged", body["position"], replayed)
        code, message = body["code"], reply.text
        if reply.status_code in (404, 409, 422):
            return Answer("refused", code=code, details=body.get("details", {}), message=message)
        return Answer("unknown" if code == "commit_unknown" else "unchanged", code=code, message=message)

    return submit
