"""Whole runs with the predictor and the DNA score, their extension, and the networks that they keep."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spoilt_runs
from tiny import compress_arguments, furnish, run_hwnas, run_job, tree

from hwnas.compress.extend import extend
from hwnas.compress.library.store import Library
from hwnas.compress.quality.finetuned import FinetunedNetworks, block_metrics, metric_rows
from hwnas.compress.quality.kinds import QUALITY_MODELS, described_quality
from hwnas.compress.quality.model import by_loss, require_judged
from hwnas.compress.quality.predict import predict_networks
from hwnas.compress.quality.predictor import Predictor, fit_predictor
from hwnas.compress.quality.sampling import sample_networks
from hwnas.compress.report import write_report
from hwnas.compress.run.cost_log import read_costs
from hwnas.compress.tasks.classification import CLASSIFICATION
from hwnas.compress.tasks.regression import REGRESSION
from hwnas.errors import InputError, RunDirectoryError
from hwnas.progress import Progress

LIBRARY = spoilt_runs.LIBRARY
SEARCH = replace(
    spoilt_runs.SEARCH,
    filter="none",
    finetune_epochs=1,
    quality="predictor",
    predictor_networks=6,
    predictor_epochs=1,
)
MORE = """
name = "more"
description = "kernels of 7"
smaller = false
[properties]
kernel = [7]
expand = [1, 2]
depth = [1]
activation = ["hswish"]
se = [false]
layer = ["depthwise"]
width = [1.0]
"""


def test_a_quality_model_is_asked_what_it_expects_and_what_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    search, known = replace(SEARCH, quality="mine"), QUALITY_MODELS.load
    mine = replace(by_loss, axis="mine", expects_share=True)
    models = {"mine": mine, "plain": by_loss.make}
    monkeypatch.setattr(QUALITY_MODELS, "load", lambda name: models.get(name) or known(name))
    require_judged(search, CLASSIFICATION, has_targets=True)
    with pytest.raises(InputError, match="the mine expects a share of right answers, regression is judged"):
        require_judged(search, REGRESSION, has_targets=True)
    for quality in ("plain", "dna"):
        require_judged(replace(search, quality=quality), REGRESSION, has_targets=True)
    assert [described_quality(name).axis for name in ("mine", "plain", "gone")] == [
        "mine",
        "loss by plain",
        "loss by gone",
    ]


class Killed(BaseException):
    pass


class Watch(Progress):
    """Remembers the steps, and ends the run at the nth one that starts so."""

    def __init__(self, step: str = "", nth: int = 0) -> None:
        self.step, self.nth, self.steps, self.said = step, nth, [], []

    step: str
    nth: int
    steps: list[str]
    said: list[str]

    def advance(self, step: str, done: int, total: int, remark: str = "") -> None:
        self.steps.append(step)
        if self.nth and step.startswith(self.step):
            self.nth -= 1
            if not self.nth:
                raise Killed

    def say(self, text: str) -> None:
        self.said.append(text)

    @property
    def finetuned(self) -> list[str]:
        return [step for step in self.steps if step.startswith("finetune")]

    @property
    def finetuned_for_predictor(self) -> list[str]:
        return [step for step in self.finetuned if step.startswith("finetune predictor")]


def run(out: Path, watch: Watch | None = None, **changed: Any) -> Any:
    return run_job(LIBRARY, replace(SEARCH, **changed), out, "hwnas compress …", watch or Watch())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    furnish(folder)
    (folder / "more.toml").write_text(MORE)
    other = (folder / "steady.toml").read_text().replace('"steady"', '"other"')
    (folder / "other.toml").write_text(other)
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[dict[str, Any], Watch]:
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(place))
        return run(place / "whole", watch), watch


@pytest.fixture
def copy(finished: object, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run that a test may change."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    return Path(shutil.copytree(place / "whole", tmp_path / "whole"))


def stored(path: Path) -> dict[str, tuple[bytes, int]]:
    return tree(path / "architectures")


def metrics_of(path: Path, name: str = "nsr") -> Any:
    with Library(path / "library") as library:
        return block_metrics(library.entries(), name)


@pytest.mark.slow
def test_the_front_is_in_predicted_accuracy(finished: tuple[dict[str, Any], Watch], place: Path) -> None:
    result, watch = finished
    networks = FinetunedNetworks(place / "whole/architectures").networks()
    assert len(networks) >= 6
    assert {network.epochs for network in networks} == {1}
    rows = metric_rows(metrics_of(place / "whole"), [network.choices for network in networks])
    expected = fit_predictor(rows, np.array([network.target for network in networks]))
    predictor = FinetunedNetworks(place / "whole/architectures").predictor()
    assert predictor == replace(
        expected,
        epochs=1,
        blocks_sha256=predictor.blocks_sha256,
        fitted_to={network.name: network.sha256 for network in networks},
    )
    front = result["front"]
    assert (front["quality"], front["strategy"]) == ("predictor", "nsga2")
    for row in front["front"]:
        assert row["loss"] == pytest.approx(1 - row["predicted_accuracy"])
        assert isinstance(row["extrapolates"], bool)
    assert [text for text in watch.said if "networks left out of the fit: Kendall tau" in text]
    spent = {entry.step: entry for entry in read_costs(place / "whole/account.json")}
    assert spent["predictor networks"].epochs == pytest.approx(6, rel=0.3)
    assert spent["predictor networks"].device is None
    assert (place / "whole/devices/steady/front-predictor.json").is_file()


@pytest.mark.slow
def test_a_checkpoint_is_a_network_for_the_predictor_and_the_other_way_round(
    finished: tuple[dict[str, Any], Watch], place: Path
) -> None:
    """With as many epochs, what was finetuned for one purpose serves the other."""
    result, watch = finished
    (checkpoint,) = result["checkpoints"]
    networks = [network.choices for network in FinetunedNetworks(place / "whole/architectures").networks()]
    assert tuple(checkpoint["choices"]) in networks
    assert len(watch.finetuned) == len(networks) == len(set(networks))


@pytest.mark.slow
def test_nothing_is_finetuned_twice(copy: Path) -> None:
    before = stored(copy)
    watch = Watch()
    run(copy, watch, device="other.toml")
    assert watch.finetuned_for_predictor == []
    networks = {name: content for name, content in before.items() if name != "predictor.json"}
    assert {name: stored(copy)[name] for name in networks} == networks
    new = [name for name in stored(copy).keys() - before.keys() if name.endswith(".safetensors")]
    assert len(watch.finetuned) == len(new)
    assert (copy / "devices/other/front-predictor.json").is_file()


@pytest.mark.slow
def test_a_finished_search_keeps_its_predictor(finished: tuple[dict[str, Any], Watch], copy: Path) -> None:
    """Whatever was finetuned since: the same command finds the same, and finetunes nothing."""
    for speedup in ("1.01", "1.2", "1.5"):
        run(copy, quality="loss", picks=(f"speedup={speedup}",))
    before = stored(copy).keys()
    watch = Watch()
    assert run(copy, watch)["front"] == finished[0]["front"]
    assert watch.finetuned == []
    assert stored(copy).keys() == before
    (copy / "devices/steady/quality-predictor.json").write_text("{}")
    run(copy, watch)
    fitted = FinetunedNetworks(copy / "architectures").predictor()
    kept = Predictor.read(copy / "devices/steady/quality-predictor.json")
    assert SEARCH.predictor_networks < kept.networks <= fitted.networks


@pytest.mark.slow
def test_more_networks_are_added_to_those_that_are_there(copy: Path) -> None:
    watch = Watch()
    before = len(FinetunedNetworks(copy / "architectures").networks())
    run(copy, watch, predictor_networks=before + 2)
    assert len(watch.finetuned_for_predictor) == 2
    assert FinetunedNetworks(copy / "architectures").predictor().networks >= before + 2


@pytest.mark.slow
def test_a_network_of_other_epochs_is_not_fitted(copy: Path) -> None:
    watch = Watch()
    run(copy, watch, predictor_epochs=2, predictor_networks=4)
    assert len(watch.finetuned_for_predictor) == 8  # two epochs each
    assert FinetunedNetworks(copy / "architectures").predictor().networks == 4


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 3])
def test_a_run_killed_while_it_finetunes_ends_with_the_same(
    nth: int, finished: object, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    with pytest.raises(Killed):
        run(tmp_path / "killed", Watch("finetune", nth))
    watch = Watch()
    run(tmp_path / "killed", watch)
    assert len(watch.finetuned_for_predictor) == 6 - nth
    for name, (content, _) in stored(place / "whole").items():
        assert stored(tmp_path / "killed")[name][0] == content, name


@pytest.mark.slow
def test_a_damaged_network_is_finetuned_again(copy: Path) -> None:
    file = sorted((copy / "architectures").glob("*.safetensors"))[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    watch = Watch()
    run(copy, watch, predictor_networks=len(list((copy / "architectures").glob("*.safetensors"))))
    assert len(watch.finetuned_for_predictor) == 1
    assert file.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("damage", ["bit", "gone"])
def test_a_predictor_keeps_what_it_was_fitted_to(
    suffix: str,
    damage: str,
    finished: tuple[dict[str, Any], Watch],
    copy: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another fit, to the networks that are left, is never used without a word."""
    before = {name: content for name, (content, _) in stored(copy).items()}
    predicted = predict_networks(copy, ["0-1-1-0"])
    file = sorted((copy / "architectures").glob(f"*-e1.{suffix}"))[1]
    record = file.with_suffix(".json").name
    if damage == "gone":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(RunDirectoryError, match=record) as error:
        predict_networks(copy, ["0-1-1-0"])
    assert "--quality predictor" in error.value.fix
    assert record in write_report(copy, copy / "devices/steady").read_text()
    assert record in caplog.text
    watch = Watch()
    run(copy, watch, quality="loss", picks=("speedup=1.02",))
    assert any(record in text and "the predictor stays as it was" in text for text in watch.said)
    assert (copy / "architectures/predictor.json").read_bytes() == before["predictor.json"]
    watch = Watch()
    assert run(copy, watch)["front"] == finished[0]["front"]
    assert any(record in text and "finetuned again" in text for text in watch.said)
    assert (copy / "architectures" / file.name).read_bytes() == before[file.name]
    assert predict_networks(copy, ["0-1-1-0"])[0].epochs == predicted[0].epochs


