"Reading lists: what may be known when, places and scores against loops, reasons against sets, and refusals."
import dataclasses
import time

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from matchbook.datasets import InputError
from matchbook.measures import list_measures
from matchbook.papers import recommend as module
from matchbook.papers.graph import Graph, PathCuts, read_paper_table
from matchbook.papers.recommend import (
    CitationsConfig,
    Guide,
    Lists,
    ReadingList,
    Reason,
    choose_weights,
    cited_positives,
    draw_card,
    join_texts,
    level_scores,
    make_list,
    make_moment,
    measure_each,
    mix_scores,
    open_settings,
    place_cited,
    prepare_graph,
    recommend,
    score_coauthors,
    score_popularity,
    score_terms,
    score_vectors,
    score_words,
    study,
)
from matchbook.runs import make_run

short = {"heco.training.epochs": 3}


@pytest.fixture(scope="module")
def table(): return read_paper_table("papers-sample")[0]


@pytest.fixture(scope="module")
def moment(table): return make_moment(table, 2019, 2021)


def vectors_of(moment, width=6, seed=0):
    return np.random.default_rng(seed).normal(size=(moment.graph.n, width)).astype(np.float32)


def draw_table(seed, n=24):
    rng = np.random.default_rng(seed)
    some = lambda names, most: list(rng.choice(names, rng.integers(0, most + 1), replace=False))
    ids = [f"p{i}" for i in range(n)]
    return pd.DataFrame([{
        "id": ids[i], "title": f"about {rng.choice(['ink', 'art', 'light'])} {i}", "year": 2000 + i//4,
        "abstract": None if rng.random() < .2 else f"we study {rng.choice(['ink', 'wood', 'sound'])}",
        "authors": some(list("ABCDEF"), 3), "terms": some(["x", "y", "z", "w"], 3),
        "references": some([*ids, "elsewhere"], 6)} for i in range(n)])


# --- what may be known when

@pytest.mark.parametrize("seed", range(8))
def test_a_moment_is_what_a_loop_says(seed):
    table = draw_table(seed)
    try: moment = make_moment(table, 2003, 2005)
    except InputError: return
    year, ids = table["year"], list(table["id"])
    there = [i for i in range(len(table)) if year[i] < 2005]
    known = [i for i in there if year[i] < 2003]
    wanted = {i: {ids.index(one) for one in table["references"][i] if one in ids} & set(known)
              for i in there if year[i] >= 2003}
    asking = [i for i, some in wanted.items() if some]
    assert list(moment.new) == asking and list(moment.known) == known and list(moment.rows) == there
    for row, i in enumerate(asking): assert set(moment.known[moment.cited[row].indices]) == wanted[i]
    every = sum(len({one for one in table["references"][i] if one in ids[:len(there)] and one != ids[i]})
                for i in wanted)
    assert moment.lost == every - moment.cited.nnz
    assert moment.graph.citations is None or not moment.graph.citations[[i for i in wanted]].nnz


@pytest.mark.parametrize("positives", ["cited", "paths"])
def test_the_answers_are_in_nothing_that_is_learnt_from(table, positives):
    first = make_moment(table, 2019, 2021)
    new = table["year"].between(2019, 2020)
    ids = list(table["doi"][table["year"] < 2019])
    rng = np.random.default_rng(0)
    others = [list(rng.choice(ids, 4, replace=False)) if is_new else some
              for is_new, some in zip(new, table["references"])]
    changed = make_moment(table.assign(references=others), 2019, 2021)
    rows = [list(first.new).index(i) for i in np.intersect1d(first.new, changed.new)]
    again = [list(changed.new).index(i) for i in np.intersect1d(first.new, changed.new)]
    assert (first.cited[rows] != changed.cited[again]).nnz
    vectors = vectors_of(first)
    for one in (score_popularity, score_coauthors, score_terms, score_words):
        np.testing.assert_array_equal(one(first)[rows], one(changed)[again])
    mine, theirs = (prepare_graph(some, vectors, PathCuts(idf=True, top=5), positives, 5)
                    for some in (first, changed))
    assert (mine.positives != theirs.positives).nnz == 0
    assert all((mine.paths[name] != theirs.paths[name]).nnz == 0 for name in mine.paths)
    assert all((mine.links[pair] != theirs.links[pair]).nnz == 0 for pair in mine.links)
    assert "reference" not in mine.sizes


