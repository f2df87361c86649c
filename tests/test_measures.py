"Measures against plain loops on small random cases, intervals and tests against simulation."
import math

import numpy as np
import pytest
from scipy import sparse, stats

from matchbook.datasets import InputError
from matchbook.measures import (binary_measures, bootstrap_interval, bootstrap_measure, calibration_error,
                                check_scores, choose_row_threshold, choose_threshold, class_measures, compare,
                                list_measures, map_at_r, rank_rows, reliability, row_f1_curve, row_scores)
from matchbook.neighbours import join


def on_small_cases(test):
    "Run a test on 200 seeds; the traceback shows the one that fails."
    def run():
        for seed in range(200): test(seed)
    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def draw_found(seed):
    "A small catalogue with few different scores, so that ties are common: groups and what a join found."
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    score = rng.integers(1, 8, (n, n))/8*(rng.random((n, n)) < rng.random())
    return rng.integers(0, n, n), sparse.csr_matrix(score.astype(np.float32))


def sets_of(groups, found, threshold):
    "The true and the predicted set of each row, by the definition."
    scores = found.toarray()
    for i, group in enumerate(groups):
        true = {j for j, other in enumerate(groups) if other == group}
        yield true, {i} | {j for j in range(len(groups)) if scores[i, j] and scores[i, j] >= threshold}


def scores_by_looping(groups, found, threshold):
    both = [(len(true & said), len(true), len(said)) for true, said in sets_of(groups, found, threshold)]
    return {"row_f1": [2*hit/(true + said) for hit, true, said in both],
            "precision": [hit/said for hit, _, said in both], "recall": [hit/true for hit, true, _ in both]}


def off_diagonal(found): return found.toarray()[~np.eye(found.shape[0], dtype=bool)]


@on_small_cases
def test_row_scores_and_the_curve_and_its_best_threshold(seed):
    groups, found = draw_found(seed)
    ranked = rank_rows(found, groups)
    thresholds, curve = row_f1_curve(ranked)
    assert thresholds.tolist() == [math.inf, *sorted(set(off_diagonal(found)) - {0}, reverse=True)]
    for threshold, mean in zip(thresholds, curve):
        slow = scores_by_looping(groups, found, threshold)
        fast = row_scores(ranked, threshold)
        for name in slow: np.testing.assert_allclose(fast[name], slow[name])
        assert mean == pytest.approx(np.mean(slow["row_f1"]))
    chosen = scores_by_looping(groups, found, choose_row_threshold(ranked))
    assert np.isfinite(choose_row_threshold(ranked))                 # a run file holds no infinity
    assert np.mean(chosen["row_f1"]) == pytest.approx(curve.max())


@on_small_cases
def test_rows_are_ranked_by_falling_score_then_by_number(seed):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 8, 2)
    items, score = rng.integers(0, 3, m), rng.integers(0, 4, (n, m))/4
    queries, own = rng.choice(items, n), rng.integers(0, m, n)
    slow = [(i, score[i, j], queries[i] == items[j]) for i in range(n)
            for j in sorted(range(m), key=lambda j, i=i: (-score[i, j], j)) if score[i, j] and j != own[i]]
    ranked = rank_rows(sparse.csr_matrix(score), queries, items, own)
    assert list(zip(ranked.row, ranked.score, ranked.hit)) == slow
    assert ranked.size.tolist() == [int((items == group).sum()) for group in queries]
    places = [sum(r == i for r, *_ in slow[:at]) + 1 for at, (i, *_) in enumerate(slow)]
    assert ranked.place().tolist() == places


@on_small_cases
def test_map_at_r_by_looping(seed):
    groups, found = draw_found(seed)
    ranked = rank_rows(found, groups)
    for i, value in enumerate(map_at_r(ranked)):
        hits, partners = ranked.hit[ranked.row == i], (groups == groups[i]).sum() - 1
        if not partners: assert np.isnan(value)
        else:
            places = [k for k in range(min(partners, len(hits))) if hits[k]]
            assert value == pytest.approx(sum(hits[:k + 1].mean() for k in places)/partners)


