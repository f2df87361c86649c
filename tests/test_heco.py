"HeCo: every equation against a loop, the original against its own way, and what every matcher promises."
import dataclasses
import json
import math
import mmap
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.metrics import f1_score
from torch import nn
from torch.nn import functional as F

from matchbook.batches import derive_seed
from matchbook.datasets import InputError
from matchbook.papers import heco as module
from matchbook.papers.graph import (
    CompletePath,
    PathCuts,
    choose_positives,
    count_path,
    describe_pairs,
    make_graph,
    read_heco,
    write_tables,
)
from matchbook.papers.heco import (
    HeCo,
    HeCoConfig,
    HeCoNetwork,
    MeansNetwork,
    MeansReader,
    NodeAttention,
    PartAttention,
    Reader,
    SparseTable,
    ViewBatches,
    ViewLoss,
    choose_alike,
    class_f1,
    contrast,
    describe_vectors,
    draw_distinct,
    draw_neighbours,
    find_parts,
    list_paths,
    open_settings,
    probe,
    scale_rows,
    spread_parts,
    study,
    take_columns,
    train_probes,
    turn_pairs,
    unit_rows,
    weigh_path,
)
from matchbook.papers.original import complete_path
from matchbook.runs import make_run
from matchbook.training import TrainingConfig

short = dataclasses.replace(HeCo.quick, width=8, training=dataclasses.replace(HeCo.quick.training, epochs=3))
def caught(function):
    "What a call warns of."
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", CompletePath)
        function()
    return [str(one.message) for one in found if one.category is CompletePath]


published = dataclasses.replace(HeCo.as_published, width=8, batch=100,
                                training=dataclasses.replace(HeCo.as_published.training, epochs=2))


@pytest.fixture(scope="module")
def graph(): return read_heco()[0]


@pytest.fixture(scope="module", params=["quick", "paper", "as_published"])
def fitted(request, graph):
    three = dataclasses.replace(HeCo.paper.training, epochs=3)
    config = {"quick": short, "as_published": published,
              "paper": dataclasses.replace(HeCo.paper, training=three)}
    return HeCo(config[request.param]).fit(graph)


def small_graph(seed, n=12):
    "Papers of which some have no author or no term, with features for papers alone."
    rng = np.random.default_rng(seed)
    draw = lambda m, count: np.stack([rng.integers(n - 1, size=count), rng.integers(m, size=count)], 1)
    edges = {("paper", "author"): draw(5, 14), ("paper", "term"): draw(4, 12)}
    return make_graph("paper", {"paper": n, "author": 5, "term": 4}, edges, labels=rng.integers(2, size=n),
                      features={"paper": rng.random((n, 6))})


# --- the parts against loops

@pytest.mark.parametrize("seed", range(50))
def test_a_sparse_product_and_its_gradient_are_the_dense_ones(seed):
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 7)), int(rng.integers(1, 7))
    table = sparse.random(*shape, float(rng.random()), "csr", rng=rng)
    first = torch.randn(shape[1], 3, dtype=torch.float32, generator=torch.Generator().manual_seed(seed))
    one, other = first.clone().requires_grad_(), first.clone().requires_grad_()
    mine, plain = SparseTable.from_scipy(table) @ one, torch.from_numpy(table.toarray()).float() @ other
    torch.testing.assert_close(mine, plain)
    mine.pow(2).sum().backward(), plain.pow(2).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("seed", range(50))