def test_the_future_does_not_exist(table):
    first = make_moment(table, 2019, 2021)
    assert first.graph.n == (table["year"] < 2021).sum()
    later = table["year"] >= 2021
    changed = table.assign(title=[f"{title} again" if late else title
                                  for title, late in zip(table["title"], later)],
                           references=[[] if late else some
                                       for some, late in zip(table["references"], later)])
    again = make_moment(changed, 2019, 2021)
    for one in (score_popularity, score_coauthors, score_terms, score_words):
        np.testing.assert_array_equal(one(first), one(again))


def test_what_is_not_hidden_leaks(table):
    open_ = make_moment(table, 2019, 2021, hide=False)
    hidden = make_moment(table, 2019, 2021)
    assert open_.graph.citations[open_.new].nnz and not hidden.graph.citations[hidden.new].nnz
    pairs = [cited_positives(one, 20) for one in (open_, hidden)]
    assert pairs[0][open_.new].nnz > len(open_.new) == pairs[1][hidden.new].nnz


@pytest.mark.parametrize("change, said", [
    ({"year": None}, "year None is none"), ({"year": "soon"}, "year 'soon' is none")])
def test_papers_without_a_year_are_refused(change, said):
    table = draw_table(0).astype({"year": object})
    for name, value in change.items(): table.loc[3, name] = value
    with pytest.raises(InputError, match=f"papers, row 4: {said}"): make_moment(table, 2003)


def test_tables_that_ask_nothing_are_refused():
    table = draw_table(0)
    with pytest.raises(InputError, match="no column 'year'"): make_moment(table.drop(columns="year"), 2003)
    with pytest.raises(InputError, match="no column 'references'"):
        make_moment(table.drop(columns="references"), 2003)
    with pytest.raises(InputError, match="0 papers from 2090 on"): make_moment(table, 2090)
    with pytest.raises(InputError, match="cites an earlier one"):
        make_moment(table.assign(references=[[] for _ in range(len(table))]), 2003)


def test_texts_without_a_part():
    table = pd.DataFrame({"title": ["A", "B", None], "abstract": ["x", None, " "]})
    assert join_texts(table) == ["A. x", "B", ""]
    assert join_texts(pd.DataFrame({"title": ["A"]})) == ["A"]


# --- places and measures

@pytest.mark.parametrize("seed", range(30))
def test_places_are_those_of_sorted_lists(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 5, size=(4, 9)).astype(float)
    cited = sparse.csr_matrix(rng.random((4, 9)) < .3)
    for row, mine in enumerate(place_cited(score, cited)):
        order = np.sort(score[row])[::-1]
        wanted = [np.mean(np.flatnonzero(order == score[row, j]) + 1) for j in cited[row].indices]
        np.testing.assert_allclose(mine, wanted)


def test_each_list_is_measured_alone():
    places = [np.array([1., 4]), np.array([60.]), np.array([2.5])]
    each = measure_each(places)
    for name, value in list_measures(places).items(): assert each[name].mean() == pytest.approx(value)
    assert each["recall_at_10"].tolist() == [1, 0, 1] and each["mrr"].tolist() == [1, 1/60, .4]


def test_scores_that_are_none_are_refused():
    cited = sparse.csr_matrix(np.eye(2))
    with pytest.raises(InputError, match="row 1: a score is not finite"):
        place_cited(np.array([[0., 1], [np.inf, 1]]), cited)
    with pytest.raises(InputError, match=r"scores \(2, 3\)"): place_cited(np.zeros((2, 3)), cited)


