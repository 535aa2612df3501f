"""The action for GitHub: its script with the real shell and command, against a server of this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from hwnas.network import Network

ROOT = Path(__file__).parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
SCRIPT = ROOT / ".github" / "check" / "check.sh"
COMMENTS = "/repos/me/mine/issues/7/comments"


class GitHub:
    """As much of GitHub's API as comments are: it keeps them, a hundred a page."""

    def __init__(self) -> None:
        self.comments: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.refuses = False


@pytest.fixture
def github() -> Iterator[tuple[GitHub, str]]:
    state = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, code: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do(self) -> None:
            state.asked.append((self.command, self.path))
            given = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
            if state.refuses or self.headers["Authorization"] != "Bearer secret":
                return self.answer(403, {"message": "Resource not accessible by integration"})
            if self.command == "GET":
                page = int(re.findall(r"&page=(\d+)", self.path)[0])
                return self.answer(200, state.comments[100 * (page - 1) : 100 * page])
            if self.command == "POST" and self.path == COMMENTS:
                state.comments.append({"id": len(state.comments) + 1, **given})
                return self.answer(201, state.comments[-1])
            number = int(self.path.removeprefix("/repos/me/mine/issues/comments/"))
            state.comments[number - 1].update(given)
            return self.answer(200, state.comments[number - 1])

        do_GET = do_POST = do_PATCH = do

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def write_network(path: Path, wide: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, wide, 3, padding=1), nn.ReLU(), nn.Conv2d(wide, 8, 3, padding=1)
    ).eval()
    path.write_bytes(Network.from_module("n", module, (1, 3, 16, 16)).onnx())


class Job:
    """A job of a workflow: a folder, and the environment that GitHub gives its steps."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        event = folder / "event.json"
        event.write_text('{"pull_request": {"number": 7}}')
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "HWNAS_HOME": os.environ.get("HWNAS_HOME", str(folder / "home")),
            "RUNNER_TEMP": str(folder),
            "GITHUB_API_URL": api,
            "GITHUB_REPOSITORY": "me/mine",
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_JOB": "latency",
            "HWNAS_TOKEN": "secret",
            "HWNAS_DEVICE": "sim-npu",
            "HWNAS_BASELINE": "old.onnx",
        }

    def run(self, **inputs: str) -> subprocess.CompletedProcess[str]:
        given = {f"HWNAS_{name.upper()}": value for name, value in inputs.items()}
        return subprocess.run(
            ["bash", str(SCRIPT)],
            cwd=self.folder,
            env=self.environment | given,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def job(tmp_path: Path, github: tuple[GitHub, str]) -> Job:
    for name, wide in (("old", 16), ("new", 64), ("with space", 16)):
        write_network(tmp_path / f"{name}.onnx", wide)
    return Job(tmp_path, github[1])


def test_a_pull_request_has_one_comment_that_is_kept_up_to_date(job: Job, github: tuple[GitHub, str]) -> None:
    state = github[0]
    state.comments = [{"id": n + 1, "body": f"other {n}"} for n in range(150)]
    done = job.run(models="new.onnx\n")
    assert done.returncode == 1, done.stderr
    assert (job.folder / "output").read_text() == "exit-code=1\n"
    (body,) = [each["body"] for each in state.comments[150:]]
    assert "| new.onnx | SLOWER |" in body
    assert re.search(r"^    new\.onnx +.*●", body, re.MULTILINE)
    assert job.run(models="with space.onnx").returncode == 0
    assert len(state.comments) == 151
    assert "| with space.onnx | unchanged |" in state.comments[150]["body"]
    assert "SLOWER" not in state.comments[150]["body"]
    assert state.asked[-1] == ("PATCH", "/repos/me/mine/issues/comments/151")


def test_where_github_refuses_the_verdict_stays(job: Job, github: tuple[GitHub, str]) -> None:
    github[0].refuses = True
    done = job.run(models="new.onnx")
    assert done.returncode == 1
    assert "::warning title=hwnas::the comment was not written" in done.stdout
    assert "pull-requests: write" in done.stdout


def test_inputs_are_words_and_never_code(job: Job, github: tuple[GitHub, str]) -> None:
    evil = "$(touch hit); touch hit `touch hit`"
    done = job.run(models=evil, arguments="", threshold=evil)
    assert done.returncode == 2
    assert not (job.folder / "hit").exists()
    assert github[0].asked == []
    assert "no folder nowhere" in job.run(models="new.onnx", arguments="--junit=nowhere/a.xml").stderr


def test_nothing_is_asked_without_a_pull_request_or_where_no_comment_is_wanted(
    job: Job, github: tuple[GitHub, str]
) -> None:
    assert job.run(models="new.onnx", comment="false").returncode == 1
    (job.folder / "event.json").write_text("{}")
    assert "no pull request" in job.run(models="new.onnx").stdout
    assert github[0].asked == []


def test_the_action_hands_every_input_to_the_script() -> None:
    steps = ACTION["runs"]["steps"]
    used = set(re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", json.dumps(steps)))
    assert used == ACTION["inputs"].keys()
    (script,) = [step for step in steps if "check.sh" in step.get("run", "")]
    assert set(re.findall(r"HWNAS_\w+", SCRIPT.read_text())) | {"HWNAS_TOKEN"} == script["env"].keys()
    # What is in `run` is code: an input there could be code as well.
    assert not any("inputs." in step.get("run", "") for step in steps)
