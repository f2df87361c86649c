"Fine-tuning: what is read and learnt, what does not matter, what survives a kill; three families."
import os
import signal
import string
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaModel, MistralConfig,
                          MistralModel, PreTrainedTokenizerFast)

from matchbook.batches import Table
from matchbook.clickbait.fine_tuning import (FineTuneConfig, FineTuned, HeadlineNetwork, PostReader,
                                             count_votes, describe_base, drop_pooler, headline_loss,
                                             open_tuning, rate_groups, steps, target_columns,
                                             to_strength, tunings, word_effects)
from matchbook.clickbait.headlines import Posts
from matchbook.datasets import InputError
from matchbook.encoders import open_model
from matchbook.training import TrainingConfig

families = ("bert", "mistral", "llama")


def make_base(folder, family, seed=0, signs=True, layers=2, width=32):
    "A random model of that family that reads letters; decoders have no sign for padding."
    encoder = family == "bert"
    names = (["[CLS]", "[SEP]", "[UNK]", "[PAD]"] if encoder else ["<s>", "</s>", "<unk>"])
    vocab = {one: i for i, one in enumerate([*names, "\n", *string.printable[:95]])}
    core = Tokenizer(models.WordLevel(vocab, unk_token=names[2]))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if encoder:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 0), ("[SEP]", 1)])
        kept = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    else: kept = {"unk_token": "<unk>"} | ({"bos_token": "<s>", "eos_token": "</s>"} if signs else {})
    PreTrainedTokenizerFast(tokenizer_object=core, **kept).save_pretrained(folder)
    size = {"vocab_size": len(vocab), "hidden_size": width, "intermediate_size": 2*width,
            "num_hidden_layers": layers, "num_attention_heads": 4, "max_position_embeddings": 64}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if encoder: model = BertModel(BertConfig(**size))
        elif family == "mistral": model = MistralModel(MistralConfig(**size, num_key_value_heads=2))
        else: model = LlamaModel(LlamaConfig(**size))
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {family: make_base(tmp_path_factory.mktemp(family), family) for family in families}


def make_posts(n, seed=0):
    "Posts that tease where they ask; an empty one among them."
    rng = np.random.default_rng(seed)
    asks = rng.random(n) < .5
    text = np.array([f"{rng.choice(['rain', 'tax', 'cats'])} {'why?' if one else 'done.'}" for one in asks],
                    dtype=object)
    text[3] = ""
    bait = np.where(asks, .75, .2)[:, None] + rng.normal(size=(n, 5))*.2
    votes = np.clip(np.round(3*bait), 0, 3)/3
    field = lambda word: np.array([f"{word} {i % 7}" for i in range(n)], dtype=object)
    return Posts(np.arange(n).astype(str).astype(object), text, field("title"), field("about"), votes,
                 votes.mean(1), (np.median(votes, axis=1) > .5).astype(int))


@pytest.fixture(scope="module")
def parts(): return make_posts(160, 0), make_posts(60, 1), make_posts(40, 2)


def tiny(base, **changes):
    training = TrainingConfig(epochs=2, learning_rate=3e-3, schedule="linear", clip_norm=1.)
    return replace(FineTuneConfig(base, max_length=20, batch=16, training=training), **changes)


@pytest.fixture(scope="module")
def fitted(bases, parts):
    pools = {"bert": "mean", "mistral": "last", "llama": "last"}
    return {family: FineTuned(tiny(bases[family], pool=pools[family]), 0).fit(*parts[:2])
            for family in families}


# What is read

def test_a_post_is_read_as_its_tokenizer_would(bases, parts):
    tokenizer = AutoTokenizer.from_pretrained(bases["bert"])
    read = PostReader(tokenizer, tiny(bases["bert"], max_length=60))(parts[0])
    for row, text in enumerate(parts[0].text):
        assert read["ids"][row].tolist() == tokenizer(text)["input_ids"]


def test_a_post_and_its_context_are_read_as_its_tokenizer_would(bases, parts):
    tokenizer = AutoTokenizer.from_pretrained(bases["bert"])
    read = PostReader(tokenizer, tiny(bases["bert"], max_length=60, context=True))(parts[0])
    for row in (0, 3, 9):
        context = f"{parts[0].title[row]} {parts[0].description[row]}"
        wanted = tokenizer(parts[0].text[row], context, return_token_type_ids=True)
        assert read["ids"][row].tolist() == wanted["input_ids"]
        assert read["sides"][row].tolist() == wanted["token_type_ids"]


