"The study of headlines: its rows, its settings, the ensemble, runs that go on, and scores for a file."
import glob
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_fine_tuning import make_base, make_posts, tiny

from matchbook.clickbait.fine_tuning import FineTuned
from matchbook.bundles import open_model
from matchbook.clickbait.headline_study import (EnsembleConfig, EnsembleHeadlines, draw_thresholds,
                                                mix_strengths, open_headline_model,
                                                rows, study, take_few, time_padding,
                                                worst_posts)
from matchbook.clickbait.headlines import LinearHeadlines, MajorityHeadlines, read_headline_parts
from matchbook.cli import main
from matchbook.datasets import InputError, locate
from matchbook.runs import make_run, open_study

sample = "headlines-sample"


@pytest.fixture(scope="module")
def parts(): return read_headline_parts(sample)[0]


@pytest.fixture(scope="module")
def base(tmp_path_factory): return make_base(tmp_path_factory.mktemp("base"), "bert")


def call(capsys, *words):
    with pytest.raises(SystemExit) as stop: main([str(word) for word in words])
    return stop.value.code, *capsys.readouterr()


# Rows

def test_the_study_is_found_and_has_these_rows():
    assert open_study("headlines") is study and list(study.models) == [*rows] == [
        "majority", "tfidf-linear", "frozen-encoder", "bert", "lora", "adapters", "dora", "qlora", "ensemble"]


def test_every_row_opens_at_every_preset_it_has():
    for name, (kind, presets) in rows.items():
        assert {"best", "quick"} <= set(presets)
        for preset in presets: assert type(open_headline_model(name, preset, {}, 3)) is kind


def test_a_row_without_its_extra_is_left_out(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *more: None if name == "peft" else real(name, *more))
    assert study.lacks("lora") == "peft" and not study.lacks("bert")


@pytest.mark.parametrize("model,settings,message", [
    ("lora", {"rang": 4}, "did you mean 'rank'"), ("lora", {"rank": "four"}, "rank='four'"),
    ("bert", {"training.epochs": 0}, "epochs"), ("bert", {"training.epoch": 2}, "did you mean 'epochs'"),
    ("tfidf-linear", {"features": "image"}, "no kind of features"),
    ("ensemble", {"copies": 0}, "copies = 0")])
def test_settings_that_are_not_in_order_are_refused(model, settings, message):
    with pytest.raises(InputError, match=message): open_headline_model(model, "quick", settings)


@pytest.mark.parametrize("settings,message", [
    ({"split": "tim"}, "did you mean 'time'"), ({"posts": 0}, "from 1 to"),
    ({"data.tran": "."}, "did you mean 'train'"), ({"data.train": "."}, "both folders")])
def test_settings_of_how_posts_are_read_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        make_run(study, sample, "majority", "quick", settings=settings)


def test_a_preset_a_row_has_not_is_refused():
    with pytest.raises(InputError, match="only bert, lora, qlora"):
        open_headline_model("ensemble", "as_published")


# One run

@pytest.fixture(scope="module")
def run(base):
    return make_run(study, sample, "bert", "quick", settings={"base": base, "training.precision": "no"})


def test_a_run_is_whole_and_the_same_each_time(run, base):
    assert {"mse", "f1", "f1_at_half", "f1_strength", "brier", "ece", "roc_auc"} <= set(
        run["metrics"]["test"])
    low, high = run["intervals"]["test"]["mse"]
    assert low < run["metrics"]["test"]["mse"] < high
    again = make_run(study, sample, "bert", "quick", settings={"base": base, "training.precision": "no"})
    assert again["metrics"] == run["metrics"] and again["threshold"] == run["threshold"]


def test_fewer_posts_lie_in_more(parts):
    few, more = take_few(parts, 50), take_few(parts, 90)
    assert len(few.train) == 50 and set(few.train.id) < set(more.train.id)
    assert few.valid is parts.valid and few.test is parts.test


def test_thresholds_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    chance, label = rng.random(80), rng.integers(0, 2, 80)
    found = draw_thresholds(chance, label)
    for cut, f1 in zip(found["threshold"], found["f1"]):
        hits = sum(c >= cut and one for c, one in zip(chance, label))
        assert f1 == pytest.approx(2*hits/max(1, sum(chance >= cut) + label.sum()), abs=1e-4)