def test_the_factors_of_a_path_are_those_of_equation_6(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    joined = rng.random((n, n)) < .4
    joined = (joined | joined.T)*rng.integers(1, 5)
    degree = [sum(joined[i, j] > 0 for j in range(n) if j != i) + 1 for i in range(n)]
    wanted = [[1/math.sqrt(degree[i]*degree[j]) if i == j or joined[i, j] else 0. for j in range(n)]
              for i in range(n)]
    found = weigh_path(sparse.csr_matrix(joined.astype(float))).toarray()
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("seed", range(200))
def test_node_attention_is_equations_2_and_3(seed):
    torch.manual_seed(seed)
    b, v, k, d = (int(x) for x in torch.randint(1, 6, (4,)))
    own, others, places = torch.randn(b, d), torch.randn(v, d), torch.randint(v, (b, k))
    known, attention = torch.rand(b) < .7, NodeAttention(d, .5).eval()
    found = attention(own, others, places, known)
    for i in range(b):
        scores = [F.leaky_relu(attention.vector[0] @ torch.cat([own[i], others[j]])) for j in places[i]]
        alpha = torch.softmax(torch.stack(scores), 0)
        wanted = F.elu(sum(a*others[j] for a, j in zip(alpha, places[i])))*bool(known[i])
        torch.testing.assert_close(found[i], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("seed", range(200))
def test_part_attention_is_equations_4_and_5(seed):
    torch.manual_seed(seed)
    k, b, d = (int(x) for x in torch.randint(1, 6, (3,)))
    parts, attention = torch.randn(k, b, d), PartAttention(d, .5).eval()
    known = torch.rand(k, b) < .7 if seed % 2 else None
    found, beta = attention(parts, known)
    has = known if known is not None else torch.ones(k, b, dtype=torch.bool)
    weight = []
    for part in range(k):
        rows = [torch.tanh(attention.linear(parts[part, i])) for i in range(b) if has[part, i]]
        weight.append(attention.vector[0] @ (sum(rows)/len(rows)) if rows else torch.tensor(0.))
    torch.testing.assert_close(beta, torch.softmax(torch.stack(weight), 0), atol=1e-5, rtol=1e-4)
    for i in range(b):
        total = sum(beta[part] for part in range(k) if has[part, i])
        wanted = sum((beta[part]/total*parts[part, i] for part in range(k) if has[part, i]), torch.zeros(d))
        torch.testing.assert_close(found[i], wanted, atol=1e-5, rtol=1e-4)


def contrast_by_looping(first, second, pairs, temperature, balance, itself=True, empty=None):
    "Equations 10 and 11 (or the original's, see the loss of its cell 8), row by row."
    b, sides = len(first), []
    mine = {(int(i), int(j)) for i, j in pairs.T if itself or i != j}
    for one, other in ((first, second), (second, first)):
        losses = []
        for i in range(b):
            near = [torch.exp(F.cosine_similarity(one[i], other[k], dim=0)/temperature) for k in range(b)]
            total = sum(near[k] for k in range(b) if itself or k != i)
            hits = [near[j] for j in range(b) if (i, j) in mine]
            if hits: losses.append(-torch.log(sum(hits)/total))
            elif empty is not None: losses.append(-(math.log(empty) - torch.log(total)))
        sides.append(torch.stack(losses).mean())
    return balance*sides[0] + (1 - balance)*sides[1]


@pytest.mark.parametrize("seed", range(200))
def test_the_contrast_and_its_gradient_are_those_of_a_loop(seed, monkeypatch):
    monkeypatch.setattr(module, "strip_cells", seed % 17 + 1)
    torch.manual_seed(seed)
    b, d, = int(torch.randint(2, 8, (1,))), int(torch.randint(2, 5, (1,)))
    table = torch.rand(b, b) < .4
    table[0, 1] = True
    pairs, first, second = table.nonzero().T, torch.randn(b, d), torch.randn(b, d)
    more = {"itself": False, "empty": 1e-8} if seed % 3 == 0 else {"itself": False} if seed % 3 == 1 else {}
    sides = []
    for call in (contrast, contrast_by_looping):
        one, other = first.clone().requires_grad_(), second.clone().requires_grad_()
        loss = call(one, other, pairs, .5, .3, **more)
        loss.backward()
        sides.append((loss.detach(), one.grad, other.grad))
    for mine, wanted in zip(*sides): torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=1e-3)


def test_turned_pairs_rise_by_column():
    assert turn_pairs(torch.tensor([[0, 0, 1, 2], [1, 2, 0, 1]])).tolist() == [[0, 1, 1, 2], [1, 0, 2, 0]]


@pytest.mark.parametrize("seed", range(100))
def test_neighbours_are_neighbours_and_differ_where_they_can(seed):
    rng = np.random.default_rng(seed)
    links = sparse.csr_matrix(rng.random((6, 7)) < rng.random())
    rows, count = rng.permutation(6)[:4], int(rng.integers(1, 5))
    drawn, known = draw_neighbours(links.astype(np.float32), rows, count, np.random.default_rng(seed))
    for row, nodes, has in zip(rows, drawn, known):
        there = set(np.flatnonzero(links[row].toarray()[0]))
        assert has == bool(there)
        assert set(nodes) <= there if there else (nodes == 0).all()
        if len(there) >= count: assert len(set(nodes)) == count
    owner, column = draw_distinct(links.astype(np.float32), rows, count, rng)
    for place, row in enumerate(rows):
        mine = column[owner == place]
        there = np.flatnonzero(links[row].toarray()[0])
        assert len(set(mine)) == len(mine) == min(count, len(there)) and set(mine) <= set(there)


def test_every_neighbour_is_as_likely():
    links = sparse.csr_matrix(np.array([[1, 1, 1, 1, 1, 0], [0, 1, 0, 1, 0, 0]], dtype=np.float32))
    rows = np.repeat([0, 1], 4000)
    drawn, _ = draw_neighbours(links, rows, 3, np.random.default_rng(0))
    often = [np.bincount(some.ravel(), minlength=6)/4000 for some in (drawn[:4000], drawn[4000:])]
    np.testing.assert_allclose(often, [[.6]*5 + [0], [0, 1.5, 0, 1.5, 0, 0]], atol=.05)


# --- the network

def read_slowly(network, graph, config, views):
    "HeCo's forward pass by loops over papers, from the graph itself."
    target, h = graph.target, {}
    for name, (size, given) in Reader(graph, config).shapes.items():
        transform = network.transforms[name]
        values = graph.features.get(name) if given else None
        rows = []
        for node in range(size):
            if values is None: row = transform.weight[node]
            else:
                x = torch.from_numpy(np.asarray(values[node], dtype=np.float32).ravel())
                row = (x/x.abs().sum() if x.abs().sum() else x) @ transform.weight
            rows.append(F.elu(row + transform.bias))
        h[name] = torch.stack(rows)
    joined = []
    for at, path in enumerate([f"{target}-author-{target}", f"{target}-term-{target}"]):
        table = (count_path(graph, path).toarray() > 0) | np.eye(graph.n, dtype=bool)
        degree = table.sum(1)
        heard = [sum(network.path_linear[at](h[target][j])/math.sqrt(degree[i]*degree[j])
                     for j in range(graph.n) if table[i, j]) + network.path_bias[at] for i in range(graph.n)]
        joined.append(torch.stack([torch.where(x > 0, x, network.path_slope[at]*x) for x in heard]))
    schema, known = [], []
    for name, places, has in views.near:
        nodes, attention = views.nodes[name][places], network.node_level[name]
        rows = []
        for i in range(graph.n):
            scores = torch.stack([F.leaky_relu(attention.vector[0] @ torch.cat([h[target][i], h[name][j]]))
                                  for j in nodes[i]])
            alpha = torch.softmax(scores, 0)
            rows.append(F.elu(sum(a*h[name][j] for a, j in zip(alpha, nodes[i])))*float(has[i]))
        schema.append(torch.stack(rows))
        known.append(has)
    return (network.type_level(torch.stack(schema), torch.stack(known))[0],
            network.path_level(torch.stack(joined))[0])


@pytest.mark.parametrize("seed", range(10))
def test_both_views_are_what_loops_over_papers_say(seed):
    graph = small_graph(seed)
    config = HeCoConfig(width=4, samples=(2, 3))
    reader = Reader(graph, config)
    torch.manual_seed(seed)
    network = HeCoNetwork(config, reader.shapes, 2).eval()
    with torch.no_grad(): network.path_bias.normal_(), network.path_slope.uniform_()
    views = reader.read(None, seed)
    for mine, wanted in zip(network(views), read_slowly(network, graph, config, views)):
        torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-4)
        assert mine.isfinite().all()


