"""HTTP: a Litestar plugin that puts an `Application` on the wire.

::

    from litestar import Litestar, Response, get, post
    from litestar.di import NamedDependency
    from litestar.params import FromPath, JSONBody
    from cqrskit import Executor, Reader
    from cqrskit.web import CqrskitPlugin, MinPosition, at_position

    @post("/accounts/{account_id:uuid}/credit")
    async def credit(
        account_id: FromPath[UUID], data: JSONBody[CreditBody], executor: NamedDependency[Executor]
    ) -> Response[Credited]:
        result = await executor.execute(Credit(account_id=account_id, amount=data.amount))
        return at_position(Credited(account_id, result.position), result.position)

    @get("/accounts/{account_id:uuid}")
    async def show(
        account_id: FromPath[UUID], reader: NamedDependency[Reader], min_position: MinPosition
    ) -> Balance:
        answer = await reader.get(Balances, str(account_id), min_position=min_position)
        ...

    app = Litestar([credit, show], plugins=[CqrskitPlugin(bank, statuses={"transfer_conflict": 409})])

What handlers may ask for, by parameter name: ``executor``, ``reader`` and ``runtime`` as above, and
``min_position: MinPosition`` (the larger of the ``Consistency-Position`` header and the ``min_position`` query
parameter, None if neither was sent).

- ``at_position(content, position, status_code=None)`` is a Response that carries the ``Consistency-Position`` header.
- Errors become ``application/problem+json``; a `Rejected` is 422 unless `statuses` or the route says otherwise:
  ``@get("/accounts/{id:uuid}", opt=problem_statuses(account_not_found=404))``.
- The guard `only_known_parameters` refuses query parameters that no route declares.
- ``/health/live``, ``/health/ready`` and OpenAPI under ``/schema`` come with the plugin.
- ``plugin.runtime`` is the `Runtime` while the app runs.
- ``await serve(app, settings, stop=event, on_listening=callback)`` runs the app under uvicorn until `stop` is set;
  `cqrskit.cli.running.serve_application` is the same with signals and exit codes.
"""

from cqrskit.web.parameters import only_known_parameters
from cqrskit.web.plugin import CqrskitPlugin, plugin_of
from cqrskit.web.positions import CONSISTENCY_POSITION, MinPosition, at_position
from cqrskit.web.problems import Problem, problem_statuses
from cqrskit.web.server import serve

__all__ = [
    "CONSISTENCY_POSITION",
    "CqrskitPlugin",
    "MinPosition",
    "Problem",
    "at_position",
    "only_known_parameters",
    "plugin_of",
    "problem_statuses",
    "serve",
]
