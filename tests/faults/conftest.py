"""Settings for both read stores."""

import pytest

from cqrskit import Settings


@pytest.fixture(params=["postgres", "elasticsearch"])
def settings(request: pytest.FixtureRequest, postgres_dsn: str, index_prefix: str) -> Settings:
    """An own database and index prefix, on each read store in turn; small blocks, so that there are many."""
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else None
    return Settings(
        database_url=postgres_dsn, elasticsearch_url=url, index_prefix=index_prefix, block_size_max=50, port=0
    )


@pytest.fixture
def variables(settings: Settings) -> dict[str, str]:
    """The same settings for a process of its own."""
    found = {
        "CQRSKIT_DATABASE_URL": str(settings.database_url),
        "CQRSKIT_INDEX_PREFIX": settings.index_prefix,
        "CQRSKIT_BLOCK_SIZE_MAX": str(settings.block_size_max),
        "CQRSKIT_LOG_LEVEL": "warning",
    }
    if settings.elasticsearch_url is not None:
        found["CQRSKIT_ELASTICSEARCH_URL"] = settings.elasticsearch_url
    return found
