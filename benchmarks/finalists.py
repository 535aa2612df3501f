"""The networks that equal_latency.py compares: found, finetuned, measured. What is done stays on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pruning_peer import Peer
from result_tables import Row, spent_since
from torch import nn

from hwnas.compress.library.device_run import DeviceRun
from hwnas.compress.quality.finetune import finetune
from hwnas.compress.quality.model import prepare_quality
from hwnas.compress.run.cost_log import Cost, CostLog, read_costs
from hwnas.compress.search.pick import pick
from hwnas.compress.search.search import search_device
from hwnas.compress.training import loop
from hwnas.errors import HwnasError, InputError
from hwnas.files import decode, encode, read_json, safe_name, write_json
from hwnas.measurement import Measurement, Protocol
from hwnas.network import Network
from hwnas.networks.count import count
from hwnas.networks.exported import network_of
from hwnas.profiles.catalogue import open_device
from hwnas.profiles.session import Session
from hwnas.profiles.statistics import median_interval
from hwnas.profiles.store import MeasurementStore

BOUNDS = (0.75, 0.5, 0.35)
PEER = "torch-pruning"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all methods share.

    Attributes:
        out: folder of everything that is kept.
        device: that is searched for and measures.
        margin: share of a bound by which less is asked for.
    """

    out: Path
    device: DeviceRun
    margin: float

    def limit(self, bound: float) -> float:
        """What the methods are asked for."""
        return bound * (1 - self.margin)

    def session(self, store: MeasurementStore, protocol: Protocol, recall: bool = True) -> Session:
        """On the device, with the reference as the anchor."""
        device, anchor = open_device(self.device.target.profile), self.device.stitcher.reference
        return Session(device, protocol, store, anchor=anchor, recall=recall)


Finalist = tuple[Row, nn.Module | None]
"""What is known of it, and its module; None where a method has no network."""


def note(out: Path, number: int, name: str, account: Path, **more: Any) -> None:
    """Keep what a method has found, and what it spent beyond the methods before it."""
    earlier = [decode(list[Cost], read_json(path)["spent"], path) for path in records(out)]
    spent = spent_since(read_costs(account), *earlier)
    write_json(
        out / f"{number}-{safe_name(name)}.json", {"name": name, "spent": [encode(s) for s in spent], **more}
    )


def records(out: Path) -> list[Path]:
    return sorted(out.glob("[0-9]-*.json"))


def searched(bench: Bench, number: int, name: str, bounds: Sequence[float]) -> list[Finalist]:
    """The best networks of the library within some bounds, by one strategy, finetuned."""
    device, run = bench.device, bench.device.run
    quality = prepare_quality(device)
    record = bench.out / f"{number}-{safe_name(name)}.json"
    epochs = device.search.finetune_epochs

    def finetuned(choices: Sequence[int]) -> nn.Module:
        what = f"finetune {'-'.join(map(str, choices))}"

        def tell(done: int, loss: float) -> None:
            run.progress.advance(what, done, epochs, f"loss {loss:.3f}")

        return finetune(device, tuple(choices), epochs, tell)[0]

    if not record.exists():
        outcome = search_device(device, quality)
        front = [row.point for row in outcome.front]
        picks: dict[str, list[int] | str] = {}
        for bound in bounds:
            rule = f"speedup={1 / bench.limit(bound)!r}"
            try:
                point = pick(front, rule, outcome.objectives, outcome.anchor_latency_ms)
            except InputError as error:
                picks[f"{bound:g}"] = error.cause
                continue
            picks[f"{bound:g}"] = list(point.choices)
            finetuned(point.choices)
        account = run.directory.cost_log.path
        note(bench.out, number, name, account, picks=picks, networks=outcome.evaluated)
    found: list[Finalist] = []
    for bound, choices in ((bound, read_json(record)["picks"][f"{bound:g}"]) for bound in bounds):
        if isinstance(choices, str):
            found.append((Row(method=name, bound=bound, reason=choices), None))
        else:
            row = Row(method=name, bound=bound, network="-".join(map(str, choices)))
            found.append((row, finetuned(choices)))
    return found


def pruned(
    bench: Bench, choose_epochs: int, bounds: Sequence[float] = BOUNDS, **tried: Sequence[Any]
) -> list[Finalist]:
    """The networks of torch-pruning.

    Args:
        choose_epochs: of each try at the bound in the middle, before the best way and rate are taken.
        tried: `ways` and `rates` of `Peer`, where these are not all.
    """
    device, run = bench.device, bench.device.run
    folder = bench.out / "pruning"
    folder.mkdir(exist_ok=True)
    shape = (1, *run.reference.measured.image_shape)

    def latency_ratio(module: nn.Module) -> float:
        network = Network.from_module("pruned", module, shape)
        with (
            MeasurementStore(folder / "measurements.db") as store,
            bench.session(store, device.target.protocol, recall=False) as session,
        ):
            ((_, result),) = session.measure([network])
        if not isinstance(result, Measurement):
            raise HwnasError(f"a pruned network could not be measured: {result.reason}", "start again")
        return result.anchor_ratio

    peer = Peer(
        folder=folder,
        reference=run.reference,
        settings=run.settings,
        latency_ratio=latency_ratio,
        account=CostLog(folder / "account.json"),
        progress=run.progress,
        **tried,
    )
    way, rate = peer.choose(bench.limit(bounds[len(bounds) // 2]), choose_epochs)
    found: list[Finalist] = []
    for bound in bounds:
        module = peer.network(way, rate, bench.limit(bound), device.search.finetune_epochs)
        row = Row(method=PEER, bound=bound, network=f"{way}, rate {rate:.2g}")
        if module is None:
            row = replace(row, reason=f"no ratio reaches it by {way}")
        found.append((row, module))
    return found


def measured(bench: Bench, finalists: Sequence[Finalist], protocol: Protocol) -> list[Row]:
    """All finalists in one session, and their answers on the part `test`."""
    run, reference = bench.device.run, bench.device.run.reference
    data, task, shape = reference.data, reference.task, reference.measured.image_shape
    networks: dict[int, Network] = {}
    for number, (row, module) in enumerate(finalists):
        if module is None:
            continue
        name = f"{row.method}, {row.bound:g}"
        networks[number] = (
            Network.from_module(name, module, (1, *shape))
            if row.method == PEER
            else network_of(module, reference.measured, name)
        )
    with MeasurementStore(bench.out / "finalists.db") as store, bench.session(store, protocol) as session:
        run.progress.say(f"measuring {len(networks)} finalists by the protocol {protocol.name}")
        results = [result for _, result in session.measure(networks.values())]
    rows = [row for row, _ in finalists]
    for number, result in zip(networks, results, strict=True):
        module = finalists[number][1]
        assert module is not None
        if not isinstance(result, Measurement):
            rows[number] = replace(rows[number], reason=result.reason)
            continue
        macs, params = count(module, shape)
        rows[number] = replace(
            rows[number],
            latency_ratio=median_interval(result.anchor_ratios),
            latency_ms=median_interval(result.medians_ms),
            reference_ms=median_interval(result.anchor_ms),
            scores=loop.scores(module, data, task),
            macs=macs,
            params=params,
        )
    return rows