def test_a_batch_reads_as_the_whole_does(graph):
    config = HeCoConfig(width=8)
    reader, rows = Reader(graph, config), np.array([5, 9, 100, 359])
    network = HeCoNetwork(config, reader.shapes, 2).eval()
    read = lambda views: network.read_paths(views, network.transform(views, "paper"))
    batch, whole = reader.read(rows, 0), reader.read(None, 0)
    torch.testing.assert_close(read(batch), read(whole)[:, rows], atol=1e-5, rtol=1e-4)
    wanted = {(a, b) for a in range(4) for b in range(4) if graph.positives[rows[a], rows[b]]}
    assert set(map(tuple, batch.pairs.T.tolist())) == wanted
    assert (batch.nodes["author"][batch.near[0][1]][0] < graph.sizes["author"]).all()


def test_the_schema_of_a_batch_is_that_of_the_whole():
    "Where each paper has one author and one term, whatever is drawn is the same."
    n, rng = 9, np.random.default_rng(0)
    edges = {("paper", end): np.stack([np.arange(n), rng.integers(4, size=n)], 1)
             for end in ("author", "term")}
    graph = make_graph("paper", {"paper": n, "author": 4, "term": 4}, edges,
                       features={"paper": rng.random((n, 6))})
    reader, rows = Reader(graph, HeCoConfig(width=4)), np.array([2, 5, 8])
    network = HeCoNetwork(reader.config, reader.shapes, 2).eval()
    read = lambda views: network.read_schema(views, network.transform(views, "paper"))[0]
    batch, whole = read(reader.read(rows, 1)), read(reader.read(None, 0))
    torch.testing.assert_close(batch, whole[:, rows], atol=1e-5, rtol=1e-4)


def test_learnt_vectors_are_one_hot_features():
    graph = small_graph(3)
    plain = dataclasses.replace(graph, features={})
    told = dataclasses.replace(graph, features={"paper": np.eye(graph.n)})
    config, found = HeCoConfig(width=4), []
    for some in (plain, told):
        reader = Reader(some, config)
        torch.manual_seed(0)
        network = HeCoNetwork(config, reader.shapes, 2).eval()
        found.append(network(reader.read(None, 0)))
    for mine, wanted in zip(*found): torch.testing.assert_close(mine, wanted, atol=1e-6, rtol=1e-5)


def test_hidden_features_are_not_seen():
    graph = small_graph(0)
    config = HeCoConfig(width=4, parts=3, mask=.5)
    reader = Reader(graph, config)
    network = HeCoNetwork(config, reader.shapes, 2).eval()
    views, hidden = reader.read(None, 0), torch.arange(graph.n) < 6
    power = 1 + hidden.numpy()[:, None]                                  # those of the hidden are others
    changed = dataclasses.replace(graph, features={"paper": graph.features["paper"]**power})
    other = Reader(changed, config).read(None, 0)
    for mine, wanted in zip(network(views, hidden), network(other, hidden)):
        torch.testing.assert_close(mine, wanted)
    assert not torch.allclose(network(views)[1], network(other)[1])


# --- the original

class SlowOriginal(nn.Module):
    "The original's two encoders as it ran them: lists, one row at a time, one-hot tables in full."

    def __init__(self, graph, network):
        super().__init__()
        self.graph, self.network = graph, network

    def average(self, table, lists):
        zeros = torch.zeros(table.shape[1])
        return torch.stack([table[some].mean(0) if len(some) else zeros for some in lists])

    def view(self, tables, lists, linears, weigh):
        parts = [F.elu(linear(self.average(table, some)))
                 for table, some, linear in zip(tables, lists, linears)]
        x = torch.stack(parts, dim=1)
        alpha = torch.softmax(weigh(torch.tanh(x)), dim=1)
        return F.normalize((alpha*x).sum(1), dim=1)

    def forward(self, rows):
        graph, network = self.graph, self.network
        table = {name: torch.from_numpy(np.asarray(graph.features.get(name, np.eye(size)), dtype=np.float32))
                 for name, size in graph.sizes.items()}
        lists = {name: [graph.link("paper", name)[row].indices.tolist() for row in rows]
                 for name in graph.neighbours}
        joined = []
        for name in graph.neighbours:
            counts = count_path(graph, f"paper-{name}-paper").toarray()
            joined.append([[j for j in range(graph.n) if counts[i, j] and j != i] for i in rows])
        tables = [table[name] for name in lists]
        return (self.view(tables, lists.values(), network.schema, network.weigh_schema),
                self.view([table["paper"]]*2, joined, network.paths, network.weigh_paths))


