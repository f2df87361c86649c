"Several processes train as one does; each group is read once; a process that is killed ends the job plainly."
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed import TCPStore
from transformers import AutoModel, AutoTokenizer, BertConfig

import matchbook
from matchbook import cli
from matchbook.clickbait.fine_tuning import FineTuned
from matchbook.papers.graph import read_heco
from matchbook.papers.heco import HeCo
from matchbook.products.adapter_bert import AdapterBert, AdapterBertConfig
from matchbook.products.bottleneck import BottleneckConfig
from matchbook.products.char_word_lstm import CharWordLSTM, CharWordLSTMConfig, cut_title
from matchbook.products.listings import read_listings, read_pair_parts, split_listings
from matchbook.products.pair_mlp import FeatureConfig, PairMLP, PairMLPConfig, SymmetricPairMLP
from matchbook.runs import read_runs
from matchbook.training import TrainingConfig

short = TrainingConfig(epochs=2, learning_rate=3e-3, device="cpu")


def read_titles():
    listings, _ = read_listings("shopee-sample")
    split = split_listings(listings)
    return listings[split.train[:160]], listings[split.valid[:120]]


def make_vectors(folder):
    "Eight numbers for every second word of the training titles."
    words = sorted({word for title in read_titles()[0].title for word in cut_title(title)})[::2]
    table = np.random.default_rng(0).normal(size=(len(words), 8)).round(3)
    (folder/"some.txt").write_text("".join(f"{word} {' '.join(map(str, row))}\n"
                                           for word, row in zip(words, table)))


