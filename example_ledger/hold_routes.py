"""HTTP routes of holds: place one, capture it, void it."""

from uuid import UUID

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from cqrskit import CommandResult
from cqrskit.web import Commands, command_reply, problem_statuses, refusals
from example_ledger.holds import CaptureHold, HoldState, PlaceHold, VoidHold
from example_ledger.money import Amount
from example_ledger.movements import Moment, check_moment
from example_ledger.refusals import (
    REFUSALS_OF_MOVEMENTS,
    AccountClosed,
    AccountFrozen,
    ExceedsHeldAmount,
    HoldAlreadyCaptured,
    HoldAlreadyVoided,
    HoldExpired,
    HoldNotFound,
    InvalidAmount,
)
from example_ledger.replies import HoldReply, creation_reply, execute_new

__all__ = ["HOLD_ROUTES", "CaptureBody"]

KNOWN_HOLD = problem_statuses(hold_not_found=404)
ENDED = (HoldAlreadyCaptured, HoldAlreadyVoided, HoldExpired)
OF_CAPTURES = (InvalidAmount, HoldNotFound, AccountClosed, AccountFrozen, *ENDED, ExceedsHeldAmount)


class CaptureBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /holds/{id}/capture; without an `amount` all that is held is captured."""

    amount: Amount | None = None
    effective_at: Moment | None = None

    def __post_init__(self) -> None:
        """Refuse moments that read models cannot search."""
        check_moment(self.effective_at)


@post("/holds", opt=refusals(*REFUSALS_OF_MOVEMENTS))
async def place_hold(data: JSONBody[PlaceHold], commands: NamedDependency[Commands]) -> Response[HoldReply]:
    """Set money aside for a transfer, which is captured or voided later. The hold's id makes a retry safe."""
    result = await execute_new(data, data.hold_id, commands)
    return creation_reply(_reply(result), result)


@post("/holds/{hold_id:uuid}/capture", status_code=200, opt=KNOWN_HOLD | refusals(*OF_CAPTURES))
async def capture_hold(
    hold_id: FromPath[UUID], commands: NamedDependency[Commands], data: JSONBody[CaptureBody | None] = None
) -> Response[HoldReply]:
    """Move held money, or a part of it; the rest is free again. An Idempotency-Key makes a retry safe."""
    data = data or CaptureBody()
    command = CaptureHold(hold_id=hold_id, amount=data.amount, effective_at=data.effective_at)
    result = await commands.execute(command)
    return command_reply(_reply(result), result)


@post("/holds/{hold_id:uuid}/void", status_code=200, opt=KNOWN_HOLD | refusals(HoldNotFound, *ENDED))
async def void_hold(hold_id: FromPath[UUID], commands: NamedDependency[Commands]) -> Response[HoldReply]:
    """Give a hold up: its money is free again. An Idempotency-Key makes a retry safe."""
    result = await commands.execute(VoidHold(hold_id=hold_id))
    return command_reply(_reply(result), result)


def _reply(result: CommandResult) -> HoldReply:
    state: HoldState = result.reply
    return HoldReply(state.hold_id, state.status, state.amount, state.expires_at, result.position)


HOLD_ROUTES = [place_hold, capture_hold, void_hold]
