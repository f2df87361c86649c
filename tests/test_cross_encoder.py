"The cross-encoder: what it reads, what it draws, what LoRA trains, and encoders of three families."
import logging
import re
import string
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (BertConfig, BertModel, BertTokenizer, DistilBertConfig, DistilBertModel,
                          RobertaConfig, RobertaModel, RobertaTokenizer)

from matchbook.batches import order_by_length
from matchbook.datasets import InputError
from matchbook.encoders import open_model
from matchbook.products.cross_encoder import (CrossEncoder, CrossEncoderConfig, CrossEncoderNetwork,
                                              EpochOfPairs, PairReader, draw_epoch, mark_words, marks,
                                              spell_word)
from matchbook.products.listings import Items, Pairs
from matchbook.training import TrainingConfig

letters = string.ascii_lowercase + string.digits
shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}


def make_base(folder, family):
    "A random encoder of that family that reads letters, with 64 places."
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if family == "roberta":
            vocab = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *letters, "-",
                     *(f"Ġ{one}" for one in letters)]
            tokenizer = RobertaTokenizer(vocab={one: i for i, one in enumerate(vocab)},
                                         merges=[("Ġ", one) for one in letters])
            model = RobertaModel(RobertaConfig(vocab_size=len(vocab), max_position_embeddings=66,
                                               type_vocab_size=1, **shape))
        else:
            vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "-", *letters,
                     *(f"##{one}" for one in letters)]
            tokenizer = BertTokenizer(vocab={one: i for i, one in enumerate(vocab)})
            size = {"vocab_size": len(vocab), "max_position_embeddings": 64}
            model = (BertModel(BertConfig(**size, **shape)) if family == "bert" else
                     DistilBertModel(DistilBertConfig(**size, dim=16, n_layers=2, n_heads=2, hidden_dim=32)))
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


families = ("bert", "distilbert", "roberta")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {family: make_base(tmp_path_factory.mktemp(family), family) for family in families}


def tiny(base, **changes):
    training = TrainingConfig(epochs=2, learning_rate=3e-3, schedule="linear", clip_norm=1.)
    return replace(CrossEncoderConfig(base, side=12, negatives=2., batch=16, training=training), **changes)


@pytest.fixture(scope="module")
def parts():
    "Pairs that are one product where they share their number."
    rng = np.random.default_rng(0)
    number = rng.integers(0, 12, 60)
    texts = [f"{rng.choice(['red', 'big', 'old'])} {rng.choice(['lamp', 'bed'])} w-{one}" for one in number]
    texts[5] = ""
    items = Items(np.arange(60), np.array(texts, dtype=object), *np.zeros((2, 60, 0), dtype=np.float32))
    left, right = rng.integers(0, 60, (2, 600))
    pairs = Pairs(items, left, right, (number[left] == number[right]).astype(int))
    return pairs[:320], pairs[320:440], pairs[440:500]


@pytest.fixture(scope="module")
def fitted(bases, parts):
    return {row: CrossEncoder(tiny(bases["bert"], lora=lora)).fit(*parts[:2])
            for row, lora in (("full", 0), ("lora", 4))}


# Marks

@pytest.mark.parametrize("word,spelt", [
    ("DSC-W120,", "dscw120"), ("“8/16GB”", "816gb"), ("--", ""), ("Ａ4", "a4")])
def test_a_word_is_spelt_without_case_and_marks(word, spelt): assert spell_word(word) == spelt


def test_a_mark_says_number_or_word_and_alone_or_not():
    rng = np.random.default_rng(0)
    for _ in range(200):
        words, other = ([str(one) for one in rng.choice(["a", "b1", "", "2", "cd"], 5)] for _ in range(2))
        slow = ["none" if not one else f"{'number' if re.search('[0-9]', one) else 'word'} "
                f"{'on both sides' if one in other else 'alone'}" for one in words]
        assert [marks[i] for i in mark_words(words, set(other))] == slow


# What is read

