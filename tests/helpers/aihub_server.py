"""Qualcomm AI Hub on the loopback interface: the routes and messages that the unmodified client speaks."""

from __future__ import annotations

import io
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h5py
import onnxruntime as ort
from google.protobuf.message import Message
from qai_hub import public_api_pb2 as pb
from qai_hub.util.dataset_entries_converters import dataset_entries_to_h5, h5_to_dataset_entries

DEVICES = [
    ("Google Pixel 4", "11", "855"),
    ("Samsung Galaxy Tab S7", "11", "865+"),
    ("Samsung Galaxy S21", "11", "888"),
    ("Samsung Galaxy S22 Ultra 5G", "12", "8gen1"),
    ("Samsung Galaxy S23", "13", "8gen2"),
    ("Samsung Galaxy S24", "9", "8gen3"),
    ("Samsung Galaxy S24", "14", "8gen3"),
    ("Samsung Galaxy S25", "15", "8-elite"),
]
RUNTIMES = {
    "tflite": pb.MODEL_TYPE_TFLITE,
    "onnx": pb.MODEL_TYPE_ONNX,
    "precompiled_qnn_onnx": pb.MODEL_TYPE_ONNX,
    "qnn_dlc": pb.MODEL_TYPE_QNN_DLC,
    "qnn_context_binary": pb.MODEL_TYPE_QNN_CONTEXT_BINARY,
}