@pytest.mark.slow
def test_a_state_of_a_network_that_is_finished_goes(copy: Path) -> None:
    """A kill between storing the network and removing the state leaves it; nobody would finetune it again."""
    folder = copy / "architectures"
    done = sorted(folder.glob("[0-9]*-e1.safetensors"))[0]
    states = [done.with_name(f".{done.name}"), folder / ".0-0-0-9-e1.safetensors"]
    for state in states:
        state.write_bytes(done.read_bytes())
    run(copy, Watch(), quality="loss", picks=("speedup=1.02",))
    assert [state.exists() for state in states] == [False, True]


@pytest.mark.slow
def test_a_network_finetuned_for_another_search_refits_the_predictor(copy: Path) -> None:
    before = FinetunedNetworks(copy / "architectures").predictor().networks
    watch = Watch()
    choices = {tuple(n.choices) for n in FinetunedNetworks(copy / "architectures").networks()}
    for speedup in ("1.01", "1.2", "1.3", "1.5", "1.7"):
        run(copy, watch, quality="loss", picks=(f"speedup={speedup}",))
    after = {tuple(n.choices) for n in FinetunedNetworks(copy / "architectures").networks()}
    assert len(after) > len(choices)
    assert FinetunedNetworks(copy / "architectures").predictor().networks == before + len(after - choices)