def test_the_context_is_cut_before_the_post(bases, parts):
    reader = PostReader(AutoTokenizer.from_pretrained(bases["bert"]), tiny(bases["bert"], context=True))
    alone = PostReader(reader.tokenizer, tiny(bases["bert"]))(parts[0])["ids"]
    read = reader(parts[0])
    assert max(read["ids"].lengths) <= 20
    for row in range(20): assert read["ids"][row].tolist()[:len(alone[row])] == alone[row].tolist()


def test_a_decoder_reads_begin_post_break_context_and_borrows_the_end_for_padding(bases, parts):
    tokenizer = AutoTokenizer.from_pretrained(bases["llama"])
    reader = PostReader(tokenizer, tiny(bases["llama"], context=True, max_length=60))
    ids = reader(parts[0])["ids"][0].tolist()
    assert tokenizer.decode(ids).replace(" ", "") == (
        f"<s>{parts[0].text[0]}\n{parts[0].title[0]}{parts[0].description[0]}").replace(" ", "")
    assert reader.pad == tokenizer.eos_token_id


def test_a_tokenizer_without_any_sign_for_padding_is_refused(tmp_path, parts):
    base = make_base(tmp_path, "llama", signs=False)
    with pytest.raises(InputError, match="no sign for padding"): FineTuned(tiny(base)).fit(*parts[:2])


# What is learnt

def test_votes_are_counted_as_by_hand():
    rng = np.random.default_rng(0)
    for _ in range(200):
        votes = rng.integers(0, 4, (3, 5))/3
        slow = [[sum(abs(v - k/3) < .01 for v in row)/5 for k in range(4)] for row in votes]
        np.testing.assert_allclose(count_votes(votes), slow, atol=1e-6)


@pytest.mark.parametrize("target", ["mean", "votes"])
def test_the_loss_is_that_of_a_loop(target):
    rng = np.random.default_rng(0)
    for _ in range(60):
        raw = rng.normal(size=(4, 1 if target == "mean" else 4))
        logit, label, mean = rng.normal(size=4), rng.integers(0, 2, 4), rng.random(4)
        votes = rng.dirichlet([1]*4, 4)
        share, pull = rng.random()*.9, 1 + rng.random()
        slow = 0.
        for i in range(4):
            chance = 1/(1 + np.exp(-logit[i]))
            named = -pull*label[i]*np.log(chance) - (1 - label[i])*np.log(1 - chance)
            if target == "mean": strong = 10*(1/(1 + np.exp(-raw[i, 0])) - mean[i])**2
            else: strong = -sum(v*np.log(np.exp(z)/np.exp(raw[i]).sum()) for v, z in zip(votes[i], raw[i]))
            slow += ((1 - share)*strong + share*named)/4
        batch = Table({"mean": torch.tensor(mean), "class": torch.tensor(label, dtype=torch.float64),
                       "votes": torch.tensor(votes)})
        found = headline_loss(torch.tensor(raw), torch.tensor(logit), batch,
                              FineTuneConfig(target=target, class_share=share), torch.tensor(pull))
        assert found.item() == pytest.approx(slow, rel=1e-5)


def test_a_strength_is_the_mean_of_the_steps():
    raw = torch.randn(6, 4)
    slow = [sum(p*v for p, v in zip(row.softmax(0), steps)) for row in raw]
    torch.testing.assert_close(to_strength(raw), torch.stack(slow))
    torch.testing.assert_close(to_strength(raw[:, :1]), raw[:, 0].sigmoid())


@pytest.mark.parametrize("family", families)
def test_what_is_plain_to_see_is_learnt(fitted, parts, family):
    error = ((fitted[family].score(parts[2]) - parts[2].mean)**2).mean()
    assert error < .5*parts[2].mean.var()


@pytest.mark.parametrize("family", families)
def test_a_score_depends_on_its_own_post_alone(fitted, parts, family):
    found = fitted[family].score(parts[2])
    longer = replace(parts[2], text=np.array([*parts[2].text[:-1], "a very long post it is"], dtype=object))
    np.testing.assert_allclose(fitted[family].score(longer)[:-1], found[:-1], atol=1e-5)
    for rows in (np.array([7]), np.array([3, 11, 2])):
        np.testing.assert_allclose(fitted[family].score(parts[2][rows]), found[rows], atol=1e-5)


