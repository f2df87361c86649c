"LoRA, DoRA and four bits: nothing at first, merged is unmerged, adapters alone, and what is refused."
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fine_tuning import bases, families, make_base, parts, tiny  # noqa: F401 (fixtures)
from torch import nn
from transformers import LlamaConfig, LlamaModel

from matchbook.clickbait import lora
from matchbook.clickbait.fine_tuning import FineTuned, drop_pooler, open_tuning
from matchbook.clickbait.lora import count_update, merge_updates, open_in_4_bits, published
from matchbook.datasets import InputError
from matchbook.encoders import open_model
from matchbook.runs import replace_setting

pytest.importorskip("peft", reason="the extra lora is not installed")
four_bits = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None,
                               reason="bitsandbytes is not installed")
tuned = ("lora", "dora")


def pool_of(family): return "mean" if family == "bert" else "last"


@pytest.fixture(scope="module")
def fitted(bases, parts):  # noqa: F811
    def fit(family, tuning):
        config = tiny(bases[family], tuning=tuning, rank=4, pool=pool_of(family))
        return FineTuned(config, 0).fit(*parts[:2])
    return {(family, tuning): fit(family, tuning) for family in families for tuning in tuned}


@pytest.mark.parametrize("tuning", tuned)
@pytest.mark.parametrize("family", families)
def test_before_training_nothing_changes(bases, family, tuning):  # noqa: F811
    read = {"input_ids": torch.tensor([[4, 9, 30, 7]])}
    plain = open_model(bases[family])[1]
    with torch.no_grad():
        wanted = plain(**read).last_hidden_state
        found = open_tuning(tuning)(plain, tiny(bases[family], tuning=tuning)).eval()(**read)
    torch.testing.assert_close(found.last_hidden_state, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tuning", tuned)
@pytest.mark.parametrize("family", families)
def test_the_base_stays_and_what_is_trained_is_as_counted(fitted, bases, family, tuning):  # noqa: F811
    model = fitted[family, tuning]
    before = dict(drop_pooler(open_model(bases[family])[1]).named_parameters())
    for name, weight in model.network_.encoder.get_base_model().named_parameters():
        if "lora_" not in name: assert torch.equal(weight, before[name.replace(".base_layer", "")]), name
    plain = drop_pooler(open_model(bases[family])[1])
    layers = [part for part in plain.modules() if isinstance(part, nn.Linear)]
    updates = sum(4*(part.in_features + part.out_features) + part.out_features*(tuning == "dora")
                  for part in layers)
    assert model.parameters["trained"] == updates + 32*5 + 5


@pytest.mark.parametrize("tuning", tuned)
@pytest.mark.parametrize("family", families)
def test_merged_is_unmerged_with_the_heads_kept(fitted, parts, family, tuning, tmp_path):  # noqa: F811
    model = fitted[family, tuning]
    merged, wanted = merge_updates(model), model.judge(parts[2])
    for a, b in zip(merged.judge(parts[2]), wanted): np.testing.assert_allclose(a, b, atol=1e-5)
    assert torch.equal(merged.network_.head.weight, model.network_.head.weight)
    assert not any("lora_" in name for name, _ in merged.network_.named_parameters())
    folder = merged.save(tmp_path/"model")
    text = (folder/"model.json").read_text().replace(model.config.base, "gone")
    (folder/"model.json").write_text(text)                              # needs no other file, nor peft
    np.testing.assert_array_equal(FineTuned.load(folder).score(parts[2]), merged.score(parts[2]))


@pytest.mark.parametrize("tuning", tuned)
@pytest.mark.parametrize("family", families)
def test_adapters_are_saved_alone_and_answer_the_same(fitted, parts, family, tuning, tmp_path):  # noqa: F811
    model = fitted[family, tuning]
    folder = model.save(tmp_path)
    np.testing.assert_array_equal(FineTuned.load(folder).score(parts[2]), model.score(parts[2]))
    assert not (folder/"base").exists()
    buffers = sum(one.numel()*8 for one in model.network_.buffers())
    assert (folder/"weights.safetensors").stat().st_size < 4*model.parameters["trained"] + buffers + 20_000


def test_adapters_of_another_base_are_refused(parts, tmp_path):  # noqa: F811
    base = make_base(tmp_path/"base", "llama")
    folder = FineTuned(tiny(base, tuning="lora", rank=2), 0).fit(*parts[:2]).save(tmp_path/"model")
    make_base(tmp_path/"base", "llama", seed=5)
    with pytest.raises(InputError, match="was tuned on another model"): FineTuned.load(folder)


def test_a_stopped_tuning_goes_on(bases, parts, tmp_path, monkeypatch):  # noqa: F811
    from matchbook.clickbait import fine_tuning
    config = replace_setting(tiny(bases["mistral"], tuning="lora", rank=2, pool="last"),
                             "training.checkpoint_seconds", 0)
    whole, before, count = FineTuned(config, 0).fit(*parts[:2]), fine_tuning.headline_loss, [0]
    def stop(*args):
        count[0] += 1
        if count[0] == 14: raise KeyboardInterrupt                      # in the second epoch
        return before(*args)
    monkeypatch.setattr(fine_tuning, "headline_loss", stop)
    with pytest.raises(KeyboardInterrupt): FineTuned(config, 0).fit(*parts[:2], tmp_path)
    monkeypatch.undo()
    np.testing.assert_array_equal(FineTuned(config, 0).fit(*parts[:2], tmp_path).score(parts[2]),
                                  whole.score(parts[2]))


changes = [{"rank": 8}, {"alpha": 4.}, {"update_dropout": .5}, {"targets": ("query",)}]


@pytest.mark.parametrize("change", changes)
def test_every_setting_of_the_update_has_an_effect(bases, parts, fitted, change):  # noqa: F811
    model = FineTuned(replace(fitted["bert", "lora"].config, **change), 0).fit(*parts[:2])
    assert abs(model.score(parts[2]) - fitted["bert", "lora"].score(parts[2])).max() > 1e-5


def test_updates_are_counted_as_by_hand():
    with torch.device("meta"):
        model = LlamaModel(LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                                       num_attention_heads=4, num_key_value_heads=2, vocab_size=50))
    found, total = count_update(model, 8, ("q_proj", "k_proj", "v_proj", "o_proj"))
    assert found == 3*8*((64 + 64)*2 + (64 + 32)*2)
    assert total == 50*64 + 3*(2*64*64 + 2*64*32 + 3*64*96 + 2*64) + 64


