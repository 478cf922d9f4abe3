"""A rate limit for each key: a token bucket, which fills at a rate and never holds more than a burst."""

import time
from collections.abc import Callable

import msgspec

from cqrskit.access import RateLimited

__all__ = ["RateLimits"]


class _Bucket(msgspec.Struct):
    """How many requests were left at a moment on the monotonic clock."""

    left: float
    at: float


class RateLimits:
    """Counts in this process: with several behind a load balancer, a key has as many times the rate."""

    def __init__(self, per_second: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key_id: str) -> None:
        """Count a request. Raises RateLimited, with the time after which one would be taken, and counts nothing."""
        now = self._clock()
        bucket = self._buckets.get(key_id)
        if bucket is None:
            bucket = self._buckets[key_id] = _Bucket(self._burst, now)
        left = min(self._burst, bucket.left + (now - bucket.at) * self._per_second)
        bucket.at = now
        bucket.left = left
        if left < 1.0:
            raise RateLimited(self._per_second, (1.0 - left) / self._per_second)
        bucket.left = left - 1.0
