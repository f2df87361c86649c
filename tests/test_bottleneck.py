"Bottleneck adapters: identity before training, a forward by hand, what is trained, saved, refused, served."
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, BertConfig, DistilBertConfig, GPT2Config, RobertaConfig, XLMRobertaConfig

from matchbook.datasets import InputError
from matchbook.products.bottleneck import (BottleneckConfig, add_adapters, adapter_weights, count_weights,
                                           houlsby, load_adapters, name_as_hub, pfeiffer, save_adapters,
                                           write_merged)

small = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 64, "max_position_embeddings": 40}
families = {"bert": BertConfig(**small), "roberta": RobertaConfig(**small),
            "xlm-roberta": XLMRobertaConfig(**small),
            "distilbert": DistilBertConfig(vocab_size=99, dim=32, n_layers=2, n_heads=2, hidden_dim=64)}
ids = torch.arange(5, 26).reshape(3, 7)
mask = torch.tensor([[1]*7, [1]*4 + [0]*3, [1]*2 + [0]*5])


def make(family, seed=0):
    torch.manual_seed(seed)
    return AutoModel.from_config(families[family]).eval()


def shake(encoder, seed=1):
    torch.manual_seed(seed)
    for weight in adapter_weights(encoder).values(): nn.init.normal_(weight, std=.2)
    return encoder


@torch.no_grad()
def read(encoder): return encoder(input_ids=ids, attention_mask=mask).last_hidden_state


@pytest.mark.parametrize("family", families)
@pytest.mark.parametrize("config", [houlsby, pfeiffer, BottleneckConfig(original_ln_before=True)])
def test_before_training_nothing_changes_and_after_it_something(family, config):
    encoder = make(family)
    before = read(encoder)
    assert torch.equal(read(add_adapters(encoder, config)), before)
    assert (read(shake(encoder)) - before).abs().max() > 1e-3


@pytest.mark.parametrize("config,places", [(houlsby, 4), (pfeiffer, 2), (BottleneckConfig(leave_out=(0,)), 2),
                                           (BottleneckConfig(output_adapter=False), 2)])
@pytest.mark.parametrize("family", families)
def test_only_adapters_are_trained_and_all_of_them_learn(family, config, places):
    encoder = shake(add_adapters(make(family), replace(config, non_linearity="gelu")))   # relu may be shut
    narrow = 32//16
    assert count_weights(encoder)["trained"] == places*(2*32*narrow + narrow + 32)
    encoder(input_ids=ids, attention_mask=mask).last_hidden_state[..., :7].sum().backward()
    moved = {name for name, weight in encoder.named_parameters() if weight.grad is not None
             and weight.grad.any()}
    assert moved == set(adapter_weights(encoder)) == {n for n, w in encoder.named_parameters()
                                                      if w.requires_grad}


def test_reduction_and_bend_have_an_effect():
    wide = add_adapters(make("bert"), BottleneckConfig(reduction_factor=4))
    assert count_weights(wide)["trained"] == 4*(2*32*8 + 8 + 32)
    outputs = [read(shake(add_adapters(make("bert"), BottleneckConfig(non_linearity=bend))))
               for bend in ("relu", "gelu", "tanh")]
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(outputs[0], outputs[2])


def norm(part, value):
    return part.weight*(value - value.mean(-1, keepdim=True))/torch.sqrt(
        value.var(-1, keepdim=True, correction=0) + part.eps) + part.bias


def linear(part, value): return value @ part.weight.T + part.bias


def bottleneck(part, value): return linear(part.up, linear(part.down, value).clamp(min=0))


