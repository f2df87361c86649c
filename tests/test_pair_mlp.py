"Matchers of pairs: features against plain loops, forests against scikit-learn, and what all of them promise."
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction import FeatureHasher
from torch import nn
from torch.nn import functional as F

from matchbook.batches import Table
from matchbook.datasets import InputError
from matchbook.encoders import TransformerConfig
from matchbook.measures import Calibration, calibrations, fit_calibration
from matchbook.products.listings import Items, Pairs, read_pair_parts
from matchbook.products.pair_mlp import (BoostedTrees, BoostedTreesConfig, CosineConfig, CosineMatcher,
                                         FeatureConfig, Forest, ItemPairMLP, PairFeatures, PairMatcher,
                                         PairMLP, PairMLPConfig, PairwiseBinaryClassifier,
                                         PairwiseItemOrientBinaryClassifier, SymmetricNetwork,
                                         SymmetricPairMLP, add_vectors, batch_pairs, count_flips,
                                         find_telling, fold_batch_norms, join_sides, name_units, overlaps,
                                         read_number)
from matchbook.training import TrainingConfig

few = FeatureConfig(("words", "codes"), ("words",))
short = TrainingConfig(epochs=2, learning_rate=3e-3, patience=2)
published = PairMLPConfig("concat", 16, 2, 0., 0, batch=64, training=short)
small = {
    "pair-mlp": (PairMLP, published),
    "item-pair-mlp": (ItemPairMLP, replace(published, network="item", dropout=.3)),
    "symmetric-pair-mlp": (SymmetricPairMLP, PairMLPConfig(hidden=16, reduced=8, features=few, batch=64,
                                                           training=short)),
    "boosted-trees": (BoostedTrees, BoostedTreesConfig(trees=12, features=few)),
    "words": (CosineMatcher, CosineConfig("words")), "text": (CosineMatcher, CosineConfig("text")),
    "image": (CosineMatcher, CosineConfig("image"))}
blind_to_order = set(small) - {"pair-mlp", "item-pair-mlp"}
learnt = ("pair-mlp", "item-pair-mlp", "symmetric-pair-mlp", "boosted-trees")


def make(row, seed=0, **changes):
    kind, config = small[row]
    return kind(replace(config, **changes), seed)


@pytest.fixture(scope="module")
def parts():
    "Pairs with texts, vectors of both kinds, and items that lack one."
    whole, _ = read_pair_parts("ozon-sample")
    return whole.train[:300], whole.valid[:120], whole.test[:80]


class Fitted(dict):
    "Models by row, each trained when it is first asked for."
    def __init__(self, parts): self.parts = parts
    def __missing__(self, row): return self.setdefault(row, make(row).fit(*self.parts[:2]))


@pytest.fixture(scope="module")
def fitted(parts): return Fitted(parts)


each_row = pytest.mark.parametrize("row", small)


def some_items(texts, text=0, image=0):
    return Items(np.arange(len(texts)), np.array(texts, dtype=object),
                 *(np.zeros((len(texts), width), dtype=np.float32) for width in (text, image)))


# Features, against plain loops

def runs(text, inside):
    "Longest runs of characters that are inside."
    return "".join(letter if inside(letter) else " " for letter in text).split()


def slow_terms(text, view):
    "The terms of a cleaned ASCII text."
    if view == "words":
        return set(runs(text, str.isalpha)) | set(runs(text, str.isdigit))
    if view == "numbers": return {one for one in runs(text, str.isalnum) if any(map(str.isdigit, one))}
    if view == "chars": return {text[i:i + n] for n in (3, 4, 5) for i in range(len(text) - n + 1)}
    inner = lambda i: text[i] in "-_/.," and text[i - 1:i].isalnum() and text[i + 1:i + 2].isalnum()
    joined = "".join("" if inner(i) else letter for i, letter in enumerate(text))
    codes = {one for one in runs(joined, str.isalnum) if len(one) > 3 and any(map(str.isdigit, one))}
    if view == "codes": return codes
    return {f" {one} "[i:i + n] for one in codes for n in (3, 4, 5) for i in range(len(one) + 3 - n)}


