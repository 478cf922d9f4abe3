"""Read models in Elasticsearch: one index per generation, behind an alias, with external versions."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any
from uuid import uuid4

import structlog
from elasticsearch import AuthorizationException, BadRequestError, NotFoundError

from cqrskit.document import shape_of
from cqrskit.document_codec import DocumentCodec, Unstorable, check_id, codec_of
from cqrskit.elasticsearch.bulk import BulkWriter
from cqrskit.elasticsearch.connection import Access, Connection, reason_of
from cqrskit.elasticsearch.mapping import (
    DELETED_FIELD,
    index_body,
    is_template_due,
    loading_settings,
    serving_settings,
    template_body,
)
from cqrskit.elasticsearch.points_in_time import PointsInTime
from cqrskit.elasticsearch.search_body import SOURCE, count_body, search_body
from cqrskit.elasticsearch.summary_body import groups_in, summary_body
from cqrskit.elasticsearch.untied_pages import untied_body, untied_rows
from cqrskit.errors import ConfigurationError, IndexMissing, ReadStoreError, RebuildRequired, ServerUnavailable
from cqrskit.query import All, Condition, Query
from cqrskit.query_plan import plan_of, where_of
from cqrskit.read_store import Change, IndexSpec, Page, Stored, numbers_behind, page_of
from cqrskit.summary import Groups, Summary
from cqrskit.summary_plan import plan_of_summary

__all__ = ["ElasticsearchReadStore"]

SUPPORTED_MAJOR = "8"
NO_ACCESS = Access()
INDEX_NOT_FOUND, INDEX_CLOSED = "index_not_found_exception", "index_closed_exception"
NO_UUID_YET = "_na_"
"""What a node says before it has found its cluster, or made one."""

log = structlog.get_logger(__name__)


class ElasticsearchReadStore:
    """`cqrskit.read_store.ReadStore` on Elasticsearch; `client` is the official one, for whatever this lacks.

    `circuit` shows whether the cluster answers; what is sent with `client` itself passes it by.
    """

    writes_are_visible = False
    system = "elasticsearch"

    def __init__(
        self,
        url: str,
        prefix: str,
        *,
        access: Access = NO_ACCESS,
        request_timeout_seconds: float,
        connect_timeout_seconds: float = 10.0,
        bulk_max_documents: int = 5_000,
        bulk_max_bytes: int = 8 * 1024 * 1024,
        bulk_max_requests: int = 2,
        circuit_max_failures: int = 5,
        circuit_max_pause_seconds: float = 10.0,
        on_bulk_retry: Callable[[], None] = lambda: None,
    ) -> None:
        """`url` names hosts, with user and password or without; `prefix` begins every index's name.

        A `ping` waits for `connect_timeout_seconds`; see `cqrskit.settings.Settings` for the rest. `on_bulk_retry` is
        called when a bulk request, or a part of one, is sent again.
        """
        self._prefix = prefix
        self._connect_timeout_seconds = connect_timeout_seconds
        self._connection = Connection(
            url,
            access,
            request_timeout_seconds=request_timeout_seconds,
            circuit_max_failures=circuit_max_failures,
            circuit_max_pause_seconds=circuit_max_pause_seconds,
        )
        self._bulk = BulkWriter(
            self._connection,
            max_documents=bulk_max_documents,
            max_bytes=bulk_max_bytes,
            max_requests=bulk_max_requests,
            request_timeout_seconds=request_timeout_seconds,
            on_retry=on_bulk_retry,
        )
        self._points_in_time = PointsInTime(self._connection)
        self._identities: dict[str, str] = {}
        self.client = self._connection.client
        self.circuit = self._connection.circuit

    async def open(self) -> None:
        """Nothing to do: connections are made when they are needed."""

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def ping(self, *, despite_pauses: bool = False) -> None:
        """Return if a server of version 8 answers and lets us in; see the port."""
        with self._connection.request(starting=True, despite_pauses=despite_pauses):
            client = self.client.options(request_timeout=self._connect_timeout_seconds)
            number = (await client.info())["version"]["number"]
        if number.split(".")[0] != SUPPORTED_MAJOR:
            address = self._connection.address
            raise ConfigurationError(f"Elasticsearch at {address} is version {number}; cqrskit needs 8.x")

    async def identity(self) -> str:
        """Which store this is: the cluster, whatever its address."""
        with self._errors():
            uuid = (await self.client.info())["cluster_uuid"]
        if uuid == NO_UUID_YET:
            raise self._connection.unavailable("the cluster is still forming and has no identity yet")
        return f"elasticsearch {uuid}"

    async def prepare(self, index: IndexSpec) -> str:
        """Make the template, the index and its alias for writes if they are missing; see the port."""
        name = self.name_of(index)
        await self._make_template()
        with self._errors(starting=True):
            if not await self.client.indices.exists(index=name):
                await self._create(index)
            mapping = await self.client.indices.get_mapping(index=name)
            await self.client.cluster.health(index=name, wait_for_status="yellow", timeout="30s")
        found = mapping[name]["mappings"].get("_meta", {}).get("cqrskit", {})
        differences = shape_of(index.document).differences_from(found.get("fields", {}))
        if differences:
            raise RebuildRequired(index.name, index.generation, "; ".join(differences))
        self._identities[name] = found["identity"]
        return self._identities[name]

    async def _create(self, index: IndexSpec) -> None:
        name = self.name_of(index)
        body = index_body(index, identity=uuid4().hex)
        try:
            await self.client.indices.create(index=name, aliases={self._write_alias(index): {}}, **body)
        except BadRequestError as error:
            if error.error != "resource_already_exists_exception":
                raise ConfigurationError(
                    f"index {name} cannot be made ({reason_of(error)}): correct `elasticsearch` of projection "
                    f"{index.name!r}, or the annotations of {index.document.__name__}"
                ) from error

    async def _make_template(self) -> None:
        """Make it or bring it up to date; who may not do that goes on without it, as indexes carry their settings."""
        name = self._prefix
        try:
            with self._connection.request():
                found = await self.client.options(ignore_status=404).indices.get_index_template(name=name)
                if is_template_due(name, found.get("index_templates", [])):
                    await self.client.indices.put_index_template(name=name, **template_body(name))
        except (ServerUnavailable, ReadStoreError) as error:
            if not isinstance(error.__cause__, AuthorizationException | BadRequestError):
                raise
            log.warning("elasticsearch.template_not_made", template=name, reason=reason_of(error.__cause__))

    async def make_live(self, index: IndexSpec) -> None:
        """Point the projection's alias at this generation, and at no other, in one step."""
        name, alias = self.name_of(index), self._alias(index)
        others = {"remove": {"index": f"{alias}-*", "alias": alias, "must_exist": False}}
        with self._errors(missing=name):
            await self.client.indices.update_aliases(actions=[others, {"add": {"index": name, "alias": alias}}])

    async def begin_bulk_load(self, index: IndexSpec) -> None:
        """Write one copy of each shard only."""
        with self._errors(missing=self.name_of(index)):
            await self.client.indices.put_settings(index=self.name_of(index), settings=loading_settings())

    async def end_bulk_load(self, index: IndexSpec) -> None:
        """Let the copies be made; searches need not wait for them."""
        with self._errors(missing=self.name_of(index)):
            settings = serving_settings(index.elasticsearch)
            await self.client.indices.put_settings(index=self.name_of(index), settings=settings)

    async def size_bytes(self, index: IndexSpec) -> int:
        """The size of all shards and their copies, as it was some ten seconds ago."""
        with self._errors():
            found = await self.client.options(ignore_status=404).indices.stats(
                index=self.name_of(index), metric="store"
            )
        return int(found["_all"]["total"].get("store", {}).get("size_in_bytes", 0)) if "_all" in found else 0

    async def drop(self, index: IndexSpec) -> None:
        """Remove the index, and its aliases with it."""
        with self._errors():
            await self.client.indices.delete(index=self.name_of(index), ignore_unavailable=True)
        self._identities.pop(self.name_of(index), None)

    async def numbers_of(self, name: str) -> list[int]:
        """Numbers of a projection's generations that have an index here."""
        beginning = f"{self._prefix}-{name}-"
        with self._errors():
            found = await self.client.indices.get_settings(index=f"{beginning}*", filter_path="*.settings.index.uuid")
        return numbers_behind(beginning, found)

    async def get(self, index: IndexSpec, document_id: str) -> Stored | None:
        """One document as last written, refreshed or not."""
        stored = (await self.load(index, [document_id])).get(document_id)
        return None if stored is None or stored.document is None else stored

    async def load(self, index: IndexSpec, document_ids: Sequence[str]) -> dict[str, Stored]:
        """Those of the documents that exist, deleted ones included."""
        possible = [document_id for document_id in document_ids if _is_possible(document_id)]
        if not possible:
            return {}
        name = self.name_of(index)
        with self._reading(name):
            response = await self.client.mget(index=name, ids=possible, source_excludes=SOURCE["excludes"])
        codec = codec_of(index.document)
        for row in response["docs"]:
            if "error" in row:
                raise self._unknown(name, row["error"])
        return {row["_id"]: _stored(codec, row) for row in response["docs"] if row["found"]}

    def _unknown(self, name: str, error: dict[str, Any]) -> Exception:
        """A row without an answer is no missing document: who took it for one would fold anew, and overwrite it."""
        kind, reason = error["type"], error.get("reason")
        if kind == INDEX_NOT_FOUND:
            return IndexMissing(name)
        if kind == INDEX_CLOSED:
            return ReadStoreError(f"index {name} is closed, so nothing can be read from it: open it")
        return self._connection.unavailable(f"{name} does not say whether it has a document: {kind}: {reason}")

    async def write(self, index: IndexSpec, changes: Sequence[Change]) -> dict[str, str]:
        """Write in bulk."""
        return await self._bulk.write(self._write_alias(index), codec_of(index.document), changes)

    async def refresh(self, index: IndexSpec) -> None:
        """Let searches see what was written, provided that it was written to the index that was prepared here."""
        name = self.name_of(index)
        with self._reading(name):
            shards = (await self.client.indices.refresh(index=name))["_shards"]
            # What has no active copy counts as neither.
            if shards["failed"] or shards["successful"] < index.elasticsearch.shards:
                raise self._connection.unavailable(f"{name} was refreshed in part only: {dict(shards)}")
            if name not in self._identities:
                return
            client = self.client.options(ignore_status=404)
            found = await client.indices.get_mapping(index=name, filter_path="*.mappings._meta")
        meta = found.get(name, {}).get("mappings", {}).get("_meta", {}).get("cqrskit", {})
        if meta.get("identity") != self._identities[name]:
            raise ReadStoreError(f"index {name} was replaced while it was being written to: start again to fill it")

    async def search(self, index: IndexSpec, query: Query) -> Page:
        """A page of documents."""
        plan = plan_of(query, shape_of(index.document))
        codec = codec_of(index.document)
        name = self.name_of(index)
        if plan.stable:
            return await self._points_in_time.page(name, plan, lambda row: _stored(codec, row))
        untied = untied_body(plan)
        rows = None if untied is None else untied_rows(plan, (await self._search(index, untied))["hits"]["hits"])
        if rows is None:
            rows = (await self._search(index, search_body(plan)))["hits"]["hits"]
        return page_of(plan, [_stored(codec, row) for row in rows])

    async def count(self, index: IndexSpec, where: Condition | None = None) -> int:
        """Number of documents that fit."""
        response = await self._search(index, count_body(where_of(where or All(), shape_of(index.document))))
        return int(response["hits"]["total"]["value"])

    async def summarize(self, index: IndexSpec, summary: Summary) -> Groups:
        """Counts and sums; asked a second time, with a script, where doubles may not do."""
        plan = plan_of_summary(summary, shape_of(index.document))
        found = groups_in(await self._search(index, summary_body(plan, exact=False)), plan)
        if found is None:
            found = groups_in(await self._search(index, summary_body(plan, exact=True)), plan)
            assert found is not None, "a script adds up exactly"
        return plan.groups(found)

    async def scan(self, index: IndexSpec) -> AsyncGenerator[Stored, None]:
        """All documents at one point in time, ordered by id."""
        codec = codec_of(index.document)
        async with aclosing(self._points_in_time.scan(self.name_of(index))) as rows:
            async for row in rows:
                yield _stored(codec, row)

    async def _search(self, index: IndexSpec, body: dict[str, Any]) -> Any:
        """All shards answer or the request fails: otherwise documents could be missing without a word."""
        name = self.name_of(index)
        with self._reading(name):
            return await self.client.search(index=name, allow_partial_search_results=False, body=body)

    def name_of(self, index: IndexSpec) -> str:
        """The name of this generation's index, for requests with `client`."""
        return f"{self._prefix}-{index.name}-{index.generation}"

    def _alias(self, index: IndexSpec) -> str:
        return f"{self._prefix}-{index.name}"

    def _write_alias(self, index: IndexSpec) -> str:
        return f"{self.name_of(index)}-write"

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Around requests of this index alone, which raise IndexMissing if it is not there."""
        try:
            with self._connection.request():
                yield
        except ReadStoreError as error:
            if isinstance(error.__cause__, NotFoundError):
                raise IndexMissing(name) from error
            raise

    @contextmanager
    def _errors(self, *, starting: bool = False, missing: str | None = None) -> Iterator[None]:
        """Around the requests of one method: see `Connection.request`. `missing` is named if it is not there."""
        try:
            with self._connection.request(starting=starting):
                yield
        except ReadStoreError as error:
            if missing is not None and isinstance(error.__cause__, NotFoundError):
                raise ReadStoreError(f"index {missing} is not there: prepare it first") from error
            raise


def _is_possible(document_id: str) -> bool:
    try:
        check_id(document_id)
    except Unstorable:
        return False
    return True


def _stored(codec: DocumentCodec, row: Any) -> Stored:
    source = row["_source"]
    document = None if source.get(DELETED_FIELD) else codec.from_plain(source)
    return Stored(row["_id"], row["_version"], document)
