"""Killed, stopped, crowded: what commands leave behind. A share of `matchbook run benchmarks --model crash`
and `--model places`, which do the same to every long command; their run files are in data/results."""
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from matchbook import cli, robustness, training
from matchbook.batches import whole_folder
from matchbook.bulk import start_ray
from matchbook.datasets import InputError, make_sample, refuse_changes, write_whole
from matchbook.robustness import Place, commands, find_torn, read_results, run_straight, try_command
from matchbook.runs import keep_places, read_runs

results = Path(__file__).parent.parent/"data"/"results"


def test_a_command_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path):
    straight = run_straight("tfidf-chars", tmp_path/"straight", tmp_path)
    again = try_command("tfidf-chars", straight, tmp_path/"try", tmp_path, 2, np.random.default_rng(0))
    assert straight[0] and again["same"] and not again["torn"] and not again["code"]
    assert all(not kill["torn"] for kill in again["kills"])


def test_half_of_the_kills_wait_for_something_to_go_on_from(tmp_path):
    "HeCo with late kills alone: each finds a checkpoint, and the next try goes on from it."
    straight = run_straight("heco", tmp_path/"straight", tmp_path)
    assert 0 < straight[2] < straight[1]
    class Late:
        "A generator whose every kill is late, and soon."
        def random(self): return 0.
        def uniform(self, low, high): return .05
    again = try_command("heco", straight, tmp_path/"try", tmp_path, 2, Late())
    assert again["same"] and all(kill["late"] and kill["checkpoint"] for kill in again["kills"])
    assert again["resumed"] and len(again["kills"]) == 2
    assert robustness.count_tries([again], {"heco": 1.})[0]["with_checkpoint"] == 2


@pytest.mark.parametrize("model,setting,said", [
    ("crash", "kills=abc", "kills = abc: a whole number from 1"), ("crash", "kills=0", "kills = 0: a whole"),
    ("crash", "kils=1", "no setting named 'kils'"), ("crash", "commands=heco", "commands = heco: a list"),
    ("crash", "commands=[]", "a command to kill was wanted"), ("fuzz", "cases=abc", "cases = abc: a whole"),
    ("match-ray", "workers=0", "workers = 0: a whole"), ("match-ray", "row=9", "no setting named 'row'")])
def test_a_setting_that_makes_no_sense_is_one_line(call, tmp_path, model, setting, said):
    code, _, err = call("run", "benchmarks", "--dataset", "shopee-sample", "--model", model, "--preset",
                        "quick", "--out", tmp_path, "--set", setting)
    assert code == 2 and said in err.strip().splitlines()[-1], err
    with pytest.raises(InputError, match="workers 0: one or more"): start_ray(0)


def test_half_a_run_file_and_another_figure_are_noticed(tmp_path):
    good = json.loads(next((results/"runs").rglob("*-quick-seed0.json")).read_text())
    path = write_whole(tmp_path/"runs"/"a"/"b"/"c.json", json.dumps(good))
    before = read_results(tmp_path)
    path.write_text(json.dumps(good | {"seconds": {}, "at": "another day", "peak_memory_mb": 0.}))
    assert read_results(tmp_path) == before
    path.write_text(json.dumps(good | {"metrics": {"test": {"f1": .123}}}))
    assert read_results(tmp_path) != before
    path.write_text(json.dumps(good)[:200])
    assert find_torn(tmp_path) == ["c.json"]
    with pytest.raises(InputError, match="not a run file"): read_results(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_wishes_to_end_are_answered_in_one_line(monkeypatch, capsys, tmp_path, number):
    def work(*_, **__): signal.raise_signal(number)
    monkeypatch.setattr("matchbook.runs.make_run", work)
    asked = signal.signal(signal.SIGINT, signal.default_int_handler)   # a job in the background has none
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "duplicates", "--model", "self-only", "--dataset", "shopee-sample", "--out",
                  str(tmp_path)])
    assert stop.value.code == 1 and signal.getsignal(number) is before
    signal.signal(signal.SIGINT, asked)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == "matchbook: stopped; what is done is kept, and the same command goes on from there"


def old(path):
    "As if it had been left hours ago."
    os.utime(path, (time.time() - 9000,)*2)
    return path


def test_what_killed_writers_left_is_swept_up(tmp_path, monkeypatch):
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path/"cache"))
    (tmp_path/".part-new").write_text("at work")
    old(write_whole(tmp_path/".part-old", "left"))
    write_whole(tmp_path/"a", "x")
    assert {path.name for path in tmp_path.iterdir()} == {"a", ".part-new"}
    (tmp_path/".model.123.part").mkdir()
    old(tmp_path/".model.123.part")
    with whole_folder(tmp_path/"model") as part: (part/"x").write_text("x")
    assert not (tmp_path/".model.123.part").exists()
    sample = make_sample("pairs-sample")
    draft = sample.parent/".ozon-sample-123"
    draft.mkdir()
    old(draft)
    make_sample("ozon-sample")
    assert not draft.exists()