def to_buckets(terms):
    "Terms that share one of the 2^18 columns are one term."
    return set(FeatureHasher(2**18, input_type="string").transform([sorted(terms)]).indices.tolist())


def slow_overlap(a, b, weight):
    total = lambda terms: sum(weight(term) for term in terms)
    shared, smaller = total(a & b), min(total(a), total(b))
    shares = [math.nan]*3 if smaller <= 0 else [shared/total(a | b), shared/smaller,
                                                shared/max(total(a), total(b))]
    return [*shares, shared, total(a | b) - shared]


def draw_texts(rng, count):
    kinds = ["sony", "red", "dsc-w120", "w120", "7.2mp", "10", "ab-1", "a1b2", "x", "10ml", "lamp,", "8/16gb"]
    draw = lambda: " ".join(rng.choice(kinds, rng.integers(0, 6)))
    price = lambda: rng.choice(["9.99", "1,200", "$ 45", "", "0", "new"], p=[.3, .2, .2, .1, .1, .1])
    return [f"COL name VAL {draw()} COL maker VAL {draw()} COL price VAL {price()}" for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_what_two_texts_share_is_what_plain_loops_find(seed):
    rng = np.random.default_rng(seed)
    items = some_items(draw_texts(rng, 14))
    pairs = Pairs(items, *rng.integers(0, 14, (2, 50)), rng.integers(0, 2, 50))
    names = ("words", "numbers", "codes", "code-chars", "chars")
    features = PairFeatures(FeatureConfig(names, ("words", "numbers"), cosines=False)).fit(pairs)
    found, at = features.transform(pairs), {name: i for i, name in enumerate(features.names)}
    rows, fields = np.unique([pairs.left, pairs.right]), items.fields
    assert set(features.fields_) == {"name", "maker", "price"} and features.numeric_ == ["price"]
    for field in ("", "name", "maker", "price"):
        text = lambda row, field=field: " ".join((" ".join(fields[row].values()) if not field
                                                  else fields[row][field]).lower().split())
        for view in (names if not field else ("words", "numbers")):
            terms = lambda row, view=view, text=text: to_buckets(slow_terms(text(row), view))
            seen = [terms(row) for row in rows]
            weight = lambda term, seen=seen: math.log((1 + len(seen))/(1 + sum(term in one for one in seen)))
            start = at[f"{view}{f' of {field}' if field else ''}: {overlaps[0]}"]
            slow = [slow_overlap(terms(a), terms(b), weight) for a, b in zip(pairs.left, pairs.right)]
            np.testing.assert_allclose(found[:, start:start + 5], slow, rtol=1e-5, atol=2e-5)
    price = {"9.99": 9.99, "1,200": 1200., "$ 45": 45.}
    for number, (a, b) in enumerate(zip(pairs.left, pairs.right)):
        two = [price.get(fields[row]["price"]) for row in (a, b)]
        apart = abs(math.log(two[0]) - math.log(two[1])) if all(two) else math.nan
        np.testing.assert_allclose(found[number, at["price: apart"]], apart, atol=1e-5)
        length = sorted(len(" ".join(fields[row].values()).split()) for row in (a, b))
        np.testing.assert_allclose(found[number, [at["words of the shorter"], at["shorter by longer"]]],
                                   [length[0], length[0]/max(length[1], 1)], rtol=1e-6)


@pytest.mark.parametrize("text,units", [
    ("cream 10ml", "10ml"), ("cream 10 ml", "10ml"), ("10.0 ml 2,5 kg", "10ml 2.5kg"), ("13\" tv", "13\""),
    ("3.5-inch", "3.5inch"), ("usb 3", ""), ("", ""), ("100 % wool", "100%")])
def test_a_number_and_its_unit_are_one_word(text, units): assert name_units(text) == units


@pytest.mark.parametrize("text,number", [
    ("$1,299.00", 1299), ("4.5 %", 4.5), ("€ 7", 7), (" 1998 ", 1998), ("0", 0)])
def test_a_number_is_read_as_people_write_it(text, number): assert read_number(text) == number


@pytest.mark.parametrize("text", ["", "7 eleven", "1-2", "-3", "1.2.3", "nan"])
def test_what_is_no_number_is_unknown(text): assert math.isnan(read_number(text))


def test_cosines_are_of_both_vectors_and_unknown_where_one_lacks(parts):
    pairs, items = parts[2], parts[2].items
    features = PairFeatures(few).fit(parts[0])
    found = features.transform(pairs)[:, -2:]
    for number, (a, b) in enumerate(zip(pairs.left, pairs.right)):
        for column, vectors in enumerate((items.text_vector, items.image_vector)):
            there = vectors[a].any() and vectors[b].any()
            slow = float(vectors[a].astype(float) @ vectors[b]) if there else math.nan
            np.testing.assert_allclose(found[number, column], slow, atol=1e-6)
    assert np.isnan(found).any()


@pytest.mark.parametrize("change", [
    {"views": ("words",)}, {"views": ("words", "codes", "units")}, {"field_views": ("numbers",)},
    {"seldom": .9}, {"cosines": False}])
def test_each_setting_of_the_features_has_an_effect(change):
    texts = ["COL name VAL red w120 COL price VAL 9", "COL name VAL red COL price VAL",
             "COL name VAL blue w120 10 ml"]
    pairs = Pairs(some_items(texts), np.array([0, 1]), np.array([1, 2]), np.array([0, 1]))
    assert PairFeatures(replace(few, **change)).fit(pairs).names != PairFeatures(few).fit(pairs).names


def test_a_field_that_few_have_is_not_compared():
    texts = [f"COL name VAL lamp {i} COL size VAL {'9' if i < 2 else ''}" for i in range(10)]
    pairs = Pairs(some_items(texts), np.arange(9), np.arange(1, 10), np.zeros(9, dtype=int))
    fields = [PairFeatures(replace(few, seldom=share)).fit(pairs).fields_ for share in (.05, .3)]
    assert fields == [["name", "size"], ["name"]]


def test_features_that_do_not_differ_tell_nothing():
    table = np.array([[1, 2, np.nan, np.nan], [1, 3, np.nan, 4], [1, 2, np.nan, 4]], dtype=np.float32)
    assert find_telling(table) == [1]


def test_saved_features_are_the_same_to_the_bit(parts, tmp_path):
    rng = np.random.default_rng(0)
    fields = Pairs(some_items(draw_texts(rng, 20)), *rng.integers(0, 20, (2, 30)), np.zeros(30, dtype=int))
    for name, train, test in (("plain", parts[0], parts[2]), ("fields", fields, fields[:9])):
        features = PairFeatures().fit(train)
        features.save(tmp_path/name)
        again = PairFeatures.load(tmp_path/name)
        np.testing.assert_array_equal(again.transform(test), features.transform(test))
        assert again.names == features.names and again.numeric_ == features.numeric_
    assert again.numeric_ == ["price"]


# Forests

@pytest.mark.parametrize("seed", range(12))
def test_a_forest_gives_the_numbers_of_scikit_learn_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    rows = int(rng.choice([4, 12, 60, 300]))
    numbers = rng.normal(size=(rows, 3)).round(1)
    if seed % 3: numbers[rng.random(numbers.shape) < .3] = np.nan
    answer = np.arange(rows) % 2 == (np.nan_to_num(numbers[:, 0]) > rng.normal())
    answer[:2] = 0, 1
    grown = HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=int(rng.integers(1, 20)),
                                           max_features=.7, random_state=seed).fit(numbers, answer)
    new = np.where(rng.random((80, 3)) < .2, np.nan, rng.normal(size=(80, 3)).round(1)).astype(np.float32)
    stages = Forest.of(grown)(new)
    assert (stages[-1] == grown.decision_function(new)).all()
    for stage, wanted in zip(stages, grown.staged_decision_function(new)):
        assert (stage == np.ravel(wanted)).all()
    assert (Forest.of(grown)(new, upto=3)[-1] == stages[2]).all()


