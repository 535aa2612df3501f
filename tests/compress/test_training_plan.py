"""What a run will train, against what the papers count and what runs then have trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shortest_run import LIBRARY, SEARCH
from tiny import run_job

from hwnas.compress.budget import TrainingPlan, TrainingStep, training_plan
from hwnas.compress.emit.picking import trained_for
from hwnas.compress.library.open_run import open_inputs
from hwnas.compress.options import CompressOptions
from hwnas.compress.presets import PRESETS, resolve
from hwnas.compress.run.cost_log import read_costs
from hwnas.progress import Progress


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "blocks", "predictor"), [("donna", 5 * 384, 30 * 50), ("donnav2", 5 * 192, 0)]
)
def test_the_papers_presets_take_the_epochs_that_are_published(
    preset: str, blocks: int, predictor: int, tmp_path: Path
) -> None:
    """450 + 1,920 + 30 × 50 for DONNA's predictor; variants of stem and head are ours."""
    options = CompressOptions(data="digits", weights="none", preset=preset)
    library, searches = resolve(options, "efficientnet_b0", ["sim-npu"], tmp_path / "run")
    inputs = open_inputs(library, Progress())
    plan = training_plan(inputs, searches)
    epochs = {step.step: step.epochs for step in plan.steps}
    of_blocks = [c for c in inputs.candidates if 0 < c.part < len(inputs.parts.modules) - 1]
    assert len(of_blocks) == blocks
    assert epochs == {
        "reference training": 450,
        "distillation": len(inputs.candidates),
        "predictor networks": predictor,
        "finetuning": 50,
    }
    assert (library.loss, searches[0].quality) == {"donna": ("nsr", "predictor"), "donnav2": ("mse", "loss")}[
        preset
    ]
    assert plan.flops_per_s > 0


def test_options_stand_over_the_preset(tmp_path: Path) -> None:
    options = CompressOptions(
        data="digits", preset="donna", loss="mse", quality="dna", space="mixed", epochs=3
    )
    library, (search,) = resolve(options, "efficientnet_b0", ["sim-npu"], tmp_path / "run")
    assert (library.loss, library.space, library.epochs, search.quality) == ("mse", "mixed", 3, "dna")
    assert (library.train_epochs, search.filter, search.population) == (450, "none", 100)
    plain, (usual,) = resolve(CompressOptions(data="digits"), "net", ["sim-npu"], tmp_path / "other")
    assert (plain.space, plain.loss, usual.quality, usual.filter) == ("compression", "nsr", "loss", "device")
    counted = CompressOptions(data="digits", preset="donnav2", objective=("macs",))
    _, (by_macs,) = resolve(counted, "net", ["sim-npu"], tmp_path / "macs")
    assert (by_macs.filter, by_macs.uses_device) == ("macs", False)
    assert set(PRESETS) == {"quick", "standard", "donna", "donnav2"}


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.slow
def test_a_run_trains_what_was_planned(steps: int, workplace: Path) -> None:
    library = replace(LIBRARY, model="tinynet:make", data="digits", per_block=1, train_epochs=2, steps=steps)
    search = replace(SEARCH, quality="predictor", predictor_networks=4, predictor_epochs=1, finetune_epochs=2)
    inputs = open_inputs(library, Progress(), allow_code=True)
    plan = training_plan(inputs, [search])
    run_job(library, search, workplace / "run", "hwnas compress …", Progress(), allow_code=True)
    spent = {cost.step: cost for cost in read_costs(workplace / "run" / "account.json")}
    for step in plan.steps:
        assert spent[step.step].epochs == pytest.approx(step.epochs, abs=0.51), step.step
    exact = {step.step: step.training_flops for step in plan.steps}
    assert spent["reference training"].training_flops == exact["reference training"]
    assert spent["distillation"].training_flops == pytest.approx(exact["distillation"], rel=0.02)
    assert spent["finetuning"].training_flops <= exact["finetuning"]
    assert spent["predictor networks"].training_flops <= exact["predictor networks"]


def test_what_is_finetuned_to_pick_is_in_the_plan() -> None:
    search = replace(SEARCH, finetune_epochs=40, population=32)
    assert trained_for("knee", search) == (1, 40)
    assert trained_for("speedup=2", search) == (4, 11)  # four for one epoch, one of them for forty
    assert trained_for("max-drop=1", search) == (6, 40)
    assert trained_for("latency-ms=2", replace(search, finetune_epochs=4)) == (1, 4)


def test_workers_share_what_can_be_shared() -> None:
    def step(flops: int, spreads: bool) -> TrainingStep:
        return TrainingStep(
            step="distillation", networks=1, epochs=1500, training_flops=flops, spreads=spreads
        )

    plan = TrainingPlan(steps=(step(3600, False), step(36000, True)), flops_per_s=1.0)
    assert plan.hours() == pytest.approx(11)
    assert plan.hours(4) == pytest.approx(3.5)
    assert "3,000 epochs, about 11.0 h on this machine, 2.2 h with 8 Ray workers like it" in plan.describe()
    assert plan.to_json()["hours_with_8_workers"] == pytest.approx(2.25)
