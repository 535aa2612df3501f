"""`hwnas batch`"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas import processes
from hwnas.cli.batch_output import COLUMNS, PlannedRun, checkpoint_rows, show_batch
from hwnas.cli.output import Json, TerminalProgress, print_json, say
from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.measurement import DeviceProfile

EXAMPLE = """Example: `hwnas batch plan.toml` with

```
devices = ["s20-gpu", "sim-npu", "cpu"]
targets = ["knee", "speedup=2"]
options = { data = "digits", preset = "quick" }

[[references]]
model = "efficientnet_b0"

[[references]]
model = "mobilenetv2_100"
options = { weights = "mobilenetv2.safetensors" }
```
"""

SCHEMA = "hwnas.batch/1"
COMMANDS_SCHEMA = "hwnas.commands/1"


def batch(
    plan: Annotated[Path, typer.Argument(help="TOML file: references × devices × targets.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the commands that the plan stands for.")
    ] = False,
    no_device_check: Annotated[
        bool,
        typer.Option(
            "--no-device-check",
            help="Train without asking first whether the devices are there and can be used.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Compress several references for several devices: one library for each reference, one report for all.

    First every device of the plan is opened once: where one is missing, nothing is trained. Each reference is
    then a `hwnas compress` of its own, one after the other. One that fails, or a device that does, leaves the
    others running; the same command then does what is missing.
    """
    import shlex

    from hwnas import api
    from hwnas.cli.plan import read_plan
    from hwnas.page import is_available

    folder, jobs = read_plan(plan)
    if dry_run:
        commands = [["hwnas", "compress", *job.arguments] for job in jobs]
        if as_json:
            print_json({"schema": COMMANDS_SCHEMA, "commands": commands})
        else:
            typer.echo("\n".join(map(shlex.join, commands)))
        return
    if not no_device_check:
        wanted: list[tuple[DeviceProfile, str]] = []
        for job in jobs:
            wanted += [device for device in job.checked if device not in wanted]
        with TerminalProgress() as progress:
            api.check_devices(wanted, progress)
    done, failed, report = [], [], None
    for number, job in enumerate(jobs, 1):
        say(f"reference {number} of {len(jobs)}: {job.model}, {job.out}")
        result, code = run_compression((*job.arguments, *["--no-device-check"] * no_device_check))
        done.append(PlannedRun(model=job.model, run=str(job.out), exit_code=code, result=result))
        if code:
            failed.append(f"{job.model} ({job.out})")
    if is_available() and any(each.result for each in done):
        report = api.write_batch(folder, [job.out for job in jobs], COLUMNS, checkpoint_rows(done))
    if as_json:
        shown = None if report is None else str(report)
        print_json({"schema": SCHEMA, "references": [asdict(each) for each in done], "report": shown})
    else:
        show_batch(done, report)
    if failed:
        raise HwnasError(
            f"{', '.join(failed)}: not everything could be done, for the reasons above",
            "mend them and give the same command again: it does only what is missing",
        )


def run_compression(arguments: tuple[str, ...]) -> tuple[Any, int]:
    """What a `hwnas compress` gave, and its exit code."""
    result = None
    process = processes.start("hwnas.cli.child", ["compress", *arguments, "--json"])
    assert process.stdout is not None
    try:
        text = process.stdout.read()
        code = process.wait()
    finally:
        processes.end(process)
    if text.strip():
        try:
            result = json.loads(text)
        except ValueError:  # a library wrote into it, or it was killed while it did
            say("what it printed is no JSON: its checkpoints are not in the table")
            code = code or 2
    return result, code
