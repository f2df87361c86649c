"Ray does the steps of a match: the same bytes as one process, also when a worker is killed on the way."
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pandas as pd
import pytest

from matchbook.bulk import lay_out
from matchbook.bundles import write_bundle
from matchbook.datasets import InputError
from matchbook.products.listings import read_listings, read_pair_parts
from matchbook.products.pair_mlp import BoostedTrees

program = """import sys
import matchbook.match as m, matchbook.products.untrained as u
from matchbook.cli import main
small = u.RecipeConfig(block=150)
m.hold_folder.__wrapped__.__defaults__ = (small, *m.hold_folder.__wrapped__.__defaults__[1:])
m.match_catalogue.__defaults__ = (*m.match_catalogue.__defaults__[:-2], small, None)
if "slow" in sys.argv:                       # so that there is time to kill a worker
    import time, matchbook.bulk as b
    class SlowActor(b.StepActor):
        def __call__(self, batch): time.sleep(.3); return super().__call__(batch)
    b.StepActor = SlowActor
main(["match", "c.csv", "--out", sys.argv[1], *sys.argv[2].split()])"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("bulk")
    titles = np.tile(read_listings("shopee-sample")[0].title, 3)
    table = pd.DataFrame({"title": [f"{title} {n//7}" for n, title in enumerate(titles)]})
    table.to_csv(folder/"c.csv", index=False)
    start(folder, "here", "--engine here").communicate()
    return folder


def start(folder, out, words, *more):
    return subprocess.Popen([sys.executable, "-c", program, out, words, *more], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_DISABLE_DOCKER_CPU_WARNING": "1"})


def same(folder, one, other):
    return all((folder/one/name).read_bytes() == (folder/other/name).read_bytes()
               for name in ("groups.csv", "pairs.csv", "matches.json", "report.html", "review.html"))


def find_workers():
    "Processes of Ray's that are at a step."
    found = []
    for path in os.listdir("/proc"):
        if not path.isdigit(): continue
        try: words = open(f"/proc/{path}/cmdline").read()
        except OSError: continue
        if words.startswith("ray::MapWorker(MapBatches(SlowActor))."): found.append(int(path))
    return found


def test_two_workers_give_the_same_bytes(place):
    ray = start(place, "two", "--engine ray --workers 2")
    out, err = ray.communicate(timeout=300)
    assert ray.returncode == 0 and "by Ray" in err, err
    assert same(place, "here", "two")
    assert not list((place/"two").glob(".steps-*"))


def test_workers_hold_a_model_and_judge_the_same(place, tmp_path):
    pd.read_csv(place/"c.csv").head(400).to_csv(tmp_path/"c.csv", index=False)
    parts, _ = read_pair_parts("pairs-sample")
    write_bundle(BoostedTrees(BoostedTrees.quick).fit(parts.train, parts.valid), tmp_path/"trees")
    out, err = start(tmp_path, "here", "--model trees").communicate(timeout=300)
    assert "step vectors-" in err and "step judged-" in err, err
    ray = start(tmp_path, "two", "--model trees --engine ray --workers 2")
    out, err = ray.communicate(timeout=300)
    assert ray.returncode == 0 and "steps from judged-" in err, err
    assert same(tmp_path, "here", "two")


def test_parts_of_a_catalogue_are_matched_by_two_workers(place):
    table = pd.read_csv(place/"c.csv")
    table.assign(shelf=np.arange(len(table)) % 7).to_csv(place/"c.csv", index=False)
    _, err = start(place, "alone", "--within shelf").communicate(timeout=300)
    assert "step part-1" in err, err
    ray = start(place, "parts", "--within shelf --engine ray --workers 2")
    out, err = ray.communicate(timeout=300)
    table.to_csv(place/"c.csv", index=False)
    assert ray.returncode == 0 and "steps from part-0 on, by Ray" in err, err
    assert same(place, "alone", "parts")


def test_what_several_steps_are_about_is_laid_down_once():
    shared, blocks, laid = np.ones(3), [np.zeros(1), np.zeros(2)], []
    put = lambda value: laid.append(value) or f"reference {len(laid)}"
    jobs = lay_out([(f"s{n}", partial(max, shared, one, n, None)) for n, one in enumerate(blocks)], put)
    assert [name for name, *_ in jobs] == ["s0", "s1"] and jobs[0][1] is max
    assert [about for *_, about in jobs] == [["reference 1", "reference 2", 0, None],
                                             ["reference 1", "reference 3", 1, None]]
    assert len(laid) == 3 and laid[0] is shared
    named = partial(sorted, shared, reverse=True)
    assert lay_out([("s", named), ("t", max)], put) == [("s", named, []), ("t", max, [])]   # nothing is lost


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="finds processes in /proc")
def test_a_worker_that_is_killed_costs_a_retry(place):
    ray = start(place, "killed", "--engine ray --workers 2", "slow")
    begun, killed = time.monotonic(), []
    while not killed and time.monotonic() - begun < 200 and ray.poll() is None:
        if list((place/"killed").glob(".steps-*/chars-*")) and (some := find_workers()):
            os.kill(some[0], signal.SIGKILL)
            killed = some[:1]
        time.sleep(.05)
    out, err = ray.communicate(timeout=300)
    assert killed and ray.returncode == 0, err
    assert same(place, "here", "killed")


def test_a_step_that_fails_is_told_and_the_others_are_kept(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_DISABLE_DOCKER_CPU_WARNING", "1")
    from matchbook.bulk import start_ray
    engine, ones = start_ray(1), {"x": np.ones(2)}
    def refuse(): raise InputError("row 3: a number was wanted")
    def full(): raise OSError(28, "No space left on device")
    def broken(): return {}["x"]
    def lost(): os.kill(os.getpid(), signal.SIGKILL)
    try:
        for last, told in ((refuse, "row 3: a number was wanted"), (full, "step b: OSError.*No space left"),
                           (broken, "step b: KeyError\\('x'\\)"),
                           (lost, "step b: 5 workers were lost at it")):
            with pytest.raises(InputError, match=told):
                list(engine(tmp_path)([("a", lambda: ones), ("b", last)]))
        work = engine(tmp_path)
        assert [list(found["x"]) for found in work([("a", broken), ("b", lambda: ones)])] == [[1, 1]]*2
        assert (work.read, work.made) == (1, 1)
    finally: ray.shutdown()
