"""The report's sections: what stands under each heading."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.compress.emit.summary import in_short, milliseconds, ratio
from hwnas.compress.library.stitch import joined_choices
from hwnas.compress.report import plots
from hwnas.compress.report.drawing import Box, draw
from hwnas.compress.report.layers import FILE, SimilarityRecord, layers
from hwnas.compress.report.proxies import Agreement, agreement, growth
from hwnas.compress.report.quality import against_exact, loss_text, predictor, what_loss_is
from hwnas.compress.report.stored import Checkpoint, Search, StoredRun
from hwnas.compress.search.block_costs import BlockCosts
from hwnas.compress.search.points import Point
from hwnas.compress.tasks.task import difference, quantity
from hwnas.files import encode
from hwnas.page import Content, Drawing, Grid, Headline, Section, Table
from hwnas.profiles.judgement import as_sentence, judge, sentences
from hwnas.profiles.protocols import describe
from hwnas.profiles.statistics import median_interval

UNKNOWN = "–"


def sections(stored: StoredRun) -> list[Section]:
    """Everything, the summary first."""
    several = len(stored.searches) > 1
    made = [summary(stored)]
    timed = next((s.blocks for s in stored.searches if s.blocks is not None), None)
    if stored.checkpoints and timed is not None and timed.cost == "latency":
        made.append(times_of_parts(stored, timed))
    for search in stored.searches:
        behind = f" ({search.kind})" if several else ""
        made.append(front(stored, search, f"Front{behind}"))
        if search.blocks is not None:
            made += sums(stored, search, search.blocks, f"Sums of block costs against whole networks{behind}")
            made.append(filtered(search, search.blocks, f"Candidates of each block{behind}"))
        made.append(progress(search, f"Search{behind}"))
    if stored.predictor is not None:
        made.append(predictor(stored, stored.predictor))
    made.append(architectures(stored))
    if (stored.folder / FILE).is_file():
        found = SimilarityRecord.read(stored.folder)
        if _is_of(found, stored):
            made.append(layers(found))
    return [*made, costs(stored), failures(stored), identity(stored)]


def _is_of(found: SimilarityRecord, stored: StoredRun) -> bool:
    """Whether layers were compared of this very front and these checkpoints."""
    front = [row.choices for row in stored.searches[0].front.front]
    names = ["reference", *(checkpoint.name for checkpoint in stored.checkpoints)]
    return [each.choices for each in found.front] == front and [n.name for n in found.networks] == names


def summary(stored: StoredRun) -> Section:
    """The reference against each checkpoint."""
    content: list[Content] = [_what_for(stored)]
    rows: list[Sequence[str]] = []
    for checkpoint in stored.checkpoints:
        s = checkpoint.summary
        content += [f"Checkpoint {checkpoint.name}:", Headline(figures=in_short(s))]
        if not rows:
            rows.append(
                [
                    "reference",
                    quantity(s.accuracy_reference, s.metric),
                    UNKNOWN,
                    milliseconds(s.latency_reference_ms),
                    "1",
                    f"{s.macs_reference / 1e6:,.2f}",
                    f"{s.params_reference / 1e3:,.0f}",
                ]
            )
        rows.append(
            [
                checkpoint.name,
                quantity(s.accuracy, s.metric),
                difference(s.accuracy_difference, s.metric),
                milliseconds(s.latency_ms),
                ratio(s.latency_ratio),
                f"{s.macs / 1e6:,.2f}",
                f"{s.params / 1e3:,.0f}",
            ]
        )
    if not rows:
        content.append("No checkpoint has been emitted for this device yet.")
        return Section(heading="Summary", content=content)
    metric = stored.checkpoints[0].summary.metric.name
    columns = ("", metric, "difference", "latency", "ratio", "MMACs", "k params")
    content.append(Table(columns=columns, rows=rows))
    quality = plots.checkpoints_plot(stored.checkpoints)
    if quality is not None:
        content.append(quality)
    if any(checkpoint.summary.further_metrics for checkpoint in stored.checkpoints):
        content.append(_further(stored.checkpoints))
    judged = sentences([judge(checkpoint.measurement) for checkpoint in stored.checkpoints])
    content += [as_sentence(text) for text in judged]
    protocols = sorted({checkpoint.summary.protocol for checkpoint in stored.checkpoints})
    content.append(
        "In brackets: 95 % intervals. Quality on the test part; difference on the same images. Latency by "
        f"the protocol {', '.join(protocols)}; the ratio is to the reference in the same session, the two "
        "interleaved. The reference’s row is of the session of the first checkpoint."
    )
    return Section(heading="Summary", content=content)


def _further(checkpoints: Sequence[Checkpoint]) -> Table:
    """The further metrics of each checkpoint."""
    rows = [
        [
            checkpoint.name,
            each.metric.name,
            quantity(each.reference, each.metric),
            quantity(each.value, each.metric),
            difference(each.difference, each.metric),
        ]
        for checkpoint in checkpoints
        for each in checkpoint.summary.further_metrics
    ]
    return Table(columns=("", "metric", "reference", "this network", "difference"), rows=rows)


def times_of_parts(stored: StoredRun, blocks: BlockCosts) -> Section:
    """Where the time of the reference and of each checkpoint goes."""
    named = [("reference", (0,) * len(blocks.parts))]
    named += [(checkpoint.name, checkpoint.summary.choices) for checkpoint in stored.checkpoints]
    return Section(
        heading="Where the time goes",
        content=[
            "Latency of each part alone, as the search took it. Together they are not the whole network’s: a "
            "runtime joins layers across parts, and each part alone has a call of its own.",
            plots.parts_plot(blocks, named),
        ],
    )


def _what_for(stored: StoredRun) -> str:
    text = f"{stored.settings.model}, compressed for the device {stored.device} with the data "
    text += f"{stored.settings.data}."
    if stored.settings.measure_size:
        height, width = stored.settings.measure_size
        text += f" Latencies and MACs are of images of {width} × {height} pixels."
    fingerprint = stored.searches[0].front.fingerprint
    if fingerprint is not None:
        text += f" Measured on {fingerprint.chip}, {fingerprint.runtime}, {fingerprint.precision} "
        text += f"(fingerprint {fingerprint.id})."
    return text


def front(stored: StoredRun, search: Search, heading: str) -> Section:
    """Every network that was searched, and what no other one beats."""
    failed = len(search.points) - len(search.measured)
    text = (
        f"{len(search.measured)} networks were evaluated, {len(search.front.front)} of them are on the "
        f"front{f', {failed} failed' if failed else ''}. {what_loss_is(stored, search)} "
        "Hover over a point for its architecture."
    )
    if any(search.front.anchor):
        text += (
            f" The device refuses the reference, whose latency there is not known: what is measured are "
            f"ratios to the anchor {joined_choices(search.front.anchor)}, the accepted architecture with the "
            "lowest loss."
        )
    predicts = search.front.predicts
    columns = (
        "network",
        "predicted accuracy" if predicts else "loss",
        *(f"{o} / {search.unit(o)}" for o in search.front.objectives),
        "ms",
        "MMACs",
        "k params",
    )
    picked = plots.picks(stored, search)
    first, *others = plots.front_plots(stored, search)
    rows = [
        [
            joined_choices(row.choices) + "".join(f" ← {rule}" for rule in picked.get(row.choices, [])),
            loss_text(row),
            *(f"{row.cost_ratios[objective]:.3f}" for objective in search.front.objectives),
            UNKNOWN if row.latency_ms is None else f"{row.latency_ms:.3f}",
            f"{row.macs / 1e6:,.2f}",
            f"{row.params / 1e3:,.0f}",
        ]
        for row in search.front.front
    ]
    content: list[Content] = [
        text,
        *(as_sentence(judged) for judged in search.front.judgement),
        first,
        *([Grid(plots=others)] if others else []),
        Table(columns=columns, rows=rows, folded=f"All {len(rows)} networks of the front"),
    ]
    if any(row.extrapolates for row in search.front.front):
        content.append("* beyond the networks that the predictor was fitted to.")
    if search.front.exact is not None:
        content.append(against_exact(search.front.exact))
    return Section(heading=heading, content=content)


def sums(stored: StoredRun, search: Search, blocks: BlockCosts, heading: str) -> list[Section]:
    """How far sums of block costs, MACs and parameters are from the measured latency."""
    costs = {(part.part, row.choice): row.cost for part in blocks.parts for row in part.choices}
    anchor_ms = blocks.anchor_latency_ms or blocks.reference_latency_ms
    if blocks.cost != "latency" or anchor_ms is None or search.front.anchor_latency_ms is None:
        return []
    if blocks.joints is None:
        return []
    drift = search.front.anchor_latency_ms / anchor_ms
    known: list[tuple[Point, float, float]] = []
    for point in search.measured:
        whole_ms = search.latency_ms(point)
        of_parts = [costs.get(key) for key in enumerate(point.choices)]
        if whole_ms is not None and None not in of_parts:
            total_ms = blocks.joints + sum(cost for cost in of_parts if cost is not None)
            known.append((point, whole_ms, drift * total_ms))
    if not known:
        return []
    losses = [point.loss for point, _, _ in known]
    measured_ms = [whole_ms for _, whole_ms, _ in known]
    sums_ms = [total_ms for _, _, total_ms in known]
    errors = [total / whole - 1 for total, whole in zip(sums_ms, measured_ms, strict=True)]
    counted = [stored.counts(point.choices) for point, _, _ in known]
    rankers: list[tuple[str, Sequence[float]]] = [
        ("latency of the whole network", measured_ms),
        ("sum of block latencies", sums_ms),
        *_sums_of_layers(blocks, [point for point, _, _ in known]),
        ("MACs", [macs for macs, _ in counted]),
        ("parameters", [params for _, params in counted]),
    ]
    rows = [_agreement_row(name, agreement(losses, measured_ms, ranker)) for name, ranker in rankers]
    columns = (
        "ranked by", "Kendall τ with latency", "hypervolume", "slower, median", "slower, at most", "networks"
    )  # fmt: skip
    content: list[Content] = [
        f"Each block was timed on its own as well. {_sum_error(errors)} Both are ratios to the anchor "
        "measured beside them, so a drift of the machine’s speed between blocks and networks is no part of "
        "this.",
        plots.sums_plot(measured_ms, sums_ms, [joined_choices(point.choices) for point, _, _ in known]),
        "What would have been chosen without measuring whole networks: from the networks of this search, "
        "the front of loss against each ranker, its networks taken at their measured latency. Hypervolume "
        "is relative to the front by measured latency; slower is against the fastest network that loses no "
        "more. The search itself went after measured latency, so this compares choosing, not searching.",
        Table(columns=columns, rows=rows),
    ]
    return [Section(heading=heading, content=content)]


def _sum_error(errors: Sequence[float]) -> str:
    """How far sums are from what was measured; no error in common is named that the networks do not show."""
    interval = median_interval(errors)
    reach = f"for single networks it is from {min(errors):+.1%} to {max(errors):+.1%}."
    text = f"Over {len(errors)} networks the sum of the blocks’ latencies"
    within = f"[{interval.low:+.1%}, {interval.high:+.1%}]"
    if interval.low <= 0 <= interval.high:
        return f"{text} has no error in common {within}; {reach}"
    return f"{text} is off the measured one by {interval.value:+.1%} {within} in the median; {reach}"


def _sums_of_layers(blocks: BlockCosts, points: Sequence[Point]) -> list[tuple[str, Sequence[float]]]:
    """A ranker by the times of single layers, where the device tells them for every choice."""
    alone = {(part.part, row.choice): row.single_layers_ms for part in blocks.parts for row in part.choices}
    sums_ms = []
    for point in points:
        of_parts = [ms for key in enumerate(point.choices) if (ms := alone.get(key)) is not None]
        if len(of_parts) < len(point.choices):
            return []
        sums_ms.append(sum(of_parts))
    return [("sum of single layers", sums_ms)]


def _agreement_row(name: str, found: Agreement) -> list[str]:
    tau = UNKNOWN if found.kendall_tau is None else f"{found.kendall_tau:.3f}"
    return [
        name,
        tau,
        f"{found.hypervolume_ratio:.3f}",
        f"{found.slower_median:.1%}",
        f"{found.slower_largest:.1%}",
        str(found.networks),
    ]


def filtered(search: Search, blocks: BlockCosts, heading: str) -> Section:
    """What the filter saw and removed (DONNAv2 figure 3)."""
    candidates = [row for part in blocks.parts for row in part.choices if row.choice]
    removed = sum(not row.kept for row in candidates)
    unit = "anchor" if any(search.front.anchor) else "reference"
    return Section(
        heading=heading,
        content=[
            f"Cost ({blocks.cost}) of each candidate relative to the {unit}’s own block, against its "
            f"block loss. {removed} of {len(candidates)} candidates were left out of the search (×): "
            f"another choice of the block loses no more and is cheaper by more than {blocks.threshold:g}. "
            "The dotted line is that limit, the star the reference’s own block.",
            Grid(plots=plots.block_plots(blocks, unit)),
        ],
    )


def progress(search: Search, heading: str) -> Section:
    """How the front grew."""
    values = [(point.loss, *(point.costs or ())) for point in search.measured]
    return Section(
        heading=heading,
        content=[
            "Hypervolume of the best front so far. A curve that still rises at its end asks for more "
            "generations.",
            plots.growth_plot(growth(values)),
        ],
    )


def architectures(stored: StoredRun) -> Section:
    """The reference and the emitted networks, block by block."""
    parts = stored.reference.parts
    networks = [("reference", [Box(spec=None, macs=macs) for macs in stored.reference.macs])]
    for checkpoint in stored.checkpoints:
        boxes = []
        for part, choice in enumerate(checkpoint.summary.choices):
            entry = stored.entries.get((part, choice))
            spec = checkpoint.architecture.parts[part]
            boxes.append(Box(spec=spec, macs=entry.candidate.macs if entry else stored.reference.macs[part]))
        networks.append((checkpoint.name, boxes))
    return Section(
        heading="Networks",
        content=[
            "One bar a layer. Colour: kernel 3 blue, 5 orange, 7 pink; attention, and a variant of "
            "the reference’s own part, green; the reference’s own grey. Length: channels inside of a layer "
            "over those of the block. Dashed: grouped convolutions. Dot: squeeze-and-excitation.",
            Drawing(svg=draw(parts, networks)),
        ],
    )


def costs(stored: StoredRun) -> Section:
    """Time and epochs by step: the papers' account of cost."""
    if not stored.costs:
        return Section(heading="Time and epochs", content=["The run has kept no account."])
    total_s = sum(entry.seconds for entry in stored.costs)
    rows = [
        [
            entry.step,
            duration(entry.seconds),
            f"{entry.seconds / total_s:.0%}",
            f"{entry.images:,}",
            f"{entry.epochs:,.1f}",
            f"{entry.training_flops / 1e12:,.3g}",
        ]
        for entry in stored.costs
    ]
    epochs, flops = (
        sum(entry.epochs for entry in stored.costs),
        sum(entry.training_flops for entry in stored.costs),
    )
    images = sum(entry.images for entry in stored.costs)
    rows.append(["total", duration(total_s), "100%", f"{images:,}", f"{epochs:,.1f}", f"{flops / 1e12:,.3g}"])
    names = [entry.step for entry in stored.costs]
    seconds = [entry.seconds for entry in stored.costs]
    trained = [entry for entry in stored.costs if entry.images]
    bars = [plots.bars("seconds", names, seconds, [duration(value) for value in seconds])]
    if trained:
        values = [entry.epochs for entry in trained]
        bars.append(
            plots.bars("epochs", [e.step for e in trained], values, [f"{value:,.1f}" for value in values])
        )
    return Section(
        heading="Time and epochs",
        content=[
            Table(
                columns=("step", "time", "share", "images trained on", "epochs", "training TFLOPs"), rows=rows
            ),
            Grid(plots=bars),
            "An epoch is as many images as the training part holds, summed over all networks that were "
            "trained; a last partial batch of an epoch is dropped. Reference, distillation and predictor "
            "networks serve every device, the rest is of this one. Training FLOPs: 3 × 2 × MACs × images, "
            "the teacher’s passes not counted. Time that a kill lost, with the work that it lost, is not in "
            "it.",
        ],
    )


