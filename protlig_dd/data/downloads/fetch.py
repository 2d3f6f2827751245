"""Download of one file over HTTP, resumed after interruptions and checked against the publisher's checksum.

FILE.json records the address, size, SHA-256 and publisher's checksum, if any, of a finished file FILE; during the download there are
FILE.part and FILE.part.json. Only the standard library is used.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from protlig_dd.documents import read_json
from protlig_dd.errors import DownloadError
from protlig_dd.files import sha256_of, write_json

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_AGENT = "protlig_dd"  # some hosts refuse Python's default name
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """A digest given by the publisher ("md5" or "sha256", in hexadecimal), and where it was found."""

    algorithm: str
    digest: str
    origin: str


def open_url(url: str, *, headers: dict[str, str] | None = None, timeout: float = 30.0) -> Any:
    """Return the response of a GET request.

    Raises:
        DownloadError: if the host answers with an error; the message gives the status and the address.
    """
    request = urllib.request.Request(url, headers={"User-Agent": _AGENT, "Accept-Encoding": "identity", **(headers or {})})
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 or error.code in _TRANSIENT:
            raise
        raise DownloadError(
            f"{url}: the host answered {error.code} {error.reason}; see the source's page for a new address, or give --base URL of a mirror"
        ) from error
    except ValueError as error:
        raise DownloadError(f"{url}: not an address ({error}); give --base as https://host/folder") from error


def read_small(url: str, *, limit: int = 1 << 22) -> bytes:
    """Return the content of a small file (a checksum, a page).

    Raises:
        DownloadError: if it cannot be downloaded.
    """
    try:
        with open_url(url) as response:
            content: bytes = response.read(limit)
            return content
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(f"{url}: not reachable ({_reason(error)}); check the network, or give --base URL of a mirror") from error


def fetch(url: str, path: Path, *, checksum: Checksum | None = None, attempts: int = 5, pause: float = 1.0) -> Path:
    """Download a file, or resume an interrupted download, and return its path.

    A file that exists and agrees with its record is not downloaded again.

    Args:
        url: the address.
        path: the file to write.
        checksum: the publisher's; without one, a checksum in the response is used, and otherwise SHA-256 is recorded at first use and
            compared when the same address is downloaded again.
        attempts: most attempts when the connection breaks.
        pause: seconds before the second attempt, doubled each time.

    Raises:
        DownloadError: if the download fails or the checksum is wrong; received bytes are kept for the next attempt unless they are wrong.
    """
    path = Path(path)
    record = read_record(path)
    if path.exists() and record.get("url") == url and record.get("size") == path.stat().st_size:
        log.info("%s is there already", path)
        return path
    part = path.with_name(path.name + ".part")
    received = _receive(url, part, attempts=attempts, pause=pause)
    return _finish(url, part, path, checksum or received, recorded=record.get("sha256") if record.get("url") == url else None)


def _receive(url: str, part: Path, *, attempts: int, pause: float) -> Checksum | None:
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, attempts + 1):
        try:
            return _receive_once(url, part)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise DownloadError(
                    f"{part}: cannot be written ({error.strerror}); free space or choose another folder, and run the command again"
                ) from error
            have = part.stat().st_size if part.exists() else 0
            if attempt == attempts:
                raise DownloadError(
                    f"{url}: stopped after {have} bytes ({_reason(error)}), {attempts} attempts; run the same command again to go on from there"
                ) from error
            log.warning("%s: interrupted after %d bytes (%s); going on", url, have, _reason(error))
            time.sleep(pause * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def _receive_once(url: str, part: Path) -> Checksum | None:
    """Receive the missing part of a file; raises OSError or HTTPException if the connection breaks."""
    note = part.with_name(part.name + ".json")
    known = _read_json(note) if part.exists() else {}
    have = part.stat().st_size if part.exists() and known.get("url") == url else 0
    headers = {"Range": f"bytes={have}-", **({"If-Range": known["tag"]} if known.get("tag") else {})} if have else {}
    try:
        response = open_url(url, headers=headers)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have and error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return _checksum_of(error.headers)  # the part is complete already
        if error.code == 416:
            part.unlink(missing_ok=True)
        raise
    with response:
        if "text/html" in response.headers.get("Content-Type", "") and not url.endswith((".html", ".htm")):
            raise DownloadError(f"{url}: the host sent a web page, expected a data file; see the source's page for a new address")
        resumed = response.status == 206
        have = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        write_json(note, {"url": url, "tag": "" if tag.startswith("W/") else tag, "total": total})
        with part.open("ab" if resumed else "wb") as out:
            _copy(response, out, have=have, total=total, name=part.name.removesuffix(".part"))
        return _checksum_of(response.headers)


def _copy(response: http.client.HTTPResponse, out: IO[bytes], *, have: int, total: int | None, name: str) -> None:
    from tqdm import tqdm

    with tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, disable=None) as bar:
        while chunk := response.read(_CHUNK):
            out.write(chunk)
            have += len(chunk)
            bar.update(len(chunk))
    if total is not None and have != total:
        raise http.client.IncompleteRead(b"", total - have)


def _finish(url: str, part: Path, path: Path, checksum: Checksum | None, *, recorded: str | None) -> Path:
    """Check a complete download, move it to its place and write its record."""
    sha256 = sha256_of(part)
    wrong = None
    if checksum is not None:
        with part.open("rb") as file:
            found = hashlib.file_digest(file, checksum.algorithm).hexdigest()
        if found != checksum.digest.lower():
            wrong = f"found {checksum.algorithm} {found}, expected {checksum.digest.lower()} ({checksum.origin})"
    elif recorded is not None and recorded != sha256:
        wrong = f"found sha256 {sha256}, expected {recorded} (recorded at first use in {path.name}.json); remove that record if the publisher renewed the file"
    note = part.with_name(part.name + ".json")
    if wrong:
        part.unlink()
        note.unlink(missing_ok=True)
        raise DownloadError(f"{url}: wrong checksum: {wrong}; the file was removed, run the command again")
    about = {
        "url": url,
        "size": part.stat().st_size,
        "sha256": sha256,
        "publisher_checksum": asdict(checksum) if checksum else None,
        "downloaded": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.replace(part, path)
    write_json(path.with_name(path.name + ".json"), about)
    note.unlink(missing_ok=True)
    return path


def read_record(path: Path) -> dict[str, Any]:
    """Return the record of a downloaded file, or an empty mapping."""
    return _read_json(path.with_name(path.name + ".json"))


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json(path, "remove it and run the command again") if path.exists() else {}
    return content if isinstance(content, dict) else {}


def _checksum_of(headers: Any) -> Checksum | None:
    """Return the MD5 that Google's storage and some other hosts send with a file."""
    for item in [*(headers.get_all("x-goog-hash") or []), f"md5={headers.get('Content-MD5') or ''}"]:
        for piece in item.split(","):
            name, _, value = piece.strip().partition("=")
            if name == "md5" and value:
                with suppress(binascii.Error):
                    digest = base64.b64decode(value, validate=True).hex()
                    return Checksum(algorithm="md5", digest=digest, origin="the host's response")
    return None


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())