def make_bert(folder):
    "A tiny BERT that reads MiniLM's word pieces."
    from matchbook.encoders import find_model
    tokenizer = AutoTokenizer.from_pretrained(find_model("minilm"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(BertConfig(
            vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64)).save_pretrained(folder/"bert")
    tokenizer.save_pretrained(folder/"bert")


def fit_lstm(folder):
    config = CharWordLSTMConfig(vectors=str(folder/"some.txt"), width=32, learnt=8, letter=6, char_hidden=5,
                                reduced=12, word_hidden=10, batch=62, dropout=0., training=short)
    return CharWordLSTM(config).fit(*read_titles())


def fit_pairs(kind, config):
    parts, _ = read_pair_parts("ozon-sample")
    return kind(config).fit(parts.train[:300], parts.valid[:120])


def fit_adapters(folder, **more):
    config = AdapterBertConfig(base=str(folder/"bert"), adapters=BottleneckConfig(reduction_factor=2),
                               max_length=16, batch=32, chunk=8, hard=2, training=short)
    return AdapterBert(replace(config, **more)).fit(*read_titles())


def fit_heco(config, **more):
    config = replace(config, width=8, attention_dropout=0., feature_dropout=0., training=short, **more)
    return HeCo(config).fit(read_heco("heco-sample")[0])


words = ("run", "papers", "--dataset", "heco-sample", "--model", "heco", "--preset", "quick",
         "--set", "training.epochs=6", "--set", "probe.restarts=2", "--set", "probe.steps=5")
few = FeatureConfig(("words", "codes"), ("words",))
fits = {
    "lstm": fit_lstm,
    "pair mlp": lambda folder: fit_pairs(PairMLP, PairMLPConfig("concat", 16, 2, 0., 0, batch=63,
                                                                training=short)),
    "symmetric pair mlp": lambda folder: fit_pairs(SymmetricPairMLP, PairMLPConfig(
        hidden=16, reduced=8, features=few, batch=63, dropout=0., training=short)),
    "adapter bert": fit_adapters,
    "adapter bert, arcface": lambda folder: fit_adapters(folder, loss="arcface", margin=20., miner=True),
    "heco": lambda folder: fit_heco(HeCo.quick, rebuild=1.),
    "heco, in batches": lambda folder: fit_heco(HeCo.quick, batch=101),
    "heco, as published": lambda folder: fit_heco(HeCo.as_published, batch=101)}


def lose(fitted): return [row["train_loss"] for row in fitted.history_.rows]


def environment(*places):
    "That of a process that finds this matchbook, these tests, and what else is in some places."
    found = [*places, Path(matchbook.__file__).parents[1], Path(__file__).parent]
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
                         "PYTHONPATH": os.pathsep.join(map(str, found))}


torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def launch(script, folder, *by):
    "Two processes of a script."
    command = [sys.executable, "-m", *(by or torchrun), script, folder]
    kept = environment() | {"MATCHBOOK_CACHE": str(folder/"cache")}
    return subprocess.run(list(map(str, command)), text=True, capture_output=True, env=kept, timeout=600)


shared = """
import json, os, sys
from pathlib import Path
import matchbook.products.char_word_lstm as titles
from matchbook import cli
from test_ranks import fits, lose, words
folder, found, share, seen = Path(sys.argv[1]), {}, titles.share_rows, []
def note(read, rows):
    def reading(some):
        seen.append(some["group"].tolist())
        return read(some)
    return share(reading, rows)
titles.share_rows = note
for name, fit in fits.items(): found[name] = lose(fit(folder))
try: cli.main([*words, "--out", str(folder/"straight")])
except SystemExit as stop: assert stop.code == 0
(folder/f"{os.environ['RANK']}.json").write_text(json.dumps([found, seen]))
"""


@pytest.fixture(scope="module")
def shared_job(tmp_path_factory):
    "A folder, and of each of two processes: model → its loss in each epoch; groups of titles the LSTM read."
    folder = tmp_path_factory.mktemp("ranks")
    make_vectors(folder)
    make_bert(folder)
    (folder/"shared.py").write_text(shared)
    done = launch(folder/"shared.py", folder)
    assert done.returncode == 0, done.stderr[:3000]
    return folder, [json.loads((folder/f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", fits)
def test_two_processes_lose_what_one_loses(shared_job, name):
    folder, ((first, _), (second, _)) = shared_job
    assert first[name] == second[name] == pytest.approx(lose(fits[name](folder)), abs=1e-6)


def test_each_group_is_read_once_in_an_epoch(shared_job):
    _, processes = shared_job
    _, size = np.unique(read_titles()[0].group, return_counts=True)
    steps = len(processes[0][1])//2
    for epoch in (slice(steps), slice(steps, None)):
        first, second = (Counter(chain(*seen[epoch])) for _, seen in processes)
        assert set((first + second).values()) == {2} and len(first + second) == (size > 1).sum()
        assert first.total() == second.total()


# --- the command ----------------------------------------------------------------------------------

dying = """
import os, signal
if os.environ.get("RANK") == "1":
    from matchbook.training import Training
    step = Training.step
    def die(self, *words):
        if self.at["epoch"] == 3: os.kill(os.getpid(), signal.SIGKILL)
        step(self, *words)
    Training.step = die
"""


def run(folder, *places):
    "The command in two processes."
    kept = environment(*places) | {"MATCHBOOK_CACHE": str(folder/"cache")}
    command = [sys.executable, "-m", "matchbook", *words, "--ranks", "2", "--out", str(folder/"out")]
    return subprocess.run(command, text=True, capture_output=True, env=kept, timeout=600)


def test_a_killed_process_ends_the_job_in_one_line_and_the_next_try_as_if_nothing_had_been(
        shared_job, tmp_path):
    (tmp_path/"sitecustomize.py").write_text(dying)
    killed = run(tmp_path, tmp_path)
    assert len(killed.stderr.splitlines()) == 2, killed.stderr
    told, line = killed.stderr.splitlines()
    assert killed.returncode == 1 and killed.stdout == "" and told.endswith("…")
    assert line.startswith("matchbook: process 1 of 2 was ended by SIGKILL; start the same command again")
    assert not (tmp_path/"out").exists()
    resumed = run(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on where it was stopped: epoch" in resumed.stderr
    assert resumed.stderr.count("wrote ") == 1 and resumed.stdout.count("heco") == 1
    first, second = (read_runs(folder)[0] for folder in (tmp_path/"out", shared_job[0]/"straight"))
    assert first["metrics"] == second["metrics"] and first["command"].endswith("--ranks 2")
    assert first["details"]["weights"] == second["details"]["weights"]


def test_the_first_process_to_find_something_wrong_says_so(monkeypatch, capsys):
    store = TCPStore("localhost", 0, is_master=True)
    before = signal.getsignal(signal.SIGTERM)
    for name, value in (("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", str(store.port))):
        monkeypatch.setenv(name, value)
    said = []
    for rank in "10":
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as stop: cli.main(["run", "papers", "--set", "width"])
        said += capsys.readouterr().err.splitlines()
        assert stop.value.code == 2
    signal.signal(signal.SIGTERM, before)
    assert len(said) == 1 and said[0].startswith("matchbook: ")


# --- a model split over processes ------------------------------------------------------------------

def fit_mistral(place, folder=None):
    "LoRA on a tiny decoder; its weights as a process holds them, losses, and scores."
    from test_fine_tuning import make_posts, tiny
    config = tiny(str(place/"mistral"), tuning="lora", rank=4, pool="last", dropout=0., update_dropout=0.)
    model = FineTuned(config, 0).fit(make_posts(60, 0), make_posts(30, 1), folder)
    weight = next(w for name, w in model.network_.named_parameters() if "q_proj.base" in name)
    held = weight.to_local() if hasattr(weight, "to_local") else weight
    return {"held": len(held), "loss": lose(model), "score": model.score(make_posts(10, 2)).tolist()}


split = """
import json, os, sys
from pathlib import Path
from matchbook.training import Training
from test_ranks import fit_mistral
folder, step = Path(sys.argv[1]), Training.step
straight = fit_mistral(folder)
def die(self, *words):
    if self.at["step"] == 6: raise InterruptedError("power cut")
    step(self, *words)
Training.step = die
try: fit_mistral(folder, folder/"checkpoints")
except InterruptedError: pass
Training.step = step
died = [path.name for path in (folder/"checkpoints").glob("checkpoint-*")]
found = [straight, fit_mistral(folder, folder/"checkpoints"), died]
(folder/f"{os.environ['RANK']}.json").write_text(json.dumps(found))
"""


def test_a_model_split_by_fsdp_learns_what_a_whole_one_learns(tmp_path):
    pytest.importorskip("peft")
    from test_fine_tuning import make_base
    (tmp_path/"mistral").mkdir()
    make_base(tmp_path/"mistral", "mistral")
    (tmp_path/"split.py").write_text(split)
    config = Path(__file__).parents[1]/"fsdp2.yaml"
    done = launch(tmp_path/"split.py", tmp_path, "accelerate.commands.launch", "--config_file", config)
    assert done.returncode == 0, done.stderr[:3000]
    first, second = (json.loads((tmp_path/f"{rank}.json").read_text()) for rank in (0, 1))
    whole, (straight, resumed, died) = fit_mistral(tmp_path), first
    assert first[:2] == second[:2] and straight["held"] == whole["held"]//2
    assert died and resumed == straight
    for name in ("loss", "score"): assert straight[name] == pytest.approx(whole[name], abs=1e-6)