@pytest.mark.parametrize("seed", range(5))
def test_map_at_r_agrees_with_pytorch_metric_learning(seed):
    accuracy = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 12, 60)
    rows = np.abs(.5*rng.normal(size=(60, 8)) + rng.normal(size=(12, 8))[groups])
    rows = (rows/np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    ours = map_at_r(rank_rows(join(rows, threshold=1e-6), groups))
    theirs = accuracy.AccuracyCalculator(include=("mean_average_precision_at_r",), device=torch.device("cpu"))
    theirs = theirs.get_accuracy(torch.tensor(rows), torch.tensor(groups))["mean_average_precision_at_r"]
    assert .05 < np.nanmean(ours) < .9 and np.nanmean(ours) == pytest.approx(theirs, abs=1e-6)


def draw_scores(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 15))
    return rng.integers(0, 9, n)/8, rng.integers(0, 2, n)


def f1_by_looping(score, truth, threshold):
    said = [s >= threshold for s in score]
    right = sum(1 for s, t in zip(said, truth) if s and t)
    return 2*right/max(1, sum(said) + sum(truth))


@on_small_cases
def test_choose_threshold_by_looping(seed):
    score, truth = draw_scores(seed)
    best = max(f1_by_looping(score, truth, t) for t in [*score, np.inf])
    assert f1_by_looping(score, truth, choose_threshold(score, truth)) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(10))
def test_the_figures_of_a_yes_or_no_table(seed):
    score, truth = draw_scores(seed)
    figures = binary_measures(score, truth, .5)
    assert figures["f1"] == pytest.approx(f1_by_looping(score, truth, .5))
    assert figures["accuracy"] == np.mean([(s >= .5) == t for s, t in zip(score, truth)])
    assert figures["mse"] == pytest.approx(np.mean([(s - t)**2 for s, t in zip(score, truth)]))
    if 0 < truth.mean() < 1:
        better = [(a > b) + (a == b)/2 for a in score[truth == 1] for b in score[truth == 0]]
        assert figures["roc_auc"] == pytest.approx(np.mean(better))


@on_small_cases
def test_calibration_error_by_looping(seed):
    score, truth = draw_scores(seed)
    bins = {}
    for s, t in zip(score, truth): bins.setdefault(min(int(s*10), 9), []).append((s, t))
    slow = sum(abs(sum(s - t for s, t in rows)) for rows in bins.values())/len(score)
    assert calibration_error(score, truth) == pytest.approx(slow)
    assert reliability(score, truth)["count"].tolist() == [len(bins[b]) for b in sorted(bins)]


@on_small_cases
def test_list_measures_by_looping(seed):
    rng = np.random.default_rng(seed)
    ranks = [rng.permutation(80)[:rng.integers(1, 70)] + 1 for _ in range(rng.integers(1, 5))]
    slow = {"recall_at_10": [], "recall_at_50": [], "mrr": [], "ndcg": []}
    for places in ranks:
        for cut in (10, 50): slow[f"recall_at_{cut}"].append(sum(p <= cut for p in places)/len(places))
        slow["mrr"].append(1/min(places))
        ideal = sum(1/math.log2(k + 2) for k in range(min(50, len(places))))
        slow["ndcg"].append(sum(1/math.log2(p + 1) for p in places if p <= 50)/ideal)
    assert list_measures(ranks) == pytest.approx({name: np.mean(values) for name, values in slow.items()})


def test_yes_or_no_figures_of_one_class_are_nan_where_undefined():
    figures = binary_measures([.2, .9], [1, 1], .5)
    assert np.isnan(figures["pr_auc"]) and np.isnan(figures["roc_auc"]) and figures["accuracy"] == .5


def test_class_measures_by_hand():
    figures = class_measures(np.array([[.6, .3, .1], [.5, .4, .1], [.2, .1, .7], [.1, .8, .1]]), [0, 1, 2, 1])
    assert figures == pytest.approx({"macro_f1": (2/3 + 2/3 + 1)/3, "micro_f1": .75, "auc": 1})


def draw_groups(rng, count=40):
    "Rows whose group moves them together, mean .5."
    groups = np.repeat(np.arange(count), rng.integers(1, 5, count))
    return .5 + rng.normal(size=count)[groups] + .5*rng.normal(size=len(groups)), groups


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    whole, by_row = 0, 0
    for _ in range(300):
        values, groups = draw_groups(rng)
        low, high = bootstrap_interval(values, groups, draws=300)
        whole += low <= .5 <= high
        low, high = bootstrap_interval(values, draws=300)
        by_row += low <= .5 <= high
    assert .90 <= whole/300 <= .98 and by_row < whole - 15           # by row it promises too much