@pytest.mark.parametrize("seed", range(5))
def test_ten_steps_of_the_original_have_its_losses(seed):
    graph = small_graph(seed, 30)
    config = dataclasses.replace(HeCo.as_published, width=6, feature_dropout=0., pos_num=3, batch=10)
    reader = MeansReader(graph, config)
    losses = []
    for slow in (False, True):
        torch.manual_seed(seed)
        network = MeansNetwork(config, reader.shapes, 2)
        model = SlowOriginal(graph, network) if slow else network
        optimizer, mine = torch.optim.AdamW(network.parameters(), lr=.005, weight_decay=1e-4), []
        for epoch in range(4):
            for batch in ViewBatches(reader, 10, seed, epoch):
                optimizer.zero_grad()
                both = model(batch.rows.numpy()) if slow else model(batch)
                schema, paths = (network.project(view) for view in both)
                call = contrast_by_looping if slow else contrast
                loss = call(paths, schema, batch.pairs, .6, .5, itself=False, empty=1e-8)
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 5.)
                optimizer.step()
                mine.append(float(loss.detach()))
        losses.append(mine[:10])
    assert len(losses[0]) == 10
    np.testing.assert_allclose(*losses, atol=1e-5)


def test_the_original_draws_positives_of_paths_and_never_itself(graph):
    reader, rows = MeansReader(graph, HeCo.as_published), np.arange(0, 360, 2)
    joined = sum(graph.paths.values()).toarray() > 0
    first, again, other = (reader.read(rows, seed) for seed in (0, 0, 1))
    assert torch.equal(first.pairs, again.pairs) and not torch.equal(first.pairs, other.pairs)
    row, column = rows[first.pairs[0]], rows[first.pairs[1]]
    assert joined[row, column].all() and (row != column).all() and (np.bincount(first.pairs[0]) <= 20).all()
    assert (np.diff(first.pairs[0]) >= 0).all()


def test_a_paper_alone_reads_zeros_in_the_original():
    graph = small_graph(0)
    reader = MeansReader(graph, published)                               # the last paper has no link at all
    assert reader.schema["author"][[11]].nnz == 0 and not reader.paths[0][11].any()


# --- training

def test_the_loss_falls(fitted):
    rows = fitted.history_.rows
    if fitted.config.network == "published": return                      # drawn positives: it need not
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_vectors_are_float32_unit_rows(fitted, graph):
    for view in module.views:
        found = fitted.embed(graph, view)
        assert found.dtype == np.float32
        assert found.shape == (graph.n, fitted.config.width + fitted.config.beside)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    with pytest.raises(InputError, match="did you mean 'paths'"): fitted.embed(graph, "path")


def test_what_stands_beside_is_spread_without_training(graph):
    without = HeCo(dataclasses.replace(short, beside=0), 0).fit(graph).embed(graph)
    fitted = HeCo(dataclasses.replace(short, beside=12), 0).fit(graph)
    paths = [module.weigh_path(path) for path in module.list_paths(graph, short).values()]
    spread = module.spread_parts(paths, graph.features["paper"], 12)
    np.testing.assert_allclose(fitted.embed(graph)*2**.5, np.hstack([without, spread]), atol=1e-6)
    far = HeCo(dataclasses.replace(short, beside=12, spread_steps=5, beside_weight=3.), 0).fit(graph)
    far.network_.load_state_dict(fitted.network_.state_dict())
    spread = module.spread_parts(paths, graph.features["paper"], 12, steps=5)
    np.testing.assert_allclose(far.embed(graph)*10**.5, np.hstack([without, 3*spread]), atol=1e-6)
    with pytest.raises(InputError, match="beside = 4 makes no sense"):
        dataclasses.replace(HeCo.as_published, beside=4)


def test_the_row_without_training_is_as_wide_and_as_far_as_what_stands_beside(graph):
    config = dataclasses.replace(short, beside=9, spread_steps=4)
    paths = [module.weigh_path(path) for path in module.list_paths(graph, config).values()]
    spread = module.spread_parts(paths, graph.features["paper"], 9, steps=4)
    np.testing.assert_array_equal(module.make_vectors("spread", graph, config, None), spread)
    assert module.make_vectors("parts", graph, config, None).shape == (graph.n, 9)


def test_weights_of_types_and_paths_sum_to_one(fitted, graph):
    found = fitted.weigh(graph)
    assert list(found) == ["author", "subject", "paper-author-paper", "paper-subject-paper"]
    assert sum(list(found.values())[:2]) == pytest.approx(1) == sum(list(found.values())[2:])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(fitted, graph):
    again = HeCo(fitted.config, 0).fit(graph)
    np.testing.assert_array_equal(again.embed(graph), fitted.embed(graph))
    assert again.history_.rows[-1]["train_loss"] == fitted.history_.rows[-1]["train_loss"]
    assert not np.array_equal(HeCo(fitted.config, 1).fit(graph).embed(graph), fitted.embed(graph))