@pytest.mark.parametrize("family", families)
def test_a_pair_is_put_together_as_by_hand(family, bases):
    tokenizer, _ = open_model(bases[family])
    texts = ["Red w-12 lamp", "red W12", "", "2 red"]
    reader = PairReader(tokenizer, [text.lower() for text in texts], side=6)
    signs = ["<s>", "</s>"] if family == "roberta" else ["[CLS]", "[SEP]"]
    first, last = tokenizer.convert_tokens_to_ids(signs)
    def cut(text):
        "Letter by letter, as the tokenizers of these tests cut."
        found = []
        for word in text.lower().split():
            for i, letter in enumerate(word):
                inner = i and "-" not in word[i - 1:i + 1]               # BERT begins anew at a hyphen
                lead = "Ġ"*(not i) if family == "roberta" else "##"*bool(inner)
                found.append((tokenizer.convert_tokens_to_ids(lead + letter), spell_word(word)))
        return found[:6]
    left, right = np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2])
    batch = reader(left, right)
    for row, (a, b) in enumerate(zip(left, right)):
        (a, spelt_a), (b, spelt_b) = (list(map(list, zip(*cut(texts[one])))) or ([], []) for one in (a, b))
        length, found = len(a) + len(b) + 3, {name: value[row].tolist() for name, value in batch.items()}
        rest = [0]*(len(found["mask"]) - length)
        assert found["mask"] == [True]*length + rest
        assert found["ids"] == [first, *a, last, *b, last] + [tokenizer.pad_token_id]*len(rest)
        assert found["sides"] == [0]*(len(a) + 2) + [1]*(len(b) + 1) + rest
        wanted = mark_words(spelt_a, set(spelt_b)), mark_words(spelt_b, set(spelt_a))
        assert found["marks"] == [0, *wanted[0], 0, *wanted[1], 0] + rest
    assert reader.lengths(left, right).tolist() == batch["mask"].sum(1).tolist()


def test_texts_that_are_too_long_are_cut_counted_and_told(bases, caplog):
    tokenizer, _ = open_model(bases["bert"])
    texts = ["abcdef", "abc", "a b c d", "a b c d e"]
    with caplog.at_level(logging.INFO): reader = PairReader(tokenizer, texts, 4)
    assert reader.cut == 2 and [len(one) for one in reader.pieces] == [4, 3, 4, 4]
    assert "2 of 4 texts are longer than 4 word pieces: cut" in caplog.text
    assert reader(np.array([3]), np.array([0]))["ids"].shape == (1, 11)
    assert "e" not in reader.sets[3]                                     # what is not read is on no side


