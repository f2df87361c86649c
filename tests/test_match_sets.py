"Sets from scores: each way against a slow loop, laws, thresholds that follow the catalogue, judge, refusals."
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from matchbook.datasets import InputError
from matchbook.encoders import TfidfEncoder
from matchbook.match import group_listings
from matchbook.measures import Ranked, row_scores
from matchbook.neighbours import Index, build_index, join, saved_kinds
from matchbook.products import match_sets
from matchbook.products.listings import read_listings, split_listings
from matchbook.products.match_sets import (MatchSets, MatchSetsConfig, SizeRule, blend_vectors,
                                           cluster_scores,
                                           count_matches, count_neighbours, floor_for_neighbours, keep_mutual,
                                           lift_best, list_steps, measure_growth, measure_steps,
                                           open_settings,
                                           run_duplicates, run_index_join, run_index_shards,
                                           threshold_for_matches)
from matchbook.products.pair_judge import (PairJudge, PairJudgeConfig, cut_catalogues, describe_space,
                                           describe_titles, propose_pairs)


def draw_scores(seed, most=9):
    "A symmetric table of distinct scores, some of them missing."
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, most))
    table = np.triu(rng.permutation(n*n).reshape(n, n)/(n*n + 1.) + .001, 1)*(rng.random((n, n)) < .6)
    return (table + table.T + np.eye(n)).astype(np.float32)


cases = pytest.mark.parametrize("seed", range(60))


@cases
def test_at_least_two_by_looping(seed):
    table = draw_scores(seed)
    wanted = table.copy()
    for i, row in enumerate(table):
        others = row.copy()
        others[i] = 0
        if others.any(): wanted[i, others.argmax()] = 1
    np.testing.assert_array_equal(lift_best(sparse.csr_matrix(table)).toarray(), wanted)
    some = np.arange(len(table))[::2]
    np.testing.assert_array_equal(lift_best(sparse.csr_matrix(table[some]), some).toarray(), wanted[some])


@cases
def test_mutual_neighbours_by_looping(seed):
    table, k = draw_scores(seed), 1 + seed % 3
    others = table - np.eye(len(table), dtype=np.float32)
    near = [{int(j) for j in np.argsort(-row)[:k] if row[j] > 0} for row in others]
    wanted = [[table[i, j] if i == j or (j in near[i] and i in near[j]) else 0 for j in range(len(table))]
              for i in range(len(table))]
    np.testing.assert_allclose(keep_mutual(sparse.csr_matrix(table), k).toarray(), wanted)


def linkage_by_looping(table, floor):
    "Average linkage, the two nearest clusters first, within the components that the floor leaves."
    n = len(table)
    reach = np.linalg.matrix_power(((table >= floor) | np.eye(n, dtype=bool)).astype(float), n) > 0
    scores, clusters = np.eye(n), [[i] for i in range(n)]
    while True:
        pairs = [(np.mean([table[i, j] for i in a for j in b]), x, y) for x, a in enumerate(clusters)
                 for y, b in enumerate(clusters) if x < y and reach[a[0], b[0]]]
        if not pairs: return scores
        height, x, y = max(pairs)
        for i in clusters[x]:
            for j in clusters[y]: scores[i, j] = scores[j, i] = height
        clusters[x] += clusters.pop(y)


@cases
def test_clusters_by_looping(seed):
    table = draw_scores(seed, 7)
    np.testing.assert_allclose(cluster_scores(sparse.csr_matrix(table), .3).toarray(),
                               linkage_by_looping(table.astype(float), .3), atol=1e-5)


@cases
def test_any_threshold_cuts_clusters_in_which_all_match_all(seed):
    scores = cluster_scores(sparse.csr_matrix(draw_scores(seed)), .2).toarray()
    for threshold in (.25, .5, .8):
        taken = scores >= threshold
        assert (taken == taken.T).all() and ((taken.astype(int) @ taken > 0) == taken).all()


