"The original's habits: each is what it says; its slow step and ours have the same losses."
import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import sparse

from matchbook.datasets import InputError
from matchbook.papers.graph import count_path, describe_pairs, read_heco
from matchbook.papers.heco import (HeCo, MeansNetwork, MeansReader, Reader, ViewBatches, draw_distinct,
                                   draw_few, mean_of)
from matchbook.papers import original as module
from matchbook.papers.original import (
    HabitLoss,
    HabitReader,
    Habits,
    Shapes,
    SlowOriginal,
    complete_path,
    fit_habits,
    growing,
    hash_batches,
    make_growing,
    make_published,
    measure_fast,
    measure_growth,
    measure_slow,
    open_published,
    rank_itself,
    rungs,
    slow_loss,
    split_batches,
    study,
)
from matchbook.products.match_sets import benchmarks
from matchbook.runs import make_run

tiny = dataclasses.replace(HeCo.as_published, width=8, batch=120,
                           training=dataclasses.replace(HeCo.as_published.training, epochs=4, device="cpu"))
few = {"training.epochs": 3, "probe.restarts": 2}


@pytest.fixture(scope="module")
def graph(): return read_heco()[0]


# --- habits

def test_a_complete_path_joins_all_but_oneself(graph):
    found = complete_path(graph)
    densest = max(graph.paths, key=lambda name: graph.paths[name].nnz)
    table = found.paths[densest].toarray()
    np.testing.assert_array_equal(table, 1 - np.eye(graph.n))
    assert all((found.paths[name] != graph.paths[name]).nnz == 0 for name in graph.paths if name != densest)
    chosen = complete_path(graph, "paper-author-paper").paths["paper-author-paper"]
    assert chosen.nnz == graph.n*(graph.n - 1)
    with pytest.raises(InputError, match="did you mean"): complete_path(graph, "paper-authr-paper")
    with pytest.raises(InputError, match="delivered"): complete_path(dataclasses.replace(graph, paths={}))


def test_the_original_with_all_its_habits_is_the_original(graph):
    assert (fit_habits(graph, tiny, rungs["cut-path"], 5)[0] == HeCo(tiny, 5).fit(graph).embed(graph)).all()
    whole = complete_path(graph)
    found = fit_habits(graph, tiny, rungs["complete-path"], 5)[0]
    assert (found == HeCo(tiny, 5).fit(whole).embed(whole)).all()


def test_every_rung_puts_one_habit_right():
    *chain, aside = [dataclasses.astuple(habits) for habits in rungs.values()]
    apart = lambda one, other: sum(a != b for a, b in zip(one, other))
    assert [apart(*pair) for pair in zip(chain, chain[1:])] == [1]*4
    assert rungs["weighed-path"].weighed and apart(aside, dataclasses.astuple(rungs["cut-path"])) == 1
    assert rungs["complete-path"] == Habits(True, True, False, True) and rungs["chosen"] == Habits()


def test_the_weighed_path_is_counted_with_its_cuts(graph):
    weighed = fit_habits(graph, tiny, rungs["weighed-path"])[1]
    counts = [count_path(graph, path, module.weighed) for path in graph.paths]
    assert weighed["density"] == describe_pairs(sum(counts), graph.labels)["density"]
    assert weighed["purity"] != fit_habits(graph, tiny, rungs["cut-path"])[1]["purity"]