def test_the_surest_errors_come_first(parts):
    model = LinearHeadlines(LinearHeadlines.quick).fit(parts.train, parts.valid)
    strength = model.score(parts.test)
    found = worst_posts(model, parts.test, strength, 2)
    away = np.abs(strength - parts.test.mean)
    assert max(abs(one["said"] - one["judged"]) for one in found) == pytest.approx(away.max(), abs=2e-3)
    assert found[0]["said"] < found[0]["judged"] and found[-1]["said"] > found[-1]["judged"]


def test_padding_is_timed_and_settings_are_put_back(base, parts):
    model = FineTuned(tiny(base), 0).fit(make_posts(160, 0), make_posts(60, 1))
    before, config = model.score(parts.test), model.config
    found = time_padding(model, parts.test)
    assert set(found) == {"bucket", "full"} and min(found.values()) > 0
    assert model.config is config and (model.score(parts.test) == before).all()


# The ensemble

def test_weights_are_the_best_of_a_grid():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mean = rng.random(60)
        members = np.stack([mean + rng.normal(size=60)*s for s in (.1, .2, .4)])
        weights = mix_strengths(members, mean)
        grid = [(a, b, 1 - a - b) for a in np.linspace(0, 1, 51) for b in np.linspace(0, 1, 51) if a + b <= 1]
        best = min(((np.array(one) @ members - mean)**2).mean() for one in grid)
        assert weights.min() >= 0 and weights.sum() == pytest.approx(1)
        assert ((weights @ members - mean)**2).mean() <= best + 1e-9


@pytest.fixture(scope="module")
def ensemble(base):
    quick = EnsembleHeadlines.quick
    frozen = replace(quick.linear, clean=True)
    return EnsembleHeadlines(EnsembleConfig(tiny(base), 2, quick.linear, frozen), 0).fit(
        make_posts(160, 0), make_posts(60, 1))


def test_an_ensemble_is_what_its_members_say(ensemble, tmp_path):
    test = make_posts(40, 2)
    said = np.stack([member.score(test) for member in ensemble.members_])
    np.testing.assert_allclose(ensemble.score(test), ensemble.weights_ @ said, atol=1e-6)
    tuned = ensemble.members_[2:]
    assert abs(tuned[0].score(test) - tuned[1].score(test)).max() > 1e-4          # seeds of their own
    again = open_model(ensemble.save(tmp_path))
    for a, b in zip(again.judge(test), ensemble.judge(test)): np.testing.assert_array_equal(a, b)


# The command

