"""The char + word LSTM against PyTorch's own LSTM, plain loops, strange titles and wrong input."""
import json
import tracemalloc
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils._python_dispatch import TorchDispatchMode

import matchbook.products.char_word_lstm as module
from matchbook.batches import Ragged
from matchbook.datasets import InputError
from matchbook.products.char_word_lstm import (
    CharWordLSTM,
    CharWordLSTMConfig,
    LSTMLayer,
    PaddedOriginal,
    cut_title,
    draw_groups,
    forget_words,
    hash_spelling,
    make_loss,
    open_table,
    pack_lengths,
    run_lstm,
    sigmoid_loss,
)
from matchbook.products.listings import Listings, read_listings, split_listings
from matchbook.training import TrainingConfig

strange = ["Red shoe 10ml", "", "  ", r"\xe2\x9d\xa4 love", "❤ love", "กาแฟ สด 3in1", "قهوة عربية",
           "zxqwv blorft",           "a" * 10_000, "ab 12 " * 2_000,
           "🎁", "10 ml red shoe", "the of and", "x"]


@pytest.fixture(scope="module")
def parts():
    listings, _ = read_listings("shopee-sample")
    split = split_listings(listings)
    return [listings[rows] for rows in (split.train, split.valid, split.test)]


@pytest.fixture(scope="module")
def vectors(parts, tmp_path_factory):
    "Eight numbers for every second word of the training titles."
    words = sorted({word for title in parts[0].title for word in cut_title(title)})[::2]
    table = np.random.default_rng(0).normal(size=(len(words), 8)).round(3)
    path = tmp_path_factory.mktemp("vectors")/"some.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, table)))
    return str(path)


def small(vectors, **more):
    config = CharWordLSTMConfig(vectors=vectors, width=32, learnt=8, letter=6, char_hidden=5, reduced=12,
        word_hidden=10, batch=64, training=TrainingConfig(epochs=2, learning_rate=3e-3, device="cpu"))
    return replace(config, **more)


def published(vectors, **more):
    return replace(CharWordLSTM.as_published, vectors=vectors, batch=64,
                   training=replace(CharWordLSTM.as_published.training, epochs=2, device="cpu"), **more)


@pytest.fixture(scope="module", params=["shortcut", "published"])
def fitted(request, parts, vectors):
    config = (small if request.param == "shortcut" else published)(vectors)
    return CharWordLSTM(config, seed=1).fit(*parts[:2])


# --- the LSTM -------------------------------------------------------------------------------------