# --- scores

@pytest.mark.parametrize("seed", range(8))
def test_scores_are_what_loops_say(seed):
    table = draw_table(seed)
    try: moment = make_moment(table, 2003)
    except InputError: return
    year, known = table["year"], list(moment.known)
    cites = {i: {list(table["id"]).index(one) for one in table["references"][i] if one.startswith("p")}
             for i in known}
    for span in (1, 2, np.inf):
        count = [sum(j in cites[i] and i != j and year[i] > 2002 - span for i in known) for j in known]
        np.testing.assert_array_equal(score_popularity(moment, span), [count]*len(moment.new))
    has = [set(some) for some in table["terms"]]
    rare = {term: np.log((1 + len(known))/(1 + sum(term in has[j] for j in known))) for term in "xyzw"}
    wrote = [set(some) for some in table["authors"]]
    for row, i in enumerate(moment.new):
        by_terms = [sum(rare[term] for term in has[i] & has[j]) for j in known]
        np.testing.assert_allclose(score_terms(moment)[row], by_terms, atol=1e-5)
        own = [len(wrote[i] & wrote[j]) for j in known]
        far = [sum(len(wrote[i] & wrote[k])*len(wrote[k] & wrote[j]) for k in known) for j in known]
        wanted = np.add(own, np.multiply(.5/max(1, *far), far))
        np.testing.assert_allclose(score_coauthors(moment)[row], wanted, rtol=1e-5)


@pytest.mark.parametrize("one", [score_popularity, score_coauthors, score_terms, score_words])
def test_a_score_is_its_own_papers_alone(moment, one):
    every = one(moment)
    for row in range(0, len(moment.new), 3):
        alone = dataclasses.replace(moment, new=moment.new[[row]], cited=moment.cited[[row]])
        np.testing.assert_allclose(one(alone)[0], every[row], atol=1e-6)
    few = dataclasses.replace(moment, new=moment.new[[4, 1]], cited=moment.cited[[4, 1]])
    np.testing.assert_allclose(one(few), every[[4, 1]], atol=1e-6)


def test_vectors_are_compared_by_cosine(moment):
    vectors = vectors_of(moment)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = score_vectors(moment, vectors)
    assert found[2, 5] == pytest.approx(vectors[moment.new[2]] @ vectors[moment.known[5]], abs=1e-6)
    with pytest.raises(InputError, match="vectors of"): score_vectors(moment, vectors[1:])


# --- mixing

def test_levelled_scores_have_one_scale_and_keep_their_order():
    score = np.random.default_rng(0).normal(3, 9, size=(5, 40))
    found = level_scores(score)
    np.testing.assert_allclose([found.mean(1), found.std(1)], [[0]*5, [1]*5], atol=1e-5)
    assert (found.argsort(1) == score.argsort(1)).all()
    np.testing.assert_allclose(mix_scores([score, 7*score + 3], (.3, .7)), found, atol=1e-5)
    with pytest.raises(ValueError): mix_scores([score], (.5, .5))


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    cited = sparse.csr_matrix(rng.random((12, 20)) < .15)
    cited = cited[np.diff(cited.indptr) > 0]
    truth = cited.toarray()
    scores = [truth*weight + rng.normal(size=truth.shape) for weight in (1., .5, 0)]
    def figure(weights): return list_measures(place_cited(mix_scores(scores, weights), cited))["ndcg"]
    found = choose_weights(scores, cited)
    assert sum(found) == pytest.approx(1)
    every = [(a/10, b/10, (10 - a - b)/10) for a in range(11) for b in range(11 - a)]
    assert figure(found) == pytest.approx(max(figure(one) for one in every))


def test_of_equal_weights_the_most_even_are_taken():
    cited, truth = sparse.csr_matrix(np.eye(3)), np.eye(3)
    assert choose_weights([truth, truth], cited) == (.5, .5)


# --- HeCo's graph

