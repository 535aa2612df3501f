"""A network as it was at a git revision."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
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


@dataclass(frozen=True)
class Revision:
    """The files of a revision, checked out beside the repository.

    Attributes:
        name: by which the user calls it.
        top: of the working tree.
        tree: what corresponds to it.
        folder: what corresponds to the working directory.
    """

    name: str
    top: Path
    tree: Path
    folder: Path

    def file(self, path: str) -> Path:
        """What a path to a file or folder of the working tree was then.

        Raises:
            InputError: the revision does not have it.
        """
        here = Path(path).parent.resolve() / Path(path).name
        if not here.is_relative_to(self.top):
            raise InputError(
                f"{path} is no file of the repository {self.top}, so {self.name} does not have it",
                "give a network of the repository, or name its baseline: --baseline FILE.onnx",
            )
        there = self.tree / here.relative_to(self.top)
        if not there.exists():
            raise InputError(
                f"there is no {path} in {self.name}",
                "name a revision that has it, or record it: hwnas check record",
            )
        if not there.resolve().is_relative_to(self.tree):
            raise InputError(
                f"{path} is a link out of the repository, so {self.name} does not have it",
                "name its baseline: --baseline FILE.onnx",
            )
        return there


@contextmanager
def checked_out(revision: str) -> Iterator[Revision]:
    """Give the files of a revision.

    The repository does not learn of it: its index is a temporary one as well, so a kill leaves nothing there.

    Raises:
        InputError: no such revision.
        HwnasError: there is no space for its files.
    """
    commit = commit_of(revision)
    prefix = _git(["rev-parse", "--show-prefix"], revision)
    top = Path(_git(["rev-parse", "--show-toplevel"], revision)).resolve()
    with held_folder() as (folder, descriptor):
        tree = folder.resolve() / "tree"
        (tree / prefix).mkdir(parents=True)
        own_index = {"GIT_INDEX_FILE": str(folder / "index")}
        # A hook is the repository's own affair; it has no say in what is measured.
        settings = ("core.hooksPath=/dev/null", "core.splitIndex=false", "core.fsmonitor=false")
        options = ["-C", str(top), *(word for setting in settings for word in ("-c", setting))]
        with explained_space(folder):
            for command in (["read-tree", commit], ["checkout-index", "--all", f"--prefix={tree}/"]):
                _git([*options, *command], revision, own_index, descriptor)
        yield Revision(revision, top, tree, tree / prefix)


def network_at(
    revision: Revision, model: str, shape: tuple[int, ...] | None = None, *, has_batch: bool = False
) -> Network:
    """A model as it was: an ONNX file, a checkpoint directory, or `module:function`.

    A function is called in a process of its own, since another version of its module may be loaded here. A
    timm model is what the installed timm makes of it, at any revision.

    Args:
        shape, has_batch: see `find_network`.

    Raises:
        InputError: the revision has no such model, or it cannot be read.
    """
    if model.endswith(".onnx") or Path(model).is_dir():
        path = str(revision.file(model))
        try:
            network = find_network(path, shape, has_batch=has_batch)
        except InputError as error:
            cause, fix = (text.replace(path, f"{revision.name}:{model}") for text in (error.cause, error.fix))
            raise InputError(cause, fix) from None
    elif ":" in model:
        network = _function_at(revision, model, shape)
    else:
        network = find_network(model, shape)
    return network.named(model)


def _function_at(revision: Revision, model: str, shape: tuple[int, ...] | None) -> Network:
    def exported(batch: int) -> bytes:
        # Without sizes of one's own a revision of hwnas itself that did not know them can be asked as well.
        sizes = [batch, *(shape or ())] if shape or batch > 1 else []
        return _exported_at(revision, model, sizes)

    content = exported(1)
    return with_noise(Network(model, [Part(model, onnx=lambda: content, rebatch=exported)]))


def _exported_at(revision: Revision, model: str, sizes: Sequence[int]) -> bytes:
    with temporary_folder() as place:
        output, used = place / "model.onnx", place / "used"
        said = _build_apart(revision, model, output, sizes)
        if not output.is_file():
            lines = os.fsdecode(said).strip().splitlines() or ["no message"]
            raise InputError(
                f"{model} cannot be built as of {revision.name}: {lines[-1]}", "name another revision"
            )
        if used.is_file():  # a revision of hwnas itself may not have told yet
            _require_own_files(revision, model, used.read_text().splitlines())
        return output.read_bytes()


def _require_own_files(revision: Revision, model: str, used: Sequence[str]) -> None:
    """Refuse what was built from other files than the revision's: today's, or an installed copy of them.

    Args:
        used: each file that was read, behind the name of the module that it is of, if it is one.
    """
    root = model.partition(":")[0].partition(".")[0]
    own = [f"/{path.relative_to(revision.tree)}" for path in revision.tree.rglob("*")]
    for line in used:
        name, _, text = line.partition("\t")
        file = Path(text)
        if file.is_relative_to(revision.tree):
            continue
        suffix = _suffix(name, file)
        is_copy = name.partition(".")[0] == root and any(path.endswith(suffix) for path in own)
        if is_copy or (file.is_relative_to(revision.top) and not _is_of_nobody(file)):
            raise InputError(
                f"{model} as of {revision.name} reads {file}, which is not the revision's file",
                "let Python find the packages in the folder where hwnas is started, and forward() read files "
                "of relative paths; or name the baseline: --baseline FILE.onnx",
            )


def _suffix(name: str, file: Path) -> str:
    """Where a module lies under the folder that its package is in: `/nets/model.py`."""
    parts = len(name.split(".")) + (file.name == "__init__.py")
    return "/" + "/".join(file.parts[-parts:])


def _is_of_nobody(file: Path) -> bool:
    """Whether a file of the working tree is none of the repository's: ignored, or of an installation."""
    is_installed = file.is_relative_to(sys.prefix) or file.parent.suffix in (".dist-info", ".egg-info")
    if is_installed or ".git" in file.parts or not file.is_file():
        return True
    command = ["git", "-C", str(file.parent), "check-ignore", "--quiet", "--", str(file)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603 - no shell


def _build_apart(revision: Revision, model: str, output: Path, sizes: Sequence[int]) -> bytes:
    """Build a network in a process that ends when this one does; what it said on stderr.

    Where this process finds modules in the working tree, that one finds them in the revision.
    """
    spec = find_spec(model.partition(":")[0].partition(".")[0])
    origin = Path(spec.origin) if spec is not None and spec.origin is not None else None
    places = [] if spec is None or origin is None else [origin.parents[bool(spec.submodule_search_locations)]]
    found = [Path(entry or ".").resolve() for entry in sys.path] + places
    inside = [
        revision.tree / path.relative_to(revision.top) for path in found if path.is_relative_to(revision.top)
    ]
    paths = [*dict.fromkeys(map(str, (revision.folder, *inside))), os.environ.get("PYTHONPATH", "")]
    with subprocess.Popen(  # noqa: S603 - no shell, and the program is this Python
        [sys.executable, "-P", "-m", __name__, model, str(output), *map(str, sizes)],
        cwd=revision.folder,
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


def _build(named: str, target: Path, numbers: Sequence[str]) -> None:
    """Build a network, and write its graph and beside it the files that were read for it."""
    used: set[str] = set()

    def hear(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            used.add("\t" + os.path.realpath(os.fsdecode(args[0])))

    batch, *rest = map(int, numbers or "1")
    sys.addaudithook(hear)
    network = find_network(named, tuple(rest) or None).batched(batch)
    content = network.onnx()
    modules = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
    used |= {f"{name}\t{os.path.realpath(file)}" for name, file in modules if isinstance(file, str)}
    write_bytes(target.with_name("used"), "\n".join(sorted(used)).encode())
    write_bytes(target, content)


if __name__ == "__main__":
    try:
        with ending_with_parent(), contained():
            _build(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    except Exception as failure:
        sys.exit(explained(failure).cause)
