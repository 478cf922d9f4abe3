"""An Elasticsearch that asks who we are and speaks TLS, with a certificate authority made for it alone."""

import base64
import hashlib
import secrets
import shutil
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import msgspec

from cqrskit.errors import ConfigurationError
from cqrskit.testing.servers import ElasticsearchServer

__all__ = ["SecuredElasticsearch", "make_authority"]

USER = "ann"
ITERATIONS = 10_000
SECURITY = {
    "xpack.security.enabled": "true",
    "xpack.security.http.ssl.enabled": "true",
    "xpack.security.http.ssl.key": "server.key",
    "xpack.security.http.ssl.certificate": "server.crt",
}


class SecuredElasticsearch(ElasticsearchServer):
    """One of our own, whatever ``ELASTICSEARCH_URL`` says: `url` is without a user, `ca_file` to trust it by.

    The superuser `user` has a `password` with characters that a URL must escape. Needs ``openssl``.
    """

    user = USER

    def __init__(self, *, heap_megabytes: int = 512, settings: Mapping[str, object] | None = None) -> None:
        super().__init__(heap_megabytes=heap_megabytes, settings={**SECURITY, **(settings or {})})
        self.password = f"p:ss@{secrets.token_hex(8)}/%"
        self._folder_of_keys = tempfile.TemporaryDirectory(prefix="cqrskit-certificates-")
        self.ca_file = Path(self._folder_of_keys.name) / "ca.crt"

    @property
    def url_with_user(self) -> str:
        """The URL with user and password, escaped."""
        return self.url.replace("//", f"//{USER}:{quote(self.password, safe='')}@")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the server's own certificate, as hexadecimal digits."""
        pem = self.ca_file.with_name("server.crt").read_text()
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    def start(self) -> Self:
        """Make the certificates, then start it. Raises ConfigurationError or ServerUnavailable."""
        make_authority(self.ca_file.parent)
        return self._start_own("https")

    def stop(self) -> None:
        """Stop it, and forget the certificates."""
        super().stop()
        self._folder_of_keys.cleanup()

    def make_api_key(self, privileges: Mapping[str, object]) -> str:
        """An API key, encoded, with these privileges (one of Elasticsearch's role descriptors)."""
        body = {"name": "test", "role_descriptors": {"test": dict(privileges)}}
        with self._request("/_security/api_key", body) as response:
            key: str = msgspec.json.decode(response.read())["encoded"]
            return key

    def _request(self, path: str, body: object = None) -> AbstractContextManager[Any]:
        request = urllib.request.Request(f"{self.url}{path}", data=None if body is None else msgspec.json.encode(body))
        who = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        request.add_header("authorization", f"Basic {who}")
        request.add_header("content-type", "application/json")
        context = ssl.create_default_context(cafile=str(self.ca_file))
        answer: AbstractContextManager[Any] = urllib.request.urlopen(request, timeout=30, context=context)
        return answer

    def _configure(self, home: Path, folder: Path, port: int) -> None:
        super()._configure(home, folder, port)
        config = folder / "config"
        for name in ("server.crt", "server.key"):
            shutil.copy(self.ca_file.with_name(name), config / name)
        (config / "users").write_text(f"{USER}:{_hashed(self.password)}\n")
        (config / "users_roles").write_text(f"superuser:{USER}\n")


def make_authority(folder: Path) -> None:
    """Write ca.crt and ca.key, and server.crt and server.key for 127.0.0.1 that it has signed."""
    if shutil.which("openssl") is None:
        raise ConfigurationError("certificates for tests are made with openssl, which is not installed")
    new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    _openssl(folder, f"{new} -subj /CN=authority -keyout ca.key -out ca.crt")
    _openssl(
        folder,
        f"{new} -subj /CN=server -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE "
        "-CA ca.crt -CAkey ca.key -keyout server.key -out server.crt",
    )


def _openssl(folder: Path, arguments: str) -> None:
    finished = subprocess.run(["openssl", *arguments.split()], cwd=folder, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise ConfigurationError(f"openssl cannot make certificates: {finished.stderr.strip()}")


def _hashed(password: str) -> str:
    """As Elasticsearch keeps the passwords of the users in its own file."""
    salt = secrets.token_bytes(32)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS, dklen=32)
    return f"{{PBKDF2}}{ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
