"""Files may come from anybody: nothing in them is executed, and nothing outside is touched."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from spoilt_runs import go_on

import hwnas
from hwnas.compress.library.store import Library
from hwnas.compress.report import write_reports
from hwnas.errors import InputError, RunDirectoryError
from hwnas.files import is_one_name
from hwnas.network import Network

PACKAGE = Path(hwnas.__file__).parent
SECRET = b"\x3f\x80\x00\x00" * 16


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_nothing_in_the_package_unpickles_or_evaluates() -> None:
    """`torch.load` is left, with `weights_only=True`, which takes tensors and no code."""
    seen = 0
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}, path
        for name, call in calls(tree):
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler"), path
            assert keywords.get("allow_pickle") != "True", path
            assert keywords.get("shell") != "True", path
            if name == "torch.load":
                seen += 1
                assert keywords.get("weights_only") == "True", path
    assert seen >= 1


@pytest.mark.parametrize(
    "where",
    ["reference", "library", "library/blocks", "devices", "devices/steady", "checkpoints", "account.json"],
)
def test_a_link_out_of_the_run_is_refused_and_nothing_is_written_there(where: str, copy: Path) -> None:
    outside = copy.parent / "outside"
    (copy / where).rename(outside)
    (copy / where).symlink_to(outside)
    files = [outside] if outside.is_file() else [path for path in outside.rglob("*") if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    with pytest.raises(RunDirectoryError, match=rf"{where} is a link that leads out of the run") as error:
        go_on(copy)
    assert error.value.fix
    with pytest.raises(RunDirectoryError, match="leads out of the run"):
        write_reports(copy, None)
    files = [outside] if outside.is_file() else [path for path in outside.rglob("*") if path.is_file()]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before


def test_links_inside_of_a_run_and_to_a_run_are_taken(copy: Path) -> None:
    elsewhere = copy.with_name("elsewhere")
    copy.rename(elsewhere)
    copy.symlink_to(elsewhere)
    (elsewhere / "devices/steady/latest.html").symlink_to("report.html")
    go_on(copy)


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "a/b", ".hidden", "a\0b"])  # noqa: S108
def test_a_candidate_whose_name_is_a_path_is_refused(name: str, copy: Path) -> None:
    """The row's checksum is right: whoever sends a library can compute it."""
    with Library(copy / "library") as library:
        library.write("UPDATE candidates SET part_name = ? WHERE part = 1", (name,))
        with pytest.raises(RunDirectoryError, match=r"part 1, choice 1: its name .* is no name of a file"):
            library.entries()
    before = outside(copy)
    with pytest.raises(RunDirectoryError, match="is no name of a file"):
        go_on(copy)
    assert outside(copy) == before


def test_names_of_files() -> None:
    assert all(map(is_one_name, ["block1-k3-w0.5.onnx", "a b", "ä"]))
    assert not any(map(is_one_name, ["..", ".", "a/b", "a\\b", "\0", ".a", "a" * 256]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "..", "a/../../b"])  # noqa: S108
def test_a_device_whose_name_is_a_path_gets_a_folder_of_the_run(name: str, copy: Path) -> None:
    (copy.parent / "evil.toml").write_text(
        f'name = {json.dumps(name)}\ndevice = "modelled"\ndescription = "a plugin"\n'
    )
    before = outside(copy)
    go_on(copy, device="evil.toml", finetune_epochs=1)
    assert outside(copy) == before
    assert len(list((copy / "devices").iterdir())) == 2
    assert len(list((copy / "checkpoints").iterdir())) == 2


def outside(run: Path) -> set[Path]:
    """What lies beside a run; caches, locks and compiled modules may come."""
    own = {"home", "cache", "__pycache__"}
    return {
        path for path in run.parent.rglob("*") if not path.is_relative_to(run) and not own & set(path.parts)
    }


def external(location: str, *, inside: str = "") -> onnx.ModelProto:
    """A model that adds a constant from another file to its input."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [16], np.zeros(16, np.float32).tobytes(), raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "64"}.items():
        tensor.external_data.add(key=key, value=value)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [16]) for name in ("input", "output")]
    nodes = [helper.make_node("Add", ["input", "w"], ["output"])]
    weights = [tensor]
    if inside == "constant":
        nodes, weights = [helper.make_node("Constant", [], ["w"], value=tensor), *nodes], []
    if inside == "branch":
        branches = []
        for name in ("t", "e"):
            out = helper.make_tensor_value_info(name, TensorProto.FLOAT, [16])
            node = helper.make_node("Constant", [], [name], value=tensor)
            branches.append(helper.make_graph([node], name, [], [out]))
        true = helper.make_tensor("c", TensorProto.BOOL, [], [True])
        branch = helper.make_node("If", ["c"], ["w"], then_branch=branches[0], else_branch=branches[1])
        nodes, weights = [branch, *nodes], [true]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("inside", ["", "constant", "branch"])
@pytest.mark.parametrize("way", ["up", "absolute", "link", "folder link", "around", "hard link"])
def test_an_onnx_file_with_data_outside_of_its_folder_is_refused(
    way: str, inside: str, tmp_path: Path
) -> None:
    secret, folder = tmp_path / "secret.bin", tmp_path / "model"
    secret.write_bytes(SECRET)
    folder.mkdir()
    location = {"up": "../secret.bin", "absolute": str(secret), "around": "sub/../../secret.bin"}.get(
        way, "w.bin"
    )
    (folder / "sub").mkdir()
    if way == "link":
        (folder / "w.bin").symlink_to(secret)
    elif way == "folder link":
        (folder / "up").symlink_to(tmp_path)
        location = "up/secret.bin"
    elif way == "hard link":
        os.link(secret, folder / "w.bin")
    path = folder / "net.onnx"
    path.write_bytes(external(location, inside=inside).SerializeToString())
    with pytest.raises(InputError, match=r"net\.onnx is not a usable ONNX model") as error:
        content = Network.from_onnx(path).onnx()
        assert SECRET not in content, "the file outside was read into the network"
    assert error.value.fix


@pytest.mark.parametrize("inside", ["", "constant", "branch"])
def test_a_graph_of_a_library_that_names_other_files_is_refused(inside: str, copy: Path) -> None:
    from hwnas.files import sha256

    content = external("secret.bin", inside=inside).SerializeToString()
    with Library(copy / "library") as library:
        entry = library.entries()[0]
        path = copy / f"library/blocks/{entry.candidate.name}.onnx"
        path.write_bytes(content)
        library.write(
            "UPDATE candidates SET onnx_sha256 = ? WHERE part = ? AND choice = ?",
            (sha256(content), entry.candidate.part, entry.candidate.choice),
        )
        with pytest.raises(RunDirectoryError, match="names files of its own"):
            library.onnx(library.entries()[0])