@pytest.mark.parametrize("seed", range(6))
def test_positives_are_citations_among_earlier_papers(seed):
    table = draw_table(seed)
    try: moment = make_moment(table, 2003)
    except InputError: return
    found = cited_positives(moment, 100).toarray()
    known, ids = set(moment.known), list(table["id"])
    for i in range(len(table)):
        for j in range(len(table)):
            joined = ids[j] in table["references"][i] or ids[i] in table["references"][j]
            assert found[i, j] == (i == j or (joined and i in known and j in known))
    assert (np.diff(cited_positives(moment, 3).indptr) <= 3).all()


def test_heco_reads_no_references(moment):
    graph = prepare_graph(moment, vectors_of(moment))
    assert set(graph.sizes) == {"paper", "author", "term"} and list(graph.features) == ["paper"]
    chosen = prepare_graph(moment, vectors_of(moment), positives="paths", most=4)
    assert (np.diff(chosen.positives.indptr) <= 4).all() and (chosen.positives.diagonal() == 1).all()


# --- reasons and lists

@pytest.mark.parametrize("seed", range(6))
def test_reasons_are_what_sets_say(seed):
    table = draw_table(seed)
    try: graph = prepare_graph(make_moment(table, 2003), np.eye(24, dtype=np.float32))
    except InputError: return
    guide = Guide(graph)
    of = {name: [set(some) for some in table[column]] for name, column in (("author", "authors"),
                                                                            ("term", "terms"))}
    for i, j in np.random.default_rng(seed).integers(24, size=(40, 2)):
        if i == j: continue
        reason, wanted = guide.explain(i, j, 9), {name: some[i] & some[j] for name, some in of.items()}
        assert {name: set(some) for name, some in reason.shared.items()} == \
            {name: some for name, some in wanted.items() if some}
        for name, some in reason.shared.items():
            counts = [sum(one in other for other in of[name]) for one in some]
            assert counts == sorted(counts)                              # the rarest first
        if reason.shared: continue
        reach = lambda a, b: any(some[a] & some[b] for some in of.values())
        way = [k for k in range(24) if k not in (i, j) and reach(i, k) and reach(k, j)]
        assert bool(reason.path) == bool(way)
        if way: assert any(f"“{table['title'][k]}”" in reason.path for k in way)


def test_a_list_is_older_papers_by_their_score(moment):
    graph, paper = moment.graph, int(moment.new[3])
    vectors = vectors_of(moment)
    found = recommend(graph, vectors, paper, count=8).rows
    year = graph.table["year"].to_numpy()
    unit = vectors/np.linalg.norm(vectors, axis=1, keepdims=True)
    older = np.flatnonzero(year < year[paper])
    best = older[np.argsort(-(unit[older] @ unit[paper]))[:8]]
    assert found["row"].tolist() == best.tolist() and found["place"].tolist() == list(range(1, 9))
    np.testing.assert_allclose(found["score"], unit[best] @ unit[paper], atol=1e-5)
    by_id = recommend(graph, vectors, graph.table["id"][paper], count=8).rows
    assert by_id["row"].tolist() == best.tolist()
    scaled = recommend(graph, vectors*3, paper, count=8).rows
    assert scaled["row"].tolist() == best.tolist()


def test_a_paper_is_never_on_its_own_list(moment):
    found = recommend(moment.graph, vectors_of(moment), 7, among=np.arange(5, 10), count=9).rows
    assert sorted(found["row"]) == [5, 6, 8, 9]


def test_a_graph_without_a_table_has_lists_too():
    links = sparse.csr_matrix(np.array([[1, 0], [1, 1], [0, 1]], dtype=np.float32))
    graph = Graph("paper", {"paper": 3, "author": 2}, {("paper", "author"): links})
    found = recommend(graph, np.eye(3, dtype=np.float32), 0)
    assert sorted(found.rows["row"]) == [1, 2] and "paper 1" in draw_card(found)
    reasons = dict(zip(found.rows["row"], found.rows["reason"]))
    assert reasons[1].shared == {"author": ("author 0",)}
    assert reasons[2].path == "this paper – author 0 – paper 1 – author 1 – that paper"
    with pytest.raises(InputError, match="has no ids"): recommend(graph, np.eye(3), "p1")


