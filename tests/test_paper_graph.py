"The paper graph: paths and positives against loops, what is refused and how it is said, every reader."
import io
import json
import shutil
import sys
import tracemalloc
import types
import warnings
from dataclasses import replace
from urllib.error import HTTPError, URLError

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from matchbook.datasets import InputError, load, locate, read_graph
from matchbook.papers import graph as module
from matchbook.papers.graph import (
    CompletePath,
    PathCuts,
    ask_server,
    build_heco,
    build_papers,
    choose_positives,
    count_path,
    describe_graph,
    describe_pairs,
    fetch_works,
    is_identity,
    keep_top,
    make_graph,
    read_artifacts,
    read_heco,
    read_openalex,
    read_papers,
    rules,
    to_pyg,
)
from matchbook.papers.heco import HeCoConfig, list_paths

pytestmark = pytest.mark.filterwarnings("ignore::matchbook.papers.graph.CompletePath")


def draw_graph(seed):
    "A small graph with isolated nodes, repeated links, and nodes that everybody is linked to."
    rng = np.random.default_rng(seed)
    sizes = {name: int(rng.integers(*some)) for name, some in
             {"paper": (3, 9), "author": (2, 6), "term": (1, 5)}.items()}
    def draw(end):
        count = int(rng.integers(1, 14))
        return np.stack([rng.integers(sizes["paper"], size=count), rng.integers(sizes[end], size=count)], 1)
    edges = {("paper", end): draw(end) for end in ("author", "term")}
    return make_graph("paper", sizes, edges), rng


def links_of(graph, start, end):
    "The links between two types, as a list of sets."
    there = (start, end) in graph.links
    table = graph.links[start, end] if there else graph.links[end, start]
    dense = table.toarray() if there else table.toarray().T
    return [set(np.flatnonzero(row)) for row in dense]


def count_by_walking(graph, path, cuts):
    "Every walk along the path, one at a time."
    types = path.split("-")
    steps = [links_of(graph, a, b) for a, b in zip(types, types[1:])]

    def weigh(at, node):
        before, after = sum(node in some for some in steps[at - 1]), len(steps[at][node])
        if cuts.most is not None and max(before, after) > cuts.most: return 0.
        if not cuts.idf: return 1.
        share = max(before/graph.sizes[types[at - 1]], after/graph.sizes[types[at + 1]])
        return -np.log(share) if share else 0.

    found = np.zeros((graph.sizes[types[0]], graph.sizes[types[-1]]))
    def walk(start, node, at, weight):
        if at == len(steps): found[start, node] += weight
        else:
            for other in steps[at][node]:
                more = weigh(at + 1, other) if at + 1 < len(steps) else 1.
                walk(start, other, at + 1, weight*more)
    for start in range(len(found)): walk(start, start, 0, 1.)
    return found


def mix(row, column):
    "`hash_cells` in whole numbers without end, cut to 64 bits by hand."
    mask, mixed = 2**64 - 1, row*0x9E3779B97F4A7C15 + (column + 1)*0xC2B2AE3D27D4EB4F
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed &= mask
        mixed = (mixed ^ mixed >> shift)*factor
    mixed &= mask
    return mixed ^ mixed >> 31


def top_by_sorting(table, top, alike=False):
    kept = np.zeros_like(table)
    for row in range(len(table)):
        order = sorted(range(table.shape[1]), key=lambda column: (
            -table[row, column], alike and column != row, mix(row, column)))
        for column in order[:top]: kept[row, column] = table[row, column]
    return kept


cuts = [PathCuts(), PathCuts(idf=True), PathCuts(most=2), PathCuts(most=3, idf=True)]
paths = ["paper-author-paper", "paper-term-paper", "author-paper-author", "author-paper-term-paper-author",
         "author-paper-term", "paper-author-paper-term-paper"]


@pytest.mark.parametrize("seed", range(200))
def test_a_path_is_what_walking_it_counts(seed):
    graph, rng = draw_graph(seed)
    path, cut = paths[seed % len(paths)], cuts[int(rng.integers(len(cuts)))]
    wanted = count_by_walking(graph, path, cut)
    square = path.split("-")[0] == path.split("-")[-1]
    others = wanted*(1 - np.eye(len(wanted))) if square else wanted
    if not (others > 1e-9).any():
        with pytest.raises(InputError, match="joins no two nodes"): count_path(graph, path, cut)
        return
    block = int(rng.integers(1, 20))
    np.testing.assert_allclose(count_path(graph, path, cut, block=block).toarray(), wanted, atol=1e-5)
    if cut.idf: return                                                   # sums of logs tie only nearly
    found = count_path(graph, path, replace(cut, top=2), block=block)
    np.testing.assert_allclose(found.toarray(), top_by_sorting(wanted, 2, square), atol=1e-5)