def failures(stored: StoredRun) -> Section:
    """What could not be trained, or not be measured, with the reasons."""
    rows = [
        [entry.candidate.name, "distillation", entry.reason or UNKNOWN]
        for entry in stored.entries.values()
        if entry.state == "failed"
    ]
    for search in stored.searches:
        for part in search.blocks.parts if search.blocks else ():
            rows += [
                [f"{part.name}: {row.name}", "block cost", row.reason] for row in part.choices if row.reason
            ]
        rows += [
            [joined_choices(point.choices), "search", point.reason] for point in search.points if point.reason
        ]
    if not rows:
        return Section(heading="Failures", content=["None."])
    return Section(heading="Failures", content=[Table(columns=("what", "step", "reason"), rows=rows)])


def identity(stored: StoredRun) -> Section:
    """What the figures belong to: device, protocol, settings, versions."""
    found = stored.searches[0].front
    rows: list[Sequence[str]] = [["device", stored.device]]
    if found.fingerprint is not None:
        rows.append(["fingerprint", found.fingerprint.id])
        rows += [[key.replace("_", " "), str(value)] for key, value in encode(found.fingerprint).items()]
    rows.append(["protocol of the search", describe(found.protocol)])
    protocols = dict.fromkeys(describe(c.measurement.protocol) for c in stored.checkpoints)
    rows += [["protocol of the checkpoints", protocol] for protocol in protocols]
    rows += [[f"command of {c.name}", c.summary.command] for c in stored.checkpoints]
    rows += [
        [key.replace("_", " "), UNKNOWN if value == () else str(value)]
        for key, value in encode(stored.settings).items()
    ]
    rows += [[f"version of {name}", version] for name, version in stored.versions.items()]
    return Section(heading="Device and settings", content=[Table(columns=("", ""), rows=rows)])


def duration(seconds: float) -> str:
    """`1:02:03` hours, `2:03` minutes, or `4.5 s`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h" if minutes >= 60 else f"{minutes}:{rest:02d} min"
    )
