"""A candidate that does not fit into memory gets smaller batches; one that never fits has failed."""

from __future__ import annotations

import errno
import importlib
import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spoilt_runs import Place, Said, go_on
from tiny import compress_arguments, of_one_device, run_python, snapshot, start_python
from torch import nn

from hwnas.compress.library.distill import DistillSettings
from hwnas.compress.library.out_of_memory import BLOCK_TRAINERS, with_batches_of
from hwnas.compress.library.store import Library
from hwnas.errors import HwnasError, InputError, NetworkFormError, is_out_of_memory
from hwnas.networks.architecture import Candidate

LIMITED = """
import importlib, resource, sys
import torch
from hwnas.cli.main import main

distillation = importlib.import_module("hwnas.compress.library.distill")
gigabytes_an_image, *arguments = sys.argv[1:]
real, names = distillation.build_block, []
unlimited = resource.getrlimit(resource.RLIMIT_AS)


class Hungry(torch.nn.Module):
    def forward(self, module, inputs):
        # it finds 4 GiB more than the process has now
        has = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + 4 * 2**30, unlimited[1]))
        try:
            torch.empty(int(float(gigabytes_an_image) * 2**30) * len(inputs[0]), dtype=torch.uint8)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, unlimited)


def build(parts, part, spec):
    module = real(parts, part, spec)
    names.append(spec.name)
    if spec.name == names[0]:
        module.register_forward_pre_hook(Hungry().forward)
    return module


distillation.build_block = build
sys.argv = ["hwnas", *arguments]
main()
"""


def distilled(folder: Path, gigabytes_an_image: float) -> tuple[Path, str]:
    """A run in which one candidate takes that much memory for each image of a batch, and what it said."""
    done = run_python(folder, ["-c", LIMITED, str(gigabytes_an_image), *compress_arguments("out", "--json")])
    assert done.returncode == 0, done.stderr
    assert of_one_device(json.loads(done.stdout))["checkpoints"]
    return folder / "out", done.stderr


def others(run: Path, hungry: Candidate) -> dict[str, str]:
    """Files and rows of all candidates but one."""
    own = {f"library/blocks/{hungry.name}.{suffix}" for suffix in ("safetensors", "onnx")}
    own.add(f"row {hungry.part} {hungry.choice}")
    found = snapshot(run)
    return {
        key: value for key, value in found.items() if key.startswith(("library/", "row ")) and key not in own
    }


@pytest.mark.slow
def test_a_candidate_that_does_not_fit_is_trained_in_smaller_batches(place: Place, workplace: Path) -> None:
    """6.4 GiB for a batch of 256 images do not fit into 4 GiB, 3.2 GiB do."""
    run, said = distilled(workplace, 6.4 / 256)
    with Library(run / "library") as library:
        first, *rest = library.entries()
    assert all(entry.state == "done" for entry in (first, *rest))
    assert f"{first.candidate.name} needs too much memory; it was given batches of 128" in said
    assert len(others(run, first.candidate)) == 2 * len(rest) + len(rest)
    assert others(run, first.candidate) == others(place.whole, first.candidate)