@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 3), st.booleans())
def test_states_and_gradients_are_pytorchs(lengths, layers, both):
    torch.manual_seed(len(lengths))
    lstm = nn.LSTM(4, 3, layers, batch_first=True, bidirectional=both)
    sequences = [torch.randn(n, 4) for n in lengths]
    ragged, packing = Ragged.from_list(sequences), pack_lengths(torch.tensor(lengths))
    values = ragged.values.clone().requires_grad_()
    states, last = run_lstm(lstm, values[packing.take], packing)
    ours = torch.autograd.grad((states**2).sum() + last.sin().sum(), [values, *lstm.parameters()])

    cells = values.new_zeros(len(lengths), max(lengths), 4)
    cells[ragged.padded()[1]] = values
    packed = pack_padded_sequence(cells, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    wanted, (end, _) = lstm(packed)
    end = end.permute(1, 0, 2).flatten(1)
    theirs = torch.autograd.grad((wanted.data**2).sum() + end.sin().sum(), [values, *lstm.parameters()])
    wanted = pad_packed_sequence(wanted, batch_first=True)[0][ragged.padded()[1]]
    torch.testing.assert_close(states[packing.put], wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(last, end, atol=1e-6, rtol=0)
    for mine, other in zip(ours, theirs): torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_the_gradient_by_hand_is_the_limit_of_differences():
    chance = torch.Generator().manual_seed(0)
    shapes = (2, 6, 4), (2, 12, 4), (2, 12, 3), (2, 12)
    given = [torch.randn(shape, generator=chance, dtype=torch.float64).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(lambda *given: LSTMLayer.apply(*given, [3, 2, 1]), given)


def test_sixteen_bits_around_it_leave_the_sums_alone():
    torch.manual_seed(0)
    lstm, values = nn.LSTM(5, 4, bidirectional=True), torch.randn(4, 5)
    packing = pack_lengths(torch.tensor([3, 1]))
    wanted = run_lstm(lstm, values, packing)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16): states = run_lstm(lstm, values, packing)[0]
    wanted, ours = (torch.autograd.grad((some**2).sum(), lstm.weight_hh_l0)[0] for some in (wanted, states))
    torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_packing_is_pytorchs_and_can_be_undone(lengths):
    packing, total = pack_lengths(torch.tensor(lengths)), sum(lengths)
    ragged = Ragged.from_list([torch.arange(n) for n in lengths])
    cells = ragged.padded()[0]
    wanted = pack_padded_sequence(cells, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    assert packing.sizes == wanted.batch_sizes.tolist()
    assert torch.equal(ragged.values[packing.take], wanted.data)
    assert torch.equal(packing.take[packing.put], torch.arange(total))
    assert torch.equal(packing.flip[packing.flip], torch.arange(total))
    assert torch.equal(packing.take[packing.last], ragged.offsets[1:] - 1)


def test_states_of_a_whole_batch_are_pytorchs_at_the_published_sizes():
    torch.manual_seed(0)
    lengths = torch.from_numpy(np.random.default_rng(0).geometric(.06, size=256).clip(max=120))
    lstm, packing = nn.LSTM(25, 25, 2, bidirectional=True), pack_lengths(lengths)
    values = torch.randn(int(lengths.sum()), 25)
    with torch.no_grad():
        states, last = run_lstm(lstm, values, packing)
        wanted, (end, _) = lstm(PackedSequence(values, torch.tensor(packing.sizes)))
    torch.testing.assert_close(states, wanted.data, atol=1e-6, rtol=0)
    rank = packing.flip[packing.last]
    torch.testing.assert_close(last, end[:, rank].permute(1, 0, 2).flatten(1), atol=1e-6, rtol=0)


def test_padding_is_read_as_pytorch_reads_it(parts, vectors):
    model = CharWordLSTM(published(vectors), seed=1).fit(*parts[:2])
    table, known = model._read(model._cut([title for title in strange if title.strip()]))
    slow = PaddedOriginal(model.config, len(model.vocabulary_.letters) + 3, model.table.width)
    slow.load_state_dict(model.network_.state_dict())
    with torch.no_grad():
        for length in (0, 8, 200):
            ours, wanted = (net(table, known, padded=True, length=length) for net in (model.network_, slow))
            torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=0)


# --- the promises of embed ------------------------------------------------------------------------

def test_a_vector_does_not_depend_on_the_batch(fitted):
    titles = strange * 3
    whole = fitted.embed(titles)
    assert whole.dtype == np.float32 and whole.shape == (len(titles), fitted.config.width)
    for size in (1, 2, 5): np.testing.assert_allclose(fitted.embed(titles, size=size), whole, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(titles))
    np.testing.assert_allclose(fitted.embed([titles[i] for i in order]), whole[order], atol=1e-6)
    for title, row in zip(strange, whole):
        np.testing.assert_allclose(fitted.embed([title])[0], row, atol=1e-6)


def test_vectors_are_unit_rows_or_nothing(fitted):
    lengths = np.linalg.norm(fitted.embed(strange), axis=1)
    np.testing.assert_allclose(lengths, [bool(title.strip()) for title in strange], atol=1e-5)
    assert fitted.embed([]).shape == (0, fitted.config.width)


def test_escapes_are_decoded_and_case_is_folded(fitted):
    one, other, third, fourth = fitted.embed([r"\xe2\x9d\xa4 LOVE", "❤ love", "ＬＯＶＥ ❤", "love ❤"])
    np.testing.assert_allclose(one, other, atol=1e-6)
    np.testing.assert_allclose(third, fourth, atol=1e-6)


def test_unknown_words_differ_by_their_letters(fitted):
    one, other = fitted.embed(["zxqwv", "zxqwb"])
    assert abs(one - other).max() > 1e-4


def test_titles_of_known_words_alone_or_of_unknown_ones_alone(fitted):
    known = list(fitted.table.known)[:3]
    assert all(word not in fitted.table.known for word in ("zxqwv", "blorft"))
    titles = [" ".join(known), "zxqwv blorft", known[0], "zxqwv"]
    found = fitted.embed(titles)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert abs(found[:, None] - found[None]).max(2)[~np.eye(4, dtype=bool)].min() > 1e-4


def test_half_an_emoji_is_read(fitted):
    one, other = fitted.embed(["red \ud83d", "red \ud83c"])
    assert np.isfinite(one).all() and (fitted.config.network == "published" or abs(one - other).max() > 1e-4)


def test_order_of_words_counts(fitted, parts):
    titles = [" ".join(cut_title(title)[:5]) for title in parts[1].title[:20]]
    turned = [" ".join(title.split()[::-1]) for title in titles]
    assert abs(fitted.embed(titles) - fitted.embed(turned)).max() > 1e-4


def test_padding_changes_the_published_vectors_and_nothing_else_does(parts, vectors):
    model = CharWordLSTM(published(vectors), seed=1).fit(*parts[:2])
    alone = model.embed(["zxqwv 10ml"])
    np.testing.assert_allclose(model.embed(["zxqwv 10ml"], padded=True), alone, atol=1e-6)
    assert abs(model.embed(["zxqwv 10ml"], padded=True, length=30) - alone).max() > 1e-3


# --- fitting --------------------------------------------------------------------------------------

def test_it_learns(parts, vectors):
    model = CharWordLSTM(small(vectors, shortcut=False, training=TrainingConfig(
        epochs=12, learning_rate=1e-2, device="cpu")), seed=0).fit(*parts[:2])
    row = [row["valid_map_at_r"] for row in model.history_.rows]
    assert max(row) > row[0] + .05
    assert model.history_.best["valid_map_at_r"] == max(row)
    assert 0 < model.floor_ < model.threshold_ < 1


def test_the_same_seed_gives_the_same_model_and_leaves_chance_alone(parts, vectors):
    from pytorch_metric_learning.utils import common_functions
    torch.manual_seed(5)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    theirs = common_functions.NUMPY_RANDOM
    first, again, other = (CharWordLSTM(small(vectors), seed=seed).fit(*parts[:2]) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    assert common_functions.NUMPY_RANDOM is theirs
    titles = parts[2].title[:50]
    assert (first.embed(titles) == again.embed(titles)).all() and first.threshold_ == again.threshold_
    assert abs(first.embed(titles) - other.embed(titles)).max() > 1e-3


@pytest.mark.parametrize("more", [
    {"loss": "multi-similarity", "miner": True}, {"loss": "triplet", "miner": True}, {"loss": "ntxent"},
    {"loss": "supcon", "memory": 128}, {"loss": "arcface", "margin": 20.}, {"char_hidden": 0},
    {"word_hidden": 0}, {"learnt": 0}, {"shortcut": False}, {"layers": 2}, {"whole": 1.},
    {"cut": "together"}, {"most_words": 2},
    {"per_group": 4}, {"forget": .5}, {"dropout": 0.}, {"scale": 10.}, {"base": .3}])
def test_every_option_trains_and_has_an_effect(parts, vectors, more):
    plain, changed = (CharWordLSTM(small(vectors, **some), seed=0).fit(*parts[:2]) for some in ({}, more))
    titles = parts[1].title[:30]
    assert np.isfinite(changed.embed(titles)).all()
    assert abs(plain.embed(titles) - changed.embed(titles)).max() > 1e-4


@pytest.mark.parametrize("make", [small, published])
def test_groups_of_one_are_left_out_and_only_such_are_refused(parts, vectors, make):
    train, valid, _ = parts
    some = train[np.arange(80)]
    groups = np.where(np.arange(80) < 40, some.group, 10_000 + np.arange(80))
    lonely = Listings(some.id, some.title, some.hash, groups)
    assert CharWordLSTM(make(vectors), seed=0).fit(lonely, valid).threshold_
    none = Listings(some.id, some.title, some.hash, np.arange(80))
    with pytest.raises(InputError, match="no group of the training part"):
        CharWordLSTM(make(vectors)).fit(none, valid)
    for rows in (np.arange(len(valid)), np.arange(0)):
        apart = Listings(valid.id[rows], valid.title[rows], valid.hash[rows], rows)
        with pytest.raises(InputError, match="no group of the validation part"):
            CharWordLSTM(make(vectors)).fit(train, apart)


def test_empty_titles_in_training_do_no_harm(parts, vectors):
    train, valid, _ = parts
    titles = train.title.copy()
    titles[::10] = ""
    emptied = Listings(train.id, titles, train.hash, train.group)
    model = CharWordLSTM(small(vectors), seed=0).fit(emptied, valid)
    assert np.isfinite(model.embed(valid.title)).all()


# --- saving, and the shared table -----------------------------------------------------------------

def test_what_is_saved_comes_back_to_the_bit(fitted, parts, tmp_path):
    again = CharWordLSTM.load(fitted.save(tmp_path/"model"))
    assert (again.embed(strange) == fitted.embed(strange)).all()
    assert (again.config, again.seed, again.threshold_, again.floor_, again.history_) == (
        fitted.config, fitted.seed, fitted.threshold_, fitted.floor_, fitted.history_)
    assert {path.name for path in (tmp_path/"model").iterdir()} == {"model.json", "weights.safetensors"}


def test_word_vectors_are_shared_and_not_saved(fitted, vectors, tmp_path):
    assert fitted.table is open_table(vectors)
    rows = len(fitted.table.vectors)
    assert all(rows not in weight.shape for weight in fitted.network_.state_dict().values())
    counted = fitted.parameters
    assert counted["total"] - counted["trained"] == fitted.table.vectors.size


@pytest.mark.parametrize("make", [small, published])
def test_a_table_of_the_full_size_is_never_copied(parts, tmp_path, monkeypatch, make):
    "1.2 million rows, as in GloVe-Twitter: neither fit nor embed nor load takes memory of their order."
    train, valid = parts[0][np.arange(60)], parts[1][np.arange(60)]
    rows, words = 1_200_000, sorted({word for title in train.title for word in cut_title(title)})
    large = np.memmap(tmp_path/"large", np.float32, "w+", shape=(rows, 25))
    known = dict(zip(words[::2], np.random.default_rng(0).choice(rows, len(words), replace=False).tolist()))
    large[list(known.values())] = np.random.default_rng(1).normal(size=(len(known), 25))
    table = module.WordTable("large", known, large)
    monkeypatch.setattr(module, "open_table", lambda name: table)
    monkeypatch.setattr(module.WordTable, "sha256", "of the large table")
    models = [CharWordLSTM(make("large"), seed=0).fit(train, valid)]       # what is imported late is here now
    with Largest() as seen:
        tracemalloc.start()
        models.append(CharWordLSTM(make("large"), seed=1).fit(train, valid))
        models.append(CharWordLSTM.load(models[1].save(tmp_path/"model")))
        found = [model.embed(strange) for model in models]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert all(model.table is table for model in models) and (found[1] == found[2]).all()
    assert peak < large.nbytes/10 and seen.bytes < large.nbytes/10
    assert sum(path.stat().st_size for path in (tmp_path/"model").iterdir()) < large.nbytes/10


class Largest(TorchDispatchMode):
    "The largest tensor that PyTorch makes meanwhile; NumPy's are seen by tracemalloc."
    bytes = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        made = call(*args, **(kwargs or {}))
        for some in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(some, torch.Tensor): self.bytes = max(self.bytes, some.untyped_storage().nbytes())
        return made


def test_other_vectors_are_refused_and_moved_ones_are_found(fitted, vectors, tmp_path):
    from pathlib import Path
    fitted.save(tmp_path/"model")
    moved, other = tmp_path/"moved.txt", tmp_path/"other.txt"
    moved.write_text(Path(vectors).read_text())
    other.write_text("red 1 2 3 4 5 6 7 8\n")
    assert (CharWordLSTM.load(tmp_path/"model", str(moved)).embed(strange) == fitted.embed(strange)).all()
    with pytest.raises(InputError, match="not those"): CharWordLSTM.load(tmp_path/"model", str(other))


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="no model.json"): CharWordLSTM.load(tmp_path)
    (tmp_path/"model.json").write_text(json.dumps({"kind": "match-sets"}))
    with pytest.raises(InputError, match="match-sets"): CharWordLSTM.load(tmp_path)


def test_settings_go_through_json(vectors):
    config = small(vectors)
    assert CharWordLSTMConfig(**json.loads(json.dumps(asdict(config)))) == config


# --- word vectors from files ----------------------------------------------------------------------

@pytest.mark.parametrize("make", [small, published])
def test_a_vocabulary_of_one_word_is_enough(parts, tmp_path, make):
    (tmp_path/"one.txt").write_text("red 0.5 1.5\n")
    model = CharWordLSTM(make(str(tmp_path/"one.txt")), seed=0).fit(*parts[:2])
    assert np.isfinite(model.embed(strange)).all()


@pytest.mark.parametrize("text, line", [
    ("red 1 2\nblue 1\n", 2), ("red 1 2\nblue one 2\n", 2), ("red\n", 1), ("\nred 1 2\n", 1),
    ("red 1 2 3 4\nblue 1 2 3 x\n", 2), ("red 1 2\nblue 1 nan\n", 2), ("red 1 2\nblue -inf 1\n", 2),
    ("red 1 2\nblue 1 1e60\n", 2), ("red 1 2\n\nblue 1 2\n", 2), ("red\t1\t2\n", 1),
    ("red 1 2\ncaf\xe9 1 2\n", 2)])
def test_a_wrong_line_is_named(tmp_path, text, line):
    (tmp_path/"bad.txt").write_bytes(text.encode("latin1"))
    with pytest.raises(InputError, match=f"bad.txt, line {line}: a word and"):
        open_table(str(tmp_path/"bad.txt"))


def test_what_holds_no_vectors_is_refused_in_one_line(tmp_path):
    (tmp_path/"empty.txt").write_text("")
    (tmp_path/"bad.kv").write_bytes(b"hello")
    for name, said in (("empty.txt", "is empty"), ("bad.kv", "cannot be"), ("none.kv", "cannot be")):
        with pytest.raises(InputError, match=said) as caught: open_table(str(tmp_path/name), trusted=True)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_words_may_hold_white_space_that_is_no_space(tmp_path):
    (tmp_path/"v.txt").write_bytes("a\u00a0b 1 2\n\x85 3 4\n".encode())
    assert list(open_table(str(tmp_path/"v.txt")).known) == ["a\u00a0b", "\x85"]


def test_gensims_own_format_is_read_from_the_file(tmp_path):
    from gensim.models import KeyedVectors
    vectors = KeyedVectors(2)
    vectors.add_vectors(["red", "blue"], np.float32([[1, 2], [3, 4]]))
    vectors.save(str(tmp_path/"v.kv"))
    with pytest.raises(InputError, match="a pickle, which can run"): open_table(str(tmp_path/"v.kv"))
    table = open_table(str(tmp_path/"v.kv"), trusted=True)
    assert table.look_up(["blue", "green"]).tolist() == [[3, 4], [0, 0]]


def test_a_folder_in_the_data_is_a_name(tmp_path, monkeypatch):
    (tmp_path/"my-vectors").mkdir()
    (tmp_path/"my-vectors"/"v.txt").write_text("red 1 2\n")
    (tmp_path/"my-vectors"/"SOURCE.txt").write_text("somewhere")
    monkeypatch.setenv("MATCHBOOK_DATA", str(tmp_path))
    table = open_table("my-vectors")
    assert table.name == "my-vectors" and table.look_up(["red", "blue"]).tolist() == [[1, 2], [0, 0]]
    (tmp_path/"my-vectors"/"w.txt").write_text("red 1 2\n")
    with pytest.raises(InputError, match="found 2"): open_table("my-vectors")


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path/"v.txt"
    path.write_text("red 1 2\n")
    first = open_table(str(path))
    path.write_text("red 1 2\nblue 3 4\n")
    assert len(open_table(str(path)).known) == 2 and open_table(str(path)).sha256 != first.sha256


# --- plain loops ----------------------------------------------------------------------------------

@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_the_sigmoid_loss_is_the_loop(seed, n):
    chance = torch.Generator().manual_seed(seed)
    vectors = nn.functional.normalize(torch.randn(n, 3, generator=chance, dtype=torch.float64), dim=1)
    groups = torch.randint(0, 3, (n,), generator=chance)
    near, far = [], 0.
    for i in range(n):
        for j in range(n):
            above = float(vectors[i] @ vectors[j]) - .4
            if groups[i] != groups[j]: far += np.log1p(np.exp(7*above))
            elif i != j: near.append(np.log1p(np.exp(-7*above)))
    wanted = 10/7*((np.mean(near) if near else 0) + far/n)
    assert abs(float(sigmoid_loss(vectors, groups, 7., .4)) - wanted) < 1e-9


def test_spelling_is_the_same_for_a_word_alone_and_in_company():
    words = ["charger", "ml", "❤", "", "กาแฟ"]
    together = hash_spelling(words, 64)
    for word, row in zip(words, together):
        np.testing.assert_allclose(hash_spelling([word], 64)[0], row, atol=1e-6)
    assert abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-6
    near = hash_spelling([f"{word}{end}" for word in ("lampu", "kabel", "sepatu") for end in ("", "s")], 512)
    cosine = near @ near.T
    assert all(cosine[i, i + 1] > .5 for i in (0, 2, 4)) and abs(cosine[0, 2:]).max() < .3


def test_spelling_does_not_change_between_versions():
    "Saved models depend on it: these are the first places and signs of one word."
    place, sign = module.hash_places(["sepatu"], 512, 4)
    assert (place.tolist(), sign.tolist()) == ([[160, 10, 283, 213]], [[1.0, -1.0, 1.0, -1.0]])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 3, 4]))
