"""Banks whose event Credited has been through much: what `cqrskit schema` is tried on."""

from typing import Any

from cqrskit import Aggregate, Application, upcasts


def bank(
    fields: dict[str, Any] | None = None,
    *,
    defaults: dict[str, Any] | None = None,
    version: int = 1,
    upcasters: dict[int, Any] | None = None,
    more: tuple[str, ...] = (),
    retired: tuple[str, ...] = (),
) -> Application:
    """A bank with Account.Credited of these fields and this version, and `more` events without fields."""
    meta: Any = type(Aggregate.Event)

    def event(name: str, annotations: dict[str, Any], **options: Any) -> Any:
        body = {"__annotations__": annotations, "__module__": __name__, "__qualname__": f"Account.{name}"}
        return meta(name, (Aggregate.Event,), {**body, **(options.pop("body", {}))}, **options)

    given = {"amount": int} if fields is None else fields
    events = {"Credited": event("Credited", given, version=version, body=defaults or {})}
    events.update({name: event(name, {}) for name in more})
    make: Any = type(Aggregate)
    body = {"__module__": __name__, "__qualname__": "Account", "__init__": lambda self: None, **events}
    account = make("Account", (Aggregate,), body)
    steps = [upcasts(account.Credited, from_version=at)(step) for at, step in (upcasters or {}).items()]
    return Application("bank", aggregates=[account], handlers=[], upcasters=steps, retired=retired)


def add_currency(data: dict[str, Any]) -> dict[str, Any]:
    """From version 1 to 2."""
    return {**data, "currency": "EUR"}


plain = bank()
changed = bank({"amount": str})
widened = bank({"amount": int, "note": str | None}, defaults={"note": None})
second = bank({"amount": int, "currency": str}, version=2, upcasters={1: add_currency})
gone = bank(more=("Closed",))
