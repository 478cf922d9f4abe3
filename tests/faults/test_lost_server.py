"""Elasticsearch goes away in the middle of the work and comes back: nothing is lost."""

import asyncio
from urllib.parse import urlsplit
from uuid import uuid4

from cqrskit import Settings
from cqrskit.testing import differences_from_log, eventually
from tests.integration.counting import Counts, Grow, opened


class CuttableWire:
    """A TCP wire to a server that can be cut and mended."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = parts.hostname, parts.port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back_writer}
        await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))
        self._writers -= {writer, back_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


async def test_a_projector_waits_for_elasticsearch_and_goes_on(
    postgres_dsn: str, elasticsearch_url: str, index_prefix: str
) -> None:
    wire = CuttableWire(elasticsearch_url)
    await wire.mend()
    settings = Settings(
        database_url=postgres_dsn, elasticsearch_url=wire.url, index_prefix=index_prefix, block_size_max=50
    )
    async with opened(settings, projecting=True) as runtime:
        ids = [uuid4() for _ in range(10)]
        for _ in range(2):
            await runtime.executor.execute_many([Grow(counter_id=ids[number % 10]) for number in range(500)])
            await wire.cut()
            results = await runtime.executor.execute_many([Grow(counter_id=ids[number % 10]) for number in range(500)])
            assert len(results) == 500
            projector = runtime.projectors["counts"]
            await eventually(lambda projector=projector: projector.failure, timeout_seconds=30)  # type: ignore[misc]
            assert "Elasticsearch" in str(projector.failure)
            await wire.mend()

            async def level() -> bool:
                (status,) = await runtime.status(count_documents=False)
                return status.visible_position == status.head and status.failure is None

            await eventually(level, timeout_seconds=30)
        assert await differences_from_log(runtime, Counts) == []
    await wire.cut()