@pytest.mark.slow
def test_the_dna_score_is_the_sum_of_relative_errors(copy: Path) -> None:
    front = run(copy, quality="dna")["front"]
    scores = metrics_of(copy, "relative_l1")
    assert len(front["front"]) > 2
    for row in front["front"]:
        expected = sum(scores[part, choice] for part, choice in enumerate(row["choices"]) if choice)
        assert row["loss"] == pytest.approx(expected)
        assert row["predicted_accuracy"] is None
    assert (copy / "devices/steady/front-dna.json").is_file()


@pytest.mark.slow
def test_an_extension_distils_only_the_new_candidates(copy: Path) -> None:
    before, kept = stored(copy), tree(copy / "library/blocks")
    watch = Watch()
    done = extend(copy, "more.toml", 0, watch)
    assert (done.found, done.added, done.done) == (4, 4, 4)
    assert stored(copy) == before
    after = tree(copy / "library/blocks")
    assert {name: after[name] for name in kept} == kept
    assert len(after) == len(kept) + 2 * 4
    predictor, (_, new) = predict_networks(copy, ["0-1-0-0", "0-4-5-0"])
    assert new.choices == (0, 4, 5, 0)
    assert new.finetuned_accuracy is None
    row = metric_rows(metrics_of(copy), [new.choices])
    assert new.predicted_accuracy == predictor.predict(row)[0]
    watch = Watch()
    result = run(copy, watch)
    front = result["front"]
    assert result["space"] == {"candidates": 10, "architectures": 36}
    assert "distill" not in watch.steps
    assert not [step for step in watch.finetuned if step.startswith("finetune predictor")]
    assert any(choice > 3 for row in front["front"] for choice in row["choices"])
    before_picks = len(FinetunedNetworks(copy / "architectures").networks()) - len(result["checkpoints"])
    searched = Predictor.read(copy / "devices/steady/quality-predictor.json")
    assert searched.networks >= before_picks  # not the one of the search before
    again = Watch()
    assert extend(copy, "more.toml", 0, again).added == 0
    assert "distill" not in again.steps