class LoopbackHub:
    """A hub whose jobs wait, run, fail and are lost as a test says.

    Attributes:
        token: the only one that is accepted.
        looks: a job is finished when it has been looked at so often.
        held: kinds of jobs (`compile_job`) that do not finish.
        times_us: what a profile tells, microseconds.
        profile_failure: message of every profile job, which then fails.
        faults: (method, kind of thing) → statuses of the next answers; 0 does what is asked, then breaks off.
        hands_out_credentials: models are uploaded by S3's protocol instead of to an address.
        requests: (method, kind of thing) of everything that was asked.
        submitted: the jobs, by id.
    """

    def __init__(self) -> None:
        self.token = "t0ken"  # noqa: S105
        self.looks = 2
        self.held: set[str] = set()
        self.times_us = [1500, 1400, 1600]
        self.profile_failure = ""
        self.faults: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.retry_after: str | None = None
        self.hands_out_credentials = False
        self.requests: list[tuple[str, str]] = []
        self.submitted: dict[str, pb.Job] = {}
        self.uploads: dict[str, bytes] = {}
        self.models: dict[str, pb.Model] = {}
        self.datasets: list[str] = []
        self._sources: dict[str, str] = {}
        self._looked: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0

    def start(self) -> None:
        """Listen: at a free port the first time, at the same one after a stop."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Be unreachable; what was submitted is kept."""
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def write_config(self, path: Path, token: str | None = None) -> None:
        """What `qai-hub configure` writes."""
        url = f"http://127.0.0.1:{self.port}"
        lines = [
            f"api_token = {token or self.token}",
            f"api_url = {url}",
            f"web_url = {url}",
            "verbose = True",
        ]
        path.write_text("\n".join(["[api]", *lines, ""]))

    def jobs(self, kind: str) -> list[Any]:
        """Submitted jobs: `compile_job` or `inference_job`."""
        return [getattr(job, kind) for job in self.submitted.values() if job.WhichOneof("job") == kind]

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Message | None:
        """The answer to a request; None where there is no such thing."""
        with self._lock:
            return self._answer(method, path.strip("/").split("/"), query, body)

    def _answer(self, method: str, path: list[str], query: dict[str, str], body: bytes) -> Message | None:
        match method, path:
            case "GET", ["devices"]:
                return self._devices(query)
            case "GET", ["frameworks"]:
                tags = {"2.30": ["latest"], "2.28": ["default"]}
                found = [
                    pb.Framework(name="QAIRT", api_version=version, api_tags=tag, full_version=f"{version}.0")
                    for version, tag in tags.items()
                ]
                return pb.FrameworkList(frameworks=found)
            case "POST", ["models"]:
                model = pb.Model()
                model.ParseFromString(body)
                return pb.CreateUpdateResponse(id=self._add_model(model))
            case "GET", ["models", model_id] if model_id in self.models:
                return self.models[model_id]
            case "GET", ["models", model_id, "multipart_upload"] if self.hands_out_credentials:
                secret = pb.S3Credentials(
                    access_key_id="id", secret_access_key="key", session_token="t",  # noqa: S106
                    region="us-west-2", bucket="blob", key=model_id,
                )  # fmt: skip
                return pb.FileUploadResponse(credentials=secret)
            case "POST", ["models", model_id, "upload_complete"]:
                return pb.CreateUpdateResponse(id=model_id)
            case "GET", ["models", model_id, "multipart_upload"]:
                url = f"http://127.0.0.1:{self.port}/blob/{model_id}"
                urls = pb.FileMultipartUploadURL(urls=[url], upload_id="u", max_part_size=2**30)
                return pb.FileUploadResponse(multipart_url=urls)
            case "POST", ["models", model_id, "multipart_upload"]:
                return pb.CreateUpdateResponse(id=model_id)
            case "POST", ["datasets"]:
                return pb.CreateUpdateResponse(id=self._add_dataset())
            case "GET", ["datasets", dataset_id, "upload_url"]:
                url = f"http://127.0.0.1:{self.port}/blob/{dataset_id}"
                return pb.FileUploadResponse(url=pb.FileUploadURL(url=url, file_field_name="file"))
            case "PATCH", ["datasets", dataset_id]:
                return pb.CreateUpdateResponse(id=dataset_id)
            case "GET", ["datasets", dataset_id] if dataset_id in self.datasets:
                return pb.Dataset(dataset_id=dataset_id, name=dataset_id, permanent=True)
            case "GET", ["datasets", dataset_id, "download_data"]:
                url = f"http://127.0.0.1:{self.port}/blob/{dataset_id}"
                return pb.FileDownloadResponse(url=pb.FileDownloadURL(url=url, filename="data.h5"))
            case "POST", ["jobs"]:
                job = pb.Job()
                job.ParseFromString(body)
                return pb.CreateUpdateResponse(id=self._add_job(job))
            case "GET", ["jobs", job_id] if job_id in self.submitted:
                return self._look(job_id)
            case "GET", ["jobs", job_id, "result"] if job_id in self.submitted:
                job = self.submitted[job_id].inference_job
                if job.is_profiling_on:
                    return pb.JobResult(inference_job_result=pb.InferenceJobResult(detail=self._profile()))
                found = pb.InferenceJobResult(output_dataset_id=self._infer(job))
                return pb.JobResult(inference_job_result=found)
            case "GET", ["job_summaries"]:
                return self._summaries(query)
        return None

    def _devices(self, query: dict[str, str]) -> pb.DeviceList:
        found = [
            pb.Device(
                name=name,
                os=os,
                attributes=[
                    f"chipset:qualcomm-snapdragon-{chipset}",
                    "os:android",
                    *(f"framework:{framework}" for framework in ("qnn", "tflite", "onnx")),
                ],
            )
            for name, os, chipset in DEVICES
            if query.get("name", name) in (name, "") and query.get("os", os) in (os, "")
        ]
        return pb.DeviceList(devices=found[-1:] if query.get("select") == "True" else found)

    def _add_dataset(self) -> str:
        self.datasets.append(f"d{len(self.datasets)}")
        return self.datasets[-1]

    def _infer(self, job: pb.InferenceJob) -> str:
        """What the graph that the model was compiled from computes, in fp32; the dataset with it."""
        content = self.uploads[self._sources[job.model.model_id]]
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        with h5py.File(io.BytesIO(self.uploads[job.dataset.dataset_id]), "r") as file:
            given = h5_to_dataset_entries(file)
        runs = [dict(zip(given, arrays, strict=True)) for arrays in zip(*given.values(), strict=True)]
        columns = zip(*(session.run(None, run) for run in runs), strict=True)
        names = [value.name for value in session.get_outputs()]
        entries = {name: list(column) for name, column in zip(names, columns, strict=True)}
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            dataset_entries_to_h5(entries, file)
        dataset_id = self._add_dataset()
        self.uploads[dataset_id] = buffer.getvalue()
        return dataset_id

    def _add_model(self, model: pb.Model) -> str:
        model.model_id = f"m{len(self.models)}"
        self.models[model.model_id] = model
        return model.model_id

    def _add_job(self, job: pb.Job) -> str:
        job_id = f"j{len(self.submitted)}"
        if job.WhichOneof("job") == "compile_job":
            job.compile_job.compile_job_id = job_id
            job.compile_job.job_state = pb.JOB_STATE_CREATED
            words = job.compile_job.options.split()
            target = pb.Model(
                name=job.compile_job.name, model_type=RUNTIMES[words[words.index("--target_runtime") + 1]]
            )
            self._add_model(target)
            self._sources[target.model_id] = job.compile_job.model.model_id
            job.compile_job.target_model.CopyFrom(target)
        else:
            job.inference_job.inference_job_id = job_id
            job.inference_job.job_state = pb.JOB_STATE_CREATED
        self.submitted[job_id] = job
        return job_id

    def _look(self, job_id: str) -> pb.Job:
        job = self.submitted[job_id]
        specific = getattr(job, str(job.WhichOneof("job")))
        self._looked[job_id] += 1
        if self._looked[job_id] < self.looks or job.WhichOneof("job") in self.held:
            running = pb.JOB_STATE_OPTIMIZING_MODEL, pb.JOB_STATE_MEASURING_PERFORMANCE
            specific.job_state = running[job.WhichOneof("job") == "inference_job"]
            return job
        specific.failure_reason = self._failure(job)
        specific.job_state = pb.JOB_STATE_FAILED if specific.failure_reason else pb.JOB_STATE_DONE
        return job

    def _failure(self, job: pb.Job) -> str:
        if job.WhichOneof("job") == "inference_job":
            return self.profile_failure
        broken = b"NoSuchOperator" in self.uploads[job.compile_job.model.model_id]
        return "Unsupported ONNX operator: NoSuchOperator" if broken else ""

    def _profile(self) -> pb.ProfileDetail:
        layers = [("conv1", "Conv2d", pb.COMPUTE_UNIT_NPU), ("relu", "Relu", pb.COMPUTE_UNIT_NPU)]
        layers.append(("gemm", "FullyConnected", pb.COMPUTE_UNIT_CPU))
        detail = pb.ProfileDetail(
            major_version=1,
            minor_version=2,
            execution_time=min(self.times_us),
            all_execution_times=self.times_us,
            after_execution_peak_memory=3_000_000,
            cold_load_time=250_000,
            warm_load_time=40_000,
        )
        for name, operator, unit in layers:
            detail.layer_details.add(
                name=name, layer_type_name=operator, compute_unit=unit, execution_time=70
            )
        return detail

    def _summaries(self, query: dict[str, str]) -> pb.JobSummaryList:
        found = pb.JobSummaryList()
        for job_id, job in reversed(self.submitted.items()):
            kind = str(job.WhichOneof("job"))
            if query.get("type") == kind.removesuffix("_job"):
                summary = found.job_summaries.add()
                name = getattr(job, kind).name
                getattr(summary, f"{kind}_summary").MergeFrom(
                    getattr(pb, type(getattr(summary, f"{kind}_summary")).__name__)(job_id=job_id, name=name)
                )
        first = int(query.get("offset", 0))
        page = found.job_summaries[first : first + int(query["limit"])]
        return pb.JobSummaryList(job_summaries=page, total_query_count=len(found.job_summaries))