@pytest.mark.parametrize("paper, said", [
    (999, "numbered 0 to"), (-1, "numbered 0 to"), ("10.9999/made.1997.000", "did you mean")])
def test_papers_that_are_not_there_are_refused(moment, paper, said):
    with pytest.raises(InputError, match=said): recommend(moment.graph, vectors_of(moment), paper)


def test_lists_of_nothing_are_refused(moment):
    graph, vectors = moment.graph, vectors_of(moment)
    with pytest.raises(InputError, match="no paper is older"): recommend(graph, vectors, 0)
    with pytest.raises(InputError, match="not finite"): make_list(graph, np.full(graph.n, np.nan), 50)
    with pytest.raises(InputError, match="scores"): make_list(graph, np.zeros(3), 50)
    with pytest.raises(InputError, match="vectors"): recommend(graph, vectors[1:], 50)
    for wrong, said in (({"count": -1}, "count = -1"), ({"count": 1.5}, "count = 1.5"),
                        ({"among": [9999]}, "among: node 9999"), ({"among": [.5]}, "among: float64")):
        with pytest.raises(InputError, match=said): recommend(graph, vectors, 50, **wrong)
    with pytest.raises(InputError, match="all zeros"): recommend(graph, np.zeros_like(vectors), 50)


def test_a_card_says_all_and_escapes():
    rows = pd.DataFrame({"place": [1, 2, 3], "row": [1, 2, 3], "id": list("abc"), "score": [.9, .3, -.1],
                         "title": ["<i>A</i>", "B & C", "D"], "year": [1999., np.nan, 2001.],
                         "reason": [Reason({"author": ("Ada <3",)}, "x"), Reason({}, "this – B – that"),
                                    Reason({}, "")], "cited": [True, False, False]})
    card = draw_card(ReadingList("<About>", rows))
    assert card == ReadingList("<About>", rows)._repr_html_()
    for part in ("&lt;About&gt;", "&lt;i&gt;A", "(1999)", "author: Ada &lt;3", "by way of this – B – that",
                 "nothing in the graph", "B &amp; C<", "width:100%", "width:33%", "width:0%"):
        assert part in card
    assert card.count("✓ cited") == 1 and "nan" not in card
    assert "cited" not in draw_card(ReadingList("x", rows.drop(columns="cited")))


# --- the study

@pytest.mark.parametrize("wrong, said", [
    ({"positives": "citde"}, "did you mean 'cited'"), ({"most": 1}, "at least 2"),
    ({"valid_from": 2021}, "must be before"), ({"valid_from": "abc"}, "valid_from = 'abc': a number"),
    ({"cuts": {"tpo": 5}}, "did you mean 'top'"), ({"heco": 3}, "heco = 3"), ({"most": 2.5}, "most = 2.5")])
def test_settings_that_make_no_sense_are_refused(wrong, said):
    with pytest.raises(InputError, match=said): CitationsConfig(**wrong)


def test_wrong_words_are_refused():
    with pytest.raises(InputError, match="no row like 'popularity'"):
        open_settings("popularity", "as_published", {})
    with pytest.raises(InputError, match="did you mean 'most'"): open_settings("heco", "best", {"moost": 3})
    assert open_settings("blend", "as_published", {}).heco.network == "published"
    assert open_settings("heco", "best", {"cuts.top": 3}).cuts.top == 3
    config = CitationsConfig(**dataclasses.asdict(CitationsConfig()))
    assert config == CitationsConfig()