def layer_by_hand(layer, x, before, heads=2):
    "One BERT layer with adapters, without mask; every step spelt out."
    own, (n, t, d) = layer.attention.self, x.shape
    q, k, v = (linear(part, x).reshape(n, t, heads, d//heads).transpose(1, 2)
               for part in (own.query, own.key, own.value))
    mixed = ((q @ k.transpose(2, 3)/(d/heads)**.5).softmax(-1) @ v).transpose(1, 2).reshape(n, t, d)
    def close(output, h, x):
        if not hasattr(output, "adapter"): return norm(output.LayerNorm, h + x)
        asked = norm(output.LayerNorm, h + x) if before else h
        return norm(output.LayerNorm, h + bottleneck(output.adapter, asked) + x)
    x = close(layer.attention.output, linear(layer.attention.output.dense, mixed), x)
    return close(layer.output, linear(layer.output.dense,
                                      nn.functional.gelu(linear(layer.intermediate.dense, x))), x)


@pytest.mark.parametrize("config", [houlsby, pfeiffer])
@torch.no_grad()
def test_the_forward_is_the_one_written_by_hand(config):
    encoder = shake(add_adapters(make("bert"), config)).double()
    x = encoder.embeddings(input_ids=ids)
    for layer in encoder.encoder.layer: x = layer_by_hand(layer, x, config.original_ln_before)
    found = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert (x - found).abs().max() < 1e-6


@pytest.mark.parametrize("family", families)
def test_padding_changes_nothing(family):
    encoder = shake(add_adapters(make(family)))
    with torch.no_grad(): alone = encoder(input_ids=ids[1:2, :4]).last_hidden_state
    np.testing.assert_allclose(read(encoder)[1:2, :4], alone, atol=1e-5)


@pytest.mark.parametrize("family", families)
@pytest.mark.parametrize("config", [houlsby, pfeiffer])
def test_saved_alone_and_put_on_a_fresh_base_the_same_bits(family, config, tmp_path):
    encoder = shake(add_adapters(make(family), config))
    save_adapters(encoder, config, tmp_path)
    assert torch.equal(read(load_adapters(make(family), tmp_path)), read(encoder))
    size = (tmp_path/"adapters.safetensors").stat().st_size
    assert size < 4*count_weights(encoder)["trained"] + 4000
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_adapters_of_another_base_are_refused(tmp_path):
    save_adapters(add_adapters(make("bert")), houlsby, tmp_path)
    with pytest.raises(InputError, match="adapters of another base"): load_adapters(make("roberta"), tmp_path)
    with pytest.raises(InputError, match="adapters of another base"): load_adapters(make("bert", 5), tmp_path)
    with pytest.raises(InputError, match="holds no adapters.json"): load_adapters(make("bert"), tmp_path/"no")


def test_a_family_that_is_not_known_is_refused_in_one_line_that_helps():
    gpt = AutoModel.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(InputError) as error: add_adapters(gpt)
    said = str(error.value)
    assert "\n" not in said and "'gpt2'" in said and "distilbert" in said and "families" in said
    with pytest.raises(InputError, match="has adapters already"): add_adapters(add_adapters(make("bert")))


@pytest.mark.parametrize("wrong,said", [
    ({"reduction_factor": 0}, "above 0"), ({"reduction_factor": "x"}, "above 0"),
    ({"reduction_factor": float("nan")}, "above 0"), ({"non_linearity": "rlu"}, "'rlu'"),
    ({"leave_out": (99,)}, "layers 0 to 1"), ({"leave_out": (0, 1)}, "layers 0 to 1"),
    ({"leave_out": 1}, "numbers of layers"), ({"leave_out": (-1,)}, "numbers of layers"),
    ({"mh_adapter": False, "output_adapter": False}, "neither")])
def test_settings_that_make_no_adapter_are_refused(wrong, said):
    refuse(lambda: add_adapters(make("bert"), BottleneckConfig(**wrong)), said)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_merged_folder_is_served_by_auto_model(family, tmp_path):
    encoder = shake(add_adapters(make(family)))
    write_merged(encoder, houlsby, None, tmp_path/family)
    served = AutoModel.from_pretrained(tmp_path/family, trust_remote_code=True).eval()
    assert (read(served) - read(encoder)).abs().max() < 1e-6
    assert "matchbook" not in (tmp_path/family/"modeling_bottleneck.py").read_text()


def test_names_are_those_of_the_hub():
    names = {name_as_hub(name, "x") for name in adapter_weights(add_adapters(make("bert")))}
    assert "encoder.layer.0.attention.output.adapters.x.adapter_down.0.weight" in names
    assert "encoder.layer.1.output.adapters.x.adapter_up.bias" in names
    first, *_, last = adapter_weights(add_adapters(make("distilbert")))
    assert name_as_hub(first, "x") == (
        "transformer.layer.0.attention_adapters.adapters.x.adapter_down.0.weight")
    assert name_as_hub(last, "x") == "transformer.layer.1.output_adapters.adapters.x.adapter_up.bias"
    with pytest.raises(InputError, match="weight of an adapter"): name_as_hub("encoder.layer.0.output.bias")


def refuse(call, said):
    with pytest.raises(InputError) as error: call()
    assert said in str(error.value) and "\n" not in str(error.value)


def negate(encoder): encoder.get_input_embeddings().weight.neg_()


def swap(encoder):
    weight = encoder.encoder.layer[0].attention.self.query.weight
    weight.copy_(weight.T.clone())


@pytest.mark.parametrize("change", [negate, swap])
def test_a_base_with_the_same_sum_of_weights_is_another_base(change, tmp_path):
    save_adapters(add_adapters(make("bert")), houlsby, tmp_path)
    other = make("bert")
    with torch.no_grad(): change(other)
    refuse(lambda: load_adapters(other, tmp_path), "adapters of another base")


@pytest.mark.parametrize("spoil,said", [
    (lambda at, card: (at/"adapters.json").write_text("{}"), "config and base were wanted"),
    (lambda at, card: (at/"adapters.safetensors").unlink(), "holds no adapters.safetensors"),
    (lambda at, card: (at/"adapters.safetensors").write_bytes(b"cut"), "can't be read"),
    (lambda at, card: card["config"].update(x=1), "unexpected keyword argument 'x'"),
    (lambda at, card: card["config"].update(reduction_factor=4), "names or shapes"),
    (lambda at, card: card["config"].update(leave_out=[1]), "names or shapes")])
def test_saved_adapters_that_are_broken_are_refused_in_one_line(spoil, said, tmp_path):
    path = save_adapters(add_adapters(make("bert")), houlsby, tmp_path)/"adapters.json"
    card = json.loads(path.read_text())
    spoil(tmp_path, card)
    if path.read_text() != "{}": path.write_text(json.dumps(card))
    refuse(lambda: load_adapters(make("bert"), tmp_path), said)
