"""Training against a plain loop, and against kills, interrupts and wrong input.

Most tests compare to the bit: a disturbed training must end with the very weights of one left in peace.
"""
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import matchbook.training as training
from matchbook.batches import Table
from matchbook.training import (History, TrainingConfig, choose_precision, find_best, find_half, scale_rate,
                                train)

settings.register_profile("no deadline", deadline=None)   # a busy machine is not a failure
settings.load_profile("no deadline")
config = TrainingConfig(epochs=3, device="cpu")


def points(n=22):
    chance = torch.Generator().manual_seed(5)
    return Table({"x": torch.randn(n, 3, generator=chance), "y": torch.randn(n, 1, generator=chance)})


def make_model(dropout=.5, norm=True):
    "Dropout draws by chance and batch norm keeps buffers: both are easy to lose on the way."
    with torch.random.fork_rng():
        torch.manual_seed(3)
        middle = nn.BatchNorm1d(8) if norm else nn.Tanh()
        return nn.Sequential(nn.Linear(3, 8), middle, nn.Dropout(dropout), nn.Linear(8, 1))


def batches(epoch): return points().batches(4, seed=0, epoch=epoch)   # 5 of 4 rows, 1 of 2 rows
def loss(model, batch): return nn.functional.mse_loss(model(batch["x"]), batch["y"]), len(batch)
def validate(model): return {"mse": loss(model, points())[0].item()}
def judged(**more):
    return {"validate": validate, "monitor": "mse", "higher_is_better": False, "config": config} | more
def weights(model): return {name: tensor.tolist() for name, tensor in model.state_dict().items()}
def rows(history): return [{name: row[name] for name in row if name != "seconds"} for row in history.rows]


def outcome(loss=loss, batches=batches, model=None, **more):
    model = model or make_model()
    history = train(model, batches, loss, **judged(**more))
    return weights(model), rows(history), history.best_epoch, history.stopped_early


# --- the plain loop -------------------------------------------------------------------------------

@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_training_is_the_plain_loop(schedule, accumulate):
    settings = {"schedule": schedule, "warmup": .25, "clip_norm": .1, "learning_rate": .01}
    one = replace(config, accumulate=accumulate, **settings)
    model, plain = make_model(dropout=0), make_model(dropout=0)
    history = train(model, batches, loss, config=one)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=.01, weight_decay=.01)
    losses, steps = [], 0
    for epoch in range(3):
        drawn, sums = list(batches(epoch)), [0, 0]
        for start in range(0, len(drawn), accumulate):
            group = drawn[start:start + accumulate]
            optimizer.zero_grad()
            for batch in group:
                mean, n = loss(plain, batch)
                (mean / len(group)).backward()
                sums = [sums[0] + mean.item() * n, sums[1] + n]
            done = (epoch + (start + len(group) / 2) / len(drawn)) / 3
            optimizer.param_groups[0]["lr"] = .01 * scale_rate(one, done)
            nn.utils.clip_grad_norm_(plain.parameters(), .1)
            optimizer.step()
            steps += 1
        losses.append(sums[0] / sums[1])
    assert weights(model) == weights(plain)
    assert [row["train_loss"] for row in history.rows] == pytest.approx(losses, rel=1e-6)
    assert history.rows[-1]["step"] == steps
    assert history.rows[-1]["learning_rate"] == optimizer.param_groups[0]["lr"]


def test_every_batch_weighs_what_the_loss_says():
    def unweighted(model, batch): return loss(model, batch)[0]
    frozen = replace(config, epochs=1, learning_rate=1e-12)
    model = make_model(dropout=0, norm=False)
    means = [loss(model, batch)[0].item() for batch in batches(0)]
    weighted = outcome(model=make_model(dropout=0, norm=False), config=frozen)[1][0]["train_loss"]
    assert weighted == pytest.approx((4 * sum(means[:5]) + 2 * means[5]) / 22)
    plain = outcome(unweighted, model=make_model(dropout=0, norm=False), config=frozen)[1][0]["train_loss"]
    assert plain == pytest.approx(sum(means) / 6)


@given(st.floats(0, 1), st.floats(0, .9), st.sampled_from(["constant", "linear", "cosine"]))
def test_rates_rise_then_fall(done, warmup, schedule):
    one = TrainingConfig(schedule=schedule, warmup=warmup)
    rate = scale_rate(one, done)
    assert -1e-9 <= rate <= 1 + 1e-9
    later = scale_rate(one, min(1, done + .01))
    if done + .01 < warmup: assert later > rate
    elif done >= warmup: assert later <= rate + 1e-9


