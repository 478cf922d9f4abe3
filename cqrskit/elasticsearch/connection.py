"""The connection to a cluster: its hosts, who we are, whom we trust, and what failed requests mean."""

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
import structlog
from aiohttp import ServerFingerprintMismatch
from elasticsearch import ApiError, AsyncElasticsearch, TransportError
from elasticsearch.exceptions import SSLError

from cqrskit.elasticsearch.circuit import Circuit
from cqrskit.errors import ConfigurationError, CqrskitError, ReadStoreError, ServerUnavailable

__all__ = ["BLOCKED", "Access", "Connection", "is_busy", "is_busy_status", "reason_of"]

log = structlog.get_logger(__name__)

BLOCKED = "cluster_block_exception"
"""Error type of an index or a cluster that takes no writes now: read-only, full disk, no master. It is no refusal."""
TIMED_OUT, TOO_MANY, SERVER_ERROR = 408, 429, 500
GONE_STATUSES = (502, 503, 504)
CREDENTIALS_STATUSES = (401, 403)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
VERIFICATION = re.compile(r"certificate verify failed: [^(]*[^( ]")
VARIABLE = "CQRSKIT_ELASTICSEARCH_"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to be let in, and whom to believe. None of its values appears in a log, an error or a `repr`.

    `api_key` is the encoded form that Elasticsearch shows when it makes one. `ca_file` holds the PEM certificates that
    are trusted in place of the public ones; `certificate_fingerprint` is the SHA-256 of the server's own certificate,
    trusted in place of any authority. There is no way to trust everybody.
    """

    api_key: str | None = None
    ca_file: str | None = None
    certificate_fingerprint: str | None = None

    def __repr__(self) -> str:
        return f"Access({', '.join(name for name in self.__struct_fields__ if getattr(self, name) is not None)})"


class Connection:
    """The official `client` to a cluster, and the `circuit` that all requests of a read store share."""

    def __init__(
        self,
        url: str,
        access: Access,
        *,
        request_timeout_seconds: float,
        circuit_max_failures: int,
        circuit_max_pause_seconds: float,
    ) -> None:
        """`url`: one or several separated by commas, each with or without ``user:password@``; see `Access`."""
        hosts = [_parsed(each.strip()) for each in url.split(",")]
        self.address = ",".join(f"{each.hostname}:{each.port or 9200}" for each in hosts)
        self.circuit = Circuit(
            self.address, failures_max=circuit_max_failures, pause_seconds_max=circuit_max_pause_seconds
        )
        basic_auth = _basic_auth(hosts)
        _check(hosts, access, basic_auth)
        self.client = AsyncElasticsearch(
            [f"{each.scheme}://{_host(each)}:{each.port or 9200}{each.path}" for each in hosts],
            basic_auth=basic_auth,
            api_key=access.api_key,
            request_timeout=request_timeout_seconds,
            max_retries=len(hosts) - 1,
            retry_on_status=GONE_STATUSES,
            http_compress=False,
            **_trust(access, tls=hosts[0].scheme == "https"),
        )

    @contextmanager
    def request(self, *, starting: bool = False, despite_pauses: bool = False) -> Iterator[None]:
        """Around each request: asks the circuit, tells it the end, and turns the driver's errors into ours.

        `despite_pauses`: it is made only to find out whether the cluster is back, and passes in the circuit's pauses.

        Credentials or a certificate that are not accepted are a ConfigurationError while a process is `starting`;
        later they are a server to wait for, as a cluster that starts refuses what it cannot look up yet.
        """
        if not despite_pauses:
            self.circuit.enter()
        try:
            yield
        except TransportError as error:
            self.circuit.failed(reason_of(error))
            raise self._unanswered(error, starting=starting) from error
        except ApiError as error:
            if error.status_code in GONE_STATUSES:
                self.circuit.failed(reason_of(error))
            else:
                self.circuit.answered()
            raise self._refused(error, starting=starting) from error
        except BaseException:
            self.circuit.left()
            raise
        self.circuit.answered()

    def unavailable(self, reason: str) -> ServerUnavailable:
        """The cluster answers, but not with what it was asked for; it will, when `reason` is no more."""
        return ServerUnavailable("Elasticsearch", self.address, reason)

    def _unanswered(self, error: TransportError, *, starting: bool) -> CqrskitError:
        if starting and _is_distrust(error):
            return ConfigurationError(
                f"the certificate of Elasticsearch at {self.address} is not trusted ({reason_of(error)}): name the "
                f"authority that signed it with {VARIABLE}CA_FILE, or the certificate itself with "
                f"{VARIABLE}CERTIFICATE_FINGERPRINT"
            )
        return ServerUnavailable("Elasticsearch", self.address, reason_of(error))

    def _refused(self, error: ApiError, *, starting: bool) -> CqrskitError:
        if is_busy(error) or error.error == BLOCKED:
            return ServerUnavailable("Elasticsearch", self.address, reason_of(error))
        if error.status_code in CREDENTIALS_STATUSES:
            if starting:
                return ConfigurationError(
                    f"Elasticsearch at {self.address} does not let us in ({reason_of(error)}): correct the user and "
                    f"password in {VARIABLE}URL, or {VARIABLE}API_KEY, or give that user or key the privileges"
                )
            return ServerUnavailable("Elasticsearch", self.address, f"it does not let us in: {reason_of(error)}")
        return ReadStoreError(f"Elasticsearch at {self.address} refused a request: {reason_of(error)}")


def is_busy_status(status: int) -> bool:
    """Whether a request, or an item of one, that was answered so may succeed when it is sent again."""
    return status in (TIMED_OUT, TOO_MANY) or status >= SERVER_ERROR


def is_busy(error: ApiError) -> bool:
    """Whether the whole request may succeed when it is sent again soon; a blocked index must be freed by somebody."""
    return is_busy_status(error.status_code) and error.error != BLOCKED


def reason_of(error: TransportError | ApiError) -> str:
    """The driver's error in one line."""
    if isinstance(error, ApiError):
        body: Any = error.body
        found = body.get("error") if isinstance(body, dict) else None
        reason = found.get("reason") if isinstance(found, dict) else None
        return f"{error.status_code} {error.error}" + (f": {reason}" if reason else "")
    if isinstance(error.__context__, ServerFingerprintMismatch):
        return "its certificate has another fingerprint"
    text = (str(error.message).splitlines() or [type(error).__name__])[0]
    found = VERIFICATION.search(text)
    return text if found is None else found[0]