def test_the_published_settings_are_the_reports():
    c = lora.as_published
    assert (c.rank, c.alpha, c.update_dropout, c.bits, c.dtype) == (8, 16., .1, 4, "bfloat16")
    assert c.targets == ("q_proj", "k_proj", "v_proj", "o_proj") and c.checkpointing and c.pool == "last"
    assert c.training.accumulate > 1 and c.training.precision == "bf16" and c.base == published["mistral"]


@pytest.mark.parametrize("family", ["mistral", "llama"])
def test_the_published_settings_train_a_small_decoder(bases, parts, family, tmp_path):  # noqa: F811
    config = replace(lora.as_published, base=bases[family], bits=0, max_length=20, dtype="bfloat16",
                     training=replace(lora.as_published.training, epochs=1))
    model = FineTuned(config, 0).fit(parts[0][:64], parts[1])
    assert next(model.network_.encoder.get_base_model().parameters()).dtype == torch.bfloat16
    np.testing.assert_array_equal(FineTuned.load(model.save(tmp_path)).score(parts[2]), model.score(parts[2]))


# Refusals

def test_layers_that_are_not_there_are_refused_with_those_that_are(bases, parts):  # noqa: F811
    with pytest.raises(InputError, match="targets q_proj: .* named dense, key, query, value"):
        FineTuned(tiny(bases["bert"], tuning="lora", targets=("q_proj",))).fit(*parts[:2])


def test_merging_what_has_no_updates_is_refused(bases, parts):  # noqa: F811
    with pytest.raises(InputError, match="no updates to merge"):
        merge_updates(FineTuned(tiny(bases["bert"], tuning="frozen"), 0).fit(*parts[:2]))


def test_four_bits_without_the_extra_are_refused_in_one_line(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *more: None if name == "bitsandbytes" else real(name, *more))
    with pytest.raises(InputError, match=r"pip install 'matchbook\[lora\]'") as error:
        open_in_4_bits("minilm")
    assert "\n" not in str(error.value)


def test_four_bits_without_a_kernel_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: object())
    def fail(device): raise RuntimeError("no kernel image\nat all")
    monkeypatch.setattr(lora, "check_kernel", fail)
    with pytest.raises(InputError, match="can't do 4 bits on c.* here \\(no kernel image\\)"):
        open_in_4_bits("minilm")


# Four bits, where there is a kernel; on a processor it wants rows of 64

@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return {family: make_base(tmp_path_factory.mktemp(family), family, width=64)
            for family in ("bert", "llama")}


@four_bits
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_four_bits_train_save_and_load(wide, parts, family, tmp_path):  # noqa: F811
    config = tiny(wide[family], tuning="lora", rank=4, bits=4, pool=pool_of(family))
    model = FineTuned(config, 0).fit(*parts[:2])
    assert any(weight.dtype == torch.uint8 for weight in model.network_.parameters())
    np.testing.assert_array_equal(FineTuned.load(model.save(tmp_path)).score(parts[2]), model.score(parts[2]))
    error = ((model.score(parts[2]) - parts[2].mean)**2).mean()
    assert error < .8*parts[2].mean.var()


@four_bits
def test_what_was_tuned_in_four_bits_is_merged_into_the_whole_base(wide, parts):  # noqa: F811
    model = FineTuned(tiny(wide["bert"], tuning="lora", rank=4, bits=4), 0).fit(*parts[:2])
    merged = merge_updates(model)
    assert all(weight.dtype == torch.float32 for weight in merged.network_.parameters())
    assert abs(merged.score(parts[2]) - model.score(parts[2])).max() < .1        # rounding, not another model
