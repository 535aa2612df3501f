"""Downloads from a loopback server: whole and right, or not there."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pictures import Heard
from tiny import run_python

from hwnas.compress.data.download import Published, downloads, fetch
from hwnas.errors import InputError

ROOT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 8000


class Handler(BaseHTTPRequestHandler):
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path == "/missing.bin":
            self.send_error(404)
            return
        body = {"/wrong.bin": b"x" + CONTENT[1:], "/long.bin": CONTENT + b"more"}.get(self.path, CONTENT)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:-1000] if self.path == "/cut.bin" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    requests: list[str] = []
    handler = type("Counted", (Handler,), {"requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}", requests
        http.shutdown()
        thread.join()


def published(url: str) -> Published:
    return Published(url=url, bytes=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


def left() -> list[str]:
    return [path.name for path in downloads().iterdir() if not path.name.endswith(".lock")]


def test_a_file_is_fetched_once_with_progress(server: tuple[str, list[str]]) -> None:
    url, requests = server
    heard = Heard()
    path = fetch(published(f"{url}/data.bin"), heard)
    assert path == downloads() / "data.bin"
    assert path.read_bytes() == CONTENT
    assert heard.steps[-1] == "download data.bin"
    assert fetch(published(f"{url}/data.bin"), Heard()) == path
    assert requests == ["/data.bin"]
    assert left() == ["data.bin"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut", r"published with 2,048,000 bytes, the server gave only 2,047,000"),
        ("long", r"published with 2,048,000 bytes, the server gave more"),
        ("wrong", r"wrong.bin gave is not the published file: its SHA-256 is not"),
        ("missing", r"cannot fetch .*/missing.bin: the server answers 404 Not Found"),
    ],
)
def test_what_is_not_the_published_file_is_not_kept(
    server: tuple[str, list[str]], name: str, message: str
) -> None:
    url = f"{server[0]}/{name}.bin"
    with pytest.raises(InputError, match=message) as caught:
        fetch(published(url), Heard())
    assert url in caught.value.fix
    assert "HWNAS_DATA_DIR=FOLDER" in caught.value.fix
    assert left() == []


def test_a_server_that_is_down() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        port = http.server_address[1]
    with pytest.raises(InputError, match="Connection refused") as caught:
        fetch(published(f"http://127.0.0.1:{port}/data.bin"), Heard())
    assert f"get http://127.0.0.1:{port}/data.bin by hand" in caught.value.fix


def test_a_file_of_another_size_is_fetched_again(server: tuple[str, list[str]]) -> None:
    downloads().mkdir(parents=True)
    (downloads() / "data.bin").write_bytes(CONTENT[:-1])
    assert fetch(published(f"{server[0]}/data.bin"), Heard()).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_made(
    server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HWNAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot store data.bin \(2 MB\) in .*: Not a directory"):
        fetch(published(f"{server[0]}/data.bin"), Heard())


def test_a_disk_that_fills_up(server: tuple[str, list[str]], tmp_path: Path) -> None:
    """A limit on file sizes is a real failure of write()."""
    code = f"""
import resource
from hwnas.compress.data.download import Published, fetch
from hwnas.progress import Progress
from hwnas.errors import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    fetch({published(server[0] + "/data.bin")!r}, Progress())
except InputError as error:
    print(error)
"""
    done = run_python(tmp_path, ["-c", code], PYTHONPATH=str(ROOT))
    assert "cannot store data.bin (2 MB)" in done.stdout, done.stderr
    assert "File too large" in done.stdout
    assert left() == []
