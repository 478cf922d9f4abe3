"""Who we are to Elasticsearch and whom we trust: refused when it cannot be meant, never shown."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from cqrskit import ConfigurationError, Settings, load_settings
from cqrskit.elasticsearch.connection import Access
from cqrskit.elasticsearch.read_store import ElasticsearchReadStore

FINGERPRINT = "ab" * 32
SECRET = "geheim"


def store(url: str, **access: Any) -> ElasticsearchReadStore:
    return ElasticsearchReadStore(url, "t", access=Access(**access), request_timeout_seconds=5)


@pytest.mark.parametrize(
    ("url", "access", "reason"),
    [
        ("http://a:9200,https://b:9200", {}, "partly http and partly https"),
        ("http://a:9200,", {}, "URL must look like"),
        (f"http://ann:{SECRET}@a,http://ben:{SECRET}@b", {}, "different users"),
        (f"https://ann:{SECRET}@a", {"api_key": SECRET}, "keep one of them"),
        ("https://a", {"ca_file": "ca", "certificate_fingerprint": FINGERPRINT}, "keep one of them"),
        ("http://a", {"ca_file": "ca"}, "use https"),
        ("http://a", {"certificate_fingerprint": FINGERPRINT}, "use https"),
        ("https://a", {"ca_file": "nothing.pem"}, "CA_FILE=nothing.pem cannot be used"),
        ("https://a", {"ca_file": str(Path(__file__))}, "CA_FILE=.* cannot be used"),
        (f"https://ann:{SECRET}@a:port", {}, "cannot be read"),
        (f"ann:{SECRET}@a:9200", {}, "URL must look like"),
    ],
)
def test_what_cannot_be_meant_is_refused_without_a_secret(url: str, access: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as refused:
        store(url, **access)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None or SECRET not in str(refused.value.__cause__)


async def test_several_hosts_are_one_cluster_with_one_user() -> None:
    cluster = store("https://ann:p%40ss@a:1/es, https://b,https://[::1]:3")
    nodes = {node.base_url for node in cluster.client.transport.node_pool.all()}
    assert nodes == {"https://a:1/es", "https://b:9200", "https://[::1]:3"}
    assert cluster.circuit.state == "closed"
    await cluster.close()


@pytest.mark.parametrize(("host", "warned"), [("es.example", True), ("127.0.0.1", False), ("localhost", False)])
async def test_a_password_in_clear_on_the_network_is_warned_of(host: str, warned: bool) -> None:
    with capture_logs() as logs:
        cluster = store(f"http://ann:{SECRET}@{host}:9200")
    await cluster.close()
    assert [entry["event"] for entry in logs] == ["elasticsearch.credentials_in_clear"] * warned
    assert SECRET not in str(logs)


def test_no_secret_is_shown() -> None:
    settings = Settings(
        elasticsearch_url=f"https://ann:{SECRET}@a:1,https://ann:{SECRET}@b:1",
        elasticsearch_api_key=SECRET,
        database_url=f"postgresql://ann:{SECRET}@db/books?password={SECRET}&x=1",
    )
    assert SECRET not in repr(settings)
    assert "https://***@a:1" in repr(settings)
    assert "x=1" in repr(settings)
    assert "elasticsearch_ca_file=None" in repr(settings)
    assert SECRET not in repr(Access(api_key=SECRET))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CQRSKIT_ELASTICSEARCH_API_KEY", f"{SECRET}\nHost: x"),
        ("CQRSKIT_ELASTICSEARCH_API_KEY", ""),
        ("CQRSKIT_ELASTICSEARCH_CERTIFICATE_FINGERPRINT", "ab" * 31),
        ("CQRSKIT_ELASTICSEARCH_BULK_MAX_BYTES", "8MB"),
        ("CQRSKIT_ELASTICSEARCH_BULK_MAX_DOCUMENTS", "0"),
        ("CQRSKIT_ELASTICSEARCH_CIRCUIT_MAX_PAUSE_SECONDS", "0"),
    ],
)
def test_a_wrong_setting_is_named_and_a_secret_one_not_shown(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=variable) as refused:
        load_settings({variable: value})
    assert SECRET not in str(refused.value)
