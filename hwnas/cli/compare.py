"""`hwnas compare`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.options import takes
from hwnas.cli.output import Json, TerminalProgress, print_json
from hwnas.cli.tables import Column, figures, print_table, print_text
from hwnas.profiles.options import CompareOptions

if TYPE_CHECKING:
    from hwnas.profiles.comparison import Comparison

EXAMPLE = """Examples:

`hwnas compare efficientnet_b0 runs/demo/checkpoints/cpu-knee --device cpu`

`hwnas compare old.onnx new.onnx --device cpu --precision 0.5% --max-seconds 120 --json`
"""


@takes(CompareOptions)
def compare(
    first: Annotated[
        str, typer.Argument(help="timm or torchvision name, .onnx file, checkpoint, or module:function.")
    ],
    second: Annotated[str, typer.Argument(help="The network that is held against the first one.")],
    device: Annotated[str, typer.Option(help="Device profile; see `hwnas devices`.")],
    options: CompareOptions,
    as_json: Json = False,
) -> None:
    """Interleave two networks in one session and show the ratio of their latencies with its interval."""
    from hwnas import api

    with TerminalProgress(moves=False) as progress:
        result = api.compare(first, second, device, progress=progress, **vars(options))
    if as_json:
        print_json(result.to_json())
    else:
        _show(result, options.precision)


def _show(result: Comparison, wanted: float) -> None:
    from hwnas.profiles.comparison import FEWEST_REPEATS

    first, second = result.models
    ratio = result.ratio
    print_text(
        f"{second} takes {ratio.value:.4f} ({ratio.low:.4f} … {ratio.high:.4f}) of the latency of {first} "
        f"on {result.device}"
    )
    rows = [
        [
            name,
            *(f"{latency_ms:.3f}" for latency_ms in latencies),
            f"{ratio.value:.4f}",
            f"{ratio.low:.4f} … {ratio.high:.4f}",
        ]
        for name, latencies, ratio in (
            ("lower decile: without what else ran", result.undisturbed_ms, result.ratio),
            ("median", result.median_ms, result.median_ratio),
        )
    ]
    columns = [
        Column(name="latency"),
        *figures("first, ms", "second, ms"),
        *figures("ratio"),
        *figures("95 % interval", rank=1),
    ]
    print_table(columns, [rows])
    width = (result.ratio.high - result.ratio.low) / 2 / result.ratio.value
    outcome = f"not as precise as asked for ({wanted:.2%}): the time was up at ± {width:.2%}"
    if result.is_precise:
        outcome = f"precise enough: ± {width:.2%}"
    elif result.repeats < FEWEST_REPEATS:
        outcome = "too few for an interval: smallest and largest ratio are shown; give more --max-seconds"
    print_text(f"{result.repeats} interleaved repeats; {outcome}")
    for text in result.judgement:
        print_text(text)
