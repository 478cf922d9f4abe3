"""What a check of the books has found wrong: each kind is counted, and its first cases are kept."""

import msgspec

__all__ = ["CASES_KEPT_MAX", "KINDS", "Findings", "Violation"]

CASES_KEPT_MAX = 10
"""So many cases of each kind are kept; the others are counted."""

KINDS: dict[str, tuple[int, str]] = {
    "invalid_amount": (1, "An amount is not from 1 to 2^63 - 1."),
    "unbalanced": (1, "The debits or the credits of a transfer's legs are not its amount."),
    "same_account": (1, "An account is on both sides of a transfer."),
    "legs_differ": (1, "A transfer has legs without account events, or account events without legs."),
    "details_differ": (
        1,
        "Counterparty, effective date or text of an account event is not its transfer's.",
    ),
    "currency_differs": (1, "A transfer, its accounts and its account events are not in one currency."),
    "books_unequal": (2, "After a decision debits and credits over all accounts differ, posted or pending."),
    "movements_without_transfer": (2, "Account events name a transfer that is not the next one in the log."),
    "counters_differ": (3, "The counters in an event are not those before it, moved by its amount."),
    "counter_falls": (3, "A posted counter is less than before."),
    "counter_out_of_range": (3, "A counter is negative, or beyond 2^63 - 1."),
    "below_limit": (4, "An account has less available than its overdraft limit allows."),
    "no_open_hold": (5, "What is captured, voided or expired is no hold, or was resolved before."),
    "hold_exceeded": (5, "More was captured than was held."),
    "hold_at_wrong_time": (5, "A hold was captured or voided after its end, or expired before it."),
    "hold_overdue": (5, "A hold is past its end and still held, and no due command will expire it."),
    "transfer_begun_again": (6, "A transfer id was posted or held a second time."),
    "reply_without_events": (6, "A receipt names a position at which the log has no event of what it is about."),
    "original_exceeded": (7, "More of a transfer was reversed than it had moved."),
    "reversal_not_posted": (7, "A reversal was announced on a transfer, and is not the next one in the log."),
    "reversal_not_announced": (7, "A reversal is posted that was not announced like this on its original."),
    "reversal_differs": (7, "The legs of a reversal are not those of its original turned round."),
    "account_unknown": (8, "An account event comes before the account was opened."),
    "account_opened_again": (8, "An account was opened a second time."),
    "account_not_open": (8, "A frozen or closed account takes a posting or a hold, or a closed one changes."),
    "account_closed_with_money": (8, "An account was closed with a balance or holds."),
    "position_gap": (9, "Positions of the log are missing or out of order."),
    "version_gap": (9, "Versions of a stream are missing or out of order."),
    "unreadable_event": (9, "An event is of no known type, or its data do not fit its type."),
    "document_differs": (10, "A document of a read model is not what the log says."),
    "refused_and_posted": (11, "A receipt says that a command was refused, and the log has its effect."),
}
"""By kind: the invariant that is broken, by its number in the documentation, and how."""


class Violation(msgspec.Struct, frozen=True):
    """One broken invariant: where in the log, what it concerns (an account, a transfer), what is there, what is due."""

    invariant: int
    kind: str
    position: int
    subject: str
    found: str
    expected: str


class Findings:
    """Takes violations. `counts` are all, by kind; `violations` the first of each kind, as they were found."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.counts: dict[str, int] = {}

    def add(self, kind: str, position: int, subject: str, found: object, expected: object) -> None:
        """Count one more; keep it if it is among the first of its kind."""
        count = self.counts[kind] = self.counts.get(kind, 0) + 1
        if count <= CASES_KEPT_MAX:
            invariant, _ = KINDS[kind]
            self.violations.append(Violation(invariant, kind, position, subject, str(found), str(expected)))