# --- early stopping and the best weights ----------------------------------------------------------

def stop_by_looping(values, patience, higher):
    best = None
    for epoch, value in enumerate(values):
        if best is None or (value > values[best] if higher else value < values[best]):
            best = epoch
        if patience is not None and epoch - best >= patience: return best, epoch + 1
    return best, len(values)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=7), st.none() | st.integers(1, 3), st.booleans())
def test_stopping_and_best_against_a_loop(values, patience, higher):
    model, seen = nn.Linear(3, 1), []
    def judge(model):
        seen.append(weights(model))
        return {"value": values[len(seen) - 1]}
    one = replace(config, epochs=len(values), patience=patience)
    def whole(epoch): return [points()]
    history = train(model, whole, loss, judge, one, monitor="value", higher_is_better=higher)
    best, length = stop_by_looping(values, patience, higher)
    assert (history.best_epoch, len(history.rows)) == (best, length)
    assert history.stopped_early == (length < len(values))
    assert weights(model) == seen[best]
    assert find_best(values[:length], higher) == best


def test_best_is_a_copy_and_last_is_not_best():
    "The trap: `.cpu()` of a tensor on the CPU is that tensor, and the best weights go on changing."
    model, values = nn.Linear(3, 1), iter([5., 1., 1.])
    kept = {}
    end_epoch = training.Training.end_epoch
    def spy(self, metrics):
        row = end_epoch(self, metrics)
        kept[row["epoch"]] = {name: tensor.data_ptr() for name, tensor in self.best.items()}
        return row
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Training, "end_epoch", spy)
        train(model, batches, loss, lambda model: {"v": next(values)}, config, monitor="v")
    live = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert kept[0] == kept[2] and kept[0] and not live & set(kept[0].values())


def test_the_model_that_comes_back_is_the_one_that_was_best():
    model = make_model()
    history = train(model, batches, loss, **judged(config=replace(config, epochs=8), higher_is_better=True))
    assert history.best_epoch < 7
    assert validate(model)["mse"] == history.best["valid_mse"] == max(r["valid_mse"] for r in history.rows)
    fresh = make_model()
    train(fresh, batches, loss, config=config)
    assert not fresh.training and not any(module.training for module in fresh.modules())


def test_only_what_is_trained_is_kept():
    model = nn.Sequential(nn.Linear(3, 500).requires_grad_(False), nn.Linear(500, 1))
    assert set(training.learnt_tensors(model)) == {"1.weight", "1.bias"}
    before = model[0].weight.clone()
    train(model, batches, loss, config=config)
    assert torch.equal(model[0].weight, before)


def test_validation_is_in_eval_mode_without_gradients_and_changes_no_training():
    seen = []
    def judge(model):
        seen.append((model.training, torch.is_grad_enabled()))
        torch.rand(7)   # draws from the generator that dropout uses
        return {"mse": 0.}
    with_judge, without = make_model(), make_model()
    train(with_judge, batches, loss, judge, replace(config, epochs=1), monitor="mse")
    train(without, batches, loss, config=replace(config, epochs=1))
    assert seen == [(False, False)] and weights(with_judge) == weights(without)


# --- chance ---------------------------------------------------------------------------------------

def test_chance_is_local():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = outcome()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(100)
    assert outcome() == first
    assert outcome(seed=1)[0] != first[0]


def test_precision_may_change_and_the_callers_accelerator_stays():
    AcceleratorState._reset_state(True)
    mine = Accelerator(cpu=True, mixed_precision="no")
    plain = outcome()
    assert outcome(config=replace(config, precision="bf16"))[0] != plain[0]
    assert outcome() == plain
    assert mine.mixed_precision == "no" and mine.device.type == "cpu"
    model = make_model()
    train(model, batches, loss, config=replace(config, precision="bf16"))
    assert "forward" not in vars(model) and not hasattr(model, "_is_accelerate_prepared")   # it stays bare
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize(("able", "wanted"), [({}, "no"), ({"avx512_bf16": True}, "bf16"),
                                              ({"amx_bf16": True}, "bf16"), ({"avx512_bf16": False}, "no")])
def test_auto_takes_half_precision_only_where_the_processor_has_it(monkeypatch, able, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    settings = replace(config, precision="auto", device="cpu")
    assert choose_precision(settings) == wanted
    assert find_half(settings) == (torch.bfloat16 if wanted == "bf16" else None)
    assert choose_precision(replace(settings, precision="bf16")) == "bf16"       # asked for is done
    history = train(make_model(), batches, loss, config=replace(settings, epochs=1))
    assert history.precision == wanted
    assert History.from_dict(history.to_dict()) == history


def test_the_loss_may_call_any_method_and_may_itself_learn():
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
        def forward(self, model, batch): return (model.embed(batch["x"]) * self.scale).square().mean()
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 2)
        def embed(self, x): return self.inner(x)
    learning = Loss()
    train(Model(), batches, learning, config=config)
    assert learning.scale.item() != 1


