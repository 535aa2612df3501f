"""A network as it was at a git revision."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hwnas.compress.models import find_network, with_noise
from hwnas.ending import contained, explained
from hwnas.errors import InputError, first_line
from hwnas.network import Network, Part

GIT_TIMEOUT_S = 300.0


def commit_of(revision: str) -> str:
    """The full hash of the commit that a revision (branch, tag, hash, HEAD~1) names.

    Raises:
        InputError: no such revision, or this is no git repository.
    """
    return _git(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"], revision)


def committed_in(path: Path) -> str:
    """The commit that is checked out, if its file or folder of that path is as it lies here; else ''."""
    try:
        if not path.exists() or not _git(["ls-files", "--", str(path)], "HEAD"):
            return ""
        changed = _git(["status", "--porcelain", "--", str(path)], "HEAD")
        return "" if changed else commit_of("HEAD")
    except InputError:
        return ""


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """The folder that corresponds to the working directory, in a temporary worktree of a revision.

    Raises:
        InputError: no such revision.
    """
    commit = commit_of(revision)
    prefix = _git(["rev-parse", "--show-prefix"], revision)
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        tree = Path(folder) / "tree"
        # A hook is the repository's own affair; it has no say in what is measured.
        hookless = ["-c", "core.hooksPath=/dev/null"]
        _git([*hookless, "worktree", "add", "--detach", "--force", str(tree), commit], revision)
        try:
            yield tree / prefix
        finally:
            _git(["worktree", "remove", "--force", str(tree)], revision)


def network_at(
    folder: Path,
    model: str,
    revision: str,
    shape: tuple[int, ...] | None = None,
    *,
    has_batch: bool = False,
) -> Network:
    """A model in a checked-out folder: an ONNX file, a checkpoint directory, or `module:function`.

    A function is called in a process of its own, since another version of its module may be loaded here. A
    timm model is what the installed timm makes of it, at any revision.

    Args:
        shape, has_batch: see `find_network`.

    Raises:
        InputError: the revision has no such model, or it cannot be read.
    """
    path = folder / model
    if path.suffix == ".onnx" or path.is_dir():
        if not path.exists():
            raise InputError(
                f"there is no {model} in {revision}",
                "name a revision that has it, or record it: hwnas check record",
            )
        network = find_network(str(path), shape, has_batch=has_batch)
    elif ":" in model:
        network = _function_at(folder, model, revision, shape)
    else:
        network = find_network(model, shape)
    network.name = model
    return network


def _function_at(folder: Path, model: str, revision: str, shape: tuple[int, ...] | None) -> Network:
    def exported(batch: int) -> bytes:
        # Without sizes of one's own a revision of hwnas itself that did not know them can be asked as well.
        sizes = [batch, *(shape or ())] if shape or batch > 1 else []
        return _exported_at(folder, model, revision, sizes)

    content = exported(1)
    return with_noise(Network(model, [Part(model, onnx=lambda: content, rebatch=exported)]))


def _exported_at(folder: Path, model: str, revision: str, sizes: Sequence[int]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hwnas-") as place:
        output = Path(place) / "model.onnx"
        paths = [str(folder), os.environ.get("PYTHONPATH")]
        done = subprocess.run(  # noqa: S603 - no shell, and the program is this Python
            [sys.executable, "-P", "-m", __name__, model, str(output), *map(str, sizes)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            check=False,
        )
        if done.returncode or not output.is_file():
            lines = os.fsdecode(done.stderr).strip().splitlines() or ["no message"]
            raise InputError(
                f"{model} cannot be built as of {revision}: {lines[-1]}", "name another revision"
            )
        return output.read_bytes()


def _git(arguments: Sequence[str], revision: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - no shell
            ["git", *arguments],  # noqa: S607 - the user's git
            capture_output=True,
            check=False,
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"git cannot be used: {first_line(error)}", "install git") from None
    if done.returncode:
        lines = os.fsdecode(done.stderr).strip().splitlines()
        reason = f": {lines[-1]}" if lines else ""
        raise InputError(
            f"git knows no revision {revision!r} here{reason}",
            "name a branch, tag or commit; in CI fetch the history (actions/checkout: fetch-depth: 0)",
        )
    return os.fsdecode(done.stdout).strip()


if __name__ == "__main__":
    named, target, *numbers = sys.argv[1:]
    batch, *rest = map(int, numbers or "1")
    try:
        with contained():
            network = find_network(named, tuple(rest) or None).batched(batch)
            Path(target).write_bytes(network.onnx())
    except Exception as failure:
        sys.exit(explained(failure).cause)
