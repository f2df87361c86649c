"Run files: complete, whole or absent, and the only source of every table."
import json
import math
import mmap
import re
import shlex
import time
from pathlib import Path

import numpy as np
import pytest

from matchbook import runs
from matchbook.datasets import InputError
from matchbook.runs import (PrivateMemory, claim_statuses, count_seeds, fill_tables, headline_table,
                            measure_alone, open_study, read_claims, read_runs, results_table, run_path,
                            studies, table_rows, to_markdown, write_run)

root = Path(__file__).parent.parent
results = root/"data"/"results"


def recorded(): return read_runs(results)


def test_every_run_file_is_complete_and_stands_at_its_own_path():
    for path in (results/"runs").rglob("*.json"):
        run = runs.read_run(path)
        wanted = run_path(*(run[key] for key in ("study", "dataset", "model", "preset", "seed")))
        assert path == results/wanted
        assert not run["dirty"], f"{path.name} was made by code that is in no commit"
        assert re.fullmatch(r"[0-9a-f]{64}", run["data"]["sha256"])
        assert re.fullmatch(r"[0-9a-f]{40}", run["commit"])
        assert run["command"].startswith("matchbook run ")
        assert "/" not in run["machine"] + str(run["config"].get("data", ""))


def test_every_run_belongs_to_a_study():
    for run in recorded():
        plan = open_study(run["study"])
        assert run["model"] in plan.models and run["preset"].partition("+")[0] in plan.presets
        assert run["dataset"] in plan.datasets
        assert run["metrics"]["test"].keys() & {plan.measure, *plan.columns}


def test_figures_lie_inside_their_intervals():
    for run in recorded():
        for name, (low, high) in run["intervals"].get("test", {}).items():
            assert low <= run["metrics"]["test"][name] <= high, (run["model"], name)


def test_the_command_of_a_run_names_that_run():
    for run in recorded():
        words = shlex.split(run["command"])
        assert words[words.index("--preset") + 1] == run["preset"].partition("+")[0]
        for key in ("dataset", "model", "seed"): assert words[words.index(f"--{key}") + 1] == str(run[key])


@pytest.mark.parametrize("path", ["README.md", "nbs/index.ipynb"])
def test_tables_in_the_text_equal_the_run_files(path):
    text = (root/path).read_text()
    if path.endswith(".ipynb"):
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    assert "<!-- headline -->" in text
    assert fill_tables(text, results) == text


def test_a_changed_figure_is_noticed():
    text = (root/"README.md").read_text()
    figure = re.search(r"\| (0\.\d{3}) [\[±]", text)[1]
    assert fill_tables(text.replace(figure, "0.999"), results) == text


def test_the_readme_prints_what_the_run_files_hold():
    lines = [line.strip("| ").split(" | ") for line in (root/"README.md").read_text().splitlines()
             if line.startswith("| ")]
    table = {line[0].partition("**: ")[0].strip("* "): dict(zip(lines[0], line)) for line in lines[2:]}
    for name in ("duplicates", "pairs", "papers"):
        plan = open_study(name)
        assert f"{plan.about} ({plan.main}, {plan.measure})" in table[name]["question"]
        runs = [run for run in read_runs(results, name, plan.main)
                if run["preset"] in ("best", "paper", "plain")]
        held = {}
        for run in runs:
            held.setdefault((run["model"], run["preset"]), []).append(run["metrics"]["valid"][plan.measure])
        best = max(held, key=lambda row: np.mean(held[row]))
        tested = np.mean([run["metrics"]["test"][plan.measure] for run in runs
                          if (run["model"], run["preset"]) == best])
        assert table[name]["best row"].startswith(f"{tested:.3f} ")
        assert table[name]["best row"].endswith(f"(`{best[0]}`)")


def test_the_original_of_the_front_page_is_chosen_on_validation_and_names_what_was_replaced(tmp_path):
    few = [{"study": "pairs", "dataset": "abt-buy", "model": name, "preset": preset, "seed": 0,
            "metrics": {"valid": {"f1": held}, "test": {"f1": tested}}, "intervals": {}, "command": "",
            "seconds": {}, "peak_memory_mb": 0, "parameters": {}, "machine": ""}
           for name, preset, held, tested in (
               ("item-pair-mlp", "as_published+batch=64", .5, .9),
               ("pair-mlp", "as_published+batch=64", .6, .2),
               ("tfidf-words", "best", .7, .6), ("boosted-trees", "best", .9, .8))]
    def shown(claims=()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs, "read_runs", lambda folder, study, dataset: few if study == "pairs" else [])
            patch.setattr(runs, "read_claims", lambda *_: list(claims))
            return headline_table(tmp_path).to_dict("records")[0]
    assert shown()["the original's way"] == "0.200 (`pair-mlp`, with `batch=64`)"
    claim = {"dataset": "abt-buy", "measure": "f1", "model": "texts alone", "figure": .75,
             "status": "second hand"}
    assert "reads no more" not in shown([claim])["best published"]
    assert shown([claim | {"without": ["boosted-trees"]}])["best published"] == (
        "0.75 (texts alone; our best row that reads no more: 0.600 (`tfidf-words`); second hand)")


