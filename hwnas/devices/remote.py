"""A device on whichever machine of a Ray cluster it hangs on; one of the two files that know Ray.

The node that has the device says so when it is started: `ray start --resources='{"hwnas:s20-gpu": 1}'`. An
actor there holds the device, and samples are taken in it; the session that interleaves and stores them is the
driver's.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hwnas.devices.base import BaseDevice, Device, Handle
from hwnas.devices.queue import QueueDevice
from hwnas.devices.registry import device_class
from hwnas.errors import (
    DeviceBusyError,
    DeviceError,
    DeviceLostError,
    HwnasError,
    InputError,
    NetworkFormError,
    PreparationError,
    first_line,
)
from hwnas.extras import install
from hwnas.measurement import Conditions, DeviceProfile, Fingerprint, Layer
from hwnas.network import Network, Part, in_eval_mode
from hwnas.wiring import Wiring

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

INSTALL = install("ray")
ANSWER_S = 10.0
PLACING_S = 60.0
PLACINGS = 3
"""Ray may place an actor in a process that it is about to end; nothing is held yet, so it is placed anew."""


def connect(address: str) -> Any:
    """The module `ray`, connected to a cluster; a second call does nothing.

    Raises:
        InputError: Ray is not installed, or nothing answers there.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray needs the package ray, which is not installed", INSTALL) from None
    if not ray.is_initialized():
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"no Ray cluster answers at {address}: {first_line(error)}",
                "start one on this machine with `ray start --head`, or join one with `ray start --address=…`",
            ) from None
    return ray


def _knock(address: str) -> None:
    """Raise an OSError where nothing listens at a `host:port`; Ray itself asks there for minutes."""
    where = urlsplit(address if "://" in address else f"//{address}")
    if where.port is not None:
        socket.create_connection((where.hostname, where.port), timeout=ANSWER_S).close()


def open_remote(profile: DeviceProfile, address: str) -> BaseDevice:
    """A device of the cluster. A simulator or a cloud that no node offers is reached from this machine.

    Raises:
        DeviceError: no node has this device.
        InputError: there is no such cluster.
    """
    local = device_class(profile.device)(profile)
    ray = connect(address)
    resource = resource_of(profile)
    resources = ray.cluster_resources()
    if isinstance(local, Device) and resource in resources:
        return RemoteDevice(local, address)
    if isinstance(local, QueueDevice) or local.kind == "modelled":
        return local
    offered = sorted(name.removeprefix("hwnas:") for name in resources if name.startswith("hwnas:"))
    raise DeviceError(
        f"no node of the Ray cluster has the device {profile.name}; they have {', '.join(offered) or 'none'}",
        f"start the node that it hangs on with: ray start --address=… --resources='{{\"{resource}\": 1}}'",
    )