def test_padding_to_the_full_length_changes_nothing(fitted, parts):
    model = fitted["bert"]
    found, model.network_.config = model.score(parts[2]), replace(model.config, pad="full")
    try: np.testing.assert_allclose(model.score(parts[2]), found, atol=1e-5)
    finally: model.network_.config = model.config


def test_the_same_seed_gives_the_same_numbers_and_another_others(bases, parts, fitted):
    again = FineTuned(fitted["bert"].config, 0).fit(*parts[:2])
    np.testing.assert_array_equal(again.score(parts[2]), fitted["bert"].score(parts[2]))
    other = FineTuned(fitted["bert"].config, 1).fit(*parts[:2])
    assert abs(other.score(parts[2]) - fitted["bert"].score(parts[2])).max() > 1e-4


def test_every_option_has_an_effect(bases, parts):
    one = TrainingConfig(epochs=1, learning_rate=3e-3)
    plain = FineTuned(tiny(bases["bert"], training=one), 0).fit(*parts[:2]).judge(parts[2])
    for change in ({"target": "mean"}, {"class_target": "label"}, {"class_weights": True}, {"context": True},
                   {"class_share": .8}, {"layer_decay": .5}, {"head_rate": 1.}, {"pool": "cls"},
                   {"pool": "last"}, {"dropout": .5}, {"tuning": "frozen"}, {"max_length": 5}):
        found = FineTuned(tiny(bases["bert"], training=one, **change), 0).fit(*parts[:2]).judge(parts[2])
        assert max(abs(a - b).max() for a, b in zip(found, plain)) > 1e-5, change


def test_gradient_checkpointing_changes_no_number(bases, parts, fitted):
    model = FineTuned(replace(fitted["bert"].config, checkpointing=True), 0).fit(*parts[:2])
    assert model.network_.encoder.is_gradient_checkpointing
    np.testing.assert_allclose(model.score(parts[2]), fitted["bert"].score(parts[2]), atol=1e-4)


def test_training_stops_when_validation_gets_no_better(bases, parts):
    training = TrainingConfig(epochs=40, learning_rate=3e-2, patience=2)
    history = FineTuned(tiny(bases["bert"], training=training), 0).fit(*parts[:2]).history_
    assert history.stopped_early and len(history.rows) == history.best_epoch + 3
    errors = [row["valid_mse"] for row in history.rows]
    assert history.best_epoch == int(np.argmin(errors))


def test_as_published_is_what_the_report_says():
    c = FineTuned.as_published
    assert (c.base, c.batch, c.max_length, c.pad, c.clean) == ("bert-base-uncased", 48, 128, "full", True)
    assert (c.training.epochs, c.training.learning_rate, c.training.weight_decay) == (4, 2e-5, .01)
    assert c.warmup_steps == 500 and c.training.schedule == "linear"
    assert c.checkpointing and c.monitor == "f1" and c.training.patience is None
    assert FineTuned.as_published_large.base == "bert-large-uncased"


def test_a_rate_rises_for_so_many_steps(bases, parts):
    config = tiny(bases["bert"], warmup_steps=5)                 # 10 steps an epoch, two epochs
    rates = [row["learning_rate"] for row in FineTuned(config, 0).fit(*parts[:2]).history_.rows]
    share = replace(config, warmup_steps=0, training=replace(config.training, warmup=.25))
    assert rates == [row["learning_rate"] for row in FineTuned(share, 0).fit(*parts[:2]).history_.rows]


def test_what_is_cut_is_told_with_the_length(bases, parts, caplog):
    tokenizer = AutoTokenizer.from_pretrained(bases["bert"])
    with caplog.at_level("INFO", "matchbook"):
        PostReader(tokenizer, tiny(bases["bert"], max_length=7, context=True))(parts[0])
    assert "are longer than 7 tokens" in caplog.text


def test_a_length_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="max_length = 'a'; a number"): FineTuneConfig(max_length="a")


def test_a_loaded_model_answers_on_the_device_there_is(fitted, tmp_path, monkeypatch):
    import matchbook.clickbait.fine_tuning as module
    folder = fitted["bert"].save(tmp_path)
    with pytest.raises(InputError, match="device 'cuda': there is none here"):
        if torch.cuda.is_available(): raise InputError("device 'cuda': there is none here")
        FineTuned.load(folder).to("cuda")
    monkeypatch.setattr(module, "find_kind", lambda config: "meta")
    assert {w.device.type for w in FineTuned.load(folder).network_.parameters()} == {"meta"}