@pytest.mark.parametrize("model", ["text", "blend", "full-blend"])
def test_what_is_chosen_is_chosen_at_the_first_moment(table, model, monkeypatch):
    config = open_settings(model, "quick", short if "blend" in model else {})
    chosen = Lists(table, config, 0, "cpu").choose(model)
    later, rng = table["year"] >= 2021, np.random.default_rng(0)
    ids = list(table["doi"][~later])
    others = [list(rng.choice(ids, 4, replace=False)) if late else some
              for late, some in zip(later, table["references"])]
    again = Lists(table.assign(references=others), config, 0, "cpu").choose(model)
    assert again[0] == chosen[0]
    np.testing.assert_array_equal(again[1], chosen[1])


def test_text_and_popularity_take_the_best_at_the_first_moment(table):
    lists = Lists(table, open_settings("text", "quick", {}), 0, "cpu")
    figure = lambda score: list_measures(place_cited(score, lists.first.cited))["ndcg"]
    name, score = lists.choose("text")
    every = {one: figure(lists.score(one, lists.first)) for one in ("tfidf-words", "minilm")}
    assert every[name] == max(every.values()) == figure(score)
    span, score = lists.choose("popularity")
    assert figure(score) == max(figure(score_popularity(lists.first, one)) for one in module.spans)


def test_rows_of_one_command_train_once_and_say_what_they_say_alone(monkeypatch):
    fitted, fit = [], module.HeCo.fit
    def fit_slowly(self, graph):
        fitted.append(self.seed)
        time.sleep(.5)                                             # much longer than all else, on any machine
        return fit(self, graph)
    monkeypatch.setattr(module.HeCo, "fit", fit_slowly)
    rows = ("heco", "text", "blend", "full-blend")
    make = lambda model, seed=0: make_run(study, "papers-sample", model, "quick", seed, short)
    together = [make(model) for model in rows]
    assert fitted == [0, 0]                                        # once a moment
    for model, run in zip(rows, together):
        module._last_lists.clear()
        alone = make(model)
        assert run["metrics"] == alone["metrics"] and run["parameters"] == alone["parameters"]
        if "history" in alone["details"]:                          # its seconds differ
            first, second = (one["details"].pop("history")["rows"] for one in (run, alone))
            assert [row["train_loss"] for row in first] == [row["train_loss"] for row in second]
        assert run["details"] == alone["details"] and run["config"] == alone["config"]
    took = [sum(run["seconds"].values()) for run in together]
    assert took[2] > .8*took[0] and took[1] < .5*took[0]           # borrowed seconds count
    fitted.clear(); make("full-blend")                             # asked again: made again
    assert fitted == [0, 0]
    fitted.clear(); make("heco", 1)
    assert fitted == [1, 1]


@pytest.mark.parametrize("preset", ["quick", "as_published"])
def test_a_run_twice_is_the_same_to_the_last_digit(preset):
    settings = short if preset == "quick" else {"heco.training.epochs": 1, "heco.batch": 100}
    first, again = (make_run(study, "papers-sample", "heco", preset, 3, settings) for _ in range(2))
    assert first["metrics"] == again["metrics"] and first["details"]["each"] == again["details"]["each"]
    other = make_run(study, "papers-sample", "heco", preset, 4, settings)
    assert other["metrics"]["test"] != first["metrics"]["test"]
    counts = first["data"]["counts"]
    assert len(first["details"]["each"]["ndcg"]) == counts["asking"] and counts["cited"] > counts["asking"]
    low, high = first["intervals"]["test"]["ndcg"]
    assert low <= first["metrics"]["test"]["ndcg"] <= high


def test_every_option_has_an_effect(table):
    def place(settings):
        lists = Lists(table, open_settings("heco", "quick", short | settings), 0, "cpu")
        return lists.score("heco", lists.first)
    plain = place({})
    for name, value in (("cuts.top", 2), ("positives", "paths"), ("most", 3), ("hide", False),
                        ("heco.width", 16)):
        assert not np.array_equal(place({name: value}), plain), name
    assert place({"valid_from": 2018}).shape != plain.shape
