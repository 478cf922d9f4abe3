"""An application: one bounded context's aggregates, handlers and projections, and how it is put to work.

`Application` only declares; `Application.open` wires it to servers and yields a `Runtime`.
"""

import asyncio
import difflib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from cqrskit.aggregate import Aggregate, event_classes
from cqrskit.checkpoints import Lease
from cqrskit.commands import Handler, HandlerRegistry
from cqrskit.consistency import Positions, Reader
from cqrskit.due_commands import DueCommandRunner
from cqrskit.errors import ConfigurationError, DefinitionError
from cqrskit.event_versions import Upcaster
from cqrskit.events import EventRegistry
from cqrskit.executor import Executor
from cqrskit.explanation import Explainer
from cqrskit.fingerprint import fingerprint_of
from cqrskit.garbage import collect_garbage_rarely
from cqrskit.generations import generation_for
from cqrskit.measuring import Figures, Measuring
from cqrskit.metrics import Metrics
from cqrskit.projection import Projection, folds_of
from cqrskit.projector import Projector
from cqrskit.reactions import Reaction, ReactionRunner, check_reactions
from cqrskit.retention import ReceiptPruner
from cqrskit.servers import Servers, open_servers, open_tracer
from cqrskit.settings import Settings
from cqrskit.snapshots import SnapshotCodec
from cqrskit.status import ProjectionStatus, statuses
from cqrskit.tasks import end_tasks
from cqrskit.tracing import Tracer
from cqrskit.verification import Progress, Verifier, silent
from cqrskit.worker import Worker

__all__ = ["Application", "Runtime"]


class Application:
    """One bounded context. Everything that can be wrong in its wiring raises DefinitionError here, at import."""

    def __init__(
        self,
        name: str,
        *,
        aggregates: Sequence[type[Aggregate]],
        handlers: Sequence[Handler],
        projections: Sequence[type[Projection]] = (),
        upcasters: Sequence[Upcaster] = (),
        retired: Sequence[str] = (),
        reactions: Sequence[type[Reaction]] = (),
    ) -> None:
        """`name` is for people; `aggregates` declare the events that the log may hold.

        `upcasters` bring old versions of events to the current one, step by step (see `cqrskit.upcasts`). `retired`
        are stored names of events whose class is gone: they are skipped wherever the log is read, in all versions.
        """
        self.name = name
        self.aggregates = tuple(aggregates)
        self.projections = tuple(projections)
        self.registry = EventRegistry(
            (event_class for aggregate in aggregates for event_class in event_classes(aggregate)),
            upcasters=upcasters,
            retired=retired,
        )
        self.handlers = HandlerRegistry(handlers)
        self.snapshots = SnapshotCodec(self.aggregates)
        self.reactions = tuple(reactions)
        self._check_projections()
        check_reactions(self.name, self.reactions, self.registry)

    def _check_projections(self) -> None:
        names: set[str] = set()
        for projection in self.projections:
            if projection.name in names:
                raise DefinitionError(f"two projections are named {projection.name!r}: rename one of them")
            names.add(projection.name)
            for stored_name in folds_of(projection()):
                if stored_name not in self.registry or self.registry.is_retired(stored_name):
                    raise DefinitionError(
                        f"projection {projection.__name__} folds {stored_name}, which no aggregate of application "
                        f"{self.name!r} declares: add the aggregate to Application(aggregates=[...])"
                    )

    def projection_named(self, name: str) -> type[Projection]:
        """The projection of this name; ConfigurationError names the ones there are."""
        for projection in self.projections:
            if projection.name == name:
                return projection
        names = sorted(projection.name for projection in self.projections)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? The" if near else "the"
        raise ConfigurationError(
            f"there is no projection named {name!r}; {hint} projections are: {', '.join(names) or 'none'}"
        )

    @asynccontextmanager
    async def open(
        self, settings: Settings, *, executor: bool = True, projections: Iterable[str] | None = None
    ) -> AsyncIterator["Runtime"]:
        """Wire the application to its servers, and close everything in the right order at the end.

        `executor`: take commands. `projections`: names of those to run here, as far as no other worker does (default:
        none). Raises ServerUnavailable, MigrationRequired, RebuildRequired or ConfigurationError.

        Who does either waits for servers that are away, as long as the settings say. Who takes commands then goes on
        without Elasticsearch: queries raise ServerUnavailable, and projections begin, once it is back.
        """
        names = tuple(projections or ())
        metrics, tracer = Metrics(), open_tracer(settings, self.name)
        async with open_servers(
            settings, metrics, waits=executor or bool(names), needs_read_store=not executor
        ) as servers:
            runtime = Runtime(self, settings, servers, metrics, tracer)
            try:
                await runtime.start(executor=executor, projections=names)
                yield runtime
            finally:
                await runtime.close()


