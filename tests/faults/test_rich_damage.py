"""Any file of a rich run that was changed: each command that reads it answers the same, or names it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
import tiny
from kill_campaign import serving
from rich_run import COMMANDS, Rich, spoil

READ_BY = {
    "library/library.db": ("predict", "report", "compress by predictor"),
    "library/blocks/*": ("compress by predictor",),
    "architectures/*": ("predict", "report", "compress by predictor"),
    "reference/*": ("profile reference", "report", "predict", "compress by predictor"),
    "checkpoints/*/*": ("profile", "plan from checkpoint", "report", "compress"),
    "devices/steady/*.db": ("compress",),
    "devices/picky/*": ("report",),
    "devices/steady/*.json": ("report", "compress by predictor"),
    "*.toml": ("report", "extend", "compress"),
    "*.json": ("report", "extend"),
    "../case-home/history.db": ("history",),
}
SLOW = ("compress", "compress by predictor", "extend")
NOT_READ = ("README.md", ".html")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rich]:
    folder = tmp_path_factory.mktemp("rich")
    tiny.furnish(folder)
    with serving(folder) as server:
        found = Rich(server)
        found.make()
        yield found


def flip(rich: Rich, generator: random.Random, count: Counter[str]) -> None:
    """One damage, one command that reads what was damaged, one judgement."""
    pattern = generator.choice(list(READ_BY))
    readers = READ_BY[pattern]
    quick = [reader for reader in readers if reader not in SLOW]
    name = generator.choice(quick if quick and generator.random() < 0.7 else readers)
    expected = rich.expected(name, "whole")
    rich.begin("whole", home=name == "history")
    files = [path for path in sorted((rich.folder / "case").glob(pattern)) if path.is_file()]
    victim = generator.choice([path for path in files if not path.name.endswith(NOT_READ)])
    what = f"{spoil(victim, generator)}, {name}"
    done = rich.call(COMMANDS[name].arguments)
    told = done.err + done.out
    assert "Traceback" not in told, (what, told)
    assert done.code in (0, 2), (what, done.code, told)
    assert rich.leftovers() == [], what
    if done.code == 0:
        answer = COMMANDS[name].answer(rich.folder, done.out)
        unread = str(victim.relative_to(rich.folder / "case")) if "case-home" not in str(victim) else ""
        if {**answer, unread: ""} == {**expected, unread: ""}:  # a file of another device stays as it is
            count["the same answer"] += 1
            return
    place = victim.parent.resolve().relative_to(rich.folder)
    names = [f"{place}/{victim.stem}."]  # a record and its weights are one
    if victim.match("checkpoints/*/*"):
        names.append(str(place))
    assert any(name in told for name in names), (what, told)
    if done.code == 2:
        assert "  fix: " in done.err, (what, told)
        count["refused"] += 1
    else:
        assert name in ("history", "report"), (what, told)
        count["told"] += 1


@pytest.mark.parametrize(
    ("seed", "times"),
    [
        pytest.param(0, 4, marks=pytest.mark.slow),
        *(pytest.param(seed, 50, marks=pytest.mark.faults) for seed in range(1, 21)),
    ],
)
def test_spoilt_files_of_a_rich_run_are_never_used_in_silence(seed: int, times: int, rich: Rich) -> None:
    generator, count = random.Random(seed), Counter[str]()
    for _ in range(times):
        flip(rich, generator, count)
    print(f"seed {seed}: {dict(count)}")
    assert count["refused"] > 0 or times < 50