def test_training_leaves_the_callers_chance_alone(graph):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    HeCo(short).fit(graph)
    assert torch.equal(torch.rand(3), wanted)


def test_labels_and_splits_are_not_looked_at(fitted, graph):
    blind = dataclasses.replace(graph, labels=None, splits={})
    np.testing.assert_array_equal(HeCo(fitted.config, 0).fit(blind).embed(graph), fitted.embed(graph))


def test_saved_and_loaded_gives_the_same_bits(fitted, graph, tmp_path):
    again = HeCo.load(fitted.save(tmp_path/"model"))
    assert again.config == fitted.config and again.history_ == fitted.history_
    np.testing.assert_array_equal(again.embed(graph), fitted.embed(graph))
    assert {path.suffix for path in (tmp_path/"model").iterdir()} == {".json", ".safetensors"}


def test_settings_are_frozen(fitted):
    with pytest.raises(dataclasses.FrozenInstanceError): fitted.config.width = 1


def test_batches_place_as_the_whole_does(graph):
    model = HeCo(dataclasses.replace(short, view="paths")).fit(graph)
    whole = model.embed(graph)
    model.config = dataclasses.replace(model.config, batch=50)
    np.testing.assert_allclose(model.embed(graph), whole, atol=1e-5)


@pytest.mark.parametrize("field,value", [
    ("width", 16), ("features", "all"), ("paths", ("paper-author-paper",)), ("cuts", PathCuts(top=3)),
    ("samples", (2,)), ("feature_dropout", .6), ("attention_dropout", 0.), ("temperature", .3),
    ("balance", .9), ("pos_num", 3), ("rule", "kinds"), ("parts", 8), ("alike", False), ("mask", .5),
    ("rebuild", 1.), ("batch", 90), ("view", "schema")])
def test_every_option_has_an_effect(graph, field, value):
    base = dataclasses.replace(short, width=8)
    changed = HeCo(dataclasses.replace(base, **{field: value})).fit(graph).embed(graph)
    usual = HeCo(base).fit(graph).embed(graph)
    assert changed.shape != usual.shape or not np.allclose(changed, usual, atol=1e-3)


def test_a_type_without_features_and_papers_without_links(tmp_path):
    "Nothing becomes NaN, and nobody is lost."
    for features in ({}, {"paper": np.zeros((12, 6))}):
        graph = dataclasses.replace(small_graph(1), features=features)
        for config in (short, dataclasses.replace(HeCo.paper, training=short.training), published):
            vectors = HeCo(config).fit(graph).embed(graph)
            assert np.isfinite(vectors).all() and len(vectors) == 12


def test_another_graph_is_refused_where_vectors_belong_to_nodes(graph):
    model = HeCo(short).fit(graph)
    with pytest.raises(InputError, match="fitted was"): model.embed(dataclasses.replace(graph, features={}))
    wider = dataclasses.replace(graph, sizes=graph.sizes | {"subject": 25}, links={
        ("paper", "author"): graph.links["paper", "author"],
        ("paper", "subject"): sparse.csr_matrix((graph.n, 25), dtype=np.float32)})
    with pytest.raises(InputError, match="subject: 25 nodes"): model.embed(wider)
    fewer = dataclasses.replace(graph, paths={"paper-author-paper": graph.paths["paper-author-paper"]})
    with pytest.raises(InputError, match="this graph has paper-author-paper"): model.embed(fewer)


def test_what_was_not_trained_or_is_no_model_is_refused(graph, tmp_path):
    for call in (lambda: HeCo().embed(graph), lambda: HeCo().save(tmp_path), lambda: HeCo().parameters):
        with pytest.raises(InputError, match="call fit first"): call()
    with pytest.raises(InputError, match="holds no model.json"): HeCo.load(tmp_path)
    (tmp_path/"model.json").write_text(json.dumps({"kind": "match-sets"}))
    with pytest.raises(InputError, match="is of kind 'match-sets'"): HeCo.load(tmp_path)


@pytest.mark.parametrize("wrong,said", [
    ({"network": "gcn"}, "no network named 'gcn'"), ({"view": "pathes"}, "did you mean 'paths'"),
    ({"temperature": 0.}, "temperature = 0.0 makes no sense"), ({"balance": 2.}, "balance"),
    ({"mask": 1.}, "mask"), ({"samples": (0,)}, "samples"), ({"rebuild": 1.}, "rebuild"),
    ({"alike": True}, "alike"), ({"batch": 1}, "batch"), ({"pos_num": 0}, "pos_num = 0"),
    ({"pos_num": 2.5}, "pos_num = 2.5: a whole number or null"), ({"rule": "share"}, "'shares'"),
    ({"parts": 4, "mask": .1, "rebuild": -1.}, "rebuild = -1.0"),
    ({"width": "abc"}, "width = 'abc': a whole"),
    ({"samples": 3}, "samples = 3: a list"), ({"cuts": {"tpo": 5}}, "did you mean 'top'"),
    ({"cuts": 3}, "cuts = 3"), ({"cuts": {"top": "x"}}, "top = 'x'"),
    ({"training": {"epohs": 3}}, "'epochs'"),
    ({"training": {"epochs": 0}}, "epochs = 0"), ({"training": {"epochs": "x"}}, "epochs = 'x'"),
    ({"spread_steps": -1}, "spread_steps"), ({"beside_weight": 0.}, "beside_weight"),
])
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(InputError) as error: HeCoConfig(**wrong)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_one_path_may_be_given_as_a_word():
    assert HeCoConfig(paths="paper-author-paper").paths == ("paper-author-paper",)


