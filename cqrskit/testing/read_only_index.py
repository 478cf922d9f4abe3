"""An Elasticsearch index that refuses writes for a while, as when its disk is full or its operator says so."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

__all__ = ["IndexBlock", "read_only_index"]

IndexBlock = Literal["write", "read_only", "read_only_allow_delete"]
"""``write`` and ``read_only`` are set by people (403); Elasticsearch sets the last one on a full disk (429)."""

TIMEOUT_SECONDS = 30


@asynccontextmanager
async def read_only_index(url: str, index: str, *, block: IndexBlock = "write") -> AsyncIterator[None]:
    """Block the writes to all indices whose names fit `index` (``prefix*``) on the server at `url`; then allow them."""
    await asyncio.to_thread(_set, url, index, block, True)
    try:
        yield
    finally:
        await asyncio.to_thread(_set, url, index, block, None)


def _set(url: str, index: str, block: IndexBlock, value: bool | None) -> None:
    request = urllib.request.Request(
        f"{url}/{index}/_settings",
        method="PUT",
        data=json.dumps({f"index.blocks.{block}": value}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()