def test_rows_that_a_claim_leaves_out_are_rows_of_its_study():
    for claim in read_claims(results):
        assert {*claim.get("without", ())} <= {*open_study(claim["study"]).models}


@pytest.mark.parametrize(("now", "others", "verdict"), [
    ({"f1": .70}, (.8235, .83, .82), "different"), ({"f1": .70}, (), "within the interval, no other seed"),
    ({"f1": .8235 + 1e-9}, (), "same"), ({"f1": .825}, (.8235, .83, .82), "within the spread"),
    ({"precision": .8 + 1e-8}, (.8235, .83), "same"), ({"precision": .3}, (.8235, .83), "different"),
    ({"precision": None}, (), "different"), ({"precision": .79}, (), "moved, no spread is known")])
def test_every_figure_is_judged_by_rounding_then_by_the_seeds(now, others, verdict):
    old = {"metrics": {"test": {"f1": .8235, "precision": .8, "recall": None}}, "data": {"sha256": "1"},
           "intervals": {"test": {"f1": [.6, .95]}}}
    new = old | {"metrics": {"test": old["metrics"]["test"] | now}}
    same_row = [old | {"metrics": {"test": old["metrics"]["test"] | {"f1": one}}} for one in others]
    assert runs.compare_runs(old, new, "f1", same_row) == verdict


def test_a_figure_of_validation_may_move_as_far_as_that_of_the_test_part():
    old = {"metrics": {"valid": {"f1": .7}, "test": {"f1": .8}}, "data": {"sha256": "1"},
           "intervals": {"test": {"f1": [.75, .85]}}}
    move = lambda to: old | {"metrics": old["metrics"] | {"valid": {"f1": to}}}
    assert [runs.compare_runs(old, move(to), "f1") for to in (.7, .74, .76)] == [
        "same", "within the interval, no other seed", "different"]


def test_every_published_figure_on_the_front_page_carries_its_status():
    for line in headline_table(results)["best published"]:
        assert not line or line.endswith(tuple(f"; {status})" for status in claim_statuses)), line


def test_the_picture_of_the_front_page_is_the_one_the_run_files_make(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(root/"site"))
    from readme import draw_picture, picture
    draw_picture(tmp_path/"front.svg")
    assert (tmp_path/"front.svg").read_bytes() == (root/picture).read_bytes()


@pytest.mark.parametrize(("page", "asked"), [
    ("51_clickbait", {"promise", "headlines"}), ("52_products", {"duplicates", "pairs"}),
    ("53_papers", {"papers", "citations"})])