def test_a_delivered_path_that_is_complete_is_warned_of(graph):
    assert not caught(lambda: list_paths(graph, HeCoConfig()))
    whole = complete_path(graph, "paper-subject-paper")
    said, = caught(lambda: list_paths(whole, HeCoConfig()))
    assert "paper-subject-paper, as it is delivered, joins 100.0% of all pairs: positives drawn" in said
    with pytest.warns(CompletePath): HeCo(dataclasses.replace(HeCoConfig(), width=4)).prepare(whole)
    with pytest.warns(CompletePath): HeCo(published).prepare(whole)
    assert not caught(lambda: list_paths(whole, HeCoConfig(paths="paper-author-paper")))
    assert not caught(lambda: list_paths(whole, HeCoConfig(cuts=PathCuts(top=3))))        # counted anew


def test_positives_are_delivered_or_chosen(graph):
    same = lambda config, wanted: (Reader(graph, config).positives != wanted).nnz == 0
    counts = [count_path(graph, path) for path in graph.paths]
    assert same(HeCoConfig(), graph.positives)
    assert same(HeCoConfig(pos_num=3), choose_positives(counts, 3))
    assert same(HeCoConfig(cuts=PathCuts(top=4)),
                choose_positives([count_path(graph, path, PathCuts(top=4)) for path in graph.paths], 5))
    bare = dataclasses.replace(graph, positives=None, paths={})
    assert (Reader(bare, HeCoConfig()).positives != choose_positives(counts, 5)).nnz == 0


def test_alike_positives_are_those_of_a_loop(graph):
    vectors = spread_parts([weigh_path(path) for path in graph.paths.values()], graph.features["paper"], 16)
    counts = [count_path(graph, path) for path in graph.paths]
    found = choose_alike(counts, vectors, 4, "kinds")
    kinds = sum((count > 0).toarray().astype(float) for count in counts)
    for row in range(0, 360, 7):
        score = kinds[row]*np.maximum(vectors @ vectors[row], 1e-6)
        score[row] = 0
        best = np.sort(score[score > 0])[::-1][:3]
        mine = [column for column in found[row].indices if column != row]
        np.testing.assert_allclose(sorted(score[mine], reverse=True), best, rtol=1e-5)
    pure = [describe_pairs(pairs, graph.labels)["purity"] for pairs in (found, graph.positives)]
    assert pure[0] > pure[1]


def test_parts_and_spread_are_plain_linear_algebra(graph):
    table = unit_rows(graph.features["paper"])
    parts = find_parts(table, 10)
    value = np.linalg.svd(table.toarray(), compute_uv=False)[:10]
    np.testing.assert_allclose(np.linalg.norm(parts, axis=0)[:3], value[:3], rtol=.02)
    paths = [weigh_path(path) for path in graph.paths.values()]
    mean = sum(path.toarray() for path in paths)/2
    spread_out = spread_parts(paths, graph.features["paper"], 10)
    np.testing.assert_allclose(spread_out, unit_rows(mean @ mean @ parts), atol=1e-5)
    np.testing.assert_allclose(abs(scale_rows(graph.features["paper"])).sum(1), 1, atol=1e-5)


# --- the probe

@pytest.mark.parametrize("seed", range(50))
def test_class_f1_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(3, 30)), int(rng.integers(2, 5))
    said, truth = rng.integers(classes, size=(3, n)), rng.integers(classes, size=n)
    macro, micro = class_f1(said, truth)
    np.testing.assert_allclose(macro[0], [f1_score(truth, one, average="macro") for one in said])
    np.testing.assert_allclose(micro[0], [f1_score(truth, one, average="micro") for one in said])


def split_three(rng, n): return tuple(np.array_split(rng.permutation(n), 3))


