"Splits: parts that share nothing they should not, and leaks counted as a loop would count them."
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from matchbook.datasets import InputError, load
from matchbook.encoders import TfidfEncoder, clean_text, words
from matchbook.splits import (Split, draw_negatives, find_clusters, find_group_leaks, find_pair_leaks,
                              find_text_leaks, leak_report, split_by_cluster, split_by_group,
                              split_by_percentile, split_by_time)

parts = ("train", "valid", "test")
steady = settings(max_examples=150, deadline=None, derandomize=True)
seeds = pytest.mark.parametrize("seed", range(8))


def assert_parts(split, n):
    rows = np.concatenate([getattr(split, part) for part in parts])
    assert sorted(rows.tolist()) == list(range(n))                   # every row once
    for part in parts: assert (np.diff(getattr(split, part)) > 0).all()


def assert_no_group_crosses(split, groups):
    seen = [set(np.asarray(groups)[getattr(split, part)].tolist()) for part in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def draw_group_labels(seed, text=False):
    rng = np.random.default_rng(seed)
    groups = rng.integers(-50, 10**6, 300)[rng.integers(0, 300, 2000)]
    return groups.astype(str) if text else groups


@seeds
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("shares", [(.6, .2, .2), (.8, .1, .1), (.1, .2, .7)])
def test_random_groups_never_cross_and_the_shares_are_right(seed, text, shares):
    groups = draw_group_labels(seed, text)
    split = split_by_group(groups, shares, seed)
    assert_parts(split, len(groups))
    assert_no_group_crosses(split, groups)
    largest = np.unique(groups, return_counts=True)[1].max()
    for part, share in zip(parts, shares):
        assert abs(len(getattr(split, part)) - share*len(groups)) <= largest


@steady
@given(st.lists(st.integers(-5, 30), min_size=3, max_size=80), st.booleans())
def test_the_percentile_cut_is_the_originals(numbers, text):
    groups = np.array(numbers).astype(str) if text else np.array(numbers)
    code = [sorted(set(groups.tolist())).index(group) for group in groups.tolist()]     # labels encoded
    test = {row for row, number in enumerate(code) if number >= int(np.percentile(code, 80))}
    valid = {row for row, number in enumerate(code) if number >= int(np.percentile(code, 60))} - test
    assume(valid and len(valid) + len(test) < len(code))
    split = split_by_percentile(groups)
    assert set(split.test.tolist()) == test and set(split.valid.tolist()) == valid
    assert_parts(split, len(code))
    assert_no_group_crosses(split, groups)


@steady
@given(st.lists(st.integers(1990, 2010), min_size=3, max_size=40), st.integers(1990, 2009), st.integers(1, 9))
def test_nothing_later_is_learnt_from(times, valid_from, years):
    times, test_from = np.array(times), valid_from + years
    slow = [[row for row, time in enumerate(times) if low <= time < high] for low, high in
            ((0, valid_from), (valid_from, test_from), (test_from, 9999))]
    assume(all(slow))
    split = split_by_time(times, valid_from, test_from)
    assert [getattr(split, part).tolist() for part in parts] == slow


def draw_entity_pairs(seed):
    "Pairs between 150 left and 150 right items of 120 entities, none twice; few are positive."
    rng = np.random.default_rng(seed)
    entity = rng.integers(0, 120, 300)
    left, right = np.nonzero((entity[:150, None] == entity[None, 150:]) | (rng.random((150, 150)) < .06))
    right += 150
    return left, right, (entity[left] == entity[right]).astype(int)


@seeds
def test_clusters_are_chains_of_positives(seed):
    rng = np.random.default_rng(seed)
    left, right, label = rng.integers(0, 30, (2, 20)).tolist() + [rng.integers(0, 2, 20).tolist()]
    slow = list(range(30))                                          # joined one pair at a time
    for a, b, yes in zip(left, right, label):
        if yes: slow = [slow[a] if entity == slow[b] else entity for entity in slow]
    fast = find_clusters(left, right, label, 30)
    assert [[x == y for y in slow] for x in slow] == (fast[:, None] == fast[None]).tolist()


@seeds
def test_a_split_by_cluster_keeps_entities_apart_and_the_prior(seed):
    left, right, label = draw_entity_pairs(seed)
    cluster, was = find_clusters(left, right, label, 300), set(zip(left, right, label))
    made, seen = split_by_cluster(left, right, label, 300, seed=seed), []
    for part in made.values():
        assert part["label"].mean() == pytest.approx(label.mean(), abs=1/len(part))
        assert not part.duplicated(["left", "right"]).any()
        drawn = part[part["drawn"]]
        assert len(drawn) and not drawn["label"].any()
        assert (cluster[drawn["left"]] != cluster[drawn["right"]]).all()
        assert drawn["left"].isin(left).all() and drawn["right"].isin(right).all()
        assert {*part[~part["drawn"]][["left", "right", "label"]].itertuples(index=False, name=None)} <= was
        seen.append(set(cluster[part["left"]]) | set(cluster[part["right"]]))
    assert list(made) == list(parts) and sum(part["label"].sum() for part in made.values()) == label.sum()
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_the_same_seed_makes_the_same_pairs():
    given_pairs = (*draw_entity_pairs(0), 300)
    first, again, other = (split_by_cluster(*given_pairs, seed=seed) for seed in (1, 1, 2))
    assert all(first[part].equals(again[part]) for part in parts) and not first["test"].equals(other["test"])


def test_negatives_stop_when_there_are_no_more():
    found = draw_negatives([0, 1], [2, 3], np.array([0, 1, 0, 2]), 9, np.random.default_rng(0), [(1, 2)])
    assert sorted(map(tuple, found)) == [(0, 3), (1, 3)]
    assert draw_negatives([0], [1], np.arange(2), -3, np.random.default_rng(0), []).shape == (0, 2)


@seeds
def test_pair_and_group_leaks_by_looping(seed):
    rng = np.random.default_rng(seed)
    train, test = (pd.DataFrame(rng.integers(0, 12, (n, 2)), columns=["left", "right"]) for n in (8, 30))
    known = {*train["left"], *train["right"]}
    again = {*zip(train["left"], train["right"]), *zip(train["right"], train["left"])}
    slow = {"pair": [], "both sides": [], "one side": []}
    for row, (a, b) in enumerate(zip(test["left"], test["right"])):
        if (a, b) in again: slow["pair"].append(row)
        if a in known and b in known: slow["both sides"].append(row)
        elif a in known or b in known: slow["one side"].append(row)
    found = find_pair_leaks(train, test)
    assert {leak.kind: leak.rows.tolist() for leak in found} == slow
    group, = find_group_leaks(train["left"], test["left"])
    assert group.rows.tolist() == [row for row, a in enumerate(test["left"]) if a in set(train["left"])]
    for leak in (*found, group): assert (leak.count, leak.share) == (len(leak.rows), len(leak.rows)/30)
    assert leak_report(found)["count"].tolist() == [len(rows) for rows in slow.values()]


@seeds
def test_text_leaks_by_looping(seed):
    rng = np.random.default_rng(seed)
    train, test = ([" ".join(rng.choice(list("abcdeAB"), rng.integers(0, 7))) for _ in range(25)]
                   for _ in range(2))
    known, encoder = {clean_text(text) for text in train}, TfidfEncoder(words).fit(train)
    cosine = (encoder.embed(test) @ encoder.embed(train).T).toarray().max(1)
    verbatim, near = find_text_leaks(train, test, .8)
    assert verbatim.rows.tolist() == [i for i, text in enumerate(test) if clean_text(text) in known]
    assert near.rows.tolist() == [i for i, text in enumerate(test) if clean_text(text) not in known
                                  and cosine[i] >= .8 - 1e-6]
    assert verbatim.count and near.count


@pytest.mark.parametrize("call,said", [
    (lambda: Split([0], [0], [1]), "a row is in two parts"),
    (lambda: Split([], [0], [1]), "the train part"),
    (lambda: split_by_percentile(np.zeros(9)), "the train part of the split is empty"),
    (lambda: split_by_group([1, 1, 1]), "is empty"),
    (lambda: split_by_group([1, 2], (.5, .5)), "three above zero"),
    (lambda: split_by_group(np.arange(9), (1.2, -.1, -.1)), "three above zero"),
    (lambda: split_by_time([1, 2, 3], 3, 2), "valid from 3 must be before test from 2"),
    (lambda: split_by_cluster([0, 1], [2, 3], [1, 1], 4), "one class only"),
    (lambda: find_text_leaks([], ["a"]), "both sides"),
])
def test_refusals_say_what_is_wrong(call, said):
    with pytest.raises(InputError, match=said): call()


real = Path(os.environ.get("MATCHBOOK_DATA", "nowhere"))


@pytest.mark.parametrize("name,repeated,rows,both", [
    ("abt-buy", 19, 24, .933), ("amazon-google", 110, 124, .883)])
def test_what_the_public_splits_repeat(name, repeated, rows, both):
    "Between train and test; a test pair may stand in several rows, so there are two ways to count."
    if not (real/name/"test.txt").is_file(): pytest.skip(f"MATCHBOOK_DATA has no {name}")
    data = load(name)
    pair, sides, _ = find_pair_leaks(data["train"], data["test"])
    assert pair.count == rows and round(sides.share, 3) == both
    assert len(data["test"].loc[pair.rows, ["left", "right"]].drop_duplicates()) == repeated


def test_a_row_without_a_time_is_refused():
    with pytest.raises(InputError, match="row 3"): split_by_time([1, 2, 3, np.nan], 2, 3)


@pytest.mark.parametrize("call", [lambda: find_group_leaks([1], []), lambda: find_pair_leaks(
    pd.DataFrame({"left": [1], "right": [2]}), pd.DataFrame({"left": [], "right": []}))])
def test_leaks_of_an_empty_test_part_are_refused(call):
    with pytest.raises(InputError): call()


def test_a_drawn_negative_repeats_no_pair_the_other_way_round():
    rng, entity = np.random.default_rng(0), np.arange(90) % 30
    left, right = np.array([pair for pair in np.ndindex(90, 90) if pair[0] < pair[1] and rng.random() < .4]).T
    label = (entity[left] == entity[right]).astype(int)
    for part in split_by_cluster(left, right, label, 90).values():
        assert len({frozenset(pair) for pair in zip(part["left"], part["right"])}) == len(part)