def test_the_command_learns_keeps_and_scores(capsys, tmp_path):
    folder = locate(sample)
    code, _, err = call(capsys, "run", "headlines", "--dataset", "webis17", "--train", folder/"train",
                        "--test", folder/"test", "--model", "tfidf-linear", "--preset", "quick",
                        "--out", tmp_path/"results", "--save", tmp_path/"model")
    assert code == 0, err
    recorded = json.loads(next((tmp_path/"results").rglob("tfidf-linear-quick+data=*.json")).read_text())
    assert recorded["data"]["counts"]["test"] == 200 and recorded["config"]["split"] == "official"
    code, out, _ = call(capsys, "score", tmp_path/"model", folder/"test"/"instances.jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    ids = [json.loads(line)["id"] for line in (folder/"test"/"instances.jsonl").read_text().splitlines()]
    assert code == 0 and [line["id"] for line in lines] == ids
    assert all(set(line) == {"id", "clickbaitScore"} and 0 <= line["clickbaitScore"] <= 1 for line in lines)
    truth = dict(zip(read_headline_parts(sample)[0].test.id, read_headline_parts(sample)[0].test.mean))
    mse = np.mean([(line["clickbaitScore"] - truth[line["id"]])**2 for line in lines])
    assert mse == pytest.approx(recorded["metrics"]["test"]["mse"], abs=1e-5)
    code, out, _ = call(capsys, "score", tmp_path/"model", folder/"test", "--out", tmp_path/"scores.jsonl")
    assert (code, out) == (0, "") and len((tmp_path/"scores.jsonl").read_text().splitlines()) == 200


@pytest.mark.parametrize("make,message", [
    (lambda at: (at, at/"posts.jsonl"), "holds no model.json"),
    (lambda at: (write(at, '{"kind": "heco"}'), at/"posts.jsonl"), "which reads graphs; a model of"),
    (lambda at: (write(at, '{"no": 1}'), at/"posts.jsonl"), "names no kind"),
    (lambda at: (write(at, '{"kind": "majority-headlines"}'), at/"posts.jsonl"), "is damaged"),
    (lambda at: (keep(at), at/"nowhere.jsonl"), "no such file"),
    (lambda at: (keep(at), broken(at)), "line 2: not JSON")])
def test_a_file_or_a_model_that_is_not_in_order_is_one_line(capsys, tmp_path, make, message):
    code, out, err = call(capsys, "score", *make(tmp_path))
    assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1


def write(at, text):
    (at/"model.json").write_text(text)
    (at/"posts.jsonl").write_text('{"id": "1", "postText": ["a"]}')
    return at


def keep(at):
    part = read_headline_parts(sample)[0]
    return MajorityHeadlines().fit(part.train, part.valid).save(at)


def broken(at):
    (at/"posts.jsonl").write_text('{"id": "1", "postText": ["a"]}\n{"id": ')
    return at/"posts.jsonl"


def test_save_wants_one_model(capsys, tmp_path):
    code, _, err = call(capsys, "run", "headlines", "--dataset", sample, "--save", tmp_path)
    assert code == 2 and "--save keeps one model" in err


def kill_in_an_epoch(words, place):
    "Start a run, and kill it after five steps."
    code = f"from matchbook.cli import main; main({words!r})"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    def steps():
        found = glob.glob("**/checkpoint-*", root_dir=place, recursive=True)   # passes folders that go
        return max((int(Path(path).name.split("-")[1]) for path in found), default=0)
    for _ in range(6000):
        if steps() >= 5 or child.poll() is not None: break
        time.sleep(.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert 5 <= steps() < 17                                           # of the first epoch, not done


def spell_run(base, model, out):
    words = ["run", "headlines", "--dataset", sample, "--model", model, "--preset", "quick", "--out",
             str(out)]
    for setting in (f"base={base}", "training.precision=no", "training.epochs=2",
                    "training.checkpoint_seconds=0"):
        words += ["--set", setting]
    return words


def test_a_run_killed_in_an_epoch_and_started_again_has_the_same_metrics(base, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path/"at"))
    words = spell_run(base, "bert", tmp_path)
    kill_in_an_epoch(words, tmp_path/"at")
    assert not list(tmp_path.rglob("bert-*.json"))
    assert call(capsys, *words)[0] == 0
    resumed = json.loads(next(tmp_path.rglob("bert-*.json")).read_text())
    whole = make_run(study, sample, "bert", "quick", settings={
        "base": base, "training.precision": "no", "training.epochs": 2, "training.checkpoint_seconds": 0})
    assert resumed["metrics"] == whole["metrics"] and resumed["threshold"] == whole["threshold"]


def test_a_stopped_run_does_not_go_on_with_another_base(tmp_path, capsys, monkeypatch):
    pytest.importorskip("peft", reason="the extra lora is not installed")
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path/"at"))
    words = spell_run(make_base(tmp_path/"base", "bert"), "lora", tmp_path/"out")
    kill_in_an_epoch(words, tmp_path/"at")
    make_base(tmp_path/"base", "bert", seed=1)                         # other weights in the same place
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "") and "was made with base = " in err.splitlines()[-1], err
    assert call(capsys, *words, "--anew")[0] == 0


def test_folders_of_ones_own_leave_a_run_file_each(capsys, tmp_path):
    folder = locate(sample)
    for a, b in (("train", "test"), ("test", "train")):
        code, _, err = call(capsys, "run", "headlines", "--dataset", "webis17", "--model", "majority",
                            "--train", folder/a, "--test", folder/b, "--out", tmp_path)
        assert code == 0, err
    found = [json.loads(path.read_text()) for path in tmp_path.rglob("majority-best+data=*.json")]
    assert len({run["data"]["sha256"][:8] for run in found}) == 2
    assert all(run["preset"].endswith(run["data"]["sha256"][:8]) for run in found)
