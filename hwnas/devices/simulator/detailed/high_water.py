"""Memory that a network needs when every map is made in one piece."""

from __future__ import annotations

from hwnas.devices.simulator.layers import Network


def layer_by_layer_peak_bytes(network: Network, activation_bytes: int = 1) -> int:
    """Most bytes of maps alive at once, layer after layer: inputs, output, and maps still to be read.

    This is what a runtime without fusion must hold, e.g. 1,372 KiB for MobileNetV2 in int8. A depthwise
    layer that is its input's last reader works in place: an output channel replaces its input channel once
    complete, so beside the larger of both maps one channel is enough (Lin et al., MCUNet, NeurIPS 2020).
    """
    sizes = {p: layer.output_channels * layer.oy * layer.ox for p, layer in enumerate(network.layers)}
    sizes[-1] = network.input_channels * network.input_rows * network.input_cols
    last_use = {p: max(c, default=len(network.layers)) for p, c in enumerate(network.consumers[:-1])}
    last_use[-1] = max(network.consumers[-1], default=-1)
    peak = 0
    alive = {-1}
    for p in range(len(network.layers)):
        layer = network.layers[p]
        source = layer.inputs[0]
        if (
            layer.kind in ("conv", "pool")
            and layer.k == layer.c == 1
            and layer.g > 1
            and last_use[source] <= p
        ):
            beside = sum(sizes[m] for m in alive if m != source)
            peak = max(peak, beside + max(sizes[source], sizes[p]) + min(sizes[source], sizes[p]) // layer.g)
        else:
            peak = max(peak, sum(sizes[m] for m in alive) + sizes[p])
        alive.add(p)
        alive = {m for m in alive if last_use[m] > p}
    return peak * activation_bytes
