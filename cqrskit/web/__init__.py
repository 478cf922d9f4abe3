"""HTTP: a Litestar plugin that puts an `Application` on the wire.

::

    from litestar import Litestar, Response, get, post
    from litestar.di import NamedDependency
    from litestar.params import FromPath, JSONBody
    from cqrskit import Reader
    from cqrskit.web import Commands, CqrskitPlugin, MinPosition, command_reply

    @post("/accounts/{account_id:uuid}/credit")
    async def credit(
        account_id: FromPath[UUID], data: JSONBody[CreditBody], commands: NamedDependency[Commands]
    ) -> Response[Credited]:
        result = await commands.execute(Credit(account_id=account_id, amount=data.amount))
        return command_reply(Credited(account_id, result.position), result)

    @get("/accounts/{account_id:uuid}")
    async def show(
        account_id: FromPath[UUID], reader: NamedDependency[Reader], min_position: MinPosition
    ) -> Balance:
        answer = await reader.get(Balances, str(account_id), min_position=min_position)
        ...

    app = Litestar([credit, show], plugins=[CqrskitPlugin(bank, statuses={"transfer_conflict": 409})])

What handlers may ask for, by parameter name: ``commands``, ``reader`` and ``runtime`` as above, and
``min_position: MinPosition`` (the larger of the ``Consistency-Position`` header and the ``min_position`` query
parameter, None if neither was sent).

- ``commands`` gives commands in the name of the request: with its ``Idempotency-Key``, and with where it comes from
  (``X-Correlation-ID``, ``X-Causation-ID``, ``traceparent``, the plugin's `actor`) in every event's metadata.
- ``command_reply(content, result, status_code=None)`` is a Response that carries the ``Consistency-Position`` header,
  and for a retry ``Idempotent-Replay: true``; ``at_position(content, position, status_code=None)`` has only the first.
- Errors become ``application/problem+json``; a `Rejected` is 422 unless `statuses` or the route says otherwise:
  ``@get("/accounts/{id:uuid}", opt=problem_statuses(account_not_found=404))``.
- A wrong value is 400, named by its place in `errors`. A pattern is told as ``msgspec.Meta(extra={"in_words": "..."})``
  says, and an `InvalidField` that a class raises in ``__post_init__`` names its field.
- ``problem_code(error)`` is the `code` that the problem of an error has, for replies that tell of several commands.
- ``CqrskitPlugin(..., only_known_parameters=True)`` refuses query parameters that no route declares.
- ``CqrskitPlugin(..., api_keys=True)`` lets only those in who show an API key with the scope that the route needs:
  `read` or `write` by its HTTP method, or what ``opt=needs_scope("admin")`` or ``opt=open_to_all()`` says.
  `cqrskit keys` makes keys.
- ``/health/live``, ``/health/ready`` and OpenAPI under ``/schema`` come with the plugin. The OpenAPI document has the
  problems and headers of each route; ``opt=refusals(AccountNotFound)`` says which refusals a route's commands can meet.
- ``plugin.runtime`` is the `Runtime` while the app runs.
- ``await serve(app, settings, stop=event, on_listening=callback)`` runs the app under uvicorn until `stop` is set;
  `cqrskit.cli.running.serve_application` is the same with signals and exit codes.
"""

from cqrskit.web.access import needs_scope, open_to_all
from cqrskit.web.commands import Commands, command_reply
from cqrskit.web.plugin import CqrskitPlugin, plugin_of
from cqrskit.web.positions import CONSISTENCY_POSITION, MinPosition, at_position
from cqrskit.web.problems import Problem, problem_code, problem_statuses, refusals
from cqrskit.web.server import serve

__all__ = [
    "CONSISTENCY_POSITION",
    "Commands",
    "CqrskitPlugin",
    "MinPosition",
    "Problem",
    "at_position",
    "command_reply",
    "needs_scope",
    "open_to_all",
    "plugin_of",
    "problem_code",
    "problem_statuses",
    "refusals",
    "serve",
]