# The published networks

def stir(network, seed=0):
    "Statistics of batch norms and slopes as after a training."
    chance = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.running_mean.normal_(generator=chance)
            part.running_var.uniform_(.5, 2, generator=chance)
            part.weight.data.uniform_(.5, 2, generator=chance)
        if isinstance(part, nn.PReLU): part.weight.data.uniform_(.1, .5, generator=chance)
    return network.eval().requires_grad_(False)


both = pytest.mark.parametrize("network", [
    PairwiseBinaryClassifier(3, 2, 7, 2), PairwiseItemOrientBinaryClassifier(3, 2, 7, 2)],
    ids=["pair", "item"])


@both
def test_a_published_network_is_the_originals_layer_by_layer(network):
    item, state = hasattr(network, "v1_embedder"), {}
    for name, value in stir(network).state_dict().items(): state[name] = value.double().numpy()
    rows, block = np.random.default_rng(0).normal(size=(2, 9, 5)), 4 if item else 3
    sides = [side @ state[f"v{i}_embedder.linear.weight"].T + state[f"v{i}_embedder.linear.bias"]
             for i, side in enumerate(rows, 1)] if item else list(rows)
    x = np.concatenate(sides, axis=1)
    for at in (0, block):
        x = x @ state[f"layers.{at}.weight"].T + state[f"layers.{at}.bias"]
        x = (x - state[f"layers.{at + 1}.running_mean"])/np.sqrt(state[f"layers.{at + 1}.running_var"] + 1e-5)
        x = x*state[f"layers.{at + 1}.weight"] + state[f"layers.{at + 1}.bias"]
        x = np.where(x > 0, x, x*state[f"layers.{at + 2}.weight"])
    x = (x @ state["scorer.weight"].T + state["scorer.bias"])[:, 0]
    found = network(*(torch.from_numpy(side).float() for side in rows))
    np.testing.assert_allclose(found.numpy(), x, rtol=1e-4, atol=1e-5)
    layer = [f"{at}.{name}" for at in (0, block) for name in ("weight", "bias")]
    norm = [f"{at + 1}.{name}" for at in (0, block) for name in
            ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    embedders = [f"v{i}_embedder.linear.{name}" for i in (1, 2) for name in ("weight", "bias")]*item
    names = [*embedders, *(f"layers.{one}" for one in [*layer, *norm, "2.weight", f"{block + 2}.weight"]),
             "scorer.weight", "scorer.bias"]
    assert sorted(state) == sorted(names)


@both
def test_folded_batch_norms_change_no_answer(network):
    sides = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(0))
    before, folded = stir(network)(*sides), fold_batch_norms(network)
    np.testing.assert_allclose(folded(*sides).numpy(), before.numpy(), rtol=1e-4, atol=1e-5)
    kinds = {type(part) for part in folded.modules()}
    assert not kinds & {nn.BatchNorm1d, nn.Dropout} and (network(*sides) == before).all()