@cases
def test_blending_by_looping(seed):
    table, rng = draw_scores(seed), np.random.default_rng(seed)
    vectors = rng.normal(size=(len(table), 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = np.array([vectors[i] + sum(table[i, j]*vectors[j] for j in range(len(table))
                                        if j != i and table[i, j] >= .4) for i in range(len(table))])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    for form in (np.asarray, sparse.csr_matrix):
        found = blend_vectors(form(vectors), sparse.csr_matrix(table), .4)
        np.testing.assert_allclose(found.toarray() if sparse.issparse(found) else found, wanted, atol=1e-5)


@cases
def test_a_floor_for_as_many_neighbours(seed):
    found = sparse.csr_matrix(draw_scores(seed))
    for floor in (.2, .5, .9):
        count = count_neighbours(found, floor)
        assert count_neighbours(found, floor_for_neighbours(found, count)) == pytest.approx(count)


@cases
def test_a_threshold_for_as_many_matches_looks_at_no_group(seed):
    rng = np.random.default_rng(seed)
    score = np.sort(rng.random(12).astype(np.float32))[::-1]
    ranked = Ranked(np.sort(rng.integers(0, 4, 12)), score, rng.random(12) < .5, np.ones(4, int))
    other = replace(ranked, hit=~ranked.hit)
    for matches in (0, .5, 1.25, 3):
        at = threshold_for_matches(ranked, matches)
        assert count_matches(ranked, at) == pytest.approx(matches) and threshold_for_matches(other,
            matches) == at


def test_a_size_rule_is_a_line_over_the_logarithm():
    rule = SizeRule.fit([10, 100, 1000], [.3, .4, .5])
    assert rule(100) == pytest.approx(.4) and rule(10**6) == pytest.approx(.8) and rule(10**12) == 1
    with pytest.raises(InputError, match="two different"): SizeRule.fit([10, 10], [.3, .4])


@pytest.fixture(scope="module")
def parts():
    listings, _ = read_listings("shopee-sample")
    split = split_listings(listings)
    return listings, split, [listings[rows] for rows in (split.train, split.valid, split.test)]


@pytest.fixture(scope="module")
def whole(parts):
    "The union without an encoder, quick."
    return MatchSets(open_settings("terms-and-hash", "quick", {})).fit(*parts[2][:2])


def test_queries_find_what_they_find_in_the_whole(whole, parts):
    items = parts[2][2]
    rows = np.array([5, 40, 3])
    assert (whole.find(items, rows) != whole.find(items)[rows]).nnz == 0
    ranked, some = whole.rank(items), whole.rank(items, rows)
    np.testing.assert_allclose(row_scores(some, .5)["row_f1"], row_scores(ranked, .5)["row_f1"][rows])


def test_each_step_differs_from_the_one_before_in_one_thing(whole):
    steps = list_steps(whole.config)
    assert list(steps) == ["words", "and characters", "blended", "at least two", "judged", "image hash"]
    configs = list(steps.values())
    for first, second in zip(configs[1:], configs[2:]):
        changed = [name for name in ("spaces", "mix", "mutual", "blend", "clusters", "least")
                   if getattr(first, name) != getattr(second, name)]
        assert len(changed) == 1
    assert configs[-1] == whole.config


def test_steps_are_measured_and_compared(whole, parts):
    train, valid, test = parts[2]
    rows = measure_steps(whole, train, valid, test)
    again = row_scores(whole.rank(test), whole.threshold_)["row_f1"].mean()
    assert rows[-1]["test"] == pytest.approx(again) and "gain" not in rows[0]
    for before, row in zip(rows, rows[1:]):
        assert row["gain"]["mean"] == pytest.approx(row["test"] - before["test"])
        assert row["gain_over_first"]["mean"] == pytest.approx(row["test"] - rows[0]["test"])
        assert row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"]


def test_weights_sum_to_one_and_are_no_worse_than_equal_ones_on_valid(parts):
    train, valid, _ = parts[2]
    model = MatchSets(MatchSetsConfig(spaces=("words", "chars", "hash"), mix="weighted")).fit(train, valid)
    assert sum(model.weights_) == pytest.approx(1) and len(model.weights_) == 3
    found = model.find_in_spaces(valid)
    assert model._value(model.find(valid), valid) >= model._value((sum(found)/3).tocsr(), valid) - 1e-9


def test_growth_chooses_nothing_on_test(whole, parts):
    listings, split, _ = parts
    first = measure_growth(whole, listings, split, (60, 120, 240))
    titles = listings.title.copy()
    hidden = replace(listings, group=listings.group.copy(), title=titles)
    hidden.group[split.test] = np.random.default_rng(0).permutation(listings.group[split.test])
    second = measure_growth(whole, hidden, split, (60, 120, 240))
    for a, b in zip(first, second):
        for rule in ("one", "size"): assert a["thresholds"][rule] == b["thresholds"][rule]
    assert [point["rows"] for point in first][1:] == [120, 240] and first[0]["rows"] <= 60


def test_a_space_is_trained_once_for_rows_of_one_seed(parts, monkeypatch):
    from matchbook.products.char_word_lstm import CharWordLSTM
    train, valid, test = parts[2]
    fits, fit = [], CharWordLSTM.fit
    def count(self, *some):
        fits.append(self.seed)
        return fit(self, *some)
    monkeypatch.setattr(CharWordLSTM, "fit", count)
    alone = MatchSetsConfig(("lstm",), lstm=CharWordLSTM.quick)
    both = replace(alone, spaces=("words", "lstm"), mix="weighted")
    first, second = (MatchSets(config, 3).fit(train, valid) for config in (alone, both))
    assert fits == [3] and first.borrowed_ == 0 < second.borrowed_
    assert second.encoders_["lstm"] is first.encoders_["lstm"]
    second.encoders_["lstm"].remembering_ = 1000.      # what it has embedded is not embedded again
    assert MatchSets(both, 3).fit(train, valid).borrowed_ > 1000
    MatchSets(alone, 4).fit(train, valid)
    MatchSets(alone, 4).fit(train[np.arange(len(train) - 4)], valid)
    third = MatchSets(alone, 3).fit(train, valid)
    assert fits == [3, 4, 4, 3] and third.borrowed_ == 0
    np.testing.assert_array_equal(third.find(test).toarray(), first.find(test).toarray())


def test_a_saved_union_gives_the_same_bits(whole, parts, tmp_path):
    again = MatchSets.load(whole.save(tmp_path/"model"))
    assert (again.find(parts[2][2]) != whole.find(parts[2][2])).nnz == 0 and again.config == whole.config
    assert again.threshold_ == whole.threshold_ and again.blend_ == whole.blend_


@pytest.mark.parametrize("settings,said", [
    ({"mix": "judge"}, "did you mean 'judged'?"), ({"least": 3}, "least = 3: 1 to 2"),
    ({"spaces": ("hash",), "blend": 1}, "space of vectors"), ({"spaces": ("lstm",), "mix": "judged"},
                                                              "not learnt"),
    ({"floor": 0.}, "floor = 0.0"), ({"mutual": -1}, "mutual = -1"), ({"mix": "weighted"},
                                                                      "two spaces or more")])
def test_settings_are_refused_by_name(settings, said):
    with pytest.raises(InputError) as error: MatchSetsConfig(**settings)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("threshold", [1.01, -1.01, np.nan])
def test_a_threshold_that_is_no_cosine_is_refused(whole, parts, threshold):
    with pytest.raises(InputError, match="from -1 to 1"): whole.match(parts[2][2], threshold)


def test_the_judge_sees_pairs_the_same_from_both_sides(parts):
    train, valid, _ = parts[2]
    encoder = TfidfEncoder().fit(train.title)
    found = [join(encoder.embed(valid.title), threshold=.2)]
    judge = PairJudge(PairJudge.quick).fit(train, len(valid),
                                           lambda part: [join(encoder.embed(part.title), threshold=.2)])
    first, second, features = judge.describe(found, valid.title)
    assert (first < second).all() and np.isfinite(features).all()
    for call in (lambda a, b: describe_space(found[0], a, b), lambda a, b: describe_titles(valid.title,
        encoder, a, b)):
        np.testing.assert_allclose(call(first, second), call(second, first), atol=1e-6)
    judged = judge.judge(found, valid.title)
    same = valid.group[first] == valid.group[second]
    score = np.asarray(judged[first, second]).ravel()
    assert score[same].mean() > score[~same].mean() + .3


@cases
def test_pairs_are_proposed_once(seed):
    one, other = draw_scores(seed), draw_scores(seed)*(draw_scores(seed) > .5)
    first, second = propose_pairs([sparse.csr_matrix(one), sparse.csr_matrix(other)])
    wanted = [(i, j) for i in range(len(one)) for j in range(i + 1, len(one)) if one[i, j] > 0 or other[i,
        j] > 0]
    assert list(zip(first.tolist(), second.tolist())) == wanted


def test_catalogues_hold_every_listing_once_and_cut_no_group(parts):
    train = parts[2][0]
    cut = cut_catalogues(train, 100, 0)
    assert sorted(str(i) for part in cut for i in part.id) == sorted(map(str, train.id))
    held = [set(part.group.tolist()) for part in cut]
    assert sum(map(len, held)) == len(set().union(*held))


def test_a_judge_without_both_kinds_is_refused(parts):
    train = parts[2][0]
    same = replace(train, group=np.zeros(len(train), int))
    with pytest.raises(InputError, match="all of one kind"):
        PairJudge(PairJudge.quick).fit(same, len(train), lambda part: [
            join(TfidfEncoder().fit(train.title).embed(part.title), threshold=.3)])
    with pytest.raises(InputError, match="at least one tree"): PairJudgeConfig(trees=0)


@pytest.mark.parametrize("kind", saved_kinds)
def test_an_index_is_opened_for_its_own_model_alone(kind, tmp_path):
    rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = build_index(rows, kind)
    again = Index.load(index.save(tmp_path/"index", "a"), "a", 8)
    for first, second in zip(index.nearest(rows[:9], 4), again.nearest(rows[:9],
        4)): assert np.array_equal(first, second)
    assert abs(index.join(rows, .8, block=7) - index.join(rows, .8)).max() < 1e-5
    for model, dimensions, said in (("b", 8, "an index of model 'a'"), ("a", 9, "an index of 8 dimensions")):
        with pytest.raises(InputError, match=said): Index.load(tmp_path/"index", model, dimensions)
    path = tmp_path/"index"/"items.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(InputError, match="is not the file"): Index.load(tmp_path/"index", "a")
    with pytest.raises(InputError, match="holds no index.json"): Index.load(tmp_path/"no", "a")


def test_the_join_by_cells_is_measured_against_the_exact_one():
    found = run_index_join("", "index-join", "best", 0, {"sizes": [500, 1500, 3000], "flat_up_to": 1500,
                                                            "probes": 1}, None, "cpu")
    points = found.details["points"]
    assert [point["rows"] for point in points] == [500, 1500, 3000] and "flat_join" not in points[2]
    assert all(.99 < point["recall"] <= 1 for point in points)
    assert found.metrics["test"]["index_recall"] == min(point["recall"] for point in points)
    assert found.metrics["test"]["index_rows"] == 1500


def test_the_join_out_of_files_is_that_out_of_memory(monkeypatch):
    monkeypatch.setattr(match_sets, "measure_alone", lambda measure, *words: measure(*words))
    settings = {"sizes": [900, 2000], "rows": 700, "queries": 300}
    found = run_index_shards("", "index-shards", "best", 0, settings, None, "cpu")
    points, test = found.details["points"], found.metrics["test"]
    assert [point["items"] for point in points] == [900, 2000] and test["sizes_same"] == 2
    assert test["pairs_whole"] == points[1]["pairs"] > 300 and points[1]["disk_mb"] > 2000*100*4/2**20


@pytest.mark.parametrize("spoil,said", [
    (lambda at, other: (at/"index.json").write_text("{}"), "not what Index.save writes"),
    (lambda at, other: (at/"index.json").write_text("[]"), "an object was wanted"),
    (lambda at, other: (at/"index.faiss").unlink(), "index.faiss is missing"),
    (lambda at, other: (at/"items.safetensors").unlink(), "items.safetensors is missing"),
    (lambda at, other: (at/"index.faiss").write_bytes(b"hello"), "is not the file"),
    (lambda at, other: (other/"index.faiss").replace(at/"index.faiss"), "is not the file")])
def test_files_of_an_index_that_are_not_its_own_are_refused(spoil, said, tmp_path):
    rows = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    folder = build_index(rows, "flat").save(tmp_path/"index", "a")
    spoil(folder, build_index(-rows, "flat").save(tmp_path/"other", "a"))
    with pytest.raises(InputError, match=said) as error: Index.load(folder, "a", 8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("row", ["adapter-bert", "terms", "untrained"])
def test_settings_of_another_kind_are_refused_before_a_run(row):
    wrong = {"adapter-bert": {"adapter.margin": "abc"}, "terms": {"words.low": "x"},
             "untrained": {"near": "x"}}
    with pytest.raises(InputError, match="was wanted"):
        run_duplicates("shopee-sample", row, "quick", 0, wrong[row], None, "cpu")


@pytest.mark.parametrize("settings,said", [
    ({"thresold": .5}, "did you mean 'threshold'?"), ({"sizes": []}, "list above 0"),
    ({"sizes": [0]}, "list above 0"), ({"probes": 2.5}, "int above 0"), ({"threshold": "x"}, "float above 0"),
    ({"sizes": [50], "flat_up_to": 5}, "to be joined exactly")])
def test_settings_of_the_index_join_are_refused_in_one_line(settings, said):
    with pytest.raises(InputError) as error:
        run_index_join("", "index-join", "best", 0, settings, None, "cpu")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_judge_counts_as_trained(whole):
    judge = whole.judge_
    assert judge.parameters["trained"] == sum(2*n - 1 for n in count_leaves(judge.forest_)) > 0
    outcome = run_duplicates("shopee-sample", "terms-judged", "quick", 0, {}, None, "cpu")
    assert outcome.parameters["trained"] == outcome.model.judge_.parameters["trained"] > 0


def count_leaves(forest):
    ends = [*forest.root[1:].tolist(), len(forest.feature)]
    return [int((forest.feature[start:end] < 0).sum()) for start, end in zip(forest.root.tolist(), ends)]


def test_rules_for_the_threshold_are_saved_and_followed(whole, parts, tmp_path):
    listings, split, (_, _, test) = parts
    whole.follow_size(listings, split.valid, split.train, (60, 120, 240))
    again = MatchSets.load(whole.save(tmp_path))
    assert again.rule_ == whole.rule_ and again.matches_ == whole.matches_
    at = {"size": whole.rule_(len(test)), "density": threshold_for_matches(whole.rank(test), whole.matches_)}
    for by, threshold in at.items():
        found, wanted = again.match(test, by=by), whole.match(test, threshold)
        assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))
    whole.rule_ = None
    with pytest.raises(InputError, match="call follow_size first"): whole.match(test, by="size")


def test_no_listings_no_sets_and_a_record_of_another_form_is_refused(whole, parts, tmp_path):
    assert whole.match(parts[2][2][:0]) == []
    path = whole.save(tmp_path)/"model.json"
    saved = json.loads(path.read_text())
    for config in ({}, [], saved["config"] | {"x": 1}, saved["config"] | {"words": {"x": 1}}):
        path.write_text(json.dumps(saved | {"config": config}))
        with pytest.raises(InputError, match="not what MatchSets.save writes") as error:
            MatchSets.load(tmp_path)
        assert "\n" not in str(error.value)


def test_dense_scores_and_those_that_are_not_finite_are_refused():
    table = draw_scores(3)
    for call in (lift_best, lambda some: cluster_scores(some, .3), lambda some: group_listings(some, .3)):
        with pytest.raises(InputError, match="a sparse table was wanted"): call(table)
        with pytest.raises(InputError, match="not finite"): call(sparse.csr_matrix(table*np.float32(np.nan)))