def test_batches_hold_whole_groups_and_all_of_them(seed, each):
    groups = np.random.default_rng(seed).integers(0, 12, size=40)
    size = np.bincount(groups, minlength=12)
    if not (size > 1).any(): return
    batches = draw_groups(groups, 4*each, each, seed, 0)
    met = [np.unique(groups[rows.numpy()], return_counts=True) for rows in batches]
    assert all((count == each).all() for _, count in met)
    seen = [int(group) for some, _ in met for group in some]
    assert len(seen) == len(set(seen)) and set(seen) <= set(np.flatnonzero(size > 1).tolist())
    assert len(seen) >= (size > 1).sum() - 1
    for rows in batches:                                     # none twice where the group is large enough
        for group in np.unique(groups[rows.numpy()]):
            mine = rows[groups[rows.numpy()] == group]
            assert len(mine.unique()) == min(each, size[group]) or size[group] < each


def test_forgetting_leaves_a_word_and_the_order():
    words = Ragged.from_list([list(range(n)) for n in (5, 1, 9, 3)], dtype=torch.long)
    torch.manual_seed(0)
    for share in (0., .5, .99):
        left = forget_words(words, share)
        assert len(left) == 4 and left.lengths.min() >= 1
        for row in range(4): assert left[row].tolist() == sorted(set(left[row].tolist()))
    assert torch.equal(forget_words(words, 0.).values, words.values)