@both
def test_logits_stay_finite_where_a_sigmoids_logarithm_does_not(network):
    logit = network.eval()(*torch.full((2, 4, 5), 1e6)).detach()
    assert logit.isfinite().all() and logit.abs().max() > 200
    assert F.binary_cross_entropy_with_logits(logit, (logit < 0).float()).isfinite()


def test_half_of_the_width_is_each_sides():
    network = PairwiseItemOrientBinaryClassifier(64, 128)
    assert [network.v1_embedder["linear"].out_features, network.layers[0].in_features] == [512, 1024]
    assert [part.p for part in network.layers if isinstance(part, nn.Dropout)] == [.3]*5
    assert ItemPairMLP.as_published.hidden == 1024 and ItemPairMLP.as_published.training.learning_rate == .001
    first = PairMLP.as_published
    assert (first.hidden, first.layers, first.batch) == (512, 5, 4096)
    assert not first.shuffle and not first.validate
    assert (first.training.epochs, first.training.learning_rate) == (10, .01)


def test_joined_sides_forget_their_order():
    a, b = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    slow = [[abs(x - y) for x, y in zip(p, q)] + [x*y for x, y in zip(p, q)]
            for p, q in zip(a.tolist(), b.tolist())]
    np.testing.assert_allclose(join_sides(a, b), slow, rtol=1e-5)
    assert (join_sides(a, b) == join_sides(b, a)).all()