@pytest.mark.slow
@pytest.mark.parametrize(("fits", "state"), [(128, "done"), (0, "failed")])
def test_a_hungry_candidate_gets_smaller_batches_and_leaves_the_others_as_they_are(
    fits: int, state: str, place: Place, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for 1 PiB, which no machine gives, for batches of more images than fit."""
    distillation: Any = importlib.import_module("hwnas.compress.library.distill")
    real = distillation.build_block
    with Library(copy / "library") as library:
        first, *rest = library.entries()
    name = first.candidate.name

    def take(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        torch.empty(2**50 if len(inputs[0]) > fits else 1, dtype=torch.uint8)

    def hungry(parts: Any, part: int, spec: Any) -> nn.Module:
        module: nn.Module = real(parts, part, spec)
        if spec == first.candidate.spec:
            module.register_forward_pre_hook(take)
        return module

    monkeypatch.setattr(distillation, "build_block", hungry)
    for file in (copy / "library/blocks").iterdir():
        file.unlink()
    said = Said()
    go_on(copy, said)
    if state == "done":
        assert f"{name} needs too much memory; it was given batches of 128" in said.said
    with Library(copy / "library") as library:
        assert [entry.state for entry in library.entries()] == [state] + ["done"] * len(rest)
    assert others(copy, first.candidate) == others(place.whole, first.candidate)


@pytest.mark.slow
def test_a_candidate_that_never_fits_has_failed_and_the_run_goes_on(place: Place, workplace: Path) -> None:
    run, said = distilled(workplace, 1)
    with Library(run / "library") as library:
        first, *rest = library.entries()
    assert (first.state, first.reason) == ("failed", "out of memory, even in batches of 8")
    assert all(entry.state == "done" for entry in rest)
    assert f"{first.candidate.name} failed and is left out" in said
    assert others(run, first.candidate) == others(place.whole, first.candidate)


def test_smaller_batches_see_as_many_images() -> None:
    settings = DistillSettings(loss="nsr", epochs=2, steps=5, batch_size=64, seed=0)
    half = with_batches_of(32, settings)
    assert (half.steps, half.batch_size, half.epochs) == (10, 32, 2)
    assert with_batches_of(64, settings) == settings


def test_other_errors_are_not_taken_for_missing_memory(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape '[2]' is invalid for input of size 3"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert is_out_of_memory(
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    )

    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))

    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(BLOCK_TRAINERS, "load", lambda name: broken)
    next((copy / "library/blocks").glob("*.onnx")).unlink()
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        go_on(copy, Said())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("unable to mmap 4096 bytes from file <x>: Cannot allocate memory (12)"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        sqlite3.OperationalError("out of memory"),
    ],
)
def test_memory_that_ends_has_many_names(error: Exception) -> None:
    assert is_out_of_memory(error)
    wrapped = InputError("the network cannot be traced", "wrap it")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(InputError(str(error), "wrap it"))


def test_onnx_runtime_says_it_in_its_own_words() -> None:
    """A graph that wants 4 TiB."""
    import onnxruntime
    from onnx import TensorProto, helper

    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2**20, 2**20])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["z"]), helper.make_node("Expand", ["z", "shape"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2**20, 2**20])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with pytest.raises(Exception) as error:
        session.run(None, {"x": np.ones((1, 1), np.float32)})
    assert is_out_of_memory(error.value)


def test_a_candidate_that_failed_for_memory_is_tried_again_by_the_next_call(place: Place, copy: Path) -> None:
    with Library(copy / "library") as library:
        first, second, *_ = library.entries()
        library.fail(first.candidate, "out of memory, even in batches of 8")
        library.fail(second.candidate, "loss became nan at step 3")
        assert library.pending() == [first.candidate]
        library.write(
            "UPDATE candidates SET state = 'pending', reason = NULL WHERE part = ? AND choice = ?",
            (second.candidate.part, second.candidate.choice),
        )
    go_on(copy, Said())
    assert snapshot(copy) == snapshot(place.whole)


def test_a_candidate_whose_export_finds_no_memory_is_not_marked_as_failed(
    place: Place, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: object) -> bytes:
        try:
            raise RuntimeError("could not create a primitive")
        except RuntimeError as error:
            raise NetworkFormError("Sequential cannot be exported to ONNX", "replace it") from error

    with sqlite3.connect(copy / "library/library.db") as connection:
        connection.execute("DELETE FROM candidates WHERE choice = 1")
    connection.close()
    with monkeypatch.context() as patch:
        patch.setattr("hwnas.networks.sizes.export_onnx", hungry)
        with pytest.raises(HwnasError, match="memory does not suffice"):
            go_on(copy, Said())
    go_on(copy, Said())
    assert snapshot(copy) == snapshot(place.whole)


ANYWHERE = """
import ctypes, os, signal, sys
import torch
from hwnas.cli.main import main

libc = ctypes.CDLL(None)

def hungry(*_, **__):
    EVENT

sys.argv = ["hwnas", "profile", "mobilenetv3_small_050", "--device", "sim-npu"]
import hwnas.networks.find
hwnas.networks.find.find_network = hungry
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("limited", [False, True])
def test_memory_that_ends_anywhere_is_told_by_the_command(limited: bool, workplace: Path) -> None:
    code = ANYWHERE.replace("EVENT", "torch.empty(2**50)")
    done = run_python(workplace, ["-c", f"{LIMIT if limited else ''}{code}"])
    assert done.returncode == 2
    assert done.stderr.startswith("error: memory does not suffice: ")
    assert "\n  fix: " in done.stderr
    assert "Traceback" not in done.stderr


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "event", ["libc.abort()", "libc._exit(1)", "raise SystemExit(1)", "signal.raise_signal(11)"]
)
def test_a_library_that_ends_the_process_under_a_limit_is_told(event: str, workplace: Path) -> None:
    """As OpenBLAS and C++ do; what Python code does is told as that."""
    done = run_python(workplace, ["-c", LIMIT + ANYWHERE.replace("EVENT", event)])
    if event.startswith("raise"):
        assert done.returncode == 2
        assert "ends the process instead of returning: SystemExit: 1" in done.stderr
    else:
        assert done.returncode == 2
        assert (
            "memory does not suffice under ulimit -v 1073741824: a library ended the process" in done.stderr
        )
        assert "\n  fix: " in done.stderr


@pytest.mark.slow
def test_a_command_under_a_limit_is_killed_with_its_child(workplace: Path) -> None:
    """`kill -9` ends the whole command, and SIGTERM ends it in order."""
    wait = "open('begun', 'w').write(str(os.getpid())); signal.pause()"
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        running = start_python(workplace, ["-c", LIMIT + ANYWHERE.replace("EVENT", wait)])
        while not (workplace / "begun").exists() or not (workplace / "begun").read_text():
            assert running.poll() is None
        child = int((workplace / "begun").read_text())
        running.send_signal(number)
        assert running.wait() == code
        while Path(f"/proc/{child}/stat").exists():
            if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
                break
        (workplace / "begun").unlink()


def test_a_reference_that_does_not_fit_is_told_and_nothing_is_marked_as_failed(
    place: Place, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: object) -> None:
        torch.empty(2**50)

    for file in (copy / "library/blocks").iterdir():
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("hwnas.compress.library.build.teacher_statistics", hungry)
        with pytest.raises(HwnasError, match="memory does not suffice"):
            go_on(copy, Said())
    go_on(copy, Said())
    assert snapshot(copy) == snapshot(place.whole)
