"""Which read store a program works with: learned once, from the store itself, be it at the start or when it is back."""

import structlog

from cqrskit.errors import CqrskitError, ServerUnavailable
from cqrskit.read_store import ReadStore
from cqrskit.tasks import retry_delays

__all__ = ["StoreIdentity"]

log = structlog.get_logger(__name__)

FOR_EVER = float("inf")


class StoreIdentity:
    """What a read store says that it is (`ReadStore.identity`). `known` gives it, once `learn` has asked for it."""

    def __init__(self, read_store: ReadStore) -> None:
        self._read_store = read_store
        self._known: str | None = None
        self._lacking: ServerUnavailable | None = None

    @property
    def is_known(self) -> bool:
        """Whether the store has ever said it."""
        return self._known is not None

    def known(self) -> str:
        """The identity. As long as the store has never said it, ServerUnavailable with the reason of the last attempt.

        Nothing is asked here, so that nobody waits for a server that hangs.
        """
        if self._known is None:
            lacking = self._lacking
            assert lacking is not None, "`learn` first"
            raise ServerUnavailable(lacking.server, lacking.address, lacking.reason)
        return self._known

    async def learn(self) -> None:
        """Ask the store. Raises ServerUnavailable, or ConfigurationError for what is wrong with how it is reached."""
        try:
            await self._read_store.ping(despite_pauses=True)
            self._known = await self._read_store.identity()
        except ServerUnavailable as error:
            self._lacking = error
            raise

    async def keep_learning(self) -> None:
        """Ask until the store says it, after a `learn` that could not: whatever is wrong may be mended meanwhile."""
        lacking = self._lacking
        assert lacking is not None, "`learn` first"
        told = ""
        async for _ in retry_delays(FOR_EVER):
            try:
                await self.learn()
            except ServerUnavailable:
                continue
            except Exception as error:
                reason = str(error) if isinstance(error, CqrskitError) else f"{type(error).__name__}: {error}"
                self._lacking = ServerUnavailable(lacking.server, lacking.address, reason)
                if reason != told:
                    log.error("read_store.unusable", address=lacking.address, reason=reason)
                told = reason
            else:
                log.info("read_store.back", address=lacking.address)
                return