def test_readers_have_the_positives_of_their_habits(graph):
    rows = np.arange(0, 360, 3)
    joined = sum(graph.paths.values()).toarray() > 0
    for habits in (Habits(itself=False, drawn=True), Habits(itself=False), Habits(drawn=True), Habits()):
        row, column = HabitReader(graph, tiny, habits).read(rows, 1).pairs.numpy()
        assert (np.diff(row) >= 0).all() and len(set(zip(row, column))) == len(row)
        own = row == column
        if habits.itself: assert len(row[own]) == len(rows)
        elif habits.drawn: assert not own.any()
        allowed = joined if habits.drawn else graph.positives.toarray() > 0
        assert allowed[rows[row[~own]], rows[column[~own]]].all()
    first, again = (HabitReader(graph, tiny, Habits()).read(rows, seed).pairs for seed in (0, 1))
    assert torch.equal(first, again)                                     # chosen: no draw
    drawn = HabitReader(graph, tiny, Habits(drawn=True))
    assert not torch.equal(drawn.read(rows, 0).pairs, drawn.read(rows, 1).pairs)


def test_a_row_without_positives_costs_a_constant_or_nothing(graph):
    torch.manual_seed(0)
    reader = HabitReader(graph, tiny, Habits(itself=False, drawn=True))
    means = reader.read(np.arange(60), 0)
    kept = means.pairs[:, means.pairs[0] >= 30]                         # the first thirty rows lose theirs
    some = dataclasses.replace(means, pairs=kept)
    network = MeansNetwork(tiny, reader.shapes, 2).eval()
    losses = {}
    for constant in (True, False):
        loss = HabitLoss(tiny, Habits(constant=constant, itself=False, drawn=True))
        losses[constant] = float(loss(network, some)[0].detach())
        assert loss.seen.tolist() == [60, 60 - len(kept[0].unique())] and loss.seen[1] >= 30
    with torch.no_grad(): schema, paths = map(network.project, network(some))
    mask = torch.zeros(60, 60, dtype=torch.bool)
    mask[tuple(kept)] = True
    sides = [slow_loss(*views, mask, tiny.temperature) for views in ((paths, schema), (schema, paths))]
    assert losses[True] == pytest.approx(float(sum(sides)/2), abs=1e-5)
    assert losses[False] < losses[True] - 2


def test_itself_is_found_where_it_is():
    rng = np.random.default_rng(0)
    for n in (3, 10):
        schema, paths = (unit(rng.normal(size=(n, 4))) for _ in range(2))
        cosine = schema @ paths.T
        wanted = np.mean([sum(cosine[i, j] < cosine[i, i] for j in range(n) if j != i)/(n - 1)
                          for i in range(n)])
        assert rank_itself(schema, paths) == pytest.approx(wanted)
    assert rank_itself(np.ones((4, 1)), np.ones((4, 1))) == .5


def unit(values): return values/np.linalg.norm(values, axis=1, keepdims=True)


def test_purity_of_a_complete_path_is_chance_and_itself_is_learnt(graph):
    config = dataclasses.replace(tiny, training=dataclasses.replace(tiny.training, epochs=15))
    whole, cut, itself = (fit_habits(graph, config, rungs[name])[1]
                          for name in ("complete-path", "cut-path", "itself"))
    assert abs(whole["purity"] - whole["chance"]) < .01 < cut["purity"] - cut["chance"]
    assert itself["itself"] > max(cut["itself"], whole["itself"] + .05)
    assert itself["alone"] == 0 < whole["alone"]
    labels = describe_pairs(complete_path(graph).paths["paper-subject-paper"], graph.labels)
    assert whole["purity"] == pytest.approx(labels["purity"]) and whole["density"] == 1


@pytest.mark.parametrize("model", ["complete-path", "chosen"])
def test_a_run_twice_is_the_same_to_the_last_digit(model):
    first, again = (make_run(study, "heco-sample", model, "quick", 1, few) for _ in range(2))
    assert first["metrics"] == again["metrics"] and first["details"] == again["details"]
    assert make_run(study, "heco-sample", model, "quick", 2, few)["metrics"] != first["metrics"]


@pytest.mark.parametrize("settings, said", [
    ({"network": "heco"}, "original's network"), ({"batch": None}, "in batches"), ({"widht": 3}, "'width'"),
    ({"probe.step": 3}, "'steps'"), ({"probe.steps": 0}, "probe.steps = 0"),
    ({"probe.rate": "x"}, "rate = 'x'"),
    ({"width": "abc"}, "width = 'abc'")])
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(InputError, match=said): make_run(study, "heco-sample", "itself", settings=settings)