class Runtime:
    """An application at work in this process. Made by `Application.open`.

    `executor` takes commands, `reader` answers queries; `event_store`, `read_store`, `checkpoints` and `due_commands`
    are the ports beneath, `api_keys` knows who may call. `reaction_statuses` and `due_status` are for reactions and due
    commands what `status` is for projections. `metrics` counts, `measuring` asks the servers for what cannot be counted
    here, and `tracer` makes traces (None: nobody does). `database_url` is the log's, also of an embedded one; it may
    hold a password.
    """

    def __init__(
        self, application: Application, settings: Settings, servers: Servers, metrics: Metrics, tracer: Tracer | None
    ) -> None:
        self.application = application
        self.settings = settings
        self.metrics = metrics
        self.tracer = tracer
        self.database_url = servers.database_url
        self.event_store = event_store = servers.event_store
        self.read_store = read_store = servers.read_store
        self._store_identity = servers.identity
        self.checkpoints = servers.checkpoints
        self.api_keys = servers.api_keys
        self.due_commands = due_commands = servers.due_commands
        self._notifier = servers.notifier
        self._listener = listener = servers.listener
        self.positions = Positions(servers.checkpoints)
        self.reader = Reader(read_store, self.positions, settings)
        self.worker: Worker | None = None
        self._pruning: list[asyncio.Task[None]] = []
        self.receipt_pruner = (
            None
            if settings.receipts_kept_days is None
            else ReceiptPruner(event_store.prune_receipts, kept_days=settings.receipts_kept_days)
        )
        self.executor = Executor(
            event_store,
            application.registry,
            application.handlers,
            settings,
            snapshots=application.snapshots,
            on_commit=self._committed,
            on_due=lambda: self._due_runner.wake(),
            metrics=metrics,
            tracer=tracer,
        )
        self._reactions = ReactionRunner(
            application.reactions, due_commands, event_store, application.registry, application.handlers, settings,
            wake=listener.follow(), stored=lambda: self._due_runner.wake(), metrics=metrics, tracer=tracer,
        )  # fmt: skip
        self._due_runner = DueCommandRunner(
            due_commands,
            self.executor,
            application.handlers,
            settings,
            react_again=self._reactions.by_parked_name,
            metrics=metrics,
            tracer=tracer,
        )
        self.reaction_statuses, self.due_status = self._reactions.statuses, self._due_runner.status
        self.measuring = Measuring(metrics, self._figures)

    def _committed(self) -> None:
        self._listener.wake()
        self._notifier.committed()

    async def start(self, *, executor: bool, projections: Sequence[str]) -> None:
        """Begin to take commands and to run projections."""
        if executor or projections:
            collect_garbage_rarely(self.settings.garbage_collection_threshold_objects)
        if executor:
            await self._notifier.start()
            await self.executor.start()
            self._due_runner.start()
            await self._reactions.start()
            if self.receipt_pruner is not None:
                self._pruning = [asyncio.create_task(self.receipt_pruner.run(), name="cqrskit-receipts")]
        if executor or projections:
            await self._check_documents()
        if projections:
            self.worker = Worker(
                [self.application.projection_named(name) for name in projections],
                read_store=self.read_store,
                checkpoints=self.checkpoints,
                settings=self.settings,
                make_projector=self.projector,
                on_retry=partial(self.metrics.retries.count, "worker"),
            )
            await self.worker.start()
            await self._listener.start()

    def projector(self, projection: Projection, lease: Lease, *, bulk: bool = False) -> Projector:
        """A projector for a partition that is leased, not yet opened; workers and rebuilds make theirs here."""
        return Projector(
            projection,
            lease,
            event_store=self.event_store,
            read_store=self.read_store,
            checkpoints=self.checkpoints,
            positions=self.positions,
            registry=self.application.registry,
            settings=self.settings,
            wake=self._listener.follow(),
            metrics=self.metrics,
            tracer=None if bulk else self.tracer,
            bulk=bulk,
        )

    async def verifier(
        self,
        projection: type[Projection],
        generation: int | None = None,
        *,
        until: int | None = None,
        share: float = 1.0,
        seed: int = 0,
        on_progress: Progress = silent,
    ) -> Verifier:
        """What compares a generation (default: the one that is read here) with the log; see `Verifier`."""
        head = await self.event_store.head() if until is None else until
        index = await self.reader.index(projection) if generation is None else projection.index(generation)
        parked = await self.checkpoints.parked(index.name, index.generation)
        skipped = await self.checkpoints.skipped(index.name)
        return Verifier(
            projection(),
            index,
            event_store=self.event_store,
            read_store=self.read_store,
            registry=self.application.registry,
            until=head,
            parked={each.key: each.position for each in parked},
            skipped=[(each.key, each.position) for each in skipped],
            share=share,
            seed=seed,
            block_size=self.settings.block_size_max,
            on_progress=on_progress,
        )

    async def explainer(
        self, projection: type[Projection], *, on_progress: Callable[[int, int], None] = silent
    ) -> Explainer:
        """What explains documents of the generation that is read here; see `Explainer`."""
        index = await self.reader.index(projection)
        skipped = await self.checkpoints.skipped(index.name)
        return Explainer(
            projection(),
            index,
            event_store=self.event_store,
            read_store=self.read_store,
            registry=self.application.registry,
            skipped=[(each.key, each.position) for each in skipped],
            block_size=self.settings.block_size_max,
            on_progress=on_progress,
        )

    async def close(self) -> None:
        """Finish the accepted commands, due ones too, then stop the projections."""
        await self._reactions.stop()
        await self._due_runner.stop()
        await self.executor.stop()
        await end_tasks(self._pruning)
        if self.worker is not None:
            await self.worker.stop()
        await self._listener.stop()
        await self._notifier.stop()

    @property
    def registry(self) -> EventRegistry:
        """What decodes the application's events."""
        return self.application.registry

    @property
    def stopped_projections(self) -> list[str]:
        """Names of the projections that were run here and cannot go on; `status` says why."""
        return [] if self.worker is None else sorted(self.worker.failures)

    async def status(self, *, count_documents: bool = True) -> list[ProjectionStatus]:
        """How each projection of the application is; without `count_documents` the read store is not asked."""
        return await statuses(
            self.application.projections,
            await self.positions.generations(fresh_for_seconds=0.0),
            event_store=self.event_store,
            read_store=self.read_store,
            settings=self.settings,
            failures=self.failures,
            count_documents=count_documents,
        )

    async def _figures(self) -> Figures:
        is_known = self._store_identity.is_known  # what is on the write side is measured without Elasticsearch
        return Figures(
            projections=await self.status(count_documents=False) if is_known else (),
            reactions=await self.reaction_statuses(),
            due=await self.due_commands.status(),
        )

    @property
    def failures(self) -> dict[str, str]:
        """What keeps projections that are run here from going on, by their names, for the moment or for good."""
        if self.worker is None:
            return {}
        found = {
            projection.name: projector.failure
            for projection in self.application.projections
            for projector in self.worker.projectors(projection.name)
            if projector.failure is not None
        }
        return {**found, **self.worker.failures}

    async def _check_documents(self) -> None:
        """Raise RebuildRequired now, not at the first request, if documents have other fields than the code.

        As long as it is not known which read store it is, nobody knows: queries and workers find out later.
        """
        if not self._store_identity.is_known:
            return
        generations = await self.checkpoints.generations()
        for projection in self.application.projections:
            generation_for(projection, fingerprint_of(projection), generations)