# --- kills and interrupts -------------------------------------------------------------------------

SCRIPT = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_training import *
calls, die = [0], int(sys.argv[3])
def dying(model, batch):
    calls[0] += 1
    if calls[0] == die: os.kill(os.getpid(), signal.SIGKILL)
    return loss(model, batch)
often = replace(config, accumulate=4, checkpoint_seconds=0, patience=2)
print(json.dumps(outcome(dying, folder=sys.argv[2], config=often)))
"""


def test_killed_in_the_middle_of_an_epoch(tmp_path):
    "SIGKILL at the 9th batch, in epoch 1 and three batches into a group of four; once more; then to the end."
    def run(die):
        command = [sys.executable, "-c", SCRIPT, os.path.dirname(__file__), tmp_path / "run", str(die)]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=one_thread)
    assert run(9).returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "run").iterdir()
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}   # no pickle
    assert json.loads((folder / "record.json").read_text())["at"]["epoch"] == 1
    assert run(5).returncode == -signal.SIGKILL
    last = run(0)
    assert last.returncode == 0, last.stderr
    torch.set_num_threads(1)
    wanted = outcome(config=replace(config, accumulate=4, checkpoint_seconds=0, patience=2))
    assert json.loads(last.stdout) == json.loads(json.dumps(wanted))
    assert not list((tmp_path / "run").iterdir())      # done: the checkpoint is gone


def raising(error, at):
    calls = iter(range(1000))
    def failing(model, batch):
        result = loss(model, batch)   # this has moved the averages of batch norm and drawn a dropout
        if next(calls) == at: raise error
        return result
    return failing


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_stopped_at_any_batch_ends_the_same(tmp_path, accumulate, error):
    one = replace(config, epochs=2, accumulate=accumulate, schedule="linear", warmup=.1)
    wanted = outcome(config=one)
    often = replace(one, checkpoint_seconds=1e9 if error is KeyboardInterrupt else 0)
    for at in range(12):
        folder = tmp_path / f"{at}"
        with pytest.raises(error): outcome(raising(error, at), folder=folder, config=often)
        if error is KeyboardInterrupt: assert len(list(folder.glob("checkpoint-*"))) == 1
        assert outcome(folder=folder, config=often) == wanted


def test_a_checkpoint_after_so_many_steps(tmp_path):
    "Killed at its 10th batch, a training goes on from step 6; how often it writes changes no number."
    one = replace(config, epochs=2, checkpoint_seconds=1e9, checkpoint_steps=3)
    with pytest.raises(RuntimeError): outcome(raising(RuntimeError, 7), folder=tmp_path, config=one)
    (folder,) = tmp_path.glob("checkpoint-*")
    assert json.loads((folder/"record.json").read_text())["at"]["step"] == 6
    assert outcome(folder=tmp_path, config=replace(one, checkpoint_steps=0)) == outcome(
        config=replace(config, epochs=2))


def test_interrupted_while_the_optimizer_writes(tmp_path):
    "A real SIGINT between two weights of one step: the step is finished, then saved."
    class Interrupted(torch.optim.SGD):
        at = None
        def step(self, closure=None):
            with torch.no_grad():
                for i, weight in enumerate(self.param_groups[0]["params"]):
                    if self.at == 0 and i == 1: signal.raise_signal(signal.SIGINT)
                    weight -= self.param_groups[0]["lr"] * weight.grad
            if self.at is not None: self.at -= 1

    def run(at, folder):
        model = make_model()
        optimizer = Interrupted(model.parameters(), lr=.1)
        optimizer.at = at
        return outcome(model=model, folder=folder, optimizer=optimizer)

    wanted, handler = run(None, None), signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)   # a test run in the background may ignore SIGINT
    try:
        with pytest.raises(KeyboardInterrupt): run(7, tmp_path)
        assert signal.getsignal(signal.SIGINT) is handler
    finally: signal.signal(signal.SIGINT, before)
    assert json.loads((next(tmp_path.glob("checkpoint-*")) / "record.json").read_text())["at"]["step"] == 8
    assert run(None, tmp_path) == wanted


def test_interrupted_in_validation(tmp_path):
    def interrupted(model): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): outcome(validate=interrupted, folder=tmp_path)
    assert outcome(folder=tmp_path) == outcome()


def test_a_shuffling_loader_goes_on_too(tmp_path):
    table = [(x, y) for x, y in zip(points()["x"], points()["y"])]
    def loader(epoch): return torch.utils.data.DataLoader(table, batch_size=4, shuffle=True)
    def pair_loss(model, batch): return nn.functional.mse_loss(model(batch[0]), batch[1])
    def run(loss=pair_loss, **more): return outcome(loss, loader, **more)
    calls = iter(range(100))
    def dying(model, batch):
        if next(calls) == 9: raise KeyboardInterrupt
        return pair_loss(model, batch)
    with pytest.raises(KeyboardInterrupt): run(dying, folder=tmp_path)
    assert run(folder=tmp_path) == run()


def test_batches_that_draw_by_chance_go_on_too(tmp_path):
    def noisy(epoch): return ({"x": b["x"] + torch.randn(len(b), 3), "y": b["y"]} for b in batches(epoch))
    with pytest.raises(KeyboardInterrupt): outcome(raising(KeyboardInterrupt, 9), noisy, folder=tmp_path)
    assert outcome(batches=noisy, folder=tmp_path) == outcome(batches=noisy)


def test_the_best_before_a_stop_is_the_best_after_it(tmp_path):
    wanted = outcome(higher_is_better=True)
    assert wanted[2] == 0   # the first epoch is the best, and we stop in the last
    with pytest.raises(KeyboardInterrupt):
        outcome(raising(KeyboardInterrupt, 14), folder=tmp_path, higher_is_better=True)
    assert outcome(folder=tmp_path, higher_is_better=True) == wanted


def test_a_half_written_checkpoint_is_ignored_and_cleared(tmp_path):
    with pytest.raises(KeyboardInterrupt): outcome(raising(KeyboardInterrupt, 8), folder=tmp_path)
    (tmp_path / ".checkpoint-99.1234.part").mkdir()
    (tmp_path / ".checkpoint-99.1234.part" / "record.json").write_text("{")
    (tmp_path / "notes.txt").write_text("mine")
    assert outcome(folder=tmp_path) == outcome()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failing_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch, caplog):
    with pytest.raises(KeyboardInterrupt): outcome(raising(KeyboardInterrupt, 8), folder=tmp_path)
    before = {path.name: path.read_bytes() for path in next(tmp_path.glob("checkpoint-*")).iterdir()}
    def full(*args): raise OSError("no space left on device")
    monkeypatch.setattr(training, "save_file", full)
    with pytest.raises(KeyboardInterrupt):
        outcome(raising(KeyboardInterrupt, 2), folder=tmp_path, config=replace(config, checkpoint_seconds=0))
    assert "an earlier one stays" in caplog.text
    (folder,) = tmp_path.iterdir()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.undo()
    assert outcome(folder=tmp_path) == outcome()


@pytest.mark.parametrize("change, says", [
    ({"config": replace(config, learning_rate=.5)}, "learning_rate = 0.001, now it is 0.5"),
    ({"config": replace(config, epochs=9)}, "epochs = 3, now it is 9"),
    ({"seed": 4}, "seed = 0, now it is 4"),
    ({"higher_is_better": True}, "higher_is_better = False, now it is True"),
    ({"model": nn.Linear(3, 1)}, "model"),
    ({"batches": lambda epoch: list(batches(epoch))[:2]}, "epoch 1 has 2 batches, its checkpoint has 3"),
])
def test_the_checkpoint_of_another_training_is_refused(tmp_path, change, says):
    with pytest.raises(KeyboardInterrupt): outcome(raising(KeyboardInterrupt, 9), folder=tmp_path)
    with pytest.raises(ValueError, match=says) as error: outcome(folder=tmp_path, **change)
    assert "\n" not in str(error.value)
    assert outcome(folder=tmp_path, config=replace(config, checkpoint_seconds=1)) == outcome()   # may differ


# --- wrong input ----------------------------------------------------------------------------------

def test_a_loss_that_is_no_number_stops_before_the_step():
    model, calls = make_model(norm=False), iter(range(100))
    def breaking(model, batch): return loss(model, batch)[0] * (float("inf") if next(calls) == 8 else 1)
    with pytest.raises(FloatingPointError, match="loss is inf in epoch 1, step 8"):
        train(model, batches, breaking, **judged())
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


@pytest.mark.parametrize("wrong, says", [
    ({"batches": lambda epoch: []}, r"batches\(0\) gave no batches"),
    ({"monitor": "f1"}, "validate gave no 'f1' to monitor, only mse"),
    ({"validate": lambda model: None}, "gave no 'mse' to monitor, only nothing"),
    ({"validate": None, "config": replace(config, patience=2)}, "patience = 2 needs validate"),
    ({"loss": lambda model, batch: model(batch["x"])}, "wanted one number"),
    ({"model": nn.Linear(3, 1).requires_grad_(False)}, "no weights to train"),
    ({"config": replace(config, device="tpu")}, "device 'tpu': there is none here"),
    ({"config": replace(config, precision="fp16")}, "needs a GPU"),
    ({"batches": lambda epoch: iter(batches(epoch)), "config": replace(config, warmup=.1)}, "has no length"),
])
def test_wrong_input_says_what_is_wrong(wrong, says):
    with pytest.raises(ValueError, match=says) as error: outcome(**wrong)
    assert "\n" not in str(error.value)


def test_a_measure_that_is_no_number_stops():
    with pytest.raises(FloatingPointError, match="mse is nan after epoch 0"):
        outcome(validate=lambda model: {"mse": float("nan")})


@pytest.mark.parametrize("name, value", [
    ("epochs", 0), ("learning_rate", 0), ("schedule", "step"), ("warmup", 1), ("clip_norm", 0),
    ("accumulate", 0), ("precision", "fp8"), ("patience", 0), ("checkpoint_seconds", -1),
    ("checkpoint_steps", -1)])
def test_settings_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=name): TrainingConfig(**{name: value})


# --- history, progress, several processes ---------------------------------------------------------

def test_history_to_json_and_back():
    history = train(make_model(), batches, loss, **judged())
    assert History.from_dict(json.loads(json.dumps(history.to_dict()))) == history
    assert list(history.rows[0]) == ["epoch", "step", "train_loss", "learning_rate", "seconds", "valid_mse"]
    with pytest.raises(AttributeError): history.best_epoch = 0


def test_nothing_is_printed_and_one_line_an_epoch_is_logged(capfd, caplog):
    with caplog.at_level(logging.INFO, logger="matchbook"): outcome()
    lines = [record.getMessage().split(",")[0] for record in caplog.records]
    assert lines == ["epoch 0", "epoch 1", "epoch 2"]
    assert capfd.readouterr() == ("", "")


def test_a_bar_goes_to_stderr_only(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = outcome()
    out, err = capsys.readouterr()
    assert out == "" and "epoch" in err
    assert outcome(progress=False) == shown and capsys.readouterr() == ("", "")


def make_normed():
    "No bias before the norm, which takes it away: its gradient would be all rounding."
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 1))


LAUNCHED = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from test_training import *
from matchbook.training import share_rows
folder = sys.argv[2]
def loss(model, batch):
    return nn.functional.mse_loss(share_rows(model, batch["x"]), batch["y"]), len(batch)
one = make_normed()
history = train(one, batches, loss, **judged(config=replace(config, accumulate=2)))
calls, draws = iter(range(1000)), []
class Drawing(nn.Module):
    def forward(self, x):
        draws.append(torch.rand(()).item())
        return x
def dying(model, batch):
    if next(calls) == 4: raise RuntimeError("power cut")
    return loss(model, batch)
def make_drawing(): return nn.Sequential(make_model(norm=False), Drawing())
whole = outcome(loss, model=make_drawing())
often = {"folder": folder + "/b", "config": replace(config, checkpoint_seconds=0)}
try: outcome(dying, model=make_drawing(), **often)
except RuntimeError: pass
resumed = outcome(loss, model=make_drawing(), **often)
result = {"weights": weights(one), "rows": rows(history), "all": whole, "same": resumed == whole}
result["draws"] = draws
with open(f"{folder}/rank{os.environ['RANK']}.json", "w") as file: json.dump(result, file)
"""


def test_two_processes_are_one(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    (tmp_path / "launched.py").write_text(LAUNCHED)
    command += [tmp_path / "launched.py", os.path.dirname(__file__), tmp_path]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, text=True, capture_output=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    trained = slice(6)   # judged is every process alike
    assert not set(first["draws"][trained]) & set(second["draws"][trained])   # dropout is each one's own
    for one in (first, second): one.pop("draws")
    assert first == second and first["same"]                        # but all end alike, also after a kill
    alone = make_normed()
    history = train(alone, batches, loss, **judged(config=replace(config, accumulate=2)))
    for name, tensor in alone.state_dict().items():
        assert torch.allclose(torch.tensor(first["weights"][name]), tensor, atol=1e-6), name
    for ours, theirs in zip(rows(history), first["rows"]): assert ours == pytest.approx(theirs, rel=1e-5)
