"""The runner by itself: on this machine, and its arm64 build under qemu."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import fake_phone
import numpy as np
import onnxruntime as ort
import pytest

from hwnas.testing.contract import DeviceContract

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.onnx").write_bytes(DeviceContract().make_network().onnx())
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    return tmp_path


def run(
    command: Sequence[str], folder: Path, *jobs: str, ends: bool = True
) -> subprocess.CompletedProcess[str]:
    text = "".join(f"{job}\n" for job in [*jobs, *["quit"] * ends])
    return subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True, timeout=120)


def command(built: dict[str, str]) -> list[str]:
    return [built["runner"], f"{built['runtime_dir']}/libonnxruntime.so"]


def test_jobs_are_done_one_after_the_other(built: dict[str, str], folder: Path) -> None:
    jobs = [
        "load\t0\tsmall.onnx\t60\ta.json",
        "run\t0\t5\t0.01\t60\tb.json",
        "load\t1\tbroken.onnx\t60\tc.json",
    ]
    jobs += [
        "run\t1\t1\t0\t60\td.json",
        "release\t0\te.json",
        "run\t0\t1\t0\t60\tf.json",
        "load\t999\tx\t60\tg.json",
    ]
    told = run(command(built), folder, "threads\t1", *jobs)
    assert told.returncode == 0, told.stderr
    answers = told.stdout.splitlines()
    assert answers[0].startswith("ready ")
    assert answers[1:] == [f"done {name}.json" for name in "abcdefg"]
    a, b, c, d, e, f, g = (json.loads((folder / f"{name}.json").read_text()) for name in "abcdefg")
    assert [operator for _, operator in a["placement"]] == [
        "Conv",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]
    assert a["load_ms"] > 0 and a["first_run_ms"] > 0 and len(a["outputs"]) == 4
    assert len(b["samples_ms"]) >= 5 and sum(b["samples_ms"]) >= 10
    assert "broken.onnx" in c["error"]
    assert d["error"] == "graph 1 is not loaded"
    assert e == {}
    assert f["error"] == "graph 0 is not loaded"
    assert "0 to 255" in g["error"]
    assert not list(folder.glob("*.part"))


def test_outputs_are_those_for_the_numbers_of_a_file(built: dict[str, str], folder: Path) -> None:
    images = np.random.default_rng(0).standard_normal((2, 1, 3, 16, 16)).astype(np.float32)
    session = ort.InferenceSession(folder / "small.onnx", providers=["CPUExecutionProvider"])
    (folder / "a.raw").write_bytes(images[0].tobytes())
    (folder / "b.raw").write_bytes(images.tobytes())
    (folder / "short.raw").write_bytes(images.tobytes()[:-4])
    jobs = [f"infer\t0\t{name}.raw\t{name}.out\t60\t{name}.json" for name in ("a", "b", "short", "none")]
    load, run_it = "load\t0\tsmall.onnx\t60\tl.json", "run\t0\t2\t0\t60\tr.json"
    told = run(command(built), folder, "threads\t1", load, *jobs[:3], run_it, jobs[3], jobs[0])
    assert told.returncode == 0, told.stderr
    expected = np.concatenate([session.run(None, {"input": image})[0] for image in images])
    for name, runs in (("a", 1), ("b", 2)):
        assert json.loads((folder / f"{name}.json").read_text()) == {"shapes": [[1, 4]], "runs": runs}
        found = np.frombuffer((folder / f"{name}.out").read_bytes(), np.float32)
        assert np.allclose(found.reshape(runs, 4), expected[:runs], atol=1e-6)
    assert len(json.loads((folder / "r.json").read_text())["samples_ms"]) >= 2
    short, none = (json.loads((folder / f"{name}.json").read_text())["error"] for name in ("short", "none"))
    assert short == "the file has no numbers for all of input 0"
    assert "none.raw" in none and "No such file" in none


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["provider\tNOSUCH\t"], "NOSUCH"),
        (["provider\tNNAPI\t"], "built without NNAPI"),
        (["provider\tPlugin\t/no/such/library.so"], "library.so"),
    ],
)
def test_a_provider_that_is_not_there_fails_the_load(
    built: dict[str, str], folder: Path, settings: list[str], reason: str
) -> None:
    told = run(command(built), folder, *settings, "load\t0\tsmall.onnx\t60\ta.json")
    assert told.returncode == 0
    assert reason in json.loads((folder / "a.json").read_text())["error"]


def test_what_is_no_job_ends_it(built: dict[str, str], folder: Path) -> None:
    told = run(command(built), folder, "nonsense")
    assert (told.returncode, told.stderr) == (2, "unknown job: nonsense\n")


def test_it_ends_when_its_host_is_gone(built: dict[str, str], folder: Path) -> None:
    jobs = ["load\t0\tsmall.onnx\t60\ta.json", "run\t0\t1\t600\t600\tb.json"]
    assert run(command(built), folder, *jobs, ends=False).returncode == 3
    assert not (folder / "b.json").exists()


def test_a_job_over_its_limit_ends_it(built: dict[str, str], folder: Path) -> None:
    jobs = ["load\t0\tsmall.onnx\t60\ta.json", "run\t0\t1\t600\t1\tb.json"]
    assert run(command(built), folder, *jobs).returncode == -signal.SIGALRM


def test_one_runner_works_in_a_folder(built: dict[str, str], folder: Path) -> None:
    with subprocess.Popen(
        command(built), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline().startswith("ready ")
        assert run(command(built), folder).returncode == 75
        first.stdin.close()
    assert run(command(built), folder).returncode == 0


def test_libraries_that_are_none_are_told(built: dict[str, str], folder: Path) -> None:
    told = run([built["runner"], str(folder / "small.onnx")], folder)
    assert told.returncode == 1
    assert "small.onnx" in told.stderr


@pytest.mark.slow
def test_the_arm64_build_under_qemu(folder: Path) -> None:
    """zig cross-builds it for glibc, with which the arm64 wheel of ONNX Runtime was built."""
    qemu, libc = fake_phone.PACKAGES / "qemu/usr/bin/qemu-aarch64", fake_phone.PACKAGES / "arm64"
    if not qemu.exists() or not libc.exists():
        pytest.skip(f"run tests/hardware/fake_phone/fetch.sh {fake_phone.PACKAGES} --arm64")
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("pip install ziglang")
    (library,) = libc.glob("libonnxruntime.so.*")
    runner = folder / "runner-arm64"
    sources = [fake_phone.RUNNER_SOURCES / name for name in ("runner.c", "graph.c")]
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.31", "-O2"]
    subprocess.run([*zig, "-o", runner, *sources, "-ldl", "-lpthread", "-lm"], check=True)
    jobs = ["load\t0\tsmall.onnx\t100\ta.json", "run\t0\t3\t0\t100\tb.json"]
    emulated = [str(qemu), "-L", str(libc), str(runner), str(library)]
    told = run(emulated, folder, "threads\t1", *jobs)
    assert told.returncode == 0, told.stderr
    result = json.loads((folder / "a.json").read_text())
    assert {provider for provider, _ in result["placement"]} == {"CPUExecutionProvider"}
    assert len(json.loads((folder / "b.json").read_text())["samples_ms"]) >= 3
    # The same numbers as on this machine.
    native = run(
        [str(fake_phone.build_runner(folder)), str(_library())], folder, "load\t0\tsmall.onnx\t60\tc.json"
    )
    assert native.returncode == 0
    expected = json.loads((folder / "c.json").read_text())["outputs"]
    assert result["outputs"] == pytest.approx(expected, rel=1e-4)


def _library() -> Path:
    import onnxruntime

    return next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))