@pytest.mark.slow
def test_an_extension_counts_what_a_stopped_one_left(copy: Path) -> None:
    extend(copy, "more.toml", 0, Watch())
    for file in (copy / "library/blocks").glob("block2-*"):
        file.unlink()
    lost = sum(name.startswith("block2-") for name in candidates_of(copy).values())
    done = extend(copy, "more.toml", 0, Watch())
    assert lost
    assert (done.added, done.done) == (0, lost)


def candidates_of(path: Path) -> dict[tuple[int, int], str]:
    with Library(path / "library") as library:
        return {(e.candidate.part, e.candidate.choice): e.candidate.name for e in library.entries()}


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["library", "row"])
def test_an_extended_candidate_that_is_lost_comes_back_under_its_number(lost: str, copy: Path) -> None:
    extend(copy, "more.toml", 0, Watch())
    before, metrics = candidates_of(copy), metrics_of(copy)
    assert len(before) == 10
    if lost == "library":
        shutil.rmtree(copy / "library")
    else:
        with sqlite3.connect(copy / "library/library.db") as connection:
            connection.execute("UPDATE candidates SET nsr = nsr * 1.5 WHERE part = 2 AND choice = 5")
        connection.close()
    run(copy)
    assert candidates_of(copy) == before
    assert metrics_of(copy) == metrics


@pytest.mark.slow
def test_a_damaged_row_is_healed_by_the_command_itself(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = compress_arguments(str(out))
    done = run_hwnas(place, *command)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(out / "library/library.db") as connection:
        connection.execute("UPDATE candidates SET nsr = nsr * 1.5 WHERE part = 1 AND choice = 1")
    connection.close()
    done = run_hwnas(place, *command)
    assert done.returncode == 0, done.stderr
    assert "choice 1 is damaged; its candidate is distilled again" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_a_damaged_list_of_added_candidates_is_told_and_made_again(copy: Path) -> None:
    extend(copy, "more.toml", 0, Watch())
    file = copy / "extension.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with pytest.raises(RunDirectoryError, match=r"extension\.json") as error:
        run(copy)
    assert "hwnas extend" in error.value.fix
    file.unlink()
    assert extend(copy, "more.toml", 0, Watch()).added == 0
    assert file.read_bytes() == whole


@pytest.mark.slow
def test_networks_of_candidates_that_are_gone_are_left_out_of_the_fit(copy: Path) -> None:
    known = FinetunedNetworks(copy / "architectures")
    network = next(n for n in known.networks() if any(n.choices))
    metrics = dict(metrics_of(copy))
    gone = next(key for key in enumerate(network.choices) if key[1])
    del metrics[gone]
    left = [n for n in known.networks() if n.choices[gone[0]] != gone[1]]
    if len(left) < 4:
        with pytest.raises(InputError, match="too few"):
            known.fit(metrics, 1)
    else:
        assert known.fit(metrics, 1).networks == len(left)


@pytest.mark.slow
def test_a_damaged_predictor_does_not_stop_other_searches(copy: Path) -> None:
    (copy / "architectures/predictor.json").write_text("junk")
    watch = Watch()
    assert run(copy, watch, quality="loss", picks=("speedup=1.02",))["report"]
    assert any("--quality predictor fits it again" in text for text in watch.said)
    run(copy)
    assert FinetunedNetworks(copy / "architectures").has_predictor


@pytest.mark.slow
def test_a_predictor_of_another_network_is_refused(copy: Path) -> None:
    other = fit_predictor(np.random.default_rng(0).random((8, 3)), np.linspace(0.5, 0.9, 8))
    other.save(copy / "architectures/predictor.json")
    with pytest.raises(RunDirectoryError, match="expects 3 parts, not 4"):
        predict_networks(copy, ["0-0-0-0"])


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 1])
def test_a_report_says_that_finetuned_networks_are_gone(left: int, copy: Path) -> None:
    for file in sorted((copy / "architectures").glob("*.safetensors"))[left:]:
        file.unlink()
    report = write_report(copy, copy / "devices/steady").read_text()
    assert f"Of these networks {left} are still intact" in report


@pytest.mark.slow
def test_an_extension_that_was_stopped_goes_on(copy: Path) -> None:
    with pytest.raises(Killed):
        extend(copy, "more.toml", 0, Watch("distill", 6))
    watch = Watch()
    extend(copy, "more.toml", 0, watch)
    assert 0 < watch.steps.count("distill") <= 8
    with Library(copy / "library") as library:
        assert [entry.state for entry in library.entries()] == ["done"] * 10