def positives_by_looping(tables, pos_num, rule):
    n, chosen = len(tables[0]), np.zeros(tables[0].shape)
    for i in range(n):
        weight = np.zeros(n)
        for table in tables:
            for j in range(n):
                if not table[i, j]: continue
                share = 1/np.count_nonzero(table[i])
                weight[j] += {"instances": table[i, j], "kinds": 1., "shares": share}[rule]
        others = [j for j in range(n) if j != i and weight[j] > 0]
        others.sort(key=lambda j: (-np.float32(weight[j]), mix(i, j)))
        chosen[i, [i, *others[:pos_num - 1]]] = 1
    return chosen


@pytest.mark.parametrize("seed", range(200))
def test_positives_are_those_a_loop_chooses(seed):
    rng = np.random.default_rng(seed)
    n, rule, pos_num = int(rng.integers(2, 9)), rules[seed % 3], int(rng.integers(1, 5))
    drawn = rng.integers(0, 4, size=(2, n, n))*(rng.random((2, n, n)) < .5)
    tables = [np.triu(one) + np.triu(one, 1).T for one in drawn]
    if rule == "shares": tables = [np.where(one, 2.**rng.integers(0, 3), 0) for one in tables]
    found = choose_positives([sparse.csr_matrix(one) for one in tables], pos_num, rule).toarray()
    wanted = positives_by_looping(tables, pos_num, rule)
    if rule == "shares":                         # thirds and sixths tie only nearly: how many is what counts
        assert (found.sum(1) == wanted.sum(1)).all() and (found.diagonal() == 1).all()
    else: np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("seed", range(50))
def test_the_strongest_of_each_row_are_kept(seed):
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 3, size=(int(rng.integers(1, 7)), int(rng.integers(1, 7)))).astype(float)
    top = int(rng.integers(1, 4))
    for alike in (False, True):
        found = keep_top(sparse.csr_matrix(table), top, alike=alike).toarray()
        np.testing.assert_array_equal(found, top_by_sorting(table, top, alike))


def test_the_order_of_the_nodes_says_nothing_of_their_positives():
    "900 papers of three classes share one term: of equals, as many are of one's class as by chance."
    labels, rng = np.repeat([0, 1, 2], 300), np.random.default_rng(0)
    def share(labels, **cuts):
        n = len(labels)
        edges = {("paper", "term"): np.stack([np.arange(n), np.zeros(n, int)], axis=1)}
        graph = make_graph("paper", {"paper": n, "term": 1}, edges)
        with pytest.warns(CompletePath): path = count_path(graph, "paper-term-paper", PathCuts(**cuts))
        found = choose_positives([path], 6)
        assert (found.sum(1) == 6).all()
        mine = [describe_pairs(found[labels == one][:, labels == one])["mean"] for one in range(3)]
        return describe_pairs(found, labels)["purity"], np.array(mine)
    for some in (labels, rng.permutation(labels)):
        for cuts in ({}, {"top": 20}):
            purity, mine = share(some, **cuts)
            assert abs(purity - 1/3) < .03                            # 4,500 pairs: sd .007
            np.testing.assert_allclose(mine, 5/3, atol=.2)    # of each class, not only of all


def test_a_complete_path_is_said_and_never_held():
    "3,000 papers with one term: 9 million pairs, 36 MB as float32 without their columns."
    n = 3000
    edges = {("paper", "term"): np.stack([np.arange(n), np.zeros(n, int)], axis=1)}
    graph = make_graph("paper", {"paper": n, "term": 1}, edges)
    tracemalloc.start()
    with pytest.warns(CompletePath, match="joins 100.0% of all pairs: positives drawn from it are"):
        found = count_path(graph, "paper-term-paper", PathCuts(top=5), block=2**18)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.nnz == 5*n and peak < 20e6


def test_too_many_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(module, "most_cells", 10)
    graph = make_graph("paper", {"paper": 4, "term": 1}, {("paper", "term"): [[k, 0] for k in range(4)]})
    with pytest.raises(InputError, match="joins more than 10 pairs; cut it by top"):
        count_path(graph, "paper-term-paper")
    assert count_path(graph, "paper-term-paper", PathCuts(top=2)).nnz == 8


