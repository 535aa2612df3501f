"""Phones and boards in Qualcomm AI Hub: a network is compiled there by one job and profiled by another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.devices.aihub.client import account, talking
from hwnas.devices.aihub.names import Unit, find_unit
from hwnas.devices.options import check_options
from hwnas.devices.queue import QueueBusyError, QueueDevice, QueueJob, QueueResult
from hwnas.errors import DeviceError, PreparationError
from hwnas.measurement import DeviceProfile, Fingerprint, Layer
from hwnas.network import Network
from hwnas.onnx_sizes import inputs_of
from hwnas.temporary import temporary_folder

if TYPE_CHECKING:
    import numpy as np
    import qai_hub as hub

    from hwnas.devices.host.runtime import Arrays

RUNTIMES = ("tflite", "onnx", "qnn_dlc", "qnn_context_binary", "precompiled_qnn_onnx")
FP16_BY_OPTION = ("qnn_dlc", "qnn_context_binary", "precompiled_qnn_onnx")
COMPUTE_UNITS = ("all", "npu", "gpu", "cpu")
PAGES, PAGE = 4, 50  # of the newest jobs, in which one is looked for by its name


class AiHubDevice(QueueDevice):
    """A device of Qualcomm AI Hub.

    Options of the profile:
        target: the device's name at the hub; `--device aihub:"NAME"` sets it.
        target_runtime: tflite, onnx, qnn_dlc, qnn_context_binary or precompiled_qnn_onnx.
        compute_unit: all, npu, gpu or cpu.
        max_in_flight: jobs in the hub's queue at once.
        poll_s: seconds between two looks at a job.

    Raises:
        DeviceError: an unknown option, no token, a bad token, or no such device at the hub.
    """

    preparation_jobs = 1
    gives_outputs = True

    def __init__(self, profile: DeviceProfile) -> None:
        super().__init__(profile)
        options = check_options(
            profile,
            "AI Hub",
            target="",
            target_runtime=RUNTIMES,
            compute_unit=COMPUTE_UNITS,
            max_in_flight=5,
            poll_s=10.0,
        )
        self.target = str(options["target"])
        self.target_runtime = str(options["target_runtime"])
        self.compute_unit = str(options["compute_unit"])
        self.max_in_flight = int(options["max_in_flight"])
        self.poll_s = float(options["poll_s"])
        if self.max_in_flight < 1 or not self.poll_s > 0:
            raise DeviceError(
                f"profile {profile.name}: max_in_flight and poll_s must be above zero", "correct the profile"
            )
        if profile.precision == "bf16":
            raise DeviceError(f"profile {profile.name}: AI Hub takes no bf16", "use fp32, fp16 or int8")
        if profile.precision == "fp32" and self.compute_unit == "npu":
            raise DeviceError(f"profile {profile.name}: NPUs have no fp32", "use fp16 or int8")
        self._compile_options = f"--target_runtime {self.target_runtime} --compute_unit {self.compute_unit}"
        if profile.precision == "fp16" and self.target_runtime in FP16_BY_OPTION:
            self._compile_options += " --quantize_full_type float16"
        elif profile.precision == "fp16" and self.compute_unit != "npu":
            raise DeviceError(
                f"profile {profile.name}: {self.target_runtime} on {self.compute_unit} keeps fp32",
                f"use fp32, the compute unit npu, or one of {', '.join(FP16_BY_OPTION)}",
            )
        self._client: hub.Client | None = None
        self._unit: Unit | None = None
        self._sdk = ""

    @property
    def lock_name(self) -> str:
        return f"aihub {self.target}"

    def open_impl(self) -> None:
        self._client = account()
        try:
            with talking("open the hub"):
                self._unit = find_unit(self._client, self.target)
                frameworks = self._client.get_frameworks()
        except (QueueBusyError, PreparationError) as error:
            raise DeviceError(error.cause, "try again later; https://workbench.aihub.qualcomm.com") from error
        versions = [f"{item.name} {item.full_version}" for item in frameworks if "default" in item.api_tags]
        self._sdk = ", ".join(sorted(versions)) or "unknown"

    def close_impl(self) -> None:
        self._client = self._unit = None

    def fingerprint(self) -> Fingerprint:
        return Fingerprint(
            chip=f"{self._opened_unit.name}, {self._opened_unit.chipset or 'chipset unknown'}",
            os_build=f"{self._opened_unit.system} {self._opened_unit.os}",
            driver=self._sdk,
            runtime=f"{self.target_runtime} on {self.compute_unit}",
            precision=self.profile.precision,
            power_mode="default",
        )

    def submit_impl(self, job: QueueJob, network: Network) -> QueueJob:
        if job.prepared:
            with talking(f"profile {network.name}"):
                return self._run(job, self._opened_client.get_model(job.prepared))
        # Graphs in fp16 are made by the hub's compiler, or by an NPU that computes in nothing wider.
        content = network.onnx("fp32" if self.profile.precision == "fp16" else self.profile.precision)
        with temporary_folder() as folder, talking(f"compile {network.name}"):
            path = Path(folder, "model.onnx")
            path.write_bytes(content)
            model = self._opened_client.upload_model(str(path), name=job.name)
            compiling = self._opened_client.submit_compile_job(
                model,
                self._opened_unit.hub_device(),
                name=job.name,
                options=self._compile_options,
                retry=False,
            )
        return replace(job, job_id=compiling.job_id, url=compiling.url)

    def collect_impl(self, job: QueueJob) -> QueueJob | QueueResult:
        with talking(f"look at job {job.job_id}"):
            found = self._looked_at(job)
            return found if isinstance(found, QueueJob) else read_profile(found.download_profile())

    def bring_impl(self, network: Network, runs: Sequence[Arrays]) -> str:
        import onnx

        names = [value.name for value in inputs_of(onnx.load_model_from_string(network.onnx()))]
        entries = {name: list(arrays) for name, arrays in zip(names, zip(*runs, strict=True), strict=True)}
        with talking(f"store images for {network.name}"):
            dataset = self._opened_client.upload_dataset(entries, name=f"hwnas {network.name}")
            return str(dataset.dataset_id)

    def outputs_impl(self, job: QueueJob) -> QueueJob | list[list[np.ndarray[Any, Any]]]:
        with talking(f"look at job {job.job_id}"):
            found = self._looked_at(job)
            return found if isinstance(found, QueueJob) else read_outputs(found.download_output_data())

    def _looked_at(self, job: QueueJob) -> QueueJob | hub.InferenceJob:
        """A job that has run; until then the job as it is now, which may have gone on to its second step."""
        import qai_hub as hub

        found = self._opened_client.get_job(job.job_id)
        status = found.get_status()
        if not status.finished:
            return job
        if status.failure:
            step = "run" if job.prepared else "compile"
            raise PreparationError(f"AI Hub could not {step} the network: {status.message}", f"see {job.url}")
        if isinstance(found, hub.CompileJob):
            return self._run(job, found.get_target_model())
        assert isinstance(found, hub.InferenceJob)
        return found

    def find_impl(self, job: QueueJob) -> QueueJob:
        """By name among the newest jobs. The furthest step counts: a profile job knows its model."""
        import qai_hub as hub

        with talking("list the jobs"):
            for kind in (hub.JobType.INFERENCE, hub.JobType.COMPILE):
                listed = self._listed(job.name, kind)
                if listed is not None:
                    found = self._opened_client.get_job(listed)
                    prepared = found.model.model_id if isinstance(found, hub.InferenceJob) else ""
                    return replace(job, job_id=found.job_id, url=found.url, prepared=prepared)
        try:
            with talking(f"look at job {job.job_id}"):
                if job.job_id:
                    self._opened_client.get_job(job.job_id)
                    return job
        except PreparationError:
            # The hub has forgotten the job (or belongs to another account), so its model as well.
            return replace(job, job_id="", url="", prepared="")
        return job

    def _listed(self, name: str, kind: hub.JobType) -> str | None:
        """The id of the newest job of a name."""
        for page in range(PAGES):
            jobs = self._opened_client.get_job_summaries(offset=page * PAGE, limit=PAGE, type=kind)
            for job in jobs:
                if job.name == name:
                    return job.job_id
            if len(jobs) < PAGE:
                break
        return None

    def _run(self, job: QueueJob, model: Any) -> QueueJob:
        """Time it, or ask for its outputs where the job has inputs."""
        running = self._opened_client.submit_inference_job(
            model,
            self._opened_unit.hub_device(),
            name=job.name,
            options=f"--compute_unit {self.compute_unit}",
            inputs=self._opened_client.get_dataset(job.inputs) if job.inputs else None,
            profile=not job.inputs,
            retry=False,
        )
        return replace(job, prepared=model.model_id, job_id=running.job_id, url=running.url)

    @property
    def _opened_client(self) -> hub.Client:
        assert self._client is not None
        return self._client

    @property
    def _opened_unit(self) -> Unit:
        if self._unit is None:
            raise DeviceError(f"device {self.profile.name} is not open", "use it in a with statement")
        return self._unit


def read_outputs(entries: Mapping[str, Arrays] | None) -> list[list[np.ndarray[Any, Any]]]:
    """What `download_output_data` gives, run by run.

    Raises:
        PreparationError: there are none.
    """
    import numpy as np

    if not entries:
        raise PreparationError("AI Hub answered no outputs", "give the same command again")
    columns = ([np.asarray(array, np.float32) for array in arrays] for arrays in entries.values())
    return [list(run) for run in zip(*columns, strict=True)]


def read_profile(profile: dict[str, Any]) -> QueueResult:
    """What `download_profile` gives, in our units: its times are integer microseconds, its sizes bytes.

    Raises:
        PreparationError: it is not such a profile.
    """
    try:
        summary = profile["execution_summary"]
        times_us = summary.get("all_inference_times") or [summary["estimated_inference_time"]]
        metrics = {
            "first_load_ms": (summary.get("first_load_time"), 1000),
            "warm_load_ms": (summary.get("warm_load_time"), 1000),
            "peak_memory_bytes": (summary.get("estimated_inference_peak_memory"), 1),
        }
        layers = tuple(
            Layer(
                name=layer["name"],
                operator=layer["type"],
                unit=layer["compute_unit"],
                time_ms=layer["execution_time"] / 1000 if "execution_time" in layer else None,
            )
            for layer in profile["execution_detail"]
        )
        samples_ms = tuple(time_us / 1000 for time_us in times_us)
    except (KeyError, TypeError) as error:
        raise PreparationError(
            f"AI Hub answered a profile without {error}", "pip install --upgrade qai-hub, then try again"
        ) from None
    counts: dict[str, Counter[str]] = {}
    for layer in layers:
        counts.setdefault(layer.unit, Counter())[layer.operator] += 1
    return QueueResult(
        samples_ms=samples_ms,
        # The client answers a negative number or a text where the hub does not tell.
        metrics={
            key: value / unit
            for key, (value, unit) in metrics.items()
            if isinstance(value, int | float) and value > 0
        },
        placement={unit: dict(sorted(counter.items())) for unit, counter in counts.items()},
        layers=layers,
    )
