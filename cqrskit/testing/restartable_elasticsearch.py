"""An Elasticsearch to be hurt: stopped, killed, started again at the same address with the same data."""

import os
import signal
import socket
import time
from typing import Self
from urllib.parse import urlsplit

from cqrskit.errors import ServerUnavailable
from cqrskit.testing.servers import ElasticsearchServer

__all__ = ["RestartableElasticsearch"]

HEAP_MEGABYTES = 512
GONE_TIMEOUT_SECONDS = 20.0


class RestartableElasticsearch(ElasticsearchServer):
    """An Elasticsearch of one's own, whatever ``ELASTICSEARCH_URL`` says.

    Its methods block until the deed is done: from asyncio, call them with ``asyncio.to_thread``. It is gone with the
    process that started it.
    """

    def __init__(self, *, heap_megabytes: int = HEAP_MEGABYTES) -> None:
        super().__init__(heap_megabytes=heap_megabytes)

    def start(self) -> Self:
        """Make it, start it and wait until it answers. Raises ConfigurationError or ServerUnavailable."""
        self._make()
        self.start_again()
        return self

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def shut_down(self) -> None:
        """Stop the server as an administrator does; `start_again` brings it back."""
        self._end()

    def kill(self) -> None:
        """``kill -9`` of all its processes; what it has acknowledged is on its disk."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._wait_for_silence()

    def start_again(self) -> None:
        """Start the server if it does not run, and wait until it answers. Raises ServerUnavailable."""
        if not self.running:
            self._launch()

    def _wait_for_silence(self) -> None:
        """Wait until nobody answers; the first process to be gone is not the one that does."""
        deadline = time.monotonic() + GONE_TIMEOUT_SECONDS
        address = ("127.0.0.1", urlsplit(self.url).port)
        while True:
            try:
                socket.create_connection(address, timeout=1).close()
            except OSError:
                return
            if time.monotonic() > deadline:
                raise ServerUnavailable("Elasticsearch", self.url, "it was killed and still listens")
            time.sleep(0.05)

    def restart(self) -> None:
        """Stop it and start it again."""
        self.shut_down()
        self.start_again()