def test_a_sparse_path_is_not_warned_about():
    graph = make_graph("paper", {"paper": 9, "author": 1}, {("paper", "author"): [[0, 0], [1, 0]]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count_path(graph, "paper-author-paper").nnz == 4


sizes = {"paper": 3, "author": 2}
good = {("paper", "author"): [[0, 0], [1, 0], [2, 1]]}


@pytest.mark.parametrize("change,said", [
    ({"edges": {("paper", "author"): [[0, 0], [0, 2]]}}, "paper-author, row 2: author 2, but they are"),
    ({"edges": {("paper", "author"): [[3, 0]]}}, "paper 3, but they are numbered 0 to 2 (1 such rows)"),
    ({"edges": {("paper", "author"): [[-1, 0]]}}, "row 1: paper -1"),
    ({"edges": {("paper", "author"): [[0, 0, 1]]}}, "two columns of node numbers were wanted"),
    ({"edges": {("paper", "author"): [[.5, 0]]}}, "whole numbers were wanted"),
    ({"edges": {("paper", "writer"): [[0, 0]]}}, "no type named 'writer'"),
    ({"edges": {}}, "no links of paper"), ({"target": "papers"}, "did you mean 'paper'?"),
    ({"sizes": {"paper": 3, "author": 0}, "edges": {}}, "type 'author' with 0 nodes"),
    ({"features": {"paper": np.ones((2, 4))}}, "features of shape (2, 4), but there are 3"),
    ({"features": {"paper": [[1], [np.nan], [1]]}}, "features of paper, row 1: a feature is NaN or infinite"),
    ({"features": {"author": sparse.csr_matrix([[0, 1], [np.inf, 0]])}}, "author, row 1: a feature"),
    ({"features": {"paper": [["a"], ["b"], ["c"]]}}, "features are no numbers"),
    ({"labels": [0, 1]}, "there are 3 nodes to label"), ({"labels": [0, 1, 1.5]}, "row 2: 1.5 is no class"),
    ({"labels": [0, 1, -2]}, "row 2: -2 is no class"),
])
def test_a_wrong_graph_is_refused_in_one_line(change, said):
    with pytest.raises(InputError) as error:
        make_graph(**{"target": "paper", "sizes": sizes, "edges": good} | change)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("path,said", [
    ("", "three types or more"), ("paper", "three types or more"), ("paper-author", "three types or more"),
    ("paper-autor-paper", "did you mean 'author'?"),
    ("paper-paper-paper", "no links between paper and paper"),
])
def test_a_wrong_path_is_refused(path, said):
    with pytest.raises(InputError) as error: count_path(make_graph("paper", sizes, good), path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_what_is_allowed_is_counted():
    "Isolated nodes, zero rows, missing labels, types without features, links listed twice."
    graph = make_graph("paper", {"paper": 4, "author": 2}, {("paper", "author"): [[0, 0], [0, 0], [1, 0]]},
                       features={"paper": [[1, 0], [0, 0], [0, 0], [0, 1]]}, labels=[1, np.nan, -1, 0])
    found = describe_graph(graph).set_index("type")
    assert found.loc["paper"].tolist() == [4, 2, 2, 2, 2, 2]
    assert found.loc["author"].tolist() == [2, 2, 1, 0, 0, 0]
    assert graph.labels.tolist() == [1, -1, -1, 0]
    positives = choose_positives([count_path(graph, "paper-author-paper")], 3)
    assert positives.toarray().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_options_have_an_effect():
    graph, _ = read_heco()
    plain = count_path(graph, "paper-subject-paper")
    for cut in (PathCuts(most=15), PathCuts(idf=True), PathCuts(top=3)):
        assert (count_path(graph, "paper-subject-paper", cut) != plain).nnz
    tables = [count_path(graph, path) for path in graph.paths]
    chosen = [choose_positives(tables, 5, rule) for rule in rules]
    assert all((chosen[a] != chosen[b]).nnz for a, b in ((0, 1), (0, 2), (1, 2)))


def test_purity_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    pairs, labels = rng.random((12, 12)) < .4, rng.integers(-1, 3, size=12)
    hits = [labels[i] == labels[j] for i in range(12) for j in range(12)
            if i != j and pairs[i, j] and labels[i] >= 0 and labels[j] >= 0]
    found = describe_pairs(sparse.csr_matrix(pairs.astype(float)), labels)
    assert found["purity"] == pytest.approx(np.mean(hits))
    known = labels[labels >= 0]
    assert found["chance"] == pytest.approx(np.mean([a == b for a in known for b in known]))


@pytest.fixture
def parts(): return load("heco-sample")


def rename(parts, **names):
    return {names.get(name, name): part for name, part in parts.items() if names.get(name, 1)}


def test_the_sample_is_read_as_it_is(parts):
    graph, digest = read_heco()
    assert len(digest) == 64 and graph.target == "paper" and graph.neighbours == ["author", "subject"]
    assert list(graph.paths) == ["paper-author-paper", "paper-subject-paper"]
    assert (graph.positives != parts["pos"]).nnz == 0 and len(graph.splits) == 9
    assert (graph.labels == parts["labels"]).all() and graph.features["paper"].dtype == np.float32


def test_the_four_forms(parts):
    aminer = build_heco(rename(parts, ps="pr", psp="prp", p_feat=None, a_feat=None), "aminer")
    assert aminer.sizes == {"paper": 360, "author": 288, "reference": 24} and not aminer.features
    assert list(aminer.paths) == ["paper-author-paper", "paper-reference-paper"]
    movies = build_heco(rename(parts, pa="ma", ps="md", psp="mdm", pap="mam", p_feat=None, a_feat=None)
                        | {"mw": parts["pa"]}, "freebase")
    assert movies.target == "movie" and movies.neighbours == ["director", "actor", "writer"]
    assert (movies.paths["movie-writer-movie"] != movies.paths["movie-actor-movie"]).nnz == 0   # counted
    turned = parts["pa"][:, ::-1]                # papers of dblp are those who were authors, and come first
    dblp = build_heco({"labels": parts["labels"], "pa": turned, "pc": parts["pa"][:288] % 9,
                       "pos": parts["pos"], "pt": np.stack([np.arange(288), np.arange(288) % 30], 1),
                       "a_feat": parts["p_feat"], "t_feat": np.ones((30, 4))}, "dblp")
    assert dblp.target == "author" and dblp.neighbours == ["paper"] and dblp.n == 360
    assert list(dblp.paths) == [f"author-paper-{middle}author"
                                for middle in ("", "conference-paper-", "term-paper-")]
    assert dblp.features["term"].shape == (30, 4)


@pytest.mark.parametrize("change,said", [
    (dict(pa=[[0, 999]]), "sample, paper-author, row 1: author 999"), (dict(labels=None), "no labels.npy"),
    (dict(pa=None), "sample: no list of links"),
    (dict(train_20=[400]), "train_20: node 400, but there are 360"),
    (dict(p_feat=np.ones((9, 2))), "features of paper: features of shape (9, 2), but there are 360 nodes"),
    (dict(pap=sparse.eye(4, format="csr")), "pap.npz: (4, 4), (360, 360) was wanted"),
])
def test_a_wrong_folder_is_refused(parts, change, said):
    for name, part in change.items():
        if part is None: del parts[name]
        else: parts[name] = np.array(part) if isinstance(part, list) else part
    with pytest.raises(InputError) as error: build_heco(parts, "sample")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_split_is_three_parts_of_labelled_nodes(parts):
    with pytest.raises(InputError, match="a node is in two of train_20"):
        build_heco(parts | {"val_20": parts["test_20"]}, "sample")
    labels = parts["labels"].copy()
    labels[parts["test_40"][:3]] = np.nan
    with pytest.raises(InputError, match=r"has no label \(\d+ such"):
        build_heco(parts | {"labels": labels}, "sample")


def test_no_pickle_is_opened(tmp_path):
    "The real folders hold ragged lists that only a pickle can; they are left alone."
    from matchbook.samples import write_sample
    folder = write_sample("heco-sample", tmp_path)
    np.save(folder/"nei_a.npy", np.array([[1, 2], [3]], dtype=object), allow_pickle=True)
    assert "nei_a" not in read_graph(folder)
    assert read_heco("heco-sample", folder)[0].n == 360


@pytest.mark.parametrize("name,n", [("heco-acm", 4019), ("heco-aminer", 6564)])
def test_real_folders(name, n):
    try: graph, _ = read_heco(name)
    except InputError as error: pytest.skip(str(error)[:60])
    assert graph.n == n and len(graph.splits) == 9
    for path, delivered in graph.paths.items():
        assert ((count_path(graph, path) > 0) != (delivered > 0)).nnz == 0, path


def write_artifacts(folder, **change):
    arrays = {"features_papers": {"X": np.arange(6.).reshape(3, 2)}, "features_authors": {"X": np.eye(2)},
              "features_concepts": {"X": np.ones((1, 5))},
              "edges_PA": {"E": np.array([[0, 0], [1, 0], [2, 1]])},
              "edges_PC": {"E": np.array([[0, 0], [1, 0], [2, 0]])},
              "metapath_PAP": {"indptr": np.array([0, 1, 2, 2]), "indices": np.array([1, 0])},
              "metapath_PCP": {"indptr": np.array([0, 2, 4, 6]), "indices": np.array([1, 2, 0, 2, 0, 1])}}
    arrays |= change
    for name, part in arrays.items(): np.savez(folder/f"{name}.npz", **part)
    (folder/"meta.json").write_text('{"num_papers": 3, "num_authors": 2, "num_concepts": 1}')
    (folder/"map_paper_id.csv").write_text("paper_id\nW1\nW2\nW3\n")
    return folder


def test_the_artifacts_of_the_original(tmp_path):
    graph = read_artifacts(write_artifacts(tmp_path))
    assert graph.sizes == {"paper": 3, "author": 2, "concept": 1}
    assert list(graph.features) == ["paper", "concept"]
    assert graph.table["id"].tolist() == ["W1", "W2", "W3"]
    assert graph.paths["paper-concept-paper"].toarray().tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert describe_pairs(graph.paths["paper-concept-paper"])["density"] == 1


def test_a_complete_path_among_what_is_delivered_is_warned_of(tmp_path, parts):
    graph = read_artifacts(write_artifacts(tmp_path))
    with pytest.warns(CompletePath, match="paper-concept-paper, as it is delivered, joins 100.0%"):
        list_paths(graph, HeCoConfig())
    n = len(parts["labels"])
    parts["psp"] = sparse.csr_matrix(np.ones((n, n), np.float32))
    with pytest.warns(CompletePath, match="paper-subject-paper, as it is delivered, joins 100.0%"):
        list_paths(build_heco(parts, "folder"), HeCoConfig())


@pytest.mark.parametrize("change,said", [
    ({"links": {("paper", "author"): sparse.eye(3, format="csr")}}, "links paper-author: a sparse table"),
    ({"paths": {"paper-author-paper": sparse.eye(3, format="csr")}}, "path paper-author-paper: a sparse"),
    ({"paths": {"paper-author-paper": np.eye(4)}}, "got ndarray"),
    ({"positives": sparse.eye(5, format="csr")}, "positives: a sparse table of shape (4, 4) was wanted"),
    ({"citations": sparse.csr_matrix((4, 5))}, "citations: a sparse table of shape (4, 4)"),
    ({"splits": {"train_20": np.array([0, 4])}}, "split train_20: node 4, but there are 4"),
    ({"splits": {"train_20": np.array([-1])}}, "node -1"),
    ({"splits": {"train_20": np.array([.5])}}, "float64"),
])
def test_a_graph_of_tables_that_do_not_fit_is_refused(change, said):
    graph = make_graph("paper", {"paper": 4, "author": 2}, {("paper", "author"): [[0, 0], [3, 1]]})
    with pytest.raises(InputError) as error: replace(graph, **change)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change,said", [
    ({"edges_PA": {"E": np.array([[0, 2]])}}, "row 1: author 2"),
    ({"edges_PA": {"F": np.zeros(2)}}, "no array 'E'"),
    ({"metapath_PAP": {"indptr": np.array([0, 2]), "indices": np.array([1, 0])}}, "does not fit 3 papers"),
    ({"metapath_PAP": {"indptr": np.array([0, 1, 2, 3]), "indices": np.array([1, 0])}}, "does not fit"),
    ({"metapath_PAP": {"indptr": np.array([0, 2, 1, 2]), "indices": np.array([1, 0])}}, "does not fit"),
    ({"metapath_PAP": {"indptr": np.array([0, 1, 2, 2]), "indices": np.array(3.)}}, "shape (); a list"),
    ({"metapath_PAP": {"indptr": np.array([0, 1, 2, 2]), "indices": np.array([1, 5])}}, "row 2: paper 5"),
    ({"features_papers": {"X": np.full((3, 2), np.nan)}}, "features of paper, row 0: a feature is NaN"),
])
def test_wrong_artifacts_are_refused(tmp_path, change, said):
    with pytest.raises(InputError) as error: read_artifacts(write_artifacts(tmp_path, **change))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_wrong_sizes_and_names_are_refused(tmp_path):
    write_artifacts(tmp_path)
    (tmp_path/"map_paper_id.csv").write_text("paper_id\nW1\n")
    with pytest.raises(InputError, match="1 rows, but there are 3 papers"): read_artifacts(tmp_path)
    (tmp_path/"meta.json").write_text('{"num_papers": 3}')
    with pytest.raises(InputError, match="no column named 'num_authors'"): read_artifacts(tmp_path)
    with pytest.raises(InputError, match="no such file"): read_artifacts(tmp_path/"nowhere")


@pytest.mark.parametrize("table,wanted", [
    (np.eye(7), True), (np.eye(7)[::-1], False), (2*np.eye(7), False), (np.ones((7, 7)), False),
    (np.eye(7)[:6], False),
])
def test_a_one_hot_table_is_known_while_it_is_read(tmp_path, table, wanted):
    np.savez_compressed(tmp_path/"x.npz", X=table.astype(np.float32))
    assert is_identity(tmp_path/"x.npz", strip=10) is wanted


rows = [{"id": "a", "title": "A", "year": 1999, "authors": [{"id": 7, "name": "Ada"}], "author_terms": ["X"],
         "ieee_terms": ["x ", "Y"], "references": ["b", "z", "a"]},
        {"id": "b", "title": "B", "authors": [{"name": " Ben  Bo "}, {"id": 7}], "author_terms": [],
         "ieee_terms": None, "references": []}]


def test_a_table_of_papers():
    graph = build_papers(pd.DataFrame(rows))
    assert graph.sizes == {"paper": 2, "author": 2, "term": 2, "reference": 3}
    assert graph.links["paper", "author"].toarray().tolist() == [[1, 0], [1, 1]]
    assert graph.citations.toarray().tolist() == [[0, 1], [0, 0]]
    assert graph.table["year"].tolist()[0] == 1999 and graph.table["abstract"].isna().all()
    named = build_papers(pd.DataFrame(rows).assign(authors_dedup=[["Ada L."], ["Ada L."]]))
    assert named.sizes["author"] == 1


@pytest.mark.parametrize("change,said", [
    ({"id": ["a", "a"]}, "row 2: id 'a' again"), ({"id": ["a", " "]}, "row 2: no id"),
    ({"id": ["a", float("nan")]}, "row 2: no id"),
    ({"authors": ["Ada", "Ben"]}, "authors, row 1: a list was wanted"),
    ({"references": [None, "a"]}, "references, row 2: a list was wanted, got str"),
])
def test_a_wrong_table_is_refused(change, said):
    with pytest.raises(InputError) as error: build_papers(pd.DataFrame(rows).assign(**change), "x.jsonl")
    assert str(error.value).startswith("x.jsonl") and said in str(error.value)


def test_papers_without_a_link_are_refused():
    with pytest.raises(InputError, match="no links of paper"): build_papers(pd.DataFrame({"id": ["a", "b"]}))
    with pytest.raises(InputError, match="no column 'id' or 'doi'"):
        build_papers(pd.DataFrame({"title": ["a"]}))


def test_papers_from_a_dataset_and_from_a_file(tmp_path):
    graph, digest = read_papers("papers-sample")
    table = load("papers-sample")
    inside = sum(len(some) for some in table["internal_references"])
    assert graph.citations.nnz == inside and graph.n == len(table) and len(digest) == 64
    path = tmp_path/"mine.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_papers(data=path)[0].sizes["author"] == 2
    path.write_text('{"id": "a"')
    with pytest.raises(InputError, match="line 1: not JSON"): read_papers(data=path)


def work(k, **change):
    return {"id": f"W{k}", "title": f"T{k}", "publication_year": 2000,
            "abstract_inverted_index": {"b": [1], "a": [0, 2]},
            "authorships": [{"author": {"id": "A1", "display_name": "Ada"}}],
            "topics": [{"display_name": "Topic"}],
            "keywords": [{"display_name": "Key"}], "concepts": [], "referenced_works": ["W0", "W9"]} | change


def page(cursor, *works): return {"meta": {"count": 9, "next_cursor": cursor}, "results": list(works)}


def serve(*answers):
    asked, answers = [], list(answers)
    def ask(url):
        asked.append(url)
        answer = answers.pop(0)
        if isinstance(answer, Exception): raise answer
        return answer
    return ask, asked


def test_works_come_in_pages_and_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENALEX_API_KEY", "mine and secret")
    waits = []
    ask, asked = serve(page("n1", work(0), work(1)), page("n2", work(2)), page(None))
    pages = fetch_works(tmp_path/"x", "topics.id:T1", "me@example.org", ask=ask, sleep=waits.append)
    assert len(pages) == 3 and waits == [.2, .2]
    for part in ("cursor=%2A", "mailto=me%40example.org", "api_key=mine+and+secret", "per_page=100",
                 "select=id%2C"):
        assert part in asked[0], part
    assert "cursor=n1" in asked[1] and "cursor=n2" in asked[2]
    kept = b"".join(path.read_bytes() for path in (tmp_path/"x").iterdir())
    assert b"secret" not in kept and b"me@example.org" not in kept
    ask, asked = serve()
    assert fetch_works(tmp_path/"x", "topics.id:T1", ask=ask) == pages and not asked
    graph = read_openalex(tmp_path/"x")
    assert graph.n == 3 and graph.citations.sum() == 2 and graph.table["abstract"][0] == "a b a"
    assert graph.sizes["term"] == 2 and graph.sizes["author"] == 1


def test_a_broken_fetch_goes_on_where_it_was(tmp_path):
    ask, _ = serve(page("n1", work(0)), InputError("gone"))
    with pytest.raises(InputError, match="gone"): fetch_works(tmp_path, "f", ask=ask, sleep=lambda s: None)
    ask, asked = serve(page(None, work(1)))
    assert len(fetch_works(tmp_path, "f", ask=ask)) == 2 and "cursor=n1" in asked[0]
    with pytest.raises(InputError, match="holds pages of another query"): fetch_works(tmp_path, "g", ask=ask)


def test_enough_is_enough(tmp_path):
    ask, asked = serve(page("n1", work(0), work(1)), page("n2", work(2)))
    assert len(fetch_works(tmp_path, "f", most=2, ask=ask)) == 1 and len(asked) == 1
    assert len(fetch_works(tmp_path, "f", most=2, ask=ask)) == 1 and len(asked) == 1       # those kept count
    assert len(fetch_works(tmp_path, "f", most=3, ask=ask, pause=0)) == 2


def test_a_page_without_works_is_the_last(tmp_path):
    ask, asked = serve(page("n1", work(0)), page("n2"))
    assert len(fetch_works(tmp_path, "f", ask=ask, pause=0)) == 2
    assert len(fetch_works(tmp_path, "f", ask=ask, pause=0)) == 2 and len(asked) == 2


@pytest.mark.parametrize("answer", [{}, [], {"meta": {}, "results": []},
                                    {"meta": {"next_cursor": None}, "results": 3}])
def test_what_is_no_page_is_refused(tmp_path, answer):
    ask, _ = serve(answer)
    with pytest.raises(InputError, match="no page of OpenAlex"): fetch_works(tmp_path, "f", ask=ask)
    assert not list(tmp_path.glob("page-*"))


def test_half_a_page_on_disk_is_named(tmp_path):
    (tmp_path/"page-00001.json").write_text('{"meta"')
    with pytest.raises(InputError, match="page-00001.json: not JSON"): read_openalex(tmp_path)
    (tmp_path/"page-00001.json").write_text(json.dumps(page(None)))
    with pytest.raises(InputError, match="no work in 1 pages"): read_openalex(tmp_path)


def test_concepts_go_before_keywords_unless_they_are_weak():
    weak, strong = {"display_name": "All", "score": 0.}, {"display_name": "Graph", "score": .9}
    read = lambda **change: module.read_work(work(1, **change))["terms"]
    assert read() == ["Key", "Topic"] and read(concepts=[weak, strong]) == ["Graph"]
    assert read(concepts=[weak]) == ["Key", "Topic"]
    assert module.read_work(work(1, concepts=[weak, strong]), least=0)["terms"] == ["All", "Graph"]


@pytest.mark.parametrize("other", [{}, [], 7, None])
def test_a_work_whose_id_is_no_text_is_none(other):
    with pytest.raises(InputError, match="no work of OpenAlex.*id"): module.read_work(work(1, id=other))


def test_a_work_with_nothing_known_is_a_paper_all_the_same():
    bare = {name: None for name in module.work_fields} | {"id": "W5"}
    found = module.read_work(bare)
    assert found["id"] == "W5" and found["authors"] == found["terms"] == found["references"] == []
    assert found["abstract"] is None


def answer_with(*answers):
    answers = list(answers)
    def open_url(request, timeout):
        answer = answers.pop(0)
        if isinstance(answer, Exception): raise answer
        return io.BytesIO(answer)
    return open_url


def error(code, **headers): return HTTPError("https://x", code, "no", headers, None)


def test_a_busy_server_is_asked_again_later():
    waits = []
    open_url = answer_with(error(429, **{"Retry-After": "7"}), error(503), URLError("down"), b'{"a": 1}')
    assert ask_server("https://x", sleep=waits.append, open_url=open_url) == {"a": 1}
    assert waits == [7., 2., 4.]


def test_a_wrong_question_is_not_asked_again():
    waits = []
    with pytest.raises(InputError) as refused:
        ask_server("https://x?filter=y&api_key=secret", sleep=waits.append, open_url=answer_with(error(400)))
    assert not waits and "400" in str(refused.value) and "secret" not in str(refused.value)
    with pytest.raises(InputError, match="503"):
        ask_server("https://x", tries=2, sleep=waits.append, open_url=answer_with(error(503), error(503)))
    assert waits == [1.]


class Store(dict):
    "As much of HeteroData as is needed to see what it is given."
    def __missing__(self, key):
        self[key] = types.SimpleNamespace()
        return self[key]


def test_the_way_to_pytorch_geometric(monkeypatch):
    graph, _ = read_heco()
    monkeypatch.setitem(sys.modules, "torch_geometric", types.ModuleType("torch_geometric"))
    fake = types.ModuleType("torch_geometric.data")
    monkeypatch.setitem(sys.modules, "torch_geometric.data", fake)
    with pytest.raises(InputError, match="to_pyg needs the package torch_geometric"): to_pyg(graph)
    fake.HeteroData = Store
    data = to_pyg(graph)
    there, back = data["paper", "to", "author"].edge_index, data["author", "rev_to", "paper"].edge_index
    assert (there == back.flip(0)).all() and there.shape[1] == graph.links["paper", "author"].nnz
    assert data["paper"].x.shape == (360, 60) and data["subject"].num_nodes == 24
    assert (data["paper"].y.numpy() == graph.labels).all() and not hasattr(data["subject"], "x")
    chain = sparse.csr_matrix(([1., 1.], ([0, 1], [1, 2])), (3, 3))
    data = to_pyg(module.Graph("paper", {"paper": 3}, {("paper", "paper"): chain}))
    assert data["paper", "to", "paper"].edge_index.tolist() == [[0, 1], [1, 2]]
    assert data["paper", "rev_to", "paper"].edge_index.tolist() == [[1, 2], [0, 1]]


def test_nodes_are_called_by_their_names():
    table = pd.DataFrame([{"id": "a", "authors": [{"id": "A1", "name": "Ada  B"}, {"name": "Cy"}, "Di"],
                           "terms": ["Ink "], "references": ["z"]},
                          {"id": "b", "authors": [{"id": "A1"}, {"id": "A2"}], "terms": ["ink", "Art"]}])
    graph = build_papers(table)
    assert graph.names == {"author": ["Ada B", "Cy", "Di", "A2"], "term": ["ink", "art"], "reference": ["z"]}
    assert graph.links["paper", "author"].toarray().tolist() == [[1, 1, 1, 0], [1, 0, 0, 1]]
    with pytest.raises(InputError, match="1 names of term, but there are 2 nodes"):
        replace(graph, names={"term": ["ink"]})
    with pytest.raises(InputError, match="1 names of venue, but there are 0 nodes"):
        replace(graph, names={"venue": ["x"]})


def test_an_empty_split_may_be_of_any_kind(tmp_path):
    folder = tmp_path/"heco"
    shutil.copytree(locate("heco-sample"), folder)
    np.save(folder/"train_20.npy", np.zeros(0))
    graph, _ = read_heco("heco-sample", folder)
    assert len(graph.splits["train_20"]) == 0 and graph.splits["train_20"].dtype == np.int64


def test_who_asks_for_a_complete_path_is_the_one_who_is_told():
    edges = {("paper", "term"): np.stack([np.arange(9), np.zeros(9, int)], axis=1)}
    known = {"graph": make_graph("paper", {"paper": 9, "term": 1}, edges), "count_path": count_path}
    asked = compile('count_path(graph, "paper-term-paper")', "asker.py", "eval")
    with pytest.warns(CompletePath) as told: eval(asked, known)
    assert told[0].filename == "asker.py"
