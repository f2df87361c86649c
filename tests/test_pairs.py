"The study of pairs: every row runs, runs alike twice, chooses on valid alone; and wrong words get one line."
import string

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from transformers import BertConfig, BertModel, BertTokenizer

from matchbook.datasets import InputError, load
from matchbook.products.cross_encoder import CrossEncoder
from matchbook.products.listings import count_known, read_pair_parts
from matchbook.products.pair_mlp import BoostedTrees, PairMatcher
from matchbook.products.pairs import (check_setting, measure_pairs, open_matcher, pair_intervals, study,
                                      worst_pairs)
from matchbook.runs import make_run, read_run, write_run

rows = ["tfidf-words", "tfidf-chars", "cosine", "image-cosine", "pair-mlp", "item-pair-mlp",
        "symmetric-pair-mlp", "boosted-trees", "cross-encoder", "lora-cross-encoder"]
measures = {"f1", "precision", "recall", "accuracy", "pr_auc", "roc_auc", "ece", "mse"}
more = {"f1_at_half", "flips"}
fast = {"f1_train", "pr_auc_train", "accuracy_train", "ece_raw", "flips_at_half"}
slow = {"f1_mixed", "pr_auc_mixed", "weight_mixed"}
each_row = pytest.mark.parametrize("row", rows)


def test_the_study_has_exactly_these_rows():
    assert list(study.models) == rows and study.sample == "ozon-sample" and study.measure == "f1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "A part of the sample, in files."
    place = tmp_path_factory.mktemp("ozon")
    for name, table in load("ozon-sample").items():
        (table.iloc[:500] if name == "train" else table).to_parquet(place/f"{name}.parquet")
    return place


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    "A random encoder that reads letters."
    place, letters = tmp_path_factory.mktemp("base"), string.ascii_lowercase + string.digits
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{one}" for one in letters)]
    BertTokenizer(vocab={one: i for i, one in enumerate(vocab)}).save_pretrained(place)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(vocab), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                            intermediate_size=16, max_position_embeddings=64)
        BertModel(config).save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def run(folder, base):
    def make(row, data=folder, seed=0, **settings):
        if row.endswith("encoder"): settings = {"base": base, "training.precision": "no", **settings}
        return make_run(study, "ozon-sample", row, "quick", seed, settings, data)
    return make


@pytest.fixture(scope="module")
def runs(run): return {row: run(row) for row in rows}


@each_row
def test_every_row_has_its_figures_and_its_file(row, runs, tmp_path):
    one = runs[row]
    assert set(one["metrics"]["valid"]) == measures
    test = one["metrics"]["test"]
    wanted = measures | more | (slow if row.endswith("encoder") else fast)
    assert wanted <= set(test) <= wanted | {"f1_seen", "f1_half_seen", "f1_unseen"}
    assert all(value is not None and 0 <= value <= 1 for value in test.values())
    assert set(study.columns) <= set(test) and one["threshold_from"] == "valid"
    for name, (low, high) in one["intervals"]["test"].items(): assert low <= test[name] <= high
    assert one["data"]["counts"]["train_rows"] == 320 and len(one["data"]["sha256"]) == 64
    assert one["config"]["calibration"] in ("temperature", "platt") and one["config"]["split"] == "published"
    assert read_run(write_run(one, tmp_path))["metrics"] == one["metrics"]


def test_what_training_knows_is_counted_before_a_figure(run, folder, caplog):
    with caplog.at_level("INFO"): counts = run("tfidf-words")["data"]["counts"]
    parts, _ = read_pair_parts("ozon-sample", folder)
    known = np.bincount(count_known(parts), minlength=3)
    assert [counts[f"leak, {kind}"] for kind in ("both sides", "one side")] == known[[2, 1]].tolist()
    assert counts["leak, pair"] == 0 and f"pair 0, both sides {known[2]}, one side {known[1]}" in caplog.text


def test_a_test_part_of_one_class_is_refused_in_one_line(tmp_path, recwarn):
    for part in ("train", "valid", "test"):
        lines = [f"COL a VAL {one}\tCOL a VAL {one} {n % 2}\t{n % 2*(part != 'test')}" for n, one in
                 enumerate("lamp bed desk mug fork shoe".split())]
        (tmp_path/f"{part}.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="ozon-sample: test pairs of one class only"):
        make_run(study, "ozon-sample", "tfidf-words", data=tmp_path)
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]