# Batches

@pytest.mark.parametrize("size", range(2, 10))
def test_every_pair_comes_once_and_never_alone(size):
    for n in range(2, 42):
        table = Table({"left": torch.arange(n)})
        for seed in (None, 0):
            batches = [batch["left"].tolist() for batch in batch_pairs(table, size, seed, epoch=1)]
            rows = [row for batch in batches for row in batch]
            assert sorted(rows) == list(range(n)) and min(map(len, batches)) > 1
            assert max(map(len, batches)) <= size + 1 and (seed is not None or rows == sorted(rows))


@pytest.mark.parametrize("row", learnt[:3])
def test_a_last_batch_of_one_row_is_trained_on(row, parts):
    assert np.isfinite(make(row).fit(parts[0][:65], parts[1]).score(parts[2])).all()


# Calibration and flips

@pytest.mark.parametrize("kind", calibrations)
@pytest.mark.parametrize("seed", range(5))
def test_a_calibration_rises_and_stays_between_zero_and_one(kind, seed):
    rng = np.random.default_rng(seed)
    truth = np.r_[0, 1, rng.integers(0, 2, rng.integers(1, 60))]
    logit = (truth*rng.normal() + rng.normal(size=len(truth)))*10.**rng.integers(-2, 3)
    curve = fit_calibration(logit, truth, kind)
    found = curve(np.sort(np.r_[logit, -1e9, 1e9]))
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    assert (np.diff(found) >= 0).all()
    if kind == "isotonic":                                               # the best rising steps, by looping
        for score in np.unique(curve(logit)):
            assert truth[curve(logit) == score].mean() == pytest.approx(score, abs=1e-6)


class Told(PairMatcher):
    "A model that says what it is told: the score is the number of the left item."
    def __init__(self, score): self.told, self.threshold_ = np.array(score), .5
    def score(self, pairs): return self.told[pairs.left]


def test_flips_are_the_matches_that_are_taken_back():
    items = some_items([""]*4)
    left, right = np.array([0, 0, 1, 2, 2]), np.array([1, 2, 3, 3, 0])
    pairs = Pairs(items, left, right, np.zeros(5, dtype=int))
    assert count_flips(Told([.9, .8, .1, .2]), pairs) == 2/3             # of three matches, 0-1 stays one
    assert math.isnan(count_flips(Told([0., 0, 0, 0]), pairs))


# What is missing

def test_a_missing_side_is_ignored(fitted, parts):
    model, test = fitted["symmetric-pair-mlp"], parts[2]
    images = test.items.image_vector.copy()
    some = test[:40]
    images[some.left] = 0                                                # no picture of the left ones
    right_alone = np.setdiff1d(some.right, some.left)
    assert len(right_alone) > 20
    other = images.copy()
    other[right_alone] = np.roll(images[right_alone], 1, axis=1)
    first, again = (model.score(replace(some, items=replace(test.items, image_vector=one)))
                    for one in (images, other))
    assert (first == again).all()
    assert (first != model.score(some)).any()                            # where both have one it counts


def test_what_is_not_known_is_no_zero():
    network = SymmetricNetwork(0, 0, 1, hidden=8).eval().requires_grad_(False)
    none = torch.zeros(1, 0)
    assert network(none, none, torch.tensor([[math.nan]])) != network(none, none, torch.tensor([[0.]]))


def test_texts_get_vectors_only_where_there_are_none():
    items = some_items(["red shoe", "", "COL name VAL red shoe"])
    found = add_vectors(items, TransformerConfig(max_length=8))
    assert found.has_text.tolist() == [True, False, True] and found.image_vector.shape == (3, 0)
    assert (found.text_vector[0] == found.text_vector[2]).all() and add_vectors(found, None) is found
    assert (add_vectors(items, TransformerConfig(max_length=3)).text_vector != found.text_vector).any()
    bare = some_items(["", ""])
    assert add_vectors(bare, None) is bare