# --- speed

@pytest.mark.parametrize("seed", range(3))
def test_ten_steps_have_the_slow_ones_losses(seed):
    shapes = dataclasses.replace(Shapes().scale(.02), paper_width=20, concept_width=15, width=8)
    slow = measure_slow(shapes, seed)
    fast = measure_fast(shapes, slow["pairs"], seed, repeats=1)
    assert len(slow["losses"]) == len(fast["losses"]) == 10
    np.testing.assert_allclose(fast["losses"], slow["losses"], atol=1e-5)
    assert np.ptp(slow["losses"]) > 1e-3


def test_the_slow_one_draws_what_the_original_draws():
    shapes = dataclasses.replace(Shapes().scale(.02), pos_num=5)
    slow = SlowOriginal(shapes, open_published(shapes, 0)[1], 0)
    rows = torch.from_numpy(split_batches(shapes, 0)[0])
    counts = torch.stack([slow.draw(rows) for _ in range(60)]).float()
    assert not counts[:, range(len(rows)), range(len(rows))].any()
    share = counts.mean()*len(rows)/(len(rows) - 1)
    assert float(share) == pytest.approx(5/(shapes.papers - 1), rel=.15)
    fast = MeansReader(make_published(shapes, 0), open_published(shapes, 0)[0])
    drawn = np.mean([fast.read(rows.numpy(), seed).pairs.shape[1] for seed in range(60)])
    assert drawn/len(rows)/(len(rows) - 1) == pytest.approx(float(share), rel=.15)


@pytest.mark.parametrize("width, most", [(5000, 20), (700, 3), (50, 20)])
def test_a_few_of_a_long_row_are_distinct_and_each_is_as_likely(width, most):
    rng = np.random.default_rng(0)
    table = sparse.csr_matrix(np.ones((4, width), np.float32)).tolil()
    table[2] = 0
    table[2, [3, 9]] = 1
    table[3] = 0
    table = table.tocsr()
    count = np.zeros(width)
    for _ in range(300):
        row, column = draw_few(table, most, rng)
        assert (np.diff(row) >= 0).all() and np.bincount(row, minlength=4).tolist() == [most, most, 2, 0]
        assert len(set(zip(row, column))) == len(row) and set(column[row == 2]) == {3, 9}
        count += np.bincount(column[row < 2], minlength=width)
    tenth = count.reshape(10, -1).sum(1)/count.sum()
    np.testing.assert_allclose(tenth, .1, atol=.02)
    assert abs(count[0] - count[-1]) < 8*math.sqrt(600*most/width) + 4


def test_short_rows_are_drawn_as_before():
    table = sparse.random(30, 200, .3, "csr", rng=np.random.default_rng(0))
    found = draw_few(table, 4, np.random.default_rng(3))
    wanted = draw_distinct(table, np.arange(30), 4, np.random.default_rng(3))
    for mine, theirs in zip(found, wanted): np.testing.assert_array_equal(mine, theirs)


def test_means_by_strips_are_means():
    rng = np.random.default_rng(0)
    table = sparse.random(3000, 1500, .99, "csr", rng=rng)               # more than one strip
    features = rng.normal(size=(1500, 3)).astype(np.float32)
    wanted = (table.toarray() > 0) @ features/np.maximum(1, (table.toarray() > 0).sum(1, keepdims=True))
    np.testing.assert_allclose(mean_of(table, features), wanted, atol=1e-5)
    alone = mean_of(table, None)
    assert alone.shape == table.shape and alone.sum() == pytest.approx(3000, rel=1e-3)