def test_lora_has_the_quick_preset_s_precision():
    for preset, precision in (("quick", "no"), ("best", CrossEncoder.best.training.precision)):
        assert open_matcher("lora-cross-encoder", preset, {}).config.training.precision == precision


@each_row
def test_the_same_run_twice_gives_the_same_figures_to_the_last_digit(row, runs, run):
    again = run(row)
    for key in ("metrics", "intervals", "threshold", "config", "data", "parameters"):
        assert again[key] == runs[row][key]
    assert again["details"]["reliability"] == runs[row]["details"]["reliability"]


@pytest.mark.parametrize("row", ["pair-mlp", "symmetric-pair-mlp", "boosted-trees"])
def test_another_seed_is_another_training_of_the_same_pairs(row, runs, run):
    other = run(row, seed=1)
    assert other["data"] == runs[row]["data"] and other["metrics"] != runs[row]["metrics"]


@pytest.fixture(scope="module")
def other_test(folder, tmp_path_factory):
    "The same files, but items that only test has are others."
    parts, _ = read_pair_parts("ozon-sample", folder)
    known = {row for part in (parts.train, parts.valid) for side in (part.left, part.right) for row in side}
    only = parts.items.id[sorted({*parts.test.left, *parts.test.right} - known)]
    assert len(only) > 30
    place, chance = tmp_path_factory.mktemp("other"), np.random.default_rng(0)
    for name, table in load("ozon-sample", folder).items():
        here = np.flatnonzero(table["variantid"].isin(only)) if name != "train" else []
        for column in table.columns:
            cells = list(table[column])
            for row in here:
                if column == "name": cells[row] = f"thing {chance.integers(99)} of {chance.integers(99)} ml"
                if column == "name_bert_64": cells[row] = chance.normal(size=64).astype(np.float32)
                if column.startswith("main"): cells[row] = [chance.normal(size=128).astype(np.float32)]
            table[column] = cells
        table.to_parquet(place/f"{name}.parquet")
    return place


@each_row
def test_the_test_part_takes_part_in_no_choice(row, runs, run, other_test):
    other = run(row, data=other_test)
    assert other["threshold"] == runs[row]["threshold"]
    assert other["metrics"]["valid"] == runs[row]["metrics"]["valid"]
    for name in fast & set(runs[row]["metrics"]["test"]) - {"ece_raw", "flips_at_half"}:
        assert other["metrics"]["test"][name] == runs[row]["metrics"]["test"][name]
    assert other["metrics"]["test"]["mse"] != runs[row]["metrics"]["test"]["mse"]


@each_row
def test_no_match_is_taken_back_but_by_the_originals_networks(row, runs):
    flips = runs[row]["metrics"]["test"]["flips"]
    assert flips == 0 if row not in ("pair-mlp", "item-pair-mlp") else flips > 0


# Figures

class Told(PairMatcher):
    "A model that says what it is told."
    def __init__(self, score, threshold): self.told, self.threshold_ = score, threshold
    def score(self, pairs): return self.told[pairs.left, pairs.right].astype(np.float32)
    def logits(self, pairs): return self.told[pairs.left, pairs.right]*9 - 4


@pytest.fixture(scope="module")
def told(folder):
    parts, _ = read_pair_parts("ozon-sample", folder)
    return Told(np.random.default_rng(0).random((len(parts.items),)*2), .6), parts


