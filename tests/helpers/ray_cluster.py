"""A real Ray cluster of several nodes on this machine's loopback address."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for taking 127.0.0.1 as a node's address
    "RAY_USAGE_STATS_ENABLED": "0",
}
NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 100 << 20, "include_dashboard": False}


@contextmanager
def running_cluster() -> Iterator[Any]:
    """A cluster whose head computes nothing; nodes are added by `add_node`. Everything is gone afterwards."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'hwnas[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in LOOPBACK.items():
            patch.setenv(name, value)
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE})
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def add_node(cluster: Any, devices: tuple[str, ...] = ()) -> Any:
    """Another node with one core, and devices that hang on it."""
    resources = {f"hwnas:{name}": 1 for name in devices}
    return cluster.add_node(num_cpus=1, resources=resources, **NODE)