@pytest.mark.slow
def test_the_commands_show_predictions_and_say_what_is_wrong(finished: object, place: Path) -> None:
    done = run_hwnas(place, "predict", "whole", "0-0-0-0", "0-1-2-0", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["schema"], found["predictor"]["epochs"]) == ("hwnas.prediction/1", 1)
    assert [row["choices"] for row in found["architectures"]] == [[0, 0, 0, 0], [0, 1, 2, 0]]
    assert found["architectures"][0]["dna_score"] == 0
    assert found["architectures"][0]["finetuned_accuracy"] is not None
    done = run_hwnas(place, "predict", "whole", "0-0")
    assert done.returncode == 2
    assert "does not name one choice for each of the 4 parts" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "architecture", "cause"),
    [
        ("whole", "0-9-0-0", "part 1 has no distilled choice 9"),
        ("whole", "0-a-0-0", "does not name one choice"),
        ("whole", "0-\N{ARABIC-INDIC DIGIT THREE}-0-0", "does not name one choice"),
        ("whole", f"0-{'9' * 5000}-0-0", "does not name one choice"),
        ("whole", "", "does not name one choice"),
        ("nowhere", "0", "nowhere is not a run directory"),
    ],
)
def test_what_cannot_be_predicted_is_told(
    out: str, architecture: str, cause: str, finished: object, place: Path
) -> None:
    with pytest.raises(InputError, match=cause):
        predict_networks(place / out, [architecture])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "space", "cause"),
    [
        ("nowhere", "more.toml", "nowhere is not a run directory"),
        ("whole", "nope", "there is no space 'nope'"),
        ("whole", "steady.toml", r"steady\.toml"),
    ],
)
def test_what_cannot_be_extended_is_told(out: str, space: str, cause: str, copy: Path) -> None:
    before = tree(copy)
    with pytest.raises(InputError, match=cause):
        extend(copy.parent / out, space, 0, Watch())
    assert tree(copy) == before


@pytest.mark.slow
def test_without_a_predictor_there_is_no_prediction(copy: Path) -> None:
    (copy / "architectures/predictor.json").unlink()
    with pytest.raises(InputError, match="has no accuracy predictor yet") as error:
        predict_networks(copy, ["0-0-0-0"])
    assert "--quality predictor" in error.value.fix
    (copy / "architectures/predictor.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match=r"predictor\.json"):
        predict_networks(copy, ["0-0-0-0"])
    run(copy)
    assert predict_networks(copy, ["0-0-0-0"])[1][0].dna_score == 0


@pytest.mark.slow
def test_a_library_with_too_few_networks_cannot_have_a_predictor(copy: Path) -> None:
    with pytest.raises(InputError, match="too few for a predictor"):
        run(copy, predictor_networks=3, predictor_epochs=3)


def test_samples_are_spread_over_the_range_of_the_score() -> None:
    generator = np.random.default_rng(0)
    scores = [{0: 0.0, **{m: float(generator.uniform(0.1, 1)) for m in range(2, 28)}} for _ in range(5)]
    networks = sample_networks(scores, 30, 0)
    assert len(set(networks)) == 30
    assert networks[:10] == sample_networks(scores, 10, 0)
    assert networks != sample_networks(scores, 30, 1)
    reached = sorted(sum(of[c] for of, c in zip(scores, network, strict=True)) for network in networks)
    low, high = 0.0, sum(max(of.values()) for of in scores)
    assert (reached[0], reached[-1]) == pytest.approx((low, high))
    assert networks[0] == (0,) * 5
    assert max(np.diff(reached)) < 0.15 * (high - low)
    assert np.histogram(reached, bins=3, range=(low, high))[0].min() >= 7


def test_a_choice_beyond_all_measure_does_not_spoil_the_sample() -> None:
    """Nothing lies between the networks with it and those without; neither side is crowded at its edge."""
    generator = np.random.default_rng(0)
    scores = [{0: 0.0, **{m: float(generator.uniform(0.1, 1)) for m in range(1, 28)}} for _ in range(4)]
    networks = sample_networks([*scores, {0: 0.0, 1: 50.0}], 40, 0)
    low = sorted(
        sum(of[c] for of, c in zip(scores, network, strict=False)) for network in networks if not network[-1]
    )
    assert 12 < len(low) < 28
    assert max(np.diff(low)) < 0.35 * (low[-1] - low[0])


def test_a_small_space_is_sampled_whole() -> None:
    scores = [{0: 0.0}, {0: 0.0, 1: 0.5}, {0: 0.0, 1: 0.2, 2: 0.4}]
    assert sorted(sample_networks(scores, 30, 0)) == [(0, i, j) for i in (0, 1) for j in (0, 1, 2)]
