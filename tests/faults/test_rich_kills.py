"""Commands of all kinds that are killed, or run out of memory, and then given again, end with the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
import tiny
from kill_campaign import KILLED, serving
from rich_run import COMMANDS, Rich

STAGES = {
    "compress": "",
    "compress by predictor": "searched",
    "extend": "predicting",
    "predict": "whole",
    "report": "whole",
    "profile": "whole",
    "record": "whole",
    "import": "whole",
}
QUICK = ("predict", "report", "profile", "record", "import")
MEMORY = ("compress", "compress by predictor", "extend", "profile", "predict", "report")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rich]:
    folder = tmp_path_factory.mktemp("rich-kills")
    tiny.furnish(folder)
    with serving(folder) as server:
        found = Rich(server)
        found.make()
        yield found


def ends_the_same(rich: Rich, name: str, what: str) -> None:
    """The same command again ends as one that nothing happened to, and leaves nothing behind."""
    expected = rich.answers[name, STAGES[name]]
    assert rich.done(name) == expected, what
    assert rich.leftovers() == [], what


def kill(rich: Rich, generator: random.Random, count: Counter[str]) -> None:
    """Kill a command once or twice, then let it end."""
    name = generator.choice([*STAGES, *QUICK, *QUICK, "compress"])
    rich.expected(name, STAGES[name])
    rich.begin(STAGES[name])
    what = name
    for _ in range(generator.choice([1, 1, 2, 3])):
        if generator.random() < 0.7:
            where: dict[str, float] = {"call": generator.randint(1, 30 if name in QUICK else 150)}
        else:
            where = {"nth": 0, "wait_s": generator.random() * (0.5 if name in QUICK else 4)}
        what += f" {where}"
        if rich.call(COMMANDS[name].arguments, **where).code == KILLED:
            count[name] += 1
    ends_the_same(rich, name, what)


def starve(rich: Rich, generator: random.Random, count: Counter[str]) -> None:
    """A command under a limit of memory ends in order, and the next one without it ends with the same."""
    name = generator.choice(MEMORY)
    rich.expected(name, STAGES[name])
    rich.begin(STAGES[name])
    memory = int(2 ** generator.uniform(20, 30))
    done = rich.call(COMMANDS[name].arguments, memory=memory)
    what = (name, memory, done.err[-2000:])
    assert done.code in (0, 2), what
    assert "Traceback" not in done.err, what
    count[f"exit code {done.code}"] += 1
    if done.code == 2:
        assert "error: " in done.err, what
        assert "  fix: " in done.err, what
    if "it was given batches of" in done.err:
        assert rich.done(name), what
    else:
        ends_the_same(rich, name, str(what))


@pytest.mark.parametrize(
    ("seed", "kills"),
    [
        pytest.param(0, 3, marks=pytest.mark.slow),
        *(pytest.param(seed, 50, marks=pytest.mark.faults) for seed in range(1, 21)),
    ],
)
def test_commands_that_are_killed_end_with_the_same(seed: int, kills: int, rich: Rich) -> None:
    generator, count = random.Random(seed), Counter[str]()
    while count.total() < kills:
        kill(rich, generator, count)
    print(f"seed {seed}: {count.total()} kills, {dict(count)}")


@pytest.mark.parametrize(
    ("seed", "times"),
    [
        pytest.param(0, 1, marks=pytest.mark.slow),
        *(pytest.param(seed, 10, marks=pytest.mark.faults) for seed in range(1, 5)),
    ],
)
def test_commands_without_memory_end_in_order(seed: int, times: int, rich: Rich) -> None:
    generator, count = random.Random(seed), Counter[str]()
    for _ in range(times):
        starve(rich, generator, count)
    print(f"seed {seed}: {dict(count)}")
