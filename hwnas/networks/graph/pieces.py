"""A region as a module of its own."""

from __future__ import annotations

from torch import fx

from hwnas.networks.graph.regions import Flow, Region


def piece(flow: Flow, region: Region) -> fx.GraphModule:
    """Return the module that computes a region's exit from its entry, with the traced network's weights."""
    made = fx.Graph()
    copies = {region.entry: made.placeholder("x")}
    for node in flow.traced.graph.nodes:
        if node in region.inside and flow.is_batch(node) and node.args[0] not in copies:
            copies[node] = made.call_method("size", (copies[region.entry], 0))
        elif node in region.inside or (node.op == "get_attr" and not region.inside.isdisjoint(node.users)):
            copies[node] = made.node_copy(node, lambda other: copies[other])
    made.output(copies[region.exit])
    return fx.GraphModule(flow.traced.module, made)