# What every matcher promises

@each_row
def test_scores_are_float32_between_zero_and_one(row, fitted, parts):
    found = fitted[row].score(parts[2])
    assert found.dtype == np.float32 and 0 <= found.min() < found.max() <= 1
    assert fitted[row].score(parts[2][:0]).shape == (0,)


@each_row
def test_the_order_of_the_sides_is_forgotten_where_that_is_promised(row, fitted, parts):
    found, turned = fitted[row].score(parts[2]), fitted[row].score(parts[2].swapped())
    assert (found == turned).all() == (row in blind_to_order)


@each_row
def test_a_score_is_of_its_own_row_alone(row, fitted, parts):
    test, some = parts[2], np.array([70, 3, 41, 3])
    np.testing.assert_allclose(fitted[row].score(test[some]), fitted[row].score(test)[some], atol=1e-6)
    other = replace(test, label=1 - test.label)
    assert (fitted[row].score(other) == fitted[row].score(test)).all()    # labels are not looked at


@each_row
def test_saved_and_loaded_is_equal_to_the_bit(row, fitted, parts, tmp_path):
    model = fitted[row]
    again = type(model).load(model.save(tmp_path/"model"))
    assert (again.score(parts[2]) == model.score(parts[2])).all()
    assert again.config == model.config and again.calibration_ == model.calibration_
    assert again.threshold_ == model.threshold_ and again.seed == model.seed
    assert again.history_ == model.history_
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".json", ".safetensors"}
    assert again.parameters == model.parameters


@pytest.mark.parametrize("kind", calibrations)
def test_a_calibration_is_saved_with_its_model(kind, fitted, parts, tmp_path):
    model = make("text").fit(*parts[:2])
    model.calibration_ = fit_calibration(model.logits(parts[1]), parts[1].label, kind)
    again = CosineMatcher.load(model.save(tmp_path/"model"))
    assert again.calibration_ == model.calibration_ and isinstance(again.calibration_, Calibration)
    assert (again.score(parts[2]) == model.score(parts[2])).all()


@pytest.mark.parametrize("row", learnt)
def test_the_same_seed_gives_the_same_bits_and_another_others(row, fitted, parts):
    before = torch.get_rng_state()
    again, other = (make(row, seed).fit(*parts[:2]) for seed in (0, 1))
    assert (again.score(parts[2]) == fitted[row].score(parts[2])).all()
    assert (other.score(parts[2]) != again.score(parts[2])).any()
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize("row,change", [
    *(("symmetric-pair-mlp", change) for change in (
        {"hidden": 8}, {"layers": 1}, {"dropout": 0.}, {"reduced": 4}, {"reduced": 0}, {"batch": 32},
        {"shuffle": False},
        {"validate": False, "training": TrainingConfig(epochs=2, learning_rate=3e-3)},
        {"features": replace(few, views=("words",))}, {"training": replace(short, epochs=1)},
        {"training": replace(short, weight_decay=.9)}, {"training": replace(short, learning_rate=1e-3)})),
    ("item-pair-mlp", {"dropout": 0.}), ("item-pair-mlp", {"layers": 1}), ("pair-mlp", {"network": "item"}),
    *(("boosted-trees", change) for change in (
        {"trees": 3}, {"rate": .3}, {"leaves": 3}, {"least": 40}, {"pull": 30.}, {"share": 1.},
        {"features": replace(few, views=("words",))})),
    ("text", {"of": "image"}), ("words", {"of": "chars"})])
def test_each_setting_has_an_effect(row, change, fitted, parts):
    found = make(row, **change).fit(*parts[:2])
    assert (found.score(parts[2]) != fitted[row].score(parts[2])).any()


def test_without_validation_the_last_epoch_is_the_one(parts):
    model = make("pair-mlp", validate=False, training=TrainingConfig(epochs=3)).fit(*parts[:2])
    assert model.history_.best_epoch == 2 and "valid_pr_auc" not in model.history_.rows[0]


