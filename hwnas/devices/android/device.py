"""An Android phone over adb: whole graphs timed on it by our runner."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hwnas.devices.android.adb import Link, LinkLost, find_serial
from hwnas.devices.android.chips import Phone, check_phone
from hwnas.devices.android.libraries import find_libraries, find_runner, programs, set_hash
from hwnas.devices.android.placement import CPU, placement_of
from hwnas.devices.android.runner_client import JobFailed, Runner, RunnerDied, settings_lines
from hwnas.devices.android.settings import PERF_TEST, provider_of, read_settings, session_entries
from hwnas.devices.android.snapshot import PhoneState, read_phone, read_state
from hwnas.devices.android.storage import Storage
from hwnas.devices.android.weight_files import GraphFiles, graph_files
from hwnas.devices.base import SLOWER, Device, Handle
from hwnas.errors import DeviceError, DeviceLostError, PreparationError
from hwnas.measurement import Conditions, DeviceProfile, Fingerprint
from hwnas.network import Network

if TYPE_CHECKING:
    import numpy as np

    from hwnas.devices.host.runtime import Arrays

INPUTS = "inputs.part"
RUNS_AT_ONCE = 16  # of which outputs are asked
ATTEMPTS = 2  # at one job: a second one after the link was lost or the runner died
SLOTS = 256  # graphs that a runner holds
COOL_LOOK_S = 5.0  # between two looks at a phone that cools down

Result = TypeVar("Result")


@dataclass(eq=False)
class _Loaded:
    """A network on the phone; `runner` is the one that holds it loaded."""

    name: str
    files: GraphFiles
    slot: int
    runner: int


class AndroidDevice(Device):
    """A phone on a cable, or one that answers over TCP.

    Options of the profile:
        target: the serial, or IP:PORT; empty takes the only phone there is. `--device NAME:SERIAL` sets it.
        models, platforms: patterns of `ro.product.model`, names of `ro.board.platform`; another is refused.
        provider: cpu, xnnpack, nnapi or qnn.
        backend: of qnn: htp, gpu or dsp.
        plugin: library of the provider, where it is a plugin and not built into ONNX Runtime. This one, and
            provider.backend_path of qnn, lie on the phone already where they are whole paths.
        provider.KEY, session.KEY: an option of the execution provider, a session config entry.
        threads: within an operator on the CPU; 0 lets ONNX Runtime choose.
        allow_fallback: let nodes run on the CPU that the provider does not take.
        runtime_dir: a folder with the libraries; empty takes what `hwnas devices setup` brought.
        runner: the runner's program; empty takes what `hwnas devices setup` built. A file with the name
            `onnxruntime_perf_test` is ONNX Runtime's own: slower, and it does not tell where nodes ran.
        folder: ours on the phone.
        cache_mb: what graphs may take of the phone's storage.
        max_thermal_status, max_battery_c: above these the phone is too hot, and a repeat is taken again,
        cooldown_s: after waiting up to so many seconds for it to cool down.
        reconnect_s: how long a lost phone may stay away.
        limit_s: for loading a graph, and for what a run takes beyond its seconds.

    Raises:
        DeviceError: an unknown option or one of the wrong type, or a precision that the backend lacks.
    """

    def __init__(self, profile: DeviceProfile, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(profile)
        self.settings = read_settings(profile)
        self.gives_outputs = Path(self.settings.runner).name != PERF_TEST
        self._sleep = sleep
        self._serial = ""
        self._phone = Phone({})
        self._runs = 0  # counts the runners that were started
        self._slots = Counter[int]()
        self._hot = False
        self._uploads: dict[str, Future[GraphFiles]] = {}
        self._worker: ThreadPoolExecutor | None = None

    @property
    def lock_name(self) -> str:
        """By the phone's own serial number: the same phone may hang on a cable and answer over TCP."""
        if not self._serial:
            self._serial = find_serial(self.settings.target)
            self._link = Link(self._serial)
            self._phone = self._reached(lambda: read_phone(self._link))
        return f"android {self._phone['ro.serialno'] or self._serial}"

    def open_impl(self) -> None:
        check_phone(self._phone, self.profile.name, self.settings, self.profile.power_mode)
        self._libraries, self._program = programs(
            find_libraries(self.settings, self._phone), find_runner(self.settings, self._phone)
        )
        folder = self.settings.folder
        self._storage = Storage(self._link, folder, self.settings.cache_mb * 1024 * 1024)
        self._runner = Runner(self._link, folder)
        self._slots.clear()
        self._uploads.clear()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="hwnas-push")
        try:
            self._reached(self._furnish)
        except BaseException:
            self.close_impl()
            raise

    def close_impl(self) -> None:
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)
        self._runner.stop()
        # Without a link the runner's own shell restores the power mode, and the next opening cleans up.
        with contextlib.suppress(LinkLost):
            self._link.shell(f"cd {shlex.quote(self._storage.work)} && rm -f owner *.json *.part")
            self._runner.restore_power_mode()

    def fingerprint(self) -> Fingerprint:
        phone, settings = self._phone, self.settings
        name, options = self._provider()
        details = [f"onnxruntime {self._runner.version}", name or CPU]
        details += [f"{key}={value}" for key, value in sorted(options.items())]
        details += [f"{key}={value}" for key, value in sorted(settings.session_entries.items())]
        details += [f"{settings.threads} threads"] if settings.threads else []
        details += ["CPU fallback"] if settings.allow_fallback else []
        vendor = phone["ro.vendor.build.fingerprint"] or "unknown"
        return Fingerprint(
            chip=f"{phone.model}, {phone.chip_name}",
            os_build=f"Android {phone['ro.build.version.release']}, {phone['ro.build.display.id']}",
            driver=f"{vendor}; libraries {set_hash(self._libraries)}",
            runtime=", ".join(details),
            precision=self.profile.precision,
            power_mode=self.profile.power_mode,
        )

    def conditions(self) -> Conditions:
        """`throttled` and `limits` by the profile's thermal limits."""
        found = self._reached(self._state).conditions
        self._hot = bool(found.throttled)
        return found

    def stage(self, networks: Sequence[Network]) -> None:
        """Copy graphs to the phone in the background, while those before them are loaded."""
        for network in networks:
            self._upload(network)

    def prepare_impl(self, network: Network) -> Handle:
        start_s = time.monotonic()
        slot = next((slot for slot in range(SLOTS) if not self._slots[slot]), None)
        if slot is None:
            raise DeviceError(f"{SLOTS} networks are prepared at once", "release some of them")

        def load() -> tuple[_Loaded, dict[str, object]]:
            upload = self._upload(network)
            del self._uploads[network.hash]  # one that failed is not to be asked again
            files = upload.result()
            loaded = _Loaded(network.name, files, slot, 0)
            try:
                return loaded, self._load(loaded)
            except BaseException:
                self._storage.drop(files.contents)
                raise

        loaded, found = self._attempt(network.name, load)
        try:
            placement = placement_of(network.name, found["placement"], self.settings)
        except PreparationError:
            self._release(loaded)
            raise
        self._slots[slot] = 1
        measured_ms = float(str(found["first_run_ms"]))
        return Handle(
            network_hash=network.hash,
            state=loaded,
            placement=placement,
            metrics={
                "load_ms": float(str(found["load_ms"])),
                "peak_memory_bytes": float(str(found["peak_memory_bytes"])),
                "overhead_ms": 1000 * (time.monotonic() - start_s) - measured_ms,
            },
        )

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        self._cool_down()
        start_s = time.monotonic()
        loaded: _Loaded = handle.state
        limit_s = self.settings.limit_s + 2 * seconds

        def run() -> list[float]:
            self._require_loaded(loaded)
            return [float(ms) for ms in self._runner.run(loaded.slot, runs, seconds, limit_s)["samples_ms"]]

        samples_ms = self._attempt(loaded.name, run)
        overhead_ms = 1000 * (time.monotonic() - start_s) - sum(samples_ms)
        handle.metrics = {**handle.metrics, "overhead_ms": handle.metrics["overhead_ms"] + overhead_ms}
        return samples_ms

    def outputs_impl(self, handle: Handle, runs: Sequence[Arrays]) -> list[list[np.ndarray[Any, Any]]]:
        """Some runs a job: the way there and back takes as long as many of them."""
        loaded: _Loaded = handle.state
        groups = [runs[start : start + RUNS_AT_ONCE] for start in range(0, len(runs), RUNS_AT_ONCE)]
        found = []
        for group in groups:
            limit_s = self.settings.limit_s + SLOWER * len(group) * handle.prepared_s
            content = b"".join(array.astype("<f4").tobytes() for inputs in group for array in inputs)
            found += self._attempt(loaded.name, partial(self._infer, loaded, content, limit_s))
        return found

    def _infer(self, loaded: _Loaded, content: bytes, limit_s: float) -> list[list[np.ndarray[Any, Any]]]:
        self._require_loaded(loaded)
        self._storage.write(INPUTS, content)
        try:
            return self._runner.infer(loaded.slot, INPUTS, limit_s)
        except JobFailed as error:
            if not str(error).startswith("unknown job"):
                raise
            raise DeviceError(
                f"the runner on {self._phone.model} is of an earlier hwnas and gives no outputs",
                "build it anew: hwnas devices setup NAME --ndk FOLDER",
            ) from error

    def release_impl(self, handle: Handle) -> None:
        self._release(handle.state)
        self._slots[handle.state.slot] = 0

    def _release(self, loaded: _Loaded) -> None:
        self._storage.drop(loaded.files.contents)
        if loaded.runner == self._runs:
            with contextlib.suppress(LinkLost, RunnerDied):  # a runner that is gone holds nothing
                self._runner.release(loaded.slot)

    def _furnish(self) -> None:
        """Everything on the phone that the first graph needs."""
        self._runner.claim()
        self._storage.open()
        self._runner.restore_power_mode()
        self._place = self._storage.install(self._libraries, self._program)
        self._start_runner()

    def _start_runner(self) -> None:
        name, options = self._provider()
        lines = settings_lines(
            self.settings.threads, session_entries(self.settings), name, self._plugin(), options
        )
        self._runner.start(*self._place, self.profile.power_mode == "fixed-performance", lines)
        self._runs += 1

    def _provider(self) -> tuple[str, dict[str, str]]:
        chip = self._phone.chip
        hexagon, qnn_id = (chip.hexagon, chip.qnn_id) if chip else (0, 0)
        return provider_of(self.settings, self.profile.precision, hexagon, qnn_id)

    def _plugin(self) -> str:
        plugin = self.settings.plugin
        return plugin if not plugin or plugin.startswith("/") else f"{self._place[0]}/{plugin}"

    def _upload(self, network: Network) -> Future[GraphFiles]:
        assert self._worker is not None
        if network.hash not in self._uploads:
            self._uploads[network.hash] = self._worker.submit(self._bring, network)
        return self._uploads[network.hash]

    def _bring(self, network: Network) -> GraphFiles:
        files = graph_files(network.onnx(self.profile.precision))
        self._storage.bring(files.contents)
        return files

    def _require_loaded(self, loaded: _Loaded) -> None:
        if loaded.runner != self._runs or not self._runner.runs:
            self._load(loaded)

    def _load(self, loaded: _Loaded) -> dict[str, object]:
        if not self._runner.runs:
            self._start_runner()
        found = self._runner.load(loaded.slot, loaded.files.graph, self.settings.limit_s)
        loaded.runner = self._runs
        return found

    def _state(self) -> PhoneState:
        return read_state(self._link, self.settings.max_thermal_status, self.settings.max_battery_c)

    def _cool_down(self) -> None:
        """Wait for a phone that was too hot at the last look; at most as long as the profile says."""
        waited_s = 0.0
        while self._hot and waited_s < self.settings.cooldown_s:
            self._sleep(COOL_LOOK_S)
            waited_s += COOL_LOOK_S
            self._hot = bool(self._reached(self._state).conditions.throttled)
        self._hot = False

    def _attempt(self, network: str, job: Callable[[], Result]) -> Result:
        """Do a job of a network, once more after the link was lost or the runner died.

        Raises:
            PreparationError: ONNX Runtime refuses the network, or the runner died of it twice.
            DeviceLostError: the phone stays away.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return job()
            except JobFailed as error:
                raise PreparationError(
                    f"ONNX Runtime cannot run {network} on {self._phone.model}: {error}",
                    "replace the operator that it names, or see --device-option allow_fallback=true",
                ) from error
            except RunnerDied as error:
                if attempt == ATTEMPTS:
                    raise PreparationError(
                        f"{network} ends the runner on {self._phone.model}, {ATTEMPTS} times: {error}",
                        "the driver may not bear it: try another backend or precision",
                    ) from error
            except LinkLost as error:
                if attempt == ATTEMPTS:
                    raise self._lost(error) from error
                self._runner.stop()
                self._reached(self._furnish)
        raise AssertionError("every way out of the loop is taken above")

    def _reached(self, action: Callable[[], Result]) -> Result:
        """Do something with the phone; a lost one is asked for until `reconnect_s` have passed.

        Raises:
            DeviceLostError: it stays away.
        """
        waited_s = 0.0
        while True:
            try:
                return action()
            except LinkLost as error:
                if waited_s >= self.settings.reconnect_s:
                    raise self._lost(error) from error
            self._sleep(1.0)
            waited_s += 1.0
            try:
                self._link.reconnect()
            except LinkLost:
                continue

    def _lost(self, error: LinkLost) -> DeviceLostError:
        return DeviceLostError(
            f"phone {self._serial} went away: {error}",
            "plug it in again, then give the same command again: what was measured is kept",
        )
