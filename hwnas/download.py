"""Files from the network, each compared with its checksum."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from hwnas.errors import InputError, first_line

CHUNK_BYTES = 2**18
TIMEOUT_S = 60.0


def download(
    url: str,
    sha256: str,
    target: Path,
    otherwise: str,
    *,
    size: int | None = None,
    on_bytes: Callable[[int], None] = lambda done: None,
) -> None:
    """Write what a URL gives to a file. After a failure the file may hold anything.

    Args:
        sha256: of the published content.
        otherwise: how else to get it, for the fix.
        size: of the published content in bytes, where it is known: no more than that is read.
        on_bytes: told how many bytes there are so far.

    Raises:
        InputError: it cannot be fetched, or is not what was published.
        OSError: the file cannot be written.
    """
    digest, done = hashlib.sha256(), 0
    with target.open("wb") as file:
        for chunk in _chunks(url, otherwise):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if size is not None and done > size:
                break
            on_bytes(done)
    if size is not None and done != size:
        got = f"only {done:,}" if done < size else "more"
        raise InputError(
            f"{url} is published with {size:,} bytes, the server gave {got}",
            f"give the same command again, or {otherwise}",
        )
    if digest.hexdigest() != sha256:
        raise InputError(
            f"what {url} gave is not the published file: its SHA-256 is not {sha256}",
            f"give the same command again; if that stays, do not trust that server: {otherwise}",
        )


def _chunks(url: str, otherwise: str) -> Iterator[bytes]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310
            while chunk := response.read(CHUNK_BYTES):
                yield chunk
    except urllib.error.HTTPError as error:
        reason = f"the server answers {error.code} {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        reason = first_line(getattr(error, "reason", error))
    else:
        return
    raise InputError(f"cannot fetch {url}: {reason}", f"check the network, or {otherwise}") from None
