"""A network as it was at a git revision."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hwnas.ending import contained, explained
from hwnas.errors import InputError, first_line
from hwnas.files import write_bytes
from hwnas.network import Network, Part
from hwnas.networks.find import find_network, with_noise
from hwnas.processes import ending_with_parent
from hwnas.temporary import explained_space, held_folder, temporary_folder

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
    """The folder that corresponds to the working directory, with the files of a revision.

    The repository does not learn of it: its index is a temporary one as well, so a kill leaves nothing there.

    Raises:
        InputError: no such revision.
        HwnasError: there is no space for its files.
    """
    commit = commit_of(revision)
    prefix = _git(["rev-parse", "--show-prefix"], revision)
    top = _git(["rev-parse", "--show-cdup"], revision)
    with held_folder() as (folder, descriptor):
        tree = folder / "tree"
        (tree / prefix).mkdir(parents=True)
        own_index = {"GIT_INDEX_FILE": str(folder / "index")}
        # A hook is the repository's own affair; it has no say in what is measured.
        settings = ("core.hooksPath=/dev/null", "core.splitIndex=false", "core.fsmonitor=false")
        options = ["-C", top or ".", *(word for setting in settings for word in ("-c", setting))]
        with explained_space(folder):
            for command in (["read-tree", commit], ["checkout-index", "--all", f"--prefix={tree}/"]):
                _git([*options, *command], revision, own_index, descriptor)
        yield tree / prefix


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
    return network.named(model)


def _function_at(folder: Path, model: str, revision: str, shape: tuple[int, ...] | None) -> Network:
    def exported(batch: int) -> bytes:
        # Without sizes of one's own a revision of hwnas itself that did not know them can be asked as well.
        sizes = [batch, *(shape or ())] if shape or batch > 1 else []
        return _exported_at(folder, model, revision, sizes)

    content = exported(1)
    return with_noise(Network(model, [Part(model, onnx=lambda: content, rebatch=exported)]))


def _exported_at(folder: Path, model: str, revision: str, sizes: Sequence[int]) -> bytes:
    with temporary_folder() as place:
        output = place / "model.onnx"
        said = _build_apart(folder, model, output, sizes)
        if not output.is_file():
            lines = os.fsdecode(said).strip().splitlines() or ["no message"]
            raise InputError(
                f"{model} cannot be built as of {revision}: {lines[-1]}", "name another revision"
            )
        return output.read_bytes()


def _build_apart(folder: Path, model: str, output: Path, sizes: Sequence[int]) -> bytes:
    """Build a network in a process that ends when this one does; what it said on stderr."""
    paths = [str(folder), os.environ.get("PYTHONPATH")]
    with subprocess.Popen(  # noqa: S603 - no shell, and the program is this Python
        [sys.executable, "-P", "-m", __name__, model, str(output), *map(str, sizes)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        try:
            return process.stderr.read()
        except BaseException:
            process.terminate()
            raise


def _git(arguments: Sequence[str], revision: str, more: Mapping[str, str] | None = None, *held: int) -> str:
    """What git says.

    Args:
        more: to its environment.
        held: descriptors of temporary folders that it holds as well, should it live longer than this process.
    """
    try:
        done = subprocess.run(  # noqa: S603 - no shell
            ["git", *arguments],  # noqa: S607 - the user's git
            env=os.environ | (more or {}),
            pass_fds=held,
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
        with ending_with_parent(), contained():
            network = find_network(named, tuple(rest) or None).batched(batch)
            write_bytes(Path(target), network.onnx())
    except Exception as failure:
        sys.exit(explained(failure).cause)