def test_probes_trained_at_once_are_those_trained_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(3, size=40)
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    together = list(train_probes(x, y, 3, .05, 30, 4, 7))[-1]
    chance, bound = torch.Generator().manual_seed(derive_seed(7)), math.sqrt(6/8)
    starts = (2*torch.rand(4, 5, 3, generator=chance) - 1)*bound
    for r in range(4):
        linear = nn.Linear(5, 3)
        with torch.no_grad(): linear.weight.copy_(starts[r].T), linear.bias.zero_()
        optimizer = torch.optim.Adam(linear.parameters(), lr=.05)
        for _ in range(30):
            optimizer.zero_grad()
            F.cross_entropy(linear(x), y).backward()
            optimizer.step()
        torch.testing.assert_close(together[0][r], linear.weight.detach().T, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_the_step_is_the_best_on_valid_and_test_is_scored_with_it(seed):
    rng = np.random.default_rng(seed)
    vectors, labels = rng.normal(size=(90, 6)).astype(np.float32), rng.integers(3, size=90)
    parts, macros, tests = split_three(rng, 90), [], []
    start = torch.from_numpy(vectors[parts[0]]), torch.from_numpy(labels[parts[0]]), 3, .05, 25, 1, 0
    for weight, bias in train_probes(*start):
        for rows, found in ((parts[1], macros), (parts[2], tests)):
            said = (torch.from_numpy(vectors[rows]) @ weight + bias).argmax(2)[0].numpy()
            found.append(f1_score(labels[rows], said, average="macro"))
    read = probe(vectors, labels, parts, steps=25, restarts=1)
    assert read.valid["macro_f1"] == pytest.approx(max(macros))
    assert read.test["macro_f1"] == pytest.approx(tests[int(np.argmax(macros))])


def test_labels_of_test_choose_nothing():
    rng = np.random.default_rng(2)
    vectors, labels = rng.normal(size=(90, 6)).astype(np.float32), rng.integers(3, size=90)
    parts = split_three(rng, 90)
    read, other = probe(vectors, labels, parts, restarts=3), labels.copy()
    other[parts[2]] = (other[parts[2]] + 1) % 3
    blind = probe(vectors, other, parts, restarts=3)
    assert blind.valid == read.valid and blind.test != read.test


@pytest.mark.parametrize("labels,said", [([-1]*9, "has no label"), ([0]*9, "one class to learn from")])
def test_a_probe_without_classes_is_refused(labels, said):
    vectors, parts = np.ones((9, 2), dtype=np.float32), tuple(np.arange(9).reshape(3, 3))
    with pytest.raises(InputError, match=said): probe(vectors, np.array(labels), parts)


def test_collapse_is_seen():
    rng, n = np.random.default_rng(0), 200
    ring = sparse.csr_matrix((np.ones(n), (np.arange(n), np.roll(np.arange(n), 1))))
    spread_out = unit_rows(rng.normal(size=(n, 16)).astype(np.float32))
    collapsed = unit_rows((1 + .01*rng.normal(size=(n, 16))).astype(np.float32))
    good, bad = describe_vectors(spread_out, ring), describe_vectors(collapsed, ring)
    assert abs(good["random"]) < .05 < .99 < bad["random"]
    assert good["uniformity"] < -3 < -.1 < bad["uniformity"]


# --- the study

few = {"probe.restarts": 3, "probe.steps": 30}


@pytest.mark.parametrize("model", study.models)
def test_a_run_twice_is_the_same_to_the_last_digit(model):
    first, again = (make_run(study, "heco-sample", model, "quick", settings=few) for _ in range(2))
    for key in ("metrics", "intervals", "config", "data"): assert first[key] == again[key]
    assert set(study.columns) <= set(first["metrics"]["test"]) and first["threshold"] is None
    for name, (low, high) in first["intervals"]["test"].items():
        assert low <= first["metrics"]["test"][name] <= high


def test_the_three_presets_of_heco_run():
    for preset in ("paper", "as_published"):
        run = make_run(study, "heco-sample", "heco", preset, settings=few | {"training.epochs": 2})
        assert len(run["details"]["history"]["rows"]) == 2 and run["parameters"]["trained"] > 0
        json.dumps(run)


@pytest.mark.parametrize("model,preset,settings,said", [
    ("parts", "paper", {}, "would change nothing"), ("spread", "as_published", {}, "would change nothing"),
    ("heco", "quick", {"widht": 3}, "did you mean 'width'"), ("heco", "quick", {"probe.step": 3}, "'steps'"),
    ("hecko", "quick", {}, "did you mean 'heco'"), ("parts", "quick", {"probe.steps": 0}, "probe.steps = 0"),
    ("parts", "quick", {"probe.restarts": "x"}, "restarts = 'x'"),
    ("parts", "quick", {"probe.rate": -1}, "rate"),
    ("parts", "quick", {"paths": "paper-autor-paper"}, "did you mean 'author'"),
])
def test_wrong_words_are_refused(model, preset, settings, said):
    with pytest.raises(InputError, match=said):
        make_run(study, "heco-sample", model, preset, settings=settings)


def test_the_paper_is_tuned_by_its_authors_and_the_rest_is_not():
    assert open_settings("heco", "paper", "heco-aminer", {}).training.patience == 40
    assert open_settings("heco", "paper", "elsewhere", {}) == HeCo.paper
    same = {name for name in study.datasets if open_settings("heco", "best", name, {}) == HeCo.best}
    assert same == {*study.datasets} - {*module.chosen}
    chosen, paper = (open_settings("heco", preset, "heco-aminer", {}) for preset in ("best", "paper"))
    bare = {"beside": 0, "spread_steps": None, "beside_weight": 1., "training": paper.training}
    assert dataclasses.replace(chosen, **bare) == paper and chosen.beside
    assert set(module.tuned) == {name for name in study.datasets if name != study.sample}


def test_batches_hold_every_target_once_in_an_order_of_each_epoch(graph):
    reader = Reader(graph, HeCoConfig(width=4))
    first, again, other = (ViewBatches(reader, 100, 0, epoch).rows for epoch in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first, again)) and (first[0] != other[0]).any()
    assert sorted(np.concatenate(first)) == list(range(360)) and len(first) == 4
    assert all((np.diff(rows) > 0).all() for rows in first) and (first[0] != np.arange(100)).any()
    assert [len(rows) for rows in ViewBatches(reader, 359, 0, 0).rows] == [359]   # one alone has no other
    assert ViewBatches(reader, None, 0, 0).rows == [None]