def _file_of(form: bytes) -> bytes:
    """The only file of a form, `multipart/form-data`: between its own head and the last boundary."""
    boundary, _, rest = form.partition(b"\r\n")
    return rest.partition(b"\r\n\r\n")[2].removesuffix(b"--\r\n").removesuffix(b"\r\n" + boundary)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub

    def _serve(self) -> None:
        split = urlsplit(self.path)
        path = split.path.removeprefix("/api/v1")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = path.strip("/").split("/")[0]
        self.hub.requests.append((self.command, kind))
        faults = self.hub.faults[self.command, kind]
        status = faults.pop(0) if faults else 200
        if kind == "blob":
            name = path.strip("/").split("/")[1]
            if self.command == "GET":
                self._send(status, self.hub.uploads[name])
                return
            self.hub.uploads[name] = _file_of(body) if self.command == "POST" else body
            self._send(status, b"", {"ETag": '"etag"'})
        elif self.headers.get("Authorization") != f"token {self.hub.token}":
            self._send(401, b'{"detail": "Invalid token."}')
        elif status not in (0, 200):
            wait = {"Retry-After": self.hub.retry_after} if self.hub.retry_after else {}
            self._send(status, b'{"detail": "Request was throttled."}', wait)
        else:
            query = {key: values[-1] for key, values in parse_qs(split.query).items()}
            answer = self.hub.answer(self.command, path, query, body)
            if status == 0:
                self.close_connection = True
                self.connection.close()
            elif answer is None:
                self._send(404, b'{"detail": "Not found."}')
            else:
                self._send(200, answer.SerializeToString(), {"Content-Type": "application/x-protobuf"})

    do_GET = do_POST = do_PUT = do_PATCH = _serve

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Tests are silent."""