def _is_distrust(error: TransportError) -> bool:
    return isinstance(error, SSLError) or isinstance(error.__context__, ServerFingerprintMismatch)


def _parsed(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"the Elasticsearch URL must look like http://host:9200, or several such joined by commas ({VARIABLE}URL)"
        )
    try:
        parts.port  # noqa: B018 (it is read, and refused, when it is asked for)
    except ValueError as error:
        raise ConfigurationError(f"the Elasticsearch URL cannot be read: {error} ({VARIABLE}URL)") from None
    return parts


def _host(parts: SplitResult) -> str:
    assert parts.hostname is not None
    return f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname


def _basic_auth(hosts: list[SplitResult]) -> tuple[str, str] | None:
    found = {(unquote(each.username), unquote(each.password or "")) for each in hosts if each.username}
    if len(found) > 1:
        raise ConfigurationError(f"the hosts of {VARIABLE}URL name different users: one user is used for all of them")
    return found.pop() if found else None


def _check(hosts: list[SplitResult], access: Access, basic_auth: tuple[str, str] | None) -> None:
    """Refuse what would be passed over in silence."""
    schemes = {each.scheme for each in hosts}
    if len(schemes) > 1:
        raise ConfigurationError(f"the hosts of {VARIABLE}URL are partly http and partly https: use one for all")
    if access.api_key is not None and basic_auth is not None:
        raise ConfigurationError(f"{VARIABLE}URL holds a user and {VARIABLE}API_KEY is set as well: keep one of them")
    if access.ca_file is not None and access.certificate_fingerprint is not None:
        raise ConfigurationError(
            f"{VARIABLE}CA_FILE and {VARIABLE}CERTIFICATE_FINGERPRINT are both set: a fingerprint is trusted in "
            "place of an authority, so keep one of them"
        )
    trusting = access.ca_file is not None or access.certificate_fingerprint is not None
    if trusting and schemes == {"http"}:
        raise ConfigurationError(
            f"{VARIABLE}CA_FILE and {VARIABLE}CERTIFICATE_FINGERPRINT mean nothing to an http URL: use https"
        )
    in_clear = [each.hostname for each in hosts if each.scheme == "http" and each.hostname not in LOOPBACK]
    if in_clear and (access.api_key is not None or basic_auth is not None):
        log.warning("elasticsearch.credentials_in_clear", hosts=in_clear, setting=f"{VARIABLE}URL")


def _trust(access: Access, *, tls: bool) -> dict[str, Any]:
    """The driver's options; whatever they are, a certificate is checked."""
    if not tls:
        return {}
    if access.certificate_fingerprint is not None:
        return {"ssl_assert_fingerprint": access.certificate_fingerprint.replace(":", "")}
    try:
        # A context of our own: with its options for a file, the driver trusts the public authorities as well, and does
        # not look at a certificate's host where that is an address.
        return {"ssl_context": ssl.create_default_context(cafile=access.ca_file)}
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{VARIABLE}CA_FILE={access.ca_file} cannot be used: {error}") from error