def test_training_config_reaches_the_optimizer(graph):
    slow = dataclasses.replace(short, training=TrainingConfig(epochs=3, learning_rate=1e-9, weight_decay=0.))
    losses = [row["train_loss"] for row in HeCo(slow).fit(graph).history_.rows]
    assert max(losses) - min(losses) < .2


def test_the_loss_of_an_epoch_is_the_mean_over_its_targets(graph):
    config = dataclasses.replace(short, mask=0., batch=100)
    model = HeCo(config)
    reader, loss = model.prepare(graph), ViewLoss(config)
    network = HeCoNetwork(config, reader.shapes, 2).eval()
    batches = ViewBatches(reader, 100, 0, 0)
    losses = [(float(loss(network, views)[0].detach()), len(views)) for views in batches]
    assert sum(n for _, n in losses) == 360 and len(losses) == 4
    assert loss.end_epoch()["loss"] == pytest.approx(sum(a*n for a, n in losses)/360)
    one = float(loss(network, next(iter(batches)))[0].detach())
    assert loss.end_epoch()["loss"] == pytest.approx(one)                # nothing is left of the epoch before


# Tables that stay on disk.

def list_numbers(part):
    "All tensors of some views, one after another."
    if isinstance(part, dict): part = list(part.values())
    if isinstance(part, SparseTable): part = part.table
    if isinstance(part, (list, tuple)): return [one for some in part for one in list_numbers(some)]
    if isinstance(part, torch.Tensor) and part.layout == torch.sparse_csr:
        return [part.crow_indices(), part.col_indices(), part.values()]
    return [part] if isinstance(part, torch.Tensor) else []


def is_mapped(array):
    "Whether an array is a file's."
    while array is not None and not isinstance(array, mmap.mmap): array = getattr(array, "base", None)
    return array is not None


@pytest.mark.parametrize("config", [
    HeCo.paper, HeCo.best, HeCo.quick, dataclasses.replace(HeCo.paper, features="all", cuts=PathCuts(top=5)),
    dataclasses.replace(HeCo.best, rebuild=1., paths=("paper-author-paper",))])
def test_batches_out_of_files_are_those_out_of_memory(graph, config, tmp_path):
    memory = Reader(graph, config)
    mapped = Reader.load(memory.save(tmp_path), config)
    assert mapped.shapes == memory.shapes and mapped.counts == memory.counts and mapped.n == graph.n
    for epoch in range(2):
        for one, other in zip(ViewBatches(memory, 50, 3, epoch), ViewBatches(mapped, 50, 3, epoch)):
            first, second = (list_numbers(list(vars(views).values())) for views in (one, other))
            assert len(first) == len(second) > 10
            assert all(torch.equal(a, b) for a, b in zip(first, second))
    tables = [*mapped.paths, *mapped.links.values(), mapped.positives, *mapped.features.values()]
    for table in tables + ([] if mapped.parts is None else [mapped.parts]):
        for one in (table.indptr, table.indices, table.data) if sparse.issparse(table) else [table]:
            assert is_mapped(one)


def test_training_out_of_files_gives_the_same_bits(graph, tmp_path):
    config = dataclasses.replace(short, batch=90)
    usual = HeCo(config).fit(graph)
    reader = Reader.load(Reader(graph, config).save(tmp_path), config)
    model = HeCo(config).fit(reader)
    assert (model.embed(reader) == usual.embed(graph)).all() and model.weigh(reader) == usual.weigh(graph)
    with pytest.raises(InputError, match="made with other settings"): HeCo(short).fit(reader)


@pytest.mark.parametrize("field,value", [
    ("features", "all"), ("paths", ("paper-author-paper",)), ("parts", 9), ("cuts", PathCuts(top=3)),
    ("pos_num", 3), ("rule", "kinds")])
def test_what_was_made_ready_otherwise_is_refused(graph, field, value, tmp_path):
    Reader(graph, short).save(tmp_path)
    Reader.load(tmp_path, dataclasses.replace(short, width=3, batch=7, samples=(2,)))      # these are free
    with pytest.raises(InputError, match=f"made with {field} = "):
        Reader.load(tmp_path, dataclasses.replace(short, **{field: value}))


def test_tables_that_changed_or_are_something_else_are_refused(graph, tmp_path):
    with pytest.raises(InputError, match="holds no tables.json"): Reader.load(tmp_path, HeCo.paper)
    Reader(graph, HeCo.paper).save(tmp_path)
    path = sorted(tmp_path.glob("*.npy"))[0]
    kept = path.read_bytes()
    for content in (kept[:-1], kept[:-1] + b"?", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is not the file"): Reader.load(tmp_path, HeCo.paper)
    path.unlink()
    with pytest.raises(InputError, match="is not the file"): Reader.load(tmp_path, HeCo.paper)
    write_tables({"a": np.eye(2)}, tmp_path/"other", {"kind": "cake"})
    with pytest.raises(InputError, match="tables of kind 'cake'"): Reader.load(tmp_path/"other", HeCo.paper)


@pytest.mark.parametrize("seed", range(20))
def test_taken_columns_are_those_of_the_table(seed):
    rng = np.random.default_rng(seed)
    strip = sparse.random(6, 40, rng.choice([0., .1, .6]), format="csr", random_state=seed)
    columns = np.flatnonzero(rng.random(40) < .4) if seed else np.arange(1)
    found = take_columns(strip, columns)
    assert found.shape == (6, len(columns)) and (found.toarray() == strip.toarray()[:, columns]).all()