def test_each_page_of_results_draws_three_costs_over_quality(page, asked, monkeypatch):
    "Every picture that a page's own cells draw is kept and looked at, untrained rows too."
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    kept, real = [], runs.draw_cost
    def draw(rows, *how, **more):
        kept.append((rows, figure := real(rows, *how, **more)))
        return figure
    monkeypatch.setattr(runs, "draw_cost", draw)
    monkeypatch.chdir(root/"nbs"/"5_results")
    place = {}
    for cell in json.loads((root/"nbs"/"5_results"/f"{page}.ipynb").read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "get_ipython" not in source: exec(source, place)
    assert {rows[0]["study"] for rows, _ in kept} == asked
    for rows, figure in kept:
        bounds = {ax.get_xlim() for ax in figure.axes}
        assert len(figure.axes) == 3 and len(bounds) == 1                       # one axis of quality
        for ax, cost in zip(figure.axes, (lambda row: sum(row["seconds"].values()),
                                          lambda row: row["peak_memory_mb"],
                                          lambda row: row["parameters"]["trained"])):
            shown = [line.get_ydata()[0] for line in ax.lines]
            low, high = ax.get_ylim()
            assert sorted(shown) == sorted(map(cost, rows))
            assert all(low < one < high for one in shown)                       # one of 0 weights is in sight
            if 0 in shown: assert "0" in [label.get_text() for label in ax.get_yticklabels()]
            ends = [ax.transData.transform((0, one))[1] for one in (low, *sorted({*shown}), high)]
            assert np.isfinite(ends).all() and ends == sorted(ends)
        assert len(figure.legends[0].get_texts()) == len(rows)
    plt.close("all")


def test_a_cost_of_nothing_stands_apart_from_the_least_one():
    def row(model, trained): return {"model": model, "preset": "best", "seconds": {"fit": 1.},
                                     "metrics": {"f1": {"mean": .5}}, "peak_memory_mb": 9.,
                                     "parameters": {"trained": trained}}
    for some in ((0, 3, 22_000_000), (0, 2_204_435), (0, 0), (7, 9), (0, 1)):
        ax = runs.draw_cost([row(str(place), one) for place, one in enumerate(some)], "f1", "F1").axes[2]
        ax.figure.canvas.draw()
        places = [ax.transData.transform((0, one))[1] for one in sorted({*some})]
        assert all(after - before > 5 for before, after in zip(places, places[1:]))
        ticks = [ax.transData.transform((0, one))[1] for one in ax.get_yticks()
                 if ax.get_ylim()[0] <= one <= ax.get_ylim()[1]]
        assert all(after - before > 8 for before, after in zip(ticks, ticks[1:])), some
    turned = runs.draw_cost([row("a", 1)], "f1", "F1", lower_is_better=True).axes[0]
    assert turned.xaxis_inverted()
    with pytest.raises(InputError, match="no row has a figure named 'auc'"):
        runs.draw_cost([row("a", 1)], "auc", "AUC")


def test_readme_is_made_from_the_front_page(monkeypatch):
    monkeypatch.syspath_prepend(str(root/"site"))
    from readme import make_readme
    assert make_readme(root) == (root/"README.md").read_text()


def test_seeds_become_mean_and_deviation():
    run = recorded()[0]
    def with_seed(seed, figure):
        return run | {"seed": seed, "metrics": {"test": {"row_f1": figure}}}
    row, = table_rows([with_seed(1, .5), with_seed(0, .7)])
    assert row["seeds"] == [0, 1] and row["n"] == 2
    assert row["metrics"]["row_f1"]["mean"] == pytest.approx(.6)
    assert row["metrics"]["row_f1"]["sd"] == pytest.approx(2**.5/10)
    assert row["metrics"]["row_f1"]["interval"] is None


def test_seeds_of_other_settings_or_data_are_said_to_be_mixed(tmp_path):
    run = recorded()[0] | {"config": {"width": 8, "training": {"epochs": 3}, "weight": .5}}
    other = run | {"seed": 1, "config": {"width": 8, "training": {"epochs": 3}, "weight": .7, "later": 1}}
    row, = table_rows([run, other])
    assert row["mixed"] == [] and count_seeds(row) == 2      # chosen by each run; a setting that came later
    moved = other | {"config": {"width": 9, "training": {"epochs": 4}}}
    row, = table_rows([run, moved | {"data": run["data"] | {"sha256": "0"*64}}])
    assert row["mixed"] == ["config.width", "config.training.epochs", "data"]
    for one in (run, moved): write_run(one, tmp_path)
    table = results_table(run["study"], run["dataset"], folder=tmp_path, variants="+" in run["preset"])
    assert table["n"].tolist() == ["2, mixed: config.width, config.training.epochs"]


def test_no_runs_say_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="make one with matchbook run duplicates"):
        results_table("duplicates", "shopee", folder=tmp_path)


def test_a_table_cell_holds_its_command_as_code():
    assert "`matchbook run" in to_markdown(results_table("duplicates", "shopee", folder=results))


def test_claims_have_source_status_and_difference():
    claims = read_claims(results)
    assert claims and all(claim["source"] and claim["differs"] for claim in claims)
    assert {claim["study"] for claim in claims} <= set(studies)


def test_a_child_measures_itself():
    assert measure_alone(math.sqrt, 4) == 2


def test_memory_of_ones_own_is_told_from_that_of_mapped_files(tmp_path):
    if np.isnan(PrivateMemory.now()): pytest.skip("Linux tells them apart")
    np.save(tmp_path/"block.npy", np.ones(4_000_000))
    with PrivateMemory() as mapped: assert np.load(tmp_path/"block.npy", mmap_mode="r").sum() == 4_000_000
    def hold():                        # pages of its own, whatever memory the process has left from before
        pages = mmap.mmap(-1, 32_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.write(b"1"*32_000_000)
        return pages
    with PrivateMemory() as held: pages = hold()
    pages.close()
    with PrivateMemory() as past:
        pages = hold()
        time.sleep(.05)
        pages.close()
    assert mapped.most_mb < 10 < 25 < held.most_mb < 75 and past.most_mb > 20
