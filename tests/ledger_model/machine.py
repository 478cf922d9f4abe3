"""Steps at random, most of them sensible, some poisoned: for any ledger that is to be held to the model."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.ledger_model.books import AMOUNT_MAX
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
    Leg,
    Open,
    Post,
    Reverse,
    SetLimit,
    Step,
    Unfreeze,
    Void,
)
from tests.ledger_model.words import Words

__all__ = ["AccountsAndTransfers", "Remembering"]

HOT: list[tuple[str, str, int | None]] = [
    ("asset", "EUR", 0),
    ("liability", "EUR", 0),
    ("expense", "EUR", 50),
    ("income", "EUR", None),
    ("asset", "EUR", None),
    ("equity", "USD", None),
]
COLD: list[tuple[str, str, int | None]] = [("asset", "EUR", None), ("liability", "EUR", 20), ("equity", "EUR", 0)]
COLD_COUNT = 18
ACCOUNT_COUNT = len(HOT) + COLD_COUNT
NOBODY = ACCOUNT_COUNT + 1
FULL, EMPTY = (6, 9), 12
"""Cold accounts without limit."""
EXISTING = 90
"""Numbers of the transfers that a run begins with."""

cold_numbers = st.integers(len(HOT), ACCOUNT_COUNT - 1)
account_numbers = st.one_of(
    *[st.sampled_from([0, 1, 2, 3, 4])] * 4, cold_numbers, st.sampled_from([3, 4, 3, 4, 5, NOBODY])
)
good_amounts = st.sampled_from([1, 20, 21, 50, 51, 100])
bad_amounts = st.sampled_from([-1, 0, AMOUNT_MAX - 20, AMOUNT_MAX, AMOUNT_MAX + 1])
amounts = st.sampled_from(range(8)).flatmap(lambda each: bad_amounts if each == 7 else good_amounts)
Part = int | str | None
parts = st.one_of(st.sampled_from([None, "half", "half", "all", "one more"]), amounts)
"""How much of something: all that is left where nothing is said."""
currencies = st.sampled_from([*["EUR"] * 9, "USD"])
texts = st.sampled_from([None, None, None, "x", "rent for May"])
moments = st.sampled_from([None, None, None, -1, -86_400 * 31, -86_399, 59, 90_001])
"""When it is to be effective: now, or dated back or forward, over the ends of days."""
picks = st.integers(0, 99)
FEW: Any = {"min_size": 1, "max_size": 4}
sides = st.sampled_from(["debit", "credit"])
keys = st.sampled_from("abcde")
told = st.fixed_dictionaries(
    {"text": texts, "reference": texts, "effective": moments, "words": st.sampled_from(["", "", "red"])}
)
Item = tuple[int, int, int, int, dict[str, Any]]
several_items = st.sampled_from([1, 2, 3, 4, 6, 10, 12]).flatmap(
    lambda count: st.lists(st.tuples(picks, picks, amounts, account_numbers, told), min_size=count, max_size=count)
)


@st.composite
def legs_of_entries(draw: st.DrawFn) -> tuple[Leg, ...]:
    """Mostly balanced, and mostly with each account on one side: what a side lacks is added to it as a leg more."""
    legs: list[Leg] = []
    own: dict[str, list[int]] = {"debit": [0, 2, 4, 6], "credit": [1, 3, 7]}
    for _ in range(draw(st.integers(1, 5))):
        side = draw(sides)
        legs.append((draw(st.sampled_from([*own[side] * 9, 1, 2, 5, NOBODY])), side, draw(amounts)))
    excess = sum(amount if side == "debit" else -amount for _, side, amount in legs)
    if excess or len(legs) < 2:
        side = "credit" if excess > 0 else "debit"
        legs.append((draw(st.sampled_from(own[side])), side, abs(excess) + draw(st.sampled_from([*[0] * 9, 1]))))
    return tuple(legs)


def part_of(amount: Part, left: int) -> int | None:
    """An amount that may be said by what is left."""
    if isinstance(amount, str):
        return {"half": (left + 1) // 2, "all": left, "one more": left + 1}[amount]
    return amount


class AccountsAndTransfers(RuleBasedStateMachine):
    """Chooses steps. A subclass gives them to a ledger and to the model, by `give` and `pass_time`."""

    model: LedgerModel
    words: Words

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[Step, str | None]] = []
        self.numbers: list[int] = []
        self.key: str | None = None

    def give(self, step: Step, key: str | None) -> None:
        """Let both decide."""
        raise NotImplementedError

    def pass_time(self, seconds: int, *, expiring: bool) -> None:
        """Some time later, for both; with `expiring` holds that are over have been looked after."""
        raise NotImplementedError

    def take(self, step: Step) -> None:
        """The next step, with the key that was drawn for it."""
        key, self.key = self.key, None
        number = getattr(step, "transfer", None)
        if number is not None and number not in self.numbers:
            self.numbers.append(number)
        self.given.append((step, key))
        self.give(step, key)

    @initialize()
    def open_accounts(self) -> None:
        for number in range(ACCOUNT_COUNT):
            self.take(self.opening(number))
        self.take(Post(EXISTING, 0, 3, 200, "EUR"))
        self.take(Post(EXISTING + 1, 4, 1, 200, "EUR"))
        self.take(Hold(EXISTING + 2, 4, 3, 100, "EUR", seconds=60))

    def opening(self, number: int) -> Open:
        """What an account is opened with."""
        kind, currency, limit = HOT[number] if number < len(HOT) else COLD[number % len(COLD)]
        return Open(number, kind, currency, limit, words="blue" if number % 2 else "")

    # --- which transfer

    def new_or_known(self, pick: int) -> int:
        """Mostly a number that was never given, now and then one that was, whatever came of it."""
        return self.numbers[pick % len(self.numbers)] if pick < 15 else max(self.numbers) + 1

    def known(self, pick: int, kind: type[Step]) -> int:
        """Mostly a transfer that began in this way, now and then any, or one that is not there."""
        numbers = [number for number, each in self.model.transfers.items() if isinstance(each.content, kind)]
        every = [*self.numbers, 77]
        return every[pick % len(every)] if pick < 10 or not numbers else numbers[pick % len(numbers)]

    def some_hold(self, pick: int) -> int:
        """Mostly a hold that is not resolved yet."""
        held = [number for number, each in self.model.transfers.items() if each.state == "held"]
        if pick >= 30 and not held:
            held = [self.new_or_known(99)]
            self.take(Hold(held[0], 4, 3, 100, "EUR", None if pick < 60 else 60, text="rent for May"))
        return held[pick % len(held)] if pick >= 30 and held else self.known(pick, Hold)

    # --- transfers

    @rule(transfers=st.lists(st.tuples(picks, account_numbers, account_numbers, amounts, currencies, told), **FEW))
    def post(self, transfers: list[tuple[int, int, int, int, str, dict[str, Any]]]) -> None:
        for pick, debit, credit, amount, currency, more in transfers:
            self.take(Post(self.new_or_known(pick), debit, credit, amount, currency, **more))

    @rule(entries=st.lists(st.tuples(picks, legs_of_entries(), currencies, told), **FEW))
    def enter(self, entries: list[tuple[int, tuple[Leg, ...], str, dict[str, Any]]]) -> None:
        for pick, legs, currency, more in entries:
            self.take(Enter(self.new_or_known(pick), legs, currency, **more))

    @rule(
        pick=picks,
        debit=account_numbers,
        credit=account_numbers,
        amount=amounts,
        currency=currencies,
        seconds=st.sampled_from([None, 1, 60, 100_000]),
        more=told,
    )
    def hold(
        self,
        pick: int,
        debit: int,
        credit: int,
        amount: int,
        currency: str,
        seconds: int | None,
        more: dict[str, Any],
    ) -> None:
        self.take(Hold(self.new_or_known(pick), debit, credit, amount, currency, seconds, **more))

    @rule(pick=picks, amount=parts, effective=moments)
    def capture(self, pick: int, amount: Part, effective: int | None) -> None:
        number = self.some_hold(pick)
        hold = self.model.transfers.get(number)
        self.take(Capture(number, part_of(amount, hold.amount if hold else 20), effective))

    @rule(pick=picks)
    def void(self, pick: int) -> None:
        self.take(Void(self.some_hold(pick)))

    @rule(pick=picks)
    def expire(self, pick: int) -> None:
        self.take(Expire(self.some_hold(pick)))

    @rule(
        original_pick=picks,
        kind=st.sampled_from([Post, Post, Enter, Hold, Reverse]),
        reversals=st.lists(st.tuples(picks, parts, texts, moments), **FEW),
    )
    def reverse(
        self,
        original_pick: int,
        kind: type[Step],
        reversals: list[tuple[int, int | str | None, str | None, int | None]],
    ) -> None:
        """Several of one transfer, until nothing is left and beyond."""
        number = self.known(original_pick, kind)
        for pick, amount, text, effective in reversals:
            original = self.model.transfers.get(number)
            left = original.moved - original.reversed if original else 20
            self.take(Reverse(self.new_or_known(pick), number, part_of(amount, left), text, effective))

    @rule(
        account=st.sampled_from([0, 1, 2, 7]), beyond=st.sampled_from([0, 1]), how=st.sampled_from([Post, Hold, None])
    )
    def take_all(self, account: int, beyond: int, how: type[Post | Hold] | None) -> None:
        """All that an account may be brought to give, or one more; by several legs too."""
        found = self.model.accounts[account]
        amount = found.available + (found.limit or 0) + beyond
        other, number = 3 if found.taking_side == "debit" else 4, self.new_or_known(99)
        if how is None:
            side = found.taking_side
            legs = ((account, side, amount - 1), (account, side, 1), (other, found.adding_side, amount))
            self.take(Enter(number, legs, "EUR"))
        else:
            debit, credit = (account, other) if found.taking_side == "debit" else (other, account)
            self.take(how(number, debit, credit, amount, "EUR"))

    @rule(beyond=st.sampled_from([0, 1]), how=st.sampled_from([Post, Hold]))
    def fill(self, beyond: int, how: type[Post | Hold]) -> None:
        """All that counters can hold, or one more; and then one more on each of them."""
        debited, credited = (self.model.accounts[number] for number in FULL)
        used = max(each.posted[side] + each.pending[side] for each, side in ((debited, "debit"), (credited, "credit")))
        self.take(how(self.new_or_known(99), *FULL, AMOUNT_MAX - used + beyond, "EUR"))
        self.take(Post(self.new_or_known(99), FULL[0], EMPTY, 1, "EUR"))
        self.take(Post(self.new_or_known(99), EMPTY, FULL[1], 1, "EUR"))

    # --- accounts

    @rule(number=account_numbers, kind=st.sampled_from([None, None, "income"]))
    def open(self, number: int, kind: str | None) -> None:
        opening = self.opening(number % ACCOUNT_COUNT)
        self.take(msgspec.structs.replace(opening, type=kind or opening.type))

    @rule(changes=st.lists(st.tuples(account_numbers, st.sampled_from([Freeze, Unfreeze, Unfreeze, Close])), **FEW))
    def change_status(self, changes: list[tuple[int, type[Freeze | Unfreeze | Close]]]) -> None:
        for number, how in changes:
            self.take(how(number))

    @rule(number=account_numbers, limit=st.sampled_from([None, 0, 50, 1_000]))
    def set_limit(self, number: int, limit: int | None) -> None:
        self.take(SetLimit(number, limit))

    @rule(number=account_numbers, words=st.sampled_from(["", "red", "blue"]))
    def describe(self, number: int, words: str) -> None:
        self.take(Describe(number, words))

    # --- again

    @rule(back=st.integers(1, 12), how=st.sampled_from(["as it was", "as it was", "without key"]))
    def repeat(self, back: int, how: str) -> None:
        """A retry, of a command that may have been refused before; a key may come later, or be left out."""
        step, key = self.given[-min(back, len(self.given))]
        if how == "as it was":
            self.key = key or self.key
        self.take(step)

    @rule(back=st.integers(1, 12), field=st.sampled_from(["amount", "text", "effective", "words", "seconds", "limit"]))
    def send_altered(self, back: int, field: str) -> None:
        """The same number or key, and another content."""
        step, key = self.given[-min(back, len(self.given))]
        if field in step.__struct_fields__:
            self.key = key or self.key
            other = "another" if field in ("text", "words") else 7
            self.take(msgspec.structs.replace(step, **{field: other}))

    # --- time

    @rule(seconds=st.sampled_from([1, 30, 60, 86_400]), expiring=st.booleans())
    def wait(self, seconds: int, expiring: bool) -> None:
        self.pass_time(seconds, expiring=expiring)


class Remembering(AccountsAndTransfers):
    """The steps of a ledger that remembers outcomes: keys, and batches of both kinds."""

    __test__ = False

    @precondition(lambda self: self.key is None)
    @rule(key=keys)
    def use_key(self, key: str) -> None:
        """The next command has an Idempotency-Key, which may be another's."""
        self.key = key

    @rule(how=st.sampled_from(["atomic", "atomic", "independent"]), drawn=st.lists(several_items, **FEW))
    def batches(self, how: str, drawn: list[list[Item]]) -> None:
        for each in drawn:
            self.batch(how, each)

    def batch(self, how: str, drawn: list[Item]) -> None:
        """One batch."""
        items: list[Post] = []
        for each in drawn:
            items.append(self.item(items, *each))
        if how == "atomic":
            self.take(Batch(tuple(items)))
            self.numbers += [each.transfer for each in items if each.transfer not in self.numbers]
        else:
            for item in items:
                self.take(item)

    def item(
        self, items: list[Post], pick: int, other_pick: int, amount: int, account: int, more: dict[str, Any]
    ) -> Post:
        """Mostly one that can be posted; now and then poison, or one that was there before, here or elsewhere."""
        new = max([*self.numbers, *(each.transfer for each in items)]) + 1
        good = Post(new, other_pick % 2 * 4, 1 + pick % 2 * 2, abs(amount) % 1_000 + 1, "EUR", **more)
        posts = [step for step, _ in self.given if isinstance(step, Post)]
        if pick < 84:
            return good
        if pick < 88:
            return posts[other_pick % len(posts)]
        if pick < 91 and items:
            return items[other_pick % len(items)]
        if pick < 93:
            return msgspec.structs.replace(good, transfer=(items or posts)[-1].transfer)
        if pick < 95:
            return msgspec.structs.replace(good, transfer=self.numbers[other_pick % len(self.numbers)])
        if pick < 98:
            return Post(new, account, 1 if account != 1 else 3, amount, "EUR", **more)
        return msgspec.structs.replace(good, currency="USD")