def test_an_interval_is_the_same_for_the_same_seed_and_narrower_for_a_lower_level():
    values, groups = draw_groups(np.random.default_rng(1))
    first = bootstrap_interval(values, groups, seed=3)
    assert first == bootstrap_interval(values, groups, seed=3) != bootstrap_interval(values, groups, seed=4)
    low, high = bootstrap_interval(values, groups, seed=3, level=.5)
    assert first[0] < low < high < first[1]


def test_rows_without_a_figure_are_left_out_with_their_groups():
    values, groups = draw_groups(np.random.default_rng(2))
    more = np.r_[values, np.nan, np.nan], np.r_[groups, 90, 91]
    assert bootstrap_interval(*more) == bootstrap_interval(values, groups)


def test_a_measured_interval_of_the_mean_is_the_interval_of_the_mean():
    values, groups = draw_groups(np.random.default_rng(3), 150)
    measured = bootstrap_measure(lambda rows: values[rows].mean(), groups, draws=2000)
    np.testing.assert_allclose(measured, bootstrap_interval(values, groups), atol=.02)
    assert measured == bootstrap_measure(lambda rows: values[rows].mean(), groups, draws=2000)


def test_p_values_are_uniform_when_the_models_are_alike():
    rng, found = np.random.default_rng(4), []
    for _ in range(200):
        first, groups = draw_groups(rng, 30)
        found.append(compare(first, first + rng.normal(size=30)[groups], groups, draws=99).p)
    assert stats.kstest(found, "uniform").pvalue > .01 and min(found) >= 1/100


def test_a_comparison_turned_round_is_the_same_with_the_sign_changed():
    values, groups = draw_groups(np.random.default_rng(5))
    other = values + .1 + np.random.default_rng(6).normal(size=len(values))
    there, back = compare(values, other, groups), compare(other, values, groups)
    assert there.p == back.p
    np.testing.assert_allclose([there.mean, there.low, there.high], [-back.mean, -back.high, -back.low])
    assert compare(values + 1, values, groups).p == pytest.approx(1/2001)


@pytest.mark.parametrize("call,said", [
    (lambda: rank_rows(sparse.csr_matrix((2, 3)), [1, 1]), "there are 2 queries and 2 items"),
    (lambda: rank_rows(sparse.csr_matrix((1, 2)), [5], [1, 9]), "group is not among the items"),
    (lambda: check_scores([], []), "no rows"), (lambda: check_scores([.1], [0, 1]), "1 scores against 2"),
    (lambda: check_scores([.1, np.inf], [0, 1]), "row 1: no finite score"),
    (lambda: check_scores([.1, .2], [0, 2]), "row 1: a truth of 0 or 1"),
    (lambda: check_scores([.1, .2], [0, np.nan]), "row 1: a truth of 0 or 1"),
    (lambda: list_measures([]), "no queries"), (lambda: compare([1, 2], [1]), "2 rows against 1"),
])
def test_refusals_say_what_is_wrong(call, said):
    with pytest.raises(InputError, match=said): call()


low32, high32 = np.float32(1), np.nextafter(np.float32(1), np.float32(2))


def test_a_row_threshold_between_neighbouring_floats_leaves_the_lower_one_out():
    found = sparse.csr_matrix(np.array([[0, high32, low32], [high32, 0, low32], [low32, low32, 0]]))
    ranked = rank_rows(found, [0, 0, 1])
    mean = row_scores(ranked, choose_row_threshold(ranked))["row_f1"].mean()
    assert mean == pytest.approx(row_f1_curve(ranked)[1].max())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_threshold_between_neighbouring_floats_leaves_the_lower_one_out(kind):
    score = np.array([np.nextafter(kind(1), kind(2)), 1], dtype=kind)
    assert (score >= choose_threshold(score, [1, 0])).tolist() == [True, False]


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_an_interval_of_no_figures_is_refused(values):
    with pytest.raises(InputError): bootstrap_interval(values)