def test_made_up_graphs_have_the_shapes_they_say():
    shapes = Shapes().scale(.05)
    graph = make_published(shapes, 0)
    assert graph.sizes == {"paper": 250, "author": 1608, "concept": 345} == dict(graph.sizes)
    assert graph.links["paper", "author"].nnz == shapes.written
    assert graph.links["paper", "concept"].nnz == shapes.about
    assert graph.paths["paper-concept-paper"].nnz == 250*249
    assert abs(graph.paths["paper-author-paper"].nnz - shapes.joined) < .2*shapes.joined
    again, other = make_published(shapes, 0), make_published(shapes, 1)
    assert (graph.features["paper"] == again.features["paper"]).all()
    assert (graph.features["paper"] != other.features["paper"]).any()
    big = make_growing(2000)
    assert sum(links.nnz for links in big.links.values()) > 19_900


def test_growth_trains_in_batches_and_holds_no_table_of_pairs():
    point = measure_growth(5000)
    assert growing.batch < 5000 and point["loss"] < np.log(growing.batch) and point["epoch"] > 0


def test_the_digest_of_batches_sees_every_part(monkeypatch):
    reader = Reader(make_growing(200), dataclasses.replace(growing, batch=50))
    usual = hash_batches(ViewBatches(reader, 50, 0, 0))
    assert usual == hash_batches(ViewBatches(reader, 50, 0, 0)) != hash_batches(ViewBatches(reader, 50, 0, 1))
    for table in (reader.features["paper"], reader.paths[0].data, reader.paths[1].indices,
                  reader.links["author"].indices, reader.positives.indices):
        kept = table.copy()
        table[:] = table[::-1] if table.dtype != np.float32 else table + 1
        assert hash_batches(ViewBatches(reader, 50, 0, 0)) != usual
        table[:] = kept


@pytest.mark.parametrize("model, settings, wanted", [
    ("heco-speed", {"papers": 100, "authors": 300, "concepts": 80, "written": 800, "about": 900,
                    "joined": 600, "batch": 20, "steps": 2, "repeats": 1}, ("heco_speedup", "heco_memory")),
    ("heco-growth", {"most": 500}, ("seconds_whole", "peak_mb_whole")),
    ("graph-mmap", {"most": 500}, ("seconds_whole", "tables_mb"))])
def test_the_benchmarks_run(model, settings, wanted, monkeypatch):
    monkeypatch.setattr(module, "measure_alone", lambda measure, *words: measure(*words))
    run = make_run(benchmarks, "papers-sample", model, "quick", settings=settings)
    assert all(run["metrics"]["test"][name] > 0 for name in wanted)
    if model == "heco-speed":
        assert run["metrics"]["test"]["heco_losses_compared"] == 2
        assert run["metrics"]["test"]["heco_losses_difference"] < 1e-5
    elif model == "heco-growth":
        assert [point["papers"] for point in run["details"]["points"]] == [100, 100, 100, 150, 500]
    else:
        assert [point["papers"] for point in run["details"]["points"]] == [100, 100, 150, 500]
        assert run["metrics"]["test"]["sizes_same"] == 4
    wrong = {"paperz": 3} if model == "heco-speed" else {"mosst": 3}
    with pytest.raises(InputError, match="did you mean"):
        make_run(benchmarks, "papers-sample", model, settings=wrong)


@pytest.mark.parametrize("model, settings, said", [
    ("heco-speed", {"steps": 0}, "steps = 0: a whole number from 1"),
    ("heco-speed", {"papers": "x"}, "papers = 'x'"),
    ("heco-speed", {"papers": 0}, "papers = 0"), ("heco-speed", {"written": 10**9}, "at most"),
    ("heco-growth", {"most": "abc"}, "most = abc: a whole number from 1"),
    ("graph-mmap", {"most": 0}, "most = 0")])
def test_wrong_numbers_for_the_benchmarks_are_refused(model, settings, said):
    with pytest.raises(InputError, match=said):
        make_run(benchmarks, "papers-sample", model, settings=settings)