def test_the_figures_are_those_of_scikit_learn(told):
    model, parts = told
    test, train, score = parts.test, parts.train, model.score(parts.test)
    said, found = score >= .6, measure_pairs(model, parts, score)
    slow = {"f1": f1_score(test.label, said), "f1_at_half": f1_score(test.label, score >= .5),
            "pr_auc_train": average_precision_score(train.label, model.score(train)),
            "f1_train": f1_score(train.label, model.score(train) >= .6),
            "flips": (said & (model.score(test.swapped()) < .6)).sum()/said.sum(),
            "ece_raw": 0.}
    logistic = 1/(1 + np.exp(-model.logits(test)))
    for low in np.arange(10)/10:
        inside = (logistic >= low) & (logistic < low + .1)
        if inside.any(): slow["ece_raw"] += abs((logistic - test.label)[inside].mean())*inside.mean()
    for number, name in enumerate(("unseen", "half_seen", "seen")):
        some = count_known(parts) == number
        if test.label[some].sum() >= 5: slow[f"f1_{name}"] = f1_score(test.label[some], said[some])
    for name, value in slow.items(): assert found[name] == pytest.approx(value, abs=1e-6), name
    known = lambda some: [name for name in some if name.endswith("seen")]
    assert known(found) == known(slow)


def test_intervals_are_drawn_by_product(told):
    model, parts = told
    score = model.score(parts.test)
    found = pair_intervals(score, parts.test, .6, draws=50)
    assert found == pair_intervals(score, parts.test, .6, draws=50)
    twice = parts.test[np.repeat(np.arange(len(parts.test)), 2)]         # nothing more is known by that
    again = pair_intervals(np.repeat(score, 2), twice, .6, draws=50)
    for name in found: assert again[name] == pytest.approx(found[name], abs=1e-9)


def test_the_worst_pairs_are_the_surest_errors(told):
    model, parts = told
    score, label = model.score(parts.test), parts.test.label
    found = worst_pairs(score, parts.test, .6, count=2)
    missed = sorted(score[(score < .6) & (label == 1)])[:2]
    taken = sorted(score[(score >= .6) & (label == 0)])[:-3:-1]
    assert [one["score"] for one in found] == [round(float(x), 3) for x in (*missed, *taken)]
    assert [one["said"] for one in found] == ["two products"]*2 + ["one product"]*2
    assert worst_pairs(label.astype(float), parts.test, .5) == []


@pytest.mark.parametrize("row", ["boosted-trees", "cross-encoder"])
def test_errors_are_quoted_in_the_run_that_the_book_shows(row, base, folder, monkeypatch):
    light = open_matcher("cross-encoder", "quick", {"base": base, "training.precision": "no"}).config
    monkeypatch.setattr(CrossEncoder, "best", light)
    monkeypatch.setattr(BoostedTrees, "best", BoostedTrees.quick)
    first, other = (make_run(study, "ozon-sample", row, seed=seed, data=folder) for seed in (0, 1))
    assert first["details"]["worst"] and not other["details"]["worst"]


# Settings

def test_the_cut_by_product_reaches_the_reader(run):
    one = run("image-cosine", split="clusters")
    assert one["config"]["split"] == "clusters" and one["preset"] == "quick+split=clusters"
    assert one["data"]["counts"]["test_seen"] == one["data"]["counts"]["test_half_seen"] == 0


def test_the_size_reaches_the_reader(tmp_path):
    tables = load("pairs-sample")
    for name, table in tables.items():
        lines = ["\t".join(map(str, row)) for row in table.itertuples(index=False)]
        for size, count in (("small", 200), ("medium", 300)):
            file = "test.txt" if name == "test" else f"{name}.txt.{size}"
            (tmp_path/file).write_text("\n".join(lines[:count]))
    found = [make_run(study, "offers", "tfidf-words", settings=settings, data=tmp_path)
             for settings in ({}, {"size": "medium"})]
    assert [one["data"]["counts"]["train_rows"] for one in found] == [200, 300]


@pytest.mark.parametrize("row", rows)
def test_the_originals_way_is_refused_for_what_is_not_the_originals(row):
    if row in ("pair-mlp", "item-pair-mlp"):
        assert not open_matcher(row, "as_published", {}).config.shuffle
        return
    with pytest.raises(InputError) as error: open_matcher(row, "as_published", {})
    assert str(error.value) == f"the original has no model like {row!r}, only pair-mlp, item-pair-mlp"


def test_settings_reach_the_model():
    model = open_matcher("symmetric-pair-mlp", "best", {"hidden": 9, "training.epochs": 2, "dropout": 0,
                                                        "features.views": ["words"]}, seed=5, device="cpu")
    assert (model.config.hidden, model.config.training.epochs) == (9, 2)
    assert model.config.features.views == ("words",)
    assert model.seed == 5 and model.config.training.device == model.config.encoder.device == "cpu"
    light = open_matcher("lora-cross-encoder", "quick", {"lora": 3})
    assert (light.config.lora, light.config.side, light.config.training.epochs) == (3, 16, 1)


