"""The log for applications of the eventsourcing library: ``PERSISTENCE_MODULE=cqrskit.postgres.recorder``.

Their stored events are appended to the table `events` under the log's head row, beside those of cqrskit's executor:
topics are types, states are data, notification ids are positions.
"""

from types import TracebackType
from typing import Any, TypeVar

from eventsourcing.persistence import AggregateRecorder, InfrastructureFactory
from eventsourcing.utils import Environment, EnvType, resolve_topic

from cqrskit.errors import ConfigurationError
from cqrskit.postgres.recorder_database import RecorderDatabase
from cqrskit.postgres.recorder_log import LogRecorder, ProcessLogRecorder, TrackingTableRecorder
from cqrskit.postgres.recorder_settings import read_recorder_settings
from cqrskit.postgres.recorder_snapshots import SnapshotRecorder

__all__ = ["Factory", "LogRecorder", "ProcessLogRecorder", "SnapshotRecorder", "TrackingTableRecorder"]

R = TypeVar("R", LogRecorder, ProcessLogRecorder, TrackingTableRecorder)


class Factory(InfrastructureFactory[TrackingTableRecorder]):
    """Makes the recorders of one application. Each checks first that the database was migrated."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        """Read the settings. Raises ConfigurationError for those that lose events or cannot be followed."""
        super().__init__(env)
        self.database = RecorderDatabase(read_recorder_settings(self.env))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        super().__exit__(exc_type, exc_val, exc_tb)
        self.close()

    def close(self) -> None:
        """Close the connections; they are not opened again."""
        self.database.close()

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """For "snapshots" a recorder with a table of its own, for "events" one that appends to the log."""
        if purpose == "snapshots":
            self.database.prepare()
            return SnapshotRecorder(self.database)
        if purpose == "events":
            return self.application_recorder()
        raise ConfigurationError(
            f"there is no aggregate recorder for {purpose!r}: cqrskit.postgres.recorder keeps 'events' in the log and "
            "'snapshots' beside it"
        )

    def application_recorder(self) -> LogRecorder:
        """A recorder that appends to the log and reads it."""
        return self._made(LogRecorder, self.APPLICATION_RECORDER_TOPIC)

    def tracking_recorder(
        self, tracking_recorder_class: type[TrackingTableRecorder] | None = None
    ) -> TrackingTableRecorder:
        """A recorder of what was processed, of a class of yours if you name one."""
        if tracking_recorder_class is None:
            return self._made(TrackingTableRecorder, self.TRACKING_RECORDER_TOPIC)
        return self._made(TrackingTableRecorder, self.TRACKING_RECORDER_TOPIC, tracking_recorder_class)

    def process_recorder(self) -> ProcessLogRecorder:
        """A recorder that appends to the log and records what was processed together."""
        return self._made(ProcessLogRecorder, self.PROCESS_RECORDER_TOPIC)

    def _made(self, base: type[R], topic_variable: str, given: type[Any] | None = None) -> R:
        topic = self.env.get(topic_variable)
        wanted = given or (resolve_topic(topic) if topic else base)
        if not (isinstance(wanted, type) and issubclass(wanted, base)):
            raise ConfigurationError(
                f"{topic or wanted!r} cannot be the recorder: it must be a subclass of cqrskit.postgres.recorder."
                f"{base.__name__}, since only that appends under the lock of the log's head row"
            )
        self.database.prepare()
        follower = (
            {"follower": self.env.name.lower() or "notification"} if issubclass(wanted, TrackingTableRecorder) else {}
        )
        made: R = wanted(self.database, **follower)
        return made
