"The chapters for a GPU: estimates by the formula, commands from the studies, nothing run without a GPU."
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from matchbook.gpu import LongRow, estimate_seconds, gpus, plan_rows
from matchbook.runs import open_study, parse_settings, studies

chapters = sorted((Path(__file__).parent.parent/"nbs"/"7_gpu").glob("7[1-9]*.ipynb"))
row = LongRow("headlines", "webis17", "qlora", 7e9, 17_500, 128, 3, 8, preset="as_published",
              settings={"checkpointing": True, "base": "a b"})


def code(path):
    "The code cells, those for Colab left out: those that are run everywhere, and those that want a GPU."
    cells = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]
             if cell["cell_type"] == "code"]
    cells = [cell for cell in cells if "google.colab" not in cell]
    return [[cell for cell in cells if cell.startswith("#| cuda\n") == cuda] for cuda in (False, True)]


@pytest.mark.parametrize("path", chapters, ids=lambda path: path.stem)
def test_each_row_has_a_cell_and_no_command_is_typed(path):
    plain, cuda = code(path)
    assert not any("system(" in cell or "matchbook run" in cell for cell in plain)
    assert not any("matchbook run" in cell for cell in cuda)
    space = {}
    for cell in plain: exec(cell, space)
    assert len(space["rows"]) == len(space["plan"])
    asked = [int(number) for cell in cuda for number in re.findall(r"plan\.command\[(\d+)\]", cell)]
    assert asked == list(range(len(space["rows"])))
    for one, command in zip(space["rows"], space["plan"].command):
        words = shlex.split(command)
        assert words[:3] == ["matchbook", "run", one.study] and one.study in studies
        given = dict(zip(words[3::2], words[4::2]))
        assert (given["--dataset"], given["--model"]) == (one.dataset, one.model)
        assert not open_study(one.study).lacks(one.model) or one.model in ("lora", "dora", "qlora")


def test_a_command_reads_back_as_its_row():
    words = shlex.split(row.command(4))
    given = parse_settings([value for name, value in zip(words, words[1:]) if name == "--set"])
    assert given == row.settings and words[words.index("--seed") + 1] == "4"


@pytest.mark.parametrize("change", [{"weights": 14e9}, {"texts": 35_000}, {"length": 256}, {"epochs": 6},
                                    {"passes": 6}])
def test_twice_the_work_takes_twice_as_long(change):
    for gpu in gpus.values():
        assert estimate_seconds(replace(row, **change), gpu) == pytest.approx(2*estimate_seconds(row, gpu))


def test_small_steps_wait_for_their_launch():
    small = replace(row, weights=1., texts=17, batch=8)
    for gpu in gpus.values(): assert estimate_seconds(small, gpu) == pytest.approx(3*3*gpu.launch)


def test_a_plan_says_that_it_is_an_estimate():
    plan = plan_rows([row], "A100", seeds=3)
    figures = [name for name in plan if name not in ("model", "dataset", "command")]
    assert all("estimate" in name for name in figures)
    assert float(plan[figures[0]][0]) == pytest.approx(3*estimate_seconds(row, gpus["A100"])/3600, abs=.01)