@pytest.mark.parametrize("negatives", [0, 1, 2.5, 30])
def test_an_epoch_has_all_positives_and_all_negatives_come_in_turn(negatives):
    label = np.random.default_rng(0).permutation([1]*4 + [0]*23)
    yes, no = np.flatnonzero(label), np.flatnonzero(label == 0)
    count = 23 if not negatives else min(23, round(4*negatives))
    epochs = [draw_epoch(label, negatives, 3, epoch) for epoch in range(60)]
    drawn = [row for one in epochs for row in one[4:]]
    for one in epochs: assert sorted(one[:4]) == yes.tolist() and len(one) == 4 + count
    for turn in range(len(drawn)//23): assert sorted(drawn[23*turn:23*turn + 23]) == no.tolist()
    assert draw_epoch(label, negatives, 3, 7).tolist() == epochs[7].tolist()      # needs no earlier one
    assert draw_epoch(label, negatives, 4, 0).tolist() != epochs[0].tolist()


def test_an_epoch_of_pairs_turns_only_those_that_are_said(bases, parts):
    reader = PairReader(open_model(bases["bert"])[0], list(parts[0].items.plain), 12)
    rows, turned = [torch.tensor([0, 3]), torch.tensor([1])], np.array([True, False, True, False])
    found = list(EpochOfPairs(reader, parts[0], rows, turned))
    left, right, label = parts[0].left, parts[0].right, parts[0].label
    for batch, (a, b) in zip(found, (([right[0], left[3]], [left[0], right[3]]), ([left[1]], [right[1]]))):
        assert (batch["ids"] == reader(np.array(a), np.array(b))["ids"]).all()
    assert [batch["label"].tolist() for batch in found] == [label[[0, 3]].tolist(), [label[1]]]


# The network

@pytest.mark.parametrize("pool", ["mean", "cls"])
@pytest.mark.parametrize("lora", [0, 3])
@pytest.mark.parametrize("family", families)
def test_before_training_the_encoder_gives_what_it_always_gave(family, lora, pool, bases):
    tokenizer, encoder = open_model(bases[family])
    texts = ["red lamp", "big w12", "old"]
    batch = PairReader(tokenizer, texts, 12)(np.array([0, 1]), np.array([1, 2]))
    sides = {"token_type_ids": batch["sides"]} if family == "bert" else {}
    with torch.no_grad():
        seen = encoder(input_ids=batch["ids"], attention_mask=batch["mask"].long(), **sides)
        found = CrossEncoderNetwork(open_model(bases[family])[1],
                                    tiny(bases[family], lora=lora, pool=pool)).eval().read(batch)
    states = seen.last_hidden_state
    means = torch.stack([row[real].mean(0) for row, real in zip(states, batch["mask"])])
    wanted = states[:, 0] if pool == "cls" else means
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_marks_count_once_they_are_learnt_and_only_where_asked(bases):
    tokenizer, encoder = open_model(bases["bert"])
    batch = PairReader(tokenizer, ["red lamp", "red"], 12)(np.array([0]), np.array([1]))
    with torch.no_grad():
        for wanted in (True, False):
            network = CrossEncoderNetwork(encoder, tiny(bases["bert"], marks=wanted)).eval()
            before = network(batch)
            network.marks.weight[2] = torch.linspace(-1, 1, 16)   # a constant would be normed away
            assert (network(batch) != before).item() == wanted


@pytest.mark.parametrize("family", families)
def test_two_sides_are_refused_just_where_the_encoder_ends(family, bases):
    tokenizer, encoder = open_model(bases[family])
    reader = PairReader(tokenizer, ["ab "*40], 30)
    network = CrossEncoderNetwork(encoder, tiny(bases[family], side=30)).eval()
    assert network(reader(np.array([0]), np.array([0]))).isfinite()      # 63 of 64
    with pytest.raises(InputError, match="two sides and three signs are 65 pieces; .* reads 64"):
        CrossEncoderNetwork(encoder, tiny(bases[family], side=31))


# The matcher

@pytest.mark.parametrize("row", ["full", "lora"])
def test_what_is_trained_is_what_should_be(row, fitted, bases):
    model, base = fitted[row], open_model(bases["bert"])[1].state_dict()
    trained = {name for name, weight in model.network_.named_parameters() if weight.requires_grad}
    kinds = {"head" if name.startswith("head") else "marks" if name.startswith("marks") else
             "lora" if "lora_" in name else "encoder" for name in trained}
    assert kinds == {"head", "marks", "encoder" if row == "full" else "lora"}
    assert model.network_.marks.weight.any(1).tolist()[1:3] == [True, True]      # words alone, words on both
    ours = re.compile(r"^encoder\.(base_model\.model\.)?|\.base_layer")
    state = {ours.sub("", name): weight for name, weight in model.network_.state_dict().items()}
    same = {name: torch.equal(state[name], weight) for name, weight in base.items()}
    assert all(same.values()) == (row == "lora") and len(same) > 30
    if row == "lora":                                                    # every update has left zero
        assert all(weight.any() for name, weight in model.network_.named_parameters() if "lora_B" in name
                   and "pooler" not in name)
    weights = dict(model.network_.named_parameters())
    assert model.parameters == {"total": sum(w.numel() for w in weights.values()),
                                "trained": sum(weights[name].numel() for name in trained)}


@pytest.mark.parametrize("row", ["full", "lora"])
def test_sides_mates_padding_and_labels_do_not_matter(row, fitted, parts):
    model, test = fitted[row], parts[2]
    found = model.score(test)
    assert found.dtype == np.float32 and 0 <= found.min() < found.max() <= 1
    assert (found == model.score(test.swapped())).all()
    assert (found == model.score(replace(test, label=1 - test.label))).all()
    some = np.array([50, 3, 3, 17])
    np.testing.assert_allclose(model.score(test[some]), found[some], atol=1e-5)
    reader, pairs = model._reader(test)
    alone = np.concatenate([model._run(reader, pairs[[row]]) for row in range(8)])
    np.testing.assert_allclose(model._run(reader, pairs)[:8], alone, atol=1e-5)


@pytest.mark.parametrize("row", ["full", "lora"])
def test_saved_and_loaded_is_equal_to_the_bit(row, fitted, parts, tmp_path):
    model = fitted[row]
    again = CrossEncoder.load(model.save(tmp_path/"model"))
    assert (again.score(parts[2]) == model.score(parts[2])).all() and again.config == model.config
    assert again.threshold_ == model.threshold_ and again.calibration_ == model.calibration_
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_what_lora_saves_is_small(fitted, tmp_path):
    folders = [fitted[row].save(tmp_path/row) for row in ("full", "lora")]
    sizes = [(folder/"weights.safetensors").stat().st_size for folder in folders]
    assert sizes[1] < 4*fitted["lora"].parameters["trained"] + 10_000 < sizes[0]


def test_the_same_seed_gives_the_same_bits_and_another_others(fitted, bases, parts):
    before = torch.get_rng_state()
    again, other = (CrossEncoder(tiny(bases["bert"]), seed).fit(*parts[:2]).score(parts[2])
                    for seed in (0, 1))
    assert (again == fitted["full"].score(parts[2])).all() and (again != other).any()
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize("change", [
    {"side": 4}, {"marks": False}, {"pool": "cls"}, {"dropout": .5}, {"lora": 2}, {"negatives": 0.},
    {"batch": 8}, {"head_rate": 1.}, {"training": TrainingConfig(epochs=1, learning_rate=3e-3)}])
def test_each_setting_has_an_effect(change, fitted, bases, parts):
    model = CrossEncoder(tiny(bases["bert"], **change)).fit(*parts[:2])
    assert (model.score(parts[2]) != fitted["full"].score(parts[2])).any()


@pytest.mark.parametrize("family", families[1:])
def test_encoders_of_other_families_are_trained_saved_and_loaded(family, bases, parts, tmp_path):
    model = CrossEncoder(tiny(bases[family], lora=2 if family == "roberta" else 0)).fit(*parts[:2])
    found = model.score(parts[2])
    assert np.isfinite(found).all() and (found == model.score(parts[2].swapped())).all()
    assert (CrossEncoder.load(model.save(tmp_path/"model")).score(parts[2]) == found).all()


def test_it_learns_what_words_on_both_sides_mean(fitted, parts):
    from sklearn.metrics import average_precision_score
    assert average_precision_score(parts[2].label, fitted["full"].score(parts[2])) > .9   # chance: .1


@pytest.mark.parametrize("call,said", [
    (lambda: CrossEncoderConfig(pool="max"), "no pool named 'max'"),
    (lambda: CrossEncoderConfig(side=0), "side 0"), (lambda: CrossEncoderConfig(lora=-1), "lora -1"),
    (lambda: CrossEncoderConfig(negatives=-1), "negatives -1"),
    (lambda: CrossEncoder(tiny("no/such/model"))._build(), "cannot open model 'no/such/model'")])
def test_a_wrong_setting_is_refused(call, said, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=said): call()


def test_items_without_texts_one_class_and_an_empty_part_are_refused(fitted, bases, parts):
    nothing = replace(parts[2].items, text=np.array([""]*60, dtype=object))
    with pytest.raises(InputError, match="the items have no texts"):
        fitted["full"].score(replace(parts[2], items=nothing))
    for spoil in (parts[0][:0], parts[0][parts[0].label == 0]):
        with pytest.raises(InputError, match="the train part"):
            CrossEncoder(tiny(bases["bert"])).fit(spoil, parts[1])


def test_batches_of_one_pair_and_of_a_last_one_are_read(fitted, parts):
    model, one = fitted["full"], parts[2][:1]
    assert model.score(one).shape == (1,) and model.score(parts[2][:0]).shape == (0,)
    reader, pairs = model._reader(parts[2][:33])
    assert [len(rows) for rows in order_by_length(reader.lengths(pairs.left, pairs.right), 16)] == [16, 16, 1]
    assert isinstance(model.network_.head[2], nn.Dropout) and not model.network_.training