@each_row
def test_a_threshold_has_the_best_f1_on_valid(row, fitted, parts):
    score, true = fitted[row].score(parts[1]), parts[1].label
    f1 = lambda cut: 2*true[score >= cut].sum()/((score >= cut).sum() + true.sum())
    assert f1(fitted[row].threshold_) == max(f1(cut) for cut in score)


# Refusals

@each_row
@pytest.mark.parametrize("part", ["train", "valid"])
def test_an_empty_part_and_one_class_are_refused(row, part, parts):
    for spoil, said in ((lambda pairs: pairs[:0], "is empty; pairs were wanted"),
                        (lambda pairs: pairs[pairs.label == 1], "has pairs of one class only")):
        given = {"train": parts[0], "valid": parts[1]}
        given[part] = spoil(given[part])
        with pytest.raises(InputError) as error: make(row).fit(**given)
        assert str(error.value).startswith(f"the {part} part {said}")


@each_row
def test_what_is_not_trained_neither_scores_nor_saves(row, parts, tmp_path):
    with pytest.raises(InputError, match="is not trained yet"): make(row).score(parts[2])
    with pytest.raises(InputError, match="is not trained yet"): make(row).save(tmp_path)


@pytest.mark.parametrize("row", learnt[:3])
@pytest.mark.parametrize("text,image", [(64, 0), (63, 128), (0, 128), (0, 0)])
def test_vectors_of_other_widths_are_refused(row, text, image, fitted, parts):
    items = some_items([""]*len(parts[2].items), text, image)
    with pytest.raises(InputError) as error: fitted[row].score(replace(parts[2], items=items))
    assert f"vectors of {text} and {image} numbers; {row} was trained on 64 and 128" in str(error.value)


def test_items_without_anything_to_read_are_refused(parts):
    bare = [replace(part, items=some_items([""]*len(part.items))) for part in parts[:2]]
    for row, said in (("pair-mlp", "reads vectors, and the items have none"),
                      ("image", "have no image vectors"), ("boosted-trees", "do not differ in any feature")):
        with pytest.raises(InputError, match=said): make(row).fit(*bare)


@pytest.mark.parametrize("call,said", [
    (lambda: PairMLPConfig("pair"), "no network named 'pair'"), (lambda: PairMLPConfig(batch=1), "batch = 1"),
    (lambda: PairMLPConfig(hidden=0), "hidden 0"), (lambda: PairMLPConfig(layers=0), "layers 0"),
    (lambda: PairMLPConfig(dropout=1.), "dropout 1.0"), (lambda: PairMLPConfig(reduced=-1), "reduced -1"),
    (lambda: BoostedTreesConfig(trees=0), "trees 0"), (lambda: BoostedTreesConfig(share=0), "share = 0"),
    (lambda: BoostedTreesConfig(leaves=1), "leaves 1"),
    (lambda: CosineConfig("texts"), "did you mean 'text'"),
    (lambda: FeatureConfig(("word",)), "did you mean 'words'")])
def test_a_wrong_setting_is_refused(call, said):
    with pytest.raises(InputError, match=said): call()


def test_a_damaged_bundle_is_refused_in_one_line(fitted, tmp_path):
    place = fitted["symmetric-pair-mlp"].save(tmp_path/"model")
    with pytest.raises(InputError, match="'pair-mlp' was wanted"): PairMLP.load(place)
    with pytest.raises(InputError, match="holds no model.json"): PairMLP.load(tmp_path)
    weights, record = place/"weights.safetensors", place/"model.json"
    for spoil in (lambda: weights.write_bytes(weights.read_bytes()[:50]), weights.unlink,
                  lambda: record.write_text(record.read_text()[:50])):
        spoil()
        with pytest.raises(InputError) as error: SymmetricPairMLP.load(place)
        assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_what_another_model_left_in_the_folder_is_not_read(fitted, parts, tmp_path):
    fitted["words"].save(tmp_path)
    again = CosineMatcher.load(fitted["image"].save(tmp_path))
    assert (again.score(parts[2]) == fitted["image"].score(parts[2])).all()