def test_a_large_bert_goes_the_same_way(tmp_path, parts):
    "The shape of BERT-large in depth, narrow: twenty-four layers."
    base = make_base(tmp_path, "bert", layers=24)
    config = replace(FineTuned.as_published_large, base=base, max_length=20, batch=16,
                     training=replace(FineTuned.as_published_large.training, epochs=1, precision="no"))
    model = FineTuned(config, 0).fit(parts[0][:48], parts[1])
    again = FineTuned.load(model.save(tmp_path/"model"))
    np.testing.assert_array_equal(again.score(parts[2]), model.score(parts[2]))


# What is trained, and how fast

def test_rates_are_those_of_a_loop(bases):
    config = tiny(bases["bert"], layer_decay=.5, head_rate=4.)
    network = HeadlineNetwork(drop_pooler(open_model(bases["bert"])[1]), config, 3)
    found = {id(w): group["lr"] for group in rate_groups(network, config) for w in group["params"]}
    for name, weight in network.named_parameters():
        below = 3 if "embed" in name else 2 - int(name.split("layer.")[1][0]) if "layer." in name else 0
        assert found[id(weight)] == pytest.approx(3e-3*(4. if name.startswith("head") else .5**below)), name


def test_a_frozen_encoder_stays_as_it_is(bases, parts):
    model = FineTuned(tiny(bases["bert"], tuning="frozen"), 0).fit(*parts[:2])
    before = dict(drop_pooler(open_model(bases["bert"])[1]).named_parameters())
    for name, weight in model.network_.encoder.named_parameters(): assert torch.equal(weight, before[name])
    assert model.parameters["trained"] == 32*5 + 5


def test_every_tuning_can_be_opened():
    for name in tunings: assert callable(open_tuning(name))


# Saving

@pytest.mark.parametrize("family", families)
def test_a_bundle_gives_the_same_answers_and_needs_no_other_file(fitted, parts, family, tmp_path):
    folder = fitted[family].save(tmp_path/"model")
    again = FineTuned.load(folder)
    wanted = fitted[family].judge(parts[2])
    for a, b in zip(again.judge(parts[2]), wanted): np.testing.assert_array_equal(a, b)
    assert again.threshold_ == fitted[family].threshold_ and again.config == fitted[family].config
    text = (folder/"model.json").read_text().replace(fitted[family].config.base, "gone")
    (folder/"model.json").write_text(text)
    np.testing.assert_array_equal(FineTuned.load(folder).score(parts[2]), again.score(parts[2]))


def test_a_bundle_of_another_base_is_refused(bases, parts, tmp_path):
    base = make_base(tmp_path/"base", "bert")
    folder = FineTuned(tiny(base, tuning="frozen"), 0).fit(*parts[:2]).save(tmp_path/"model")
    make_base(tmp_path/"base", "bert", seed=1)
    with pytest.raises(InputError, match="was tuned on another model"): FineTuned.load(folder)
    assert describe_base(open_model(base)[1]) != describe_base(open_model(bases["bert"])[1])