def test_a_checkpoint_is_never_half_removed(tmp_path, monkeypatch):
    "A kill between two files of a removal: the folder has lost its name before."
    for number in (1, 2):
        with whole_folder(tmp_path/f"checkpoint-{number}") as part: (part/"record.json").write_text("{}")
    seen = []
    def die(path):
        seen.append(path)
        raise KeyboardInterrupt
    monkeypatch.setattr("matchbook.datasets.remove_path", die)
    with pytest.raises(KeyboardInterrupt): training.remove_checkpoints(tmp_path)
    assert len(training.list_checkpoints(tmp_path)) == 1 and seen
    monkeypatch.undo()
    training.remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_costs_the_checkpoint_and_not_the_training(tmp_path, monkeypatch, caplog):
    import torch
    def full(*_, **__): raise OSError(28, "No space left on device")
    def fit(folder):
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        config = training.TrainingConfig(epochs=2, checkpoint_seconds=0, device="cpu")
        training.train(model, lambda epoch: [torch.ones(4, 2)]*3,
                       lambda model, batch: (model(batch)**2).mean(), config=config, folder=folder)
        return model.weight
    straight = fit(None)
    monkeypatch.setattr(training, "save_file", full)
    assert torch.equal(fit(tmp_path/"work"), straight)
    assert "no checkpoint in" in caplog.text and "No space left" in caplog.text
    assert not list((tmp_path/"work").iterdir())


def test_begun_anew_beside_one_at_work_is_refused(tmp_path):
    with keep_places(tmp_path/"work"):
        (tmp_path/"work"/"training-0").mkdir()
        with pytest.raises(InputError, match="another process"), keep_places(tmp_path/"work", anew=True): pass
        assert (tmp_path/"work"/"training-0").exists()


def test_a_file_that_changes_is_refused_and_one_that_stays_is_not(tmp_path):
    path = write_whole(tmp_path/"a.csv", "a\n1\n")
    with refuse_changes(path): path.read_text()
    with pytest.raises(InputError, match="a.csv was changed while it was read"), refuse_changes(path):
        path.write_text("a\n1\n2\n")
    with pytest.raises(InputError, match="changed"), refuse_changes(tmp_path):
        (tmp_path/"b.csv").write_text("")


def test_reproduce_goes_on_where_it_was_stopped(monkeypatch, capsys, tmp_path):
    from matchbook import runs
    make, made = runs.make_run, []

    def count(*words, **more):
        if len(made) == dies: raise KeyboardInterrupt
        made.append(words[2])
        return make(*words, **more)
    monkeypatch.setattr(runs, "make_run", count)
    monkeypatch.setattr(cli, "planned_runs", lambda plan, *_: [
        ("shopee-sample", model, "quick", 0, {}) for model in ("self-only", "exact-title", "image-hash")])

    def reproduce(*more):
        with pytest.raises(SystemExit) as stop:
            cli.main(["reproduce", "--samples", "--study", "duplicates", "--out", str(tmp_path), "--json",
                      *more])
        return stop.value.code, capsys.readouterr()
    dies = 2
    assert reproduce()[0] == 1
    listed = json.loads((tmp_path/"unfinished.json").read_text())["runs"]
    assert [path == place for place, path in listed.items()] == [True, True, False]
    dies = None
    code, said = reproduce()
    last = next(place for place, path in listed.items() if path is None)
    assert f"missing: {last}\n" in said.err
    assert code == 0 and made == ["self-only", "exact-title", "image-hash"] and "is there already" in said.err
    assert len(json.loads(said.out)) == 3 and not (tmp_path/"unfinished.json").exists()
    reproduce()
    assert len(made) == 6                                  # a whole one is made again
    dies = 7
    reproduce()
    dies = None
    reproduce("--anew")
    assert len(made) == 10