@pytest.mark.parametrize("name", ["sigmoid", "multi-similarity", "triplet", "ntxent", "supcon"])
def test_losses_like_right_spaces_better(name):
    loss = make_loss(CharWordLSTMConfig(loss=name, width=8), 2)
    groups = torch.tensor([0, 0, 1, 1])
    right, wrong = torch.eye(8)[[0, 0, 1, 1]], torch.eye(8)[[0, 1, 0, 1]]
    assert float(loss(right, groups)) < float(loss(wrong, groups))


# --- refusals -------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong, said", [
    ({"network": "shortcuts"}, "did you mean"), ({"loss": "triple"}, "did you mean"),
    ({"cut": "apar"}, "did you mean"),
    ({"forget": 1.}, "below 1"), ({"batch": 7}, "whole groups"), ({"width": 1}, "at least 8"),
    ({"shortcut": False, "word_hidden": 0}, "nothing is left"),
    ({"memory": 10, "loss": "supcon"}, "at least one batch"),
    ({"memory": 1024}, "without memory"), ({"miner": True}, "without a miner"),
    ({"per_group": 1}, "at least 2")])
def test_settings_that_make_no_sense(wrong, said):
    with pytest.raises(InputError, match=said): CharWordLSTMConfig(**wrong)


def test_asked_too_early_or_wrongly(fitted, vectors):
    for call in (lambda m: m.embed(["red"]), lambda m: m.save("x"), lambda m: m.parameters):
        with pytest.raises(InputError, match="call fit first"): call(CharWordLSTM(small(vectors)))
    with pytest.raises(InputError, match="not one string"): fitted.embed("red shoe")
    for wrong in (None, float("nan"), b"red"):
        with pytest.raises(InputError, match=f"title 1 is {wrong!r}"): fitted.embed(["red", wrong])
    if fitted.config.network == "shortcut":
        with pytest.raises(InputError, match="published"): fitted.embed(["red"], padded=True)
    with pytest.raises(ValueError, match="none of them empty"): pack_lengths(torch.tensor([2, 0]))


def test_the_packed_sequence_is_what_pytorch_means():
    lstm, packing = nn.LSTM(2, 3), pack_lengths(torch.tensor([1, 3]))
    values = torch.randn(4, 2)
    theirs = lstm(PackedSequence(values, torch.tensor(packing.sizes)))[0].data
    torch.testing.assert_close(run_lstm(lstm, values, packing)[0], theirs, atol=1e-6, rtol=0)


def test_letters_never_seen_have_a_number_of_their_own():
    vocabulary = module.read_vocabulary([["red"]])
    assert vocabulary.spell("é") == [module.unknown] != vocabulary.spell("") == [module.none]
    assert len(set(vocabulary.spell("red é"))) == 5 and min(vocabulary.spell("red ")) > module.unknown
