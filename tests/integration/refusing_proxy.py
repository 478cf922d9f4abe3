"""Stands before a real Elasticsearch and answers some bulk requests in its place, as an overloaded one would."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import ClientSession, web

BODY_BYTES_MAX = 64 * 1024 * 1024


class Refusal(msgspec.Struct, frozen=True):
    status: int
    headers: Mapping[str, str] = {}


class RefusingProxy:
    """`refusals` are given one after the other to bulk requests; all else is passed on. `asked_at` are their times."""

    def __init__(self, target: str) -> None:
        self.refusals: list[Refusal] = []
        self.asked_at: list[float] = []
        self.bodies: list[bytes] = []
        self.url = ""
        self._target = target

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=BODY_BYTES_MAX)
        application.router.add_route("*", "/{path:.*}", self._pass_on)
        self._session = ClientSession()
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.Response:
        body = await request.read()
        if "/_bulk" in request.path:
            self.asked_at.append(time.monotonic())
            self.bodies.append(body)
            if self.refusals:
                refusal = self.refusals.pop(0)
                return web.Response(status=refusal.status, headers=refusal.headers)
        headers = {name: value for name, value in request.headers.items() if name.lower() in ("content-type", "accept")}
        headers["Accept-Encoding"] = "identity"
        async with self._session.request(
            request.method, f"{self._target}{request.path_qs}", data=body or None, headers=headers
        ) as answer:
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                headers={name: answer.headers[name] for name in ("Content-Type", "X-elastic-product")},
            )