@pytest.mark.parametrize("row,name,value,said", [
    ("symmetric-pair-mlp", "hidden", "wide", "hidden='wide': int was wanted"),
    ("symmetric-pair-mlp", "hidden", 1.5, "hidden=1.5: int was wanted"),
    ("symmetric-pair-mlp", "hidden", True, "hidden=True: int was wanted"),
    ("symmetric-pair-mlp", "hidden", None, "hidden=None: int was wanted"),
    ("symmetric-pair-mlp", "shuffle", 1, "shuffle=1: bool was wanted"),
    ("symmetric-pair-mlp", "training", 3, "TrainingConfig was wanted"),
    ("symmetric-pair-mlp", "training.epochs", 0, "epochs = 0 makes no sense"),
    ("symmetric-pair-mlp", "training.epoch", 3, "did you mean 'epochs'"),
    ("symmetric-pair-mlp", "hidden.width", 3, "hidden.width=3"),
    ("symmetric-pair-mlp", "features.views", "words", "features.views='words'"),
    ("symmetric-pair-mlp", "features.views", ["word"], "did you mean 'words'"),
    ("boosted-trees", "tree", 3, "did you mean 'trees'"), ("boosted-trees", "share", 2, "share = 2"),
    ("cross-encoder", "pool", "max", "no pool named 'max'"), ("cosine", "of", 3, "of=3: str was wanted")])
def test_a_wrong_setting_is_refused_by_its_name(row, name, value, said):
    with pytest.raises(InputError) as error: open_matcher(row, "best", {name: value})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_none_is_taken_where_it_means_something():
    config = open_matcher("cross-encoder", "best", {"training.clip_norm": None}).config
    assert config.training.clip_norm is None
    check_setting(config, "training.patience", 3)


# The command line

@pytest.mark.parametrize("words,said", [
    (["--dataset", "nope"], "no dataset named 'nope'"),
    (["--dataset", "ozon"], "dataset 'ozon' is not on this machine: fetch text_and_bert.parquet"),
    (["--data", "nowhere"], "nowhere: a folder with files of pairs was wanted"),
    (["--set", "hidden=abc"], "hidden='abc': int was wanted"),
    (["--set", "nope=1"], "no setting named 'nope'"),
    (["--set", "data.nope=1"], "no setting of how pairs are read named 'nope'"),
    (["--set", "split=cluster"], "did you mean 'clusters'"), (["--set", "split=3"], "no split named 3"),
    (["--set", "training.epochs=0"], "epochs = 0"), (["--set", "batch=1"], "batch = 1"),
    (["--preset", "as_published"], "the original has no model like 'symmetric-pair-mlp'"),
    (["--dataset", "pairs-sample", "--model", "image-cosine"], "has no image vectors"),
    (["--model", "pair-mpl"], "did you mean 'pair-mlp'")])
def test_wrong_words_are_one_line_and_leave_nothing(call, tmp_path, monkeypatch, words, said):
    monkeypatch.delenv("MATCHBOOK_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    words = [*(["--dataset", "ozon-sample"] if words[0] not in ("--dataset", "--data") else []), *words]
    words += [] if "--model" in words else ["--model", "symmetric-pair-mlp"]
    code, out, err = call("run", "pairs", *words, "--out", tmp_path/"out")
    *progress, line = err.strip().splitlines()
    assert code == 2 and out == "" and "Traceback" not in err
    assert line.startswith("matchbook: ") and said in line
    assert all(text.endswith("…") for text in progress) and not list(tmp_path.rglob("*.json"))


def test_a_folder_of_ones_own_is_run_by_the_command(call, folder, tmp_path):
    code, out, err = call("run", "pairs", "--dataset", "mine", "--data", folder, "--model", "image-cosine",
                          "--preset", "quick", "--out", tmp_path)
    assert code == 0 and "image-cosine" in out
    assert (tmp_path/"runs"/"pairs"/"mine"/"image-cosine-quick-seed0.json").is_file()
