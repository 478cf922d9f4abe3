"""Following the log for the eventsourcing library: woken by NOTIFY, and by the clock where that fails."""

import threading
from collections.abc import Sequence
from typing import Any

import psycopg
import structlog
from eventsourcing.persistence import ApplicationRecorder, ListenNotifySubscription, ShutDown

from cqrskit.postgres.recorder_database import RecorderDatabase

__all__ = ["LogSubscription"]

log = structlog.get_logger(__name__)

POLL_INTERVAL_SECONDS = 0.2
RECONNECT_INTERVAL_SECONDS = 1.0


class LogSubscription(ListenNotifySubscription[ApplicationRecorder]):
    """Notifications after a position, each once and in order, until `stop`. Use it in a `with` block.

    It listens on a connection of its own beside the pool's.
    """

    def __init__(
        self,
        recorder: ApplicationRecorder,
        database: RecorderDatabase,
        gt: int | None = None,
        topics: Sequence[str] = (),
    ) -> None:
        self._database = database
        self._stopped = threading.Event()
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._listen_thread = threading.Thread(target=self._listen, name="cqrskit-subscription", daemon=True)
        self._listen_thread.start()

    def __exit__(self, *args: object, **kwargs: Any) -> None:
        try:
            super().__exit__(*args, **kwargs)
        finally:
            self._listen_thread.join()

    def stop(self) -> None:
        """End the iteration and both threads."""
        self._stopped.set()
        super().stop()

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._database.listening_connection() as connection:
                    while not self._stopped.is_set():
                        self._has_been_notified.set()
                        for _ in connection.notifies(timeout=POLL_INTERVAL_SECONDS, stop_after=1):
                            pass
            except psycopg.Error as error:
                log.warning("listener.disconnected", reason=str(error))
                self._has_been_notified.set()
                self._stopped.wait(RECONNECT_INTERVAL_SECONDS)

    def _pull(self) -> None:
        """Read on to the head, and remember that one has looked so far also where no topic fitted."""
        while not self._stopped.is_set():
            self._has_been_notified.clear()
            start, head = self._last_notification_id or 0, self._recorder.max_notification_id() or 0
            if head <= start:
                return
            notifications = self._recorder.select_notifications(
                start, self._select_limit, head, self._topics, inclusive_of_start=False
            )
            if notifications:
                try:
                    self._notifications_queue.put(notifications)
                except ShutDown:
                    return
            if len(notifications) < self._select_limit:
                self._last_notification_id = head
                return
            self._last_notification_id = notifications[-1].id
