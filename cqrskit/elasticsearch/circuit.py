"""A circuit breaker: a cluster that does not answer is left alone for a while, then tried with one request.

The idea is Nygard's (Release It!). Closed, everything passes. After some failures in a row it opens: requests fail at
once. When the pause is over, one request passes as a probe; if it fails, the next pause is twice as long.
"""

import random
import time
from collections.abc import Callable
from typing import Literal

import structlog

from cqrskit.errors import ServerUnavailable

__all__ = ["Circuit"]

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.5


class Circuit:
    """Counts how the requests to one server end. Ask `enter` before a request, and say `answered`, `failed` or `left`.

    `state` is "closed", "open" or "half-open" (a probe is on its way), `reason` the last failure while not closed.
    """

    def __init__(
        self,
        address: str,
        *,
        failures_max: int,
        pause_seconds_max: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`failures_max` requests in a row may fail before it opens; a pause grows up to `pause_seconds_max`."""
        self.state: Literal["closed", "open", "half-open"] = "closed"
        self.failures = 0
        self.reason: str | None = None
        self._address = address
        self._failures_max = failures_max
        self._pause_seconds_max = pause_seconds_max
        self._clock = clock
        self._closed_again_at = 0.0

    @property
    def pause_seconds_left(self) -> float:
        """How long requests go on to fail at once; 0 if the next one passes."""
        return max(self._closed_again_at - self._clock(), 0.0) if self.state == "open" else 0.0

    def enter(self) -> None:
        """Let a request pass, or raise ServerUnavailable at once."""
        if self.state == "closed":
            return
        left = self.pause_seconds_left
        if self.state == "half-open" or left > 0:
            when = f"in {left:.1f} s" if left > 0 else "at this moment"
            reason = f"{self.failures} requests in a row failed, it is tried again {when} (last: {self.reason})"
            raise ServerUnavailable("Elasticsearch", self._address, reason)
        self.state = "half-open"
        log.info("elasticsearch.circuit_half_open", address=self._address)

    def answered(self) -> None:
        """The server has answered, whatever it said."""
        if self.state != "closed":
            log.info("elasticsearch.circuit_closed", address=self._address)
        self.state, self.failures, self.reason = "closed", 0, None

    def failed(self, reason: str) -> None:
        """The server has not answered, or says that it cannot."""
        self.reason = reason
        if self.state == "open":
            return  # it had been sent before the circuit opened
        self.failures += 1
        if self.failures < self._failures_max:
            return
        doubled = FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures - self._failures_max, 30)
        pause_seconds = random.uniform(0.5, 1.0) * min(doubled, self._pause_seconds_max)
        self.state = "open"
        self._closed_again_at = self._clock() + pause_seconds
        log.warning(
            "elasticsearch.circuit_opened", address=self._address, pause_seconds=round(pause_seconds, 2), reason=reason
        )

    def left(self) -> None:
        """The request was given up before it ended: a probe's place is free for the next one."""
        if self.state == "half-open":
            self.state, self._closed_again_at = "open", self._clock()