def resource_of(profile: DeviceProfile) -> str:
    """What a node calls a device that hangs on it; an option of the command is no other device."""
    batch = profile.options.get("batch")
    return f"hwnas:{profile.name.removesuffix(f'-batch-{batch}')}"


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A network on its way to an actor: which parts, and those that it does not have yet."""

    name: str
    hashes: tuple[str, ...]
    graphs: dict[str, tuple[str, bytes]]
    modules: dict[str, nn.Module]
    calibration: np.ndarray | None
    wiring: Wiring


class RemoteDevice(Device):
    """A device of another node, in an actor that is placed by the node's resource.

    Args:
        local: the same device as this machine would open it; it is never entered.
        address: of the cluster.
    """

    def __init__(self, local: Device, address: str) -> None:
        super().__init__(local.profile)
        self.kind = local.kind
        self.unconfirmed = local.unconfirmed
        self._needs_whole_node = local.needs_quiet_host
        self._ray = connect(address)
        self.needs_quiet_host = local.needs_quiet_host and self._hangs_here()
        self._lock_name = ""
        self._actor: Any = None
        self._known: set[str] = set()
        self._sends_modules = False

    @property
    def lock_name(self) -> str:
        """By node: devices of different nodes do not disturb each other."""
        self._placed()
        return self._lock_name

    def open_impl(self) -> None:
        try:
            self._answer(self._placed().enter.remote())
        except BaseException:
            self._let_go()
            raise

    def close_impl(self) -> None:
        try:
            with suppress(DeviceLostError):  # whoever opens it next cleans up
                self._answer(self._actor.leave.remote())
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """End the actor, so that others can have the device."""
        if self._actor is not None:
            self._ray.kill(self._actor)
        self._actor, self._known = None, set()

    def fingerprint(self) -> Fingerprint:
        found: Fingerprint = self._answer(self._placed().call.remote("fingerprint"))
        return found

    def conditions(self) -> Conditions:
        found: Conditions = self._answer(self._placed().call.remote("conditions"))
        return found

    def prepare_impl(self, network: Network) -> Handle:
        return self._prepare(network, fresh=False)

    def prepare_fresh_impl(self, network: Network) -> Handle:
        return self._prepare(network, fresh=True)

    def sample_impl(self, handle: Handle, runs: int, seconds: float) -> list[float]:
        samples_ms, handle.metrics = self._answer(self._actor.sample.remote(handle.state, runs, seconds))
        return list(samples_ms)

    def release_impl(self, handle: Handle) -> None:
        with suppress(DeviceLostError):  # then nothing is held any more
            self._answer(self._actor.release.remote(handle.state))

    def layers_impl(self, network: Network) -> tuple[Layer, ...]:
        return tuple(self._with_network(network, self._actor.layers.remote))

    def _prepare(self, network: Network, *, fresh: bool) -> Handle:
        key, placement, metrics = self._with_network(
            network, lambda sent: self._actor.prepare.remote(sent, fresh)
        )
        return Handle(network_hash=network.hash, state=key, placement=placement, metrics=metrics)

    def _with_network(self, network: Network, ask: Any) -> Any:
        """Ask with the graphs alone; with the torch modules as well from when the device wants them."""
        try:
            return self._answer(ask(self._packed(network)))
        except NetworkFormError:
            if self._sends_modules:
                raise
        self._sends_modules, self._known = True, set()
        return self._answer(ask(self._packed(network)))

    def _packed(self, network: Network) -> _Sent:
        new = {part.hash: part for part in network.parts if part.hash not in self._known}
        self._known |= set(new)
        modules = {}
        if self._sends_modules:
            modules = {key: part.module() for key, part in new.items()}
        return _Sent(
            name=network.name,
            hashes=tuple(part.hash for part in network.parts),
            graphs={key: (part.name, part.onnx) for key, part in new.items()},
            modules=modules,
            calibration=network.calibration,
            wiring=network.wiring,
        )

    def _placed(self) -> Any:
        """The actor, placed on the node that has the device."""
        if self._actor is None:
            resource = resource_of(self.profile)
            cores = 0.0
            if self._needs_whole_node:  # then no task runs beside the measurement
                cores = min((node["Resources"].get("CPU", 0.0) for node in self._nodes()), default=0.0)
            options = {"num_cpus": cores, "resources": {resource: 1}, "max_restarts": 0}
            for left in reversed(range(PLACINGS)):
                actor = self._ray.remote(Holder).options(**options).remote(self.profile)
                try:
                    self._lock_name = self._answer(actor.ready.remote(), PLACING_S)
                    break
                except BaseException as error:
                    self._ray.kill(actor)
                    if not left or not isinstance(error, DeviceLostError):
                        raise
            self._actor = actor
        return self._actor

    def _nodes(self) -> list[Any]:
        """The nodes that have the device."""
        resource = resource_of(self.profile)
        return [node for node in self._ray.nodes() if node["Alive"] and resource in node["Resources"]]

    def _hangs_here(self) -> bool:
        """Whether a node that has the device is on this machine."""
        own = self._ray.get_runtime_context().get_node_id()
        here = {node["NodeManagerAddress"] for node in self._ray.nodes() if node["NodeID"] == own}
        return any(node["NodeManagerAddress"] in here for node in self._nodes())

    def _answer(self, reference: Any, timeout_s: float | None = None) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=timeout_s)
        except errors.GetTimeoutError:
            raise DeviceBusyError(
                f"device {self.profile.name} was not free for {timeout_s:g} s: it or its node is in use",
                "wait until whoever uses it has ended; `ray status` shows what is taken",
            ) from None
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, HwnasError):
                raise cause from None
            raise PreparationError(
                f"device {self.profile.name} failed on its node: {first_line(cause)}",
                "see the node's logs with `ray logs`",
            ) from None
        except errors.RayError as error:
            raise DeviceLostError(
                f"device {self.profile.name} went away with its node: {first_line(error)}",
                "start the node again, with its resources, and give the same command again",
            ) from None


class Holder:
    """The actor: holds the device on its node."""

    _device: Device

    def __init__(self, profile: DeviceProfile) -> None:
        self._profile = profile
        self._parts: dict[str, Part] = {}
        self._handles: dict[int, Handle] = {}
        self._count = 0

    def ready(self) -> str:
        """What the device occupies; answers once the actor is placed.

        Here and not in the constructor, of which Ray would only tell that the actor died.
        """
        import ray

        device = device_class(self._profile.device)(self._profile)
        assert isinstance(device, Device)
        self._device = device
        node = ray.get_runtime_context().get_node_id()
        return f"ray {node} {device.lock_name or device.profile.name}"

    def enter(self) -> None:
        self._device.__enter__()

    def leave(self) -> None:
        self._device.__exit__(None, None, None)

    def call(self, name: str) -> Any:
        return getattr(self._device, name)()

    def prepare(self, sent: _Sent, fresh: bool) -> tuple[int, Any, Any]:
        handle = self._device.prepare(self._network(sent), fresh=fresh)
        self._count += 1
        self._handles[self._count] = handle
        return self._count, handle.placement, handle.metrics

    def sample(self, key: int, runs: int, seconds: float) -> tuple[Sequence[float], Any]:
        handle = self._handles[key]
        return self._device.sample(handle, runs=runs, seconds=seconds), handle.metrics

    def release(self, key: int) -> None:
        self._device.release(self._handles.pop(key))

    def layers(self, sent: _Sent) -> tuple[Layer, ...]:
        return self._device.layers(self._network(sent))

    def _network(self, sent: _Sent) -> Network:
        for key, (name, graph) in sent.graphs.items():
            self._parts[key] = _part(name, graph, sent.modules.get(key))
        parts = [self._parts[key] for key in sent.hashes]
        return Network(sent.name, parts, sent.calibration, sent.wiring)


def _part(name: str, graph: bytes, module: nn.Module | None) -> Part:
    """A part whose graph and module are at hand."""
    copied = None if module is None else lambda: in_eval_mode(deepcopy(module))
    return Part(name, onnx=lambda: graph, module=copied)