def test_several_rows_of_a_study_go_on_where_they_were_stopped(monkeypatch, capsys, tmp_path):
    from matchbook import runs
    make, made, dies = runs.make_run, [], 2

    def count(*words, **more):
        if len(made) == dies: raise KeyboardInterrupt
        made.append(words[2])
        return make(*words, **more)
    monkeypatch.setattr(runs, "make_run", count)
    rows = ["self-only", "exact-title", "image-hash"]

    def run(*more, names=rows):
        models = [word for name in names for word in ("--model", name)]
        with pytest.raises(SystemExit) as stop:
            cli.main(["run", "duplicates", "--dataset", "shopee-sample", *models, "--out", str(tmp_path),
                      "--json", *more])
        return stop.value.code, capsys.readouterr()
    run()
    listed, = tmp_path.glob("unfinished-*.json")
    assert [path is None for path in json.loads(listed.read_text())["runs"].values()] == [False, False, True]
    dies = None
    assert run("--seed", "1")[0] == 0 and made[2:] == rows        # another command takes nothing over
    made.clear()
    code, said = run()
    assert code == 0 and made == ["image-hash"] and "missing: image-hash" in said.err
    assert [one["model"] for one in json.loads(said.out)] == rows
    assert not list(tmp_path.glob("unfinished*"))
    made.clear()
    run()
    assert made == rows                                           # a whole one is made again
    made.clear()
    dies = 1
    run()
    dies = None
    run("--anew")
    assert made == [rows[0], *rows]
    run(names=rows[:1])
    assert not list(tmp_path.glob("unfinished*"))                 # of one run nothing can be missing


def test_what_a_job_will_take_is_weighed_before_it_begins(monkeypatch, tmp_path):
    import torch
    from matchbook import datasets, match, neighbours
    from matchbook.products.untrained import RecipeConfig
    items = np.eye(8, dtype=np.float32)
    catalogue = match.Catalogue(np.arange(3), np.array(["a"*400, "b"*300, "c"*300], dtype=object))
    parts = match.Catalogue(catalogue.id, catalogue.text, part=np.array(["x", "y", "y"], dtype=object))
    assert match.expect_room(catalogue, RecipeConfig()) == (50_000, 30_000)
    assert match.expect_room(parts, RecipeConfig()) == (50*600, 4000)          # x is alone: nothing to do

    def hold():
        with match.hold_folder(tmp_path/"m", catalogue): pass

    def learn():
        training.train(torch.nn.Linear(100, 10), lambda epoch: [torch.ones(2, 100)],
                       lambda model, batch: model(batch).sum(), config=training.TrainingConfig(epochs=1))
    build = lambda: neighbours.build_index(items, "flat")
    write = lambda: neighbours.write_shards(items, tmp_path/"s", "m", "flat", 4)
    save = lambda: build().save(tmp_path/"i", "m")

    def check(job, wanted, told, place, name, say):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, lambda *_: say(wanted))
            job()
            patch.setattr(place, name, lambda *_: say(wanted - 1))
            with pytest.raises(InputError, match=told): job()
    for job, wanted, told in ((build, 256, "an index of 8 vectors takes"),
                              (hold, 50_000, "a match of 3 listings"),
                              (write, 384, "an index in files of 4 vectors takes"),
                              (learn, 12*1010, "training takes")):
        check(job, wanted, told, datasets, "free_memory", lambda free: free)
    for job, wanted, told in ((save, 512, "i: index files take 0 MB or more"),
                              (write, 256, "s: index files take"),
                              (hold, 30_000, "m: steps and results take")):
        check(job, wanted, told, datasets.shutil, "disk_usage", lambda free: SimpleNamespace(free=free))


def test_a_disk_without_room_is_told_before_the_work(monkeypatch, capsys, tmp_path):
    import errno
    from matchbook import datasets
    class Full:
        "A file on a full disk."
        def __enter__(self): return self
        def __exit__(self, *_): return
        def write(self, _): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(cli.tempfile, "NamedTemporaryFile", lambda **_: Full())
    with pytest.raises(InputError, match="No space left on device"): cli.check_writable(tmp_path/"out")
    monkeypatch.undo()
    monkeypatch.setattr(datasets, "free_memory", lambda: 10.)
    path = tmp_path/"a.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="a.csv takes .* GB of memory or more"): datasets.read_csv(path)


# --- what is recorded ---------------------------------------------------------------------------------

def recorded(model): return [run for run in read_runs(results, "benchmarks") if run["model"] == model]


def test_the_recorded_kills_lost_nothing():
    for run in recorded("crash"):
        assert {row["command"] for row in run["details"]["rows"]} <= commands.keys()
        for row in run["details"]["rows"]: assert row["same"] == row["ends"] and not row["torn"], row


def test_the_recorded_places_were_answered_well():
    for run in recorded("places"):
        known = {place.__doc__ for place in robustness.places}
        assert {row["what"] for row in run["details"]["rows"]} <= known
        for row in run["details"]["rows"]: assert row["good"] in (True, None), row


def test_a_place_hides_whose_machine_it_is(tmp_path):
    place = Place(tmp_path, tmp_path)
    (tmp_path/"said.txt").write_text(f"first\nmatchbook: cannot write {tmp_path}/out: full\n")
    assert place.last_words() == "matchbook: cannot write …/out: full"
