"""Read models in Elasticsearch: one index per generation, behind an alias, with external versions."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from elasticsearch import ApiError, AsyncElasticsearch, BadRequestError, NotFoundError, TransportError

from cqrskit.document import shape_of
from cqrskit.document_codec import DocumentCodec, Unstorable, check_id, codec_of
from cqrskit.elasticsearch.bulk import write_in_bulk
from cqrskit.elasticsearch.mapping import DELETED_FIELD, ID_FIELD, WORDS_FIELD, index_body
from cqrskit.elasticsearch.search_body import condition_body, search_body
from cqrskit.errors import ConfigurationError, ReadStoreError, RebuildRequired, ServerUnavailable
from cqrskit.query import All, Condition, Query
from cqrskit.query_plan import plan_of, where_of
from cqrskit.read_store import Change, IndexSpec, Outcome, Page, Stored, scan_pages

__all__ = ["ElasticsearchReadStore"]

SOURCE = {"excludes": [ID_FIELD, WORDS_FIELD]}
SUPPORTED_MAJOR = "8"


class ElasticsearchReadStore:
    """`cqrskit.read_store.ReadStore` on Elasticsearch; `client` is the official one, for whatever this lacks."""

    writes_are_visible = False

    def __init__(
        self, url: str, prefix: str, *, request_timeout_seconds: float, connect_timeout_seconds: float = 10.0
    ) -> None:
        """`url` may hold user and password; `prefix` begins every index's name; a `ping` waits for the shorter time."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                "the Elasticsearch URL must look like http://host:9200 (CQRSKIT_ELASTICSEARCH_URL)"
            )
        try:
            port = parts.port or 9200
        except ValueError as error:
            raise ConfigurationError(f"the Elasticsearch URL cannot be read: {error}") from error
        self._address = f"{parts.hostname}:{port}"
        self._prefix = prefix
        self._connect_timeout_seconds = connect_timeout_seconds
        credentials = (parts.username, parts.password or "") if parts.username else None
        self.client = AsyncElasticsearch(
            f"{parts.scheme}://{parts.hostname}:{port}{parts.path}",
            basic_auth=credentials,
            request_timeout=request_timeout_seconds,
            max_retries=0,
            http_compress=False,
        )

    async def open(self) -> None:
        """Nothing to do: connections are made when they are needed."""

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def ping(self) -> None:
        """Return if a server of version 8 answers."""
        with self._errors():
            client = self.client.options(request_timeout=self._connect_timeout_seconds)
            number = (await client.info())["version"]["number"]
        if number.split(".")[0] != SUPPORTED_MAJOR:
            raise ConfigurationError(f"Elasticsearch at {self._address} is version {number}; cqrskit needs 8.x")

    async def prepare(self, index: IndexSpec) -> str:
        """Make the index and its alias if they are missing; see the port."""
        name = self._name(index)
        body = index_body(shape_of(index.document), identity=uuid4().hex)
        with self._errors():
            if not await self.client.indices.exists(index=name):
                try:
                    await self.client.indices.create(
                        index=name, aliases={self._alias(index): {}, f"{name}-write": {}}, **body
                    )
                except BadRequestError as error:
                    if error.error != "resource_already_exists_exception":
                        raise
            mapping = await self.client.indices.get_mapping(index=name)
            await self.client.cluster.health(index=name, wait_for_status="yellow", timeout="30s")
        found = mapping[name]["mappings"].get("_meta", {}).get("cqrskit", {})
        differences = shape_of(index.document).differences_from(found.get("fields", {}))
        if differences:
            raise RebuildRequired(index.name, index.generation, "; ".join(differences))
        identity: str = found["identity"]
        return identity

    async def drop(self, index: IndexSpec) -> None:
        """Remove the index."""
        with self._errors():
            await self.client.indices.delete(index=self._name(index), ignore_unavailable=True)

    async def get(self, index: IndexSpec, document_id: str) -> Stored | None:
        """One document as last written, refreshed or not."""
        stored = (await self.load(index, [document_id])).get(document_id)
        return None if stored is None or stored.document is None else stored

    async def load(self, index: IndexSpec, document_ids: Sequence[str]) -> dict[str, Stored]:
        """Those of the documents that exist, deleted ones included."""
        possible = [document_id for document_id in document_ids if _is_possible(document_id)]
        if not possible:
            return {}
        with self._errors():
            try:
                response = await self.client.mget(
                    index=self._name(index), ids=possible, source_excludes=SOURCE["excludes"]
                )
            except NotFoundError:
                return {}
        codec = codec_of(index.document)
        return {row["_id"]: _stored(codec, row) for row in response["docs"] if row.get("found")}

    async def write(self, index: IndexSpec, changes: Sequence[Change]) -> list[Outcome]:
        """Write in bulk."""
        with self._errors():
            try:
                return await write_in_bulk(self.client, f"{self._name(index)}-write", codec_of(index.document), changes)
            except* (TransportError, ServerUnavailable, ReadStoreError) as errors:
                raise errors.exceptions[0] from errors

    async def refresh(self, index: IndexSpec) -> None:
        """Let searches see what was written."""
        with self._errors():
            await self.client.indices.refresh(index=self._name(index), ignore_unavailable=True)

    async def search(self, index: IndexSpec, query: Query) -> Page:
        """A page of documents."""
        plan = plan_of(query, shape_of(index.document))
        with self._errors():
            response = await self.client.search(
                index=self._name(index), ignore_unavailable=True, body=search_body(plan)
            )
        codec = codec_of(index.document)
        rows = response["hits"]["hits"]
        items = [_stored(codec, row) for row in rows[: plan.limit]]
        more = len(rows) > plan.limit
        return Page(items, plan.cursor_after(items[-1].id, items[-1].document) if more else None)

    async def count(self, index: IndexSpec, where: Condition | None = None) -> int:
        """Number of documents that fit."""
        condition = condition_body(where_of(where or All(), shape_of(index.document)))
        query = {"bool": {"filter": [condition], "must_not": [{"term": {DELETED_FIELD: True}}]}}
        with self._errors():
            response = await self.client.count(index=self._name(index), ignore_unavailable=True, query=query)
        return int(response["count"])

    def scan(self, index: IndexSpec) -> AsyncIterator[Stored]:
        """All documents, ordered by id."""
        return scan_pages(self, index)

    def _name(self, index: IndexSpec) -> str:
        return f"{self._prefix}-{index.name}-{index.generation}"

    def _alias(self, index: IndexSpec) -> str:
        return f"{self._prefix}-{index.name}"

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except TransportError as error:
            raise ServerUnavailable("Elasticsearch", self._address, _reason(error)) from error
        except ApiError as error:
            if error.status_code in (429, 502, 503, 504):
                raise ServerUnavailable("Elasticsearch", self._address, str(error)) from error
            raise ReadStoreError(f"Elasticsearch at {self._address} refused a request: {error}") from error


def _reason(error: TransportError) -> str:
    return (str(error.message).splitlines() or [type(error).__name__])[0]


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