def test_a_damaged_bundle_is_refused(fitted, tmp_path):
    folder = fitted["bert"].save(tmp_path)
    (folder/"weights.safetensors").write_bytes((folder/"weights.safetensors").read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"): FineTuned.load(folder)


# Going on after a stop

worker = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from test_fine_tuning import FineTuned, make_posts, tiny
config = tiny({base!r})
config = replace(config, training=replace(config.training, epochs=3, checkpoint_seconds=0))
print("ready", flush=True)
FineTuned(config, 0).fit(make_posts(160, 0), make_posts(60, 1), {folder!r})
"""


def test_a_training_killed_in_an_epoch_ends_as_one_that_was_not(bases, parts, tmp_path):
    config = tiny(bases["bert"])
    config = replace(config, training=replace(config.training, epochs=3, checkpoint_seconds=0))
    whole = FineTuned(config, 0).fit(*parts[:2])
    code = worker.format(tests=os.path.dirname(__file__), base=bases["bert"], folder=str(tmp_path/"at"))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(3000):                                              # killed after the third step
        found = sorted((tmp_path/"at").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        if found and int(found[-1].name.split("-")[1]) >= 3: break
        time.sleep(.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    number = max(int(path.name.split("-")[1]) for path in (tmp_path/"at").glob("checkpoint-*"))
    assert 3 <= number < 33                                            # in the middle
    resumed = FineTuned(config, 0).fit(*parts[:2], tmp_path/"at")
    for a, b in zip(resumed.judge(parts[2]), whole.judge(parts[2])): np.testing.assert_array_equal(a, b)
    assert resumed.threshold_ == whole.threshold_ and not list((tmp_path/"at").glob("checkpoint-*"))


def test_a_checkpoint_of_another_base_is_refused(bases, parts, tmp_path, monkeypatch):
    config = tiny(bases["bert"])
    stop = replace(config, training=replace(config.training, checkpoint_seconds=0))
    model, count = FineTuned(stop, 0), [0]
    def fail(*args):
        count[0] += 1
        if count[0] == 5: raise KeyboardInterrupt
        return headline_loss(*args)
    monkeypatch.setattr("matchbook.clickbait.fine_tuning.headline_loss", fail)
    with pytest.raises(KeyboardInterrupt): model.fit(*parts[:2], tmp_path/"at")
    monkeypatch.undo()
    other = make_base(tmp_path/"other", "bert", seed=1)
    with pytest.raises(InputError, match="another base"):
        FineTuned(replace(stop, base=other), 0).fit(*parts[:2], tmp_path/"at")


# Words, and what is refused

def test_the_word_that_asks_does_most(fitted):
    effects = dict(word_effects(fitted["bert"], "rain why?"))
    assert effects["why?"] > .1 and abs(effects["rain"]) < effects["why?"]


@pytest.mark.parametrize("change,message", [
    ({"tuning": "lore"}, "did you mean 'lora'"), ({"pool": "max"}, "one of mean, cls, last"),
    ({"bits": 8}, "one of 0, 4"), ({"bits": 4}, "take tuning lora"), ({"batch": 0}, "batch = 0"),
    ({"layer_decay": 1.5}, "layer_decay = 1.5"), ({"max_length": 2}, "max_length = 2")])
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(InputError, match=message): FineTuneConfig(**change)


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, tmp_path):
    asked = []
    def ask(*_, **__):
        asked.append(1)
        raise RuntimeError("no route")                                 # as httpx says it: no OSError
    monkeypatch.setattr("huggingface_hub.model_info", ask)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_: pytest.fail("asked again"))
    with pytest.raises(InputError, match=r"the hub does not answer \(no route\)"): open_model("me/nothing")
    assert asked == [1]


def test_a_base_that_is_nowhere_is_refused_and_says_what_works(parts, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)      # as without a network
    with pytest.raises(InputError, match="without a network these work: 'minilm'"):
        FineTuned(tiny("nobody/nothing")).fit(*parts[:2])


def test_more_tokens_than_the_base_reads_are_refused(bases, parts):
    with pytest.raises(InputError, match="reads 64 tokens"):
        FineTuned(tiny(bases["bert"], max_length=65)).fit(*parts[:2])


def test_a_mean_alone_is_that_of_one_judge(parts):
    blank = replace(parts[0], judgments=np.zeros((len(parts[0]), 0)))
    found = target_columns(blank, FineTuneConfig())
    np.testing.assert_allclose(found["votes"] @ steps.numpy(), blank.mean, atol=1e-6)
    assert (found["class"] == blank.label).all() and ((found["votes"] > 1e-6).sum(1) <= 2).all()


def test_adapters_leave_the_base_as_it_is_learn_and_are_saved_alone(bases, parts, tmp_path):
    config = tiny(bases["bert"], tuning="adapters", rank=5)
    model = FineTuned(config, 0).fit(*parts[:2])
    before = dict(open_model(bases["bert"])[1].named_parameters())
    for name, weight in model.network_.encoder.named_parameters():
        if ".adapter." not in name: assert torch.equal(weight, before[name]), name
    width, layers, head = 32, 2, 33*5
    assert model.parameters["trained"] == 2*layers*(2*width*5 + 5 + width) + head
    assert any(weight.abs().max() > 1e-3 for name, weight in model.network_.encoder.named_parameters()
               if name.endswith("adapter.up.weight"))
    folder = model.save(tmp_path/"model")
    np.testing.assert_array_equal(FineTuned.load(folder).score(parts[2]), model.score(parts[2]))
    assert (folder/"weights.safetensors").stat().st_size < 4*model.parameters["trained"] + 4096


def test_adapters_in_a_family_whose_layers_are_not_known_are_refused(bases, parts):
    with pytest.raises(InputError, match="no layers known of a 'mistral' encoder"):
        FineTuned(tiny(bases["mistral"], tuning="adapters"), 0).fit(*parts[:2])
