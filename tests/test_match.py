"A catalogue as its owner has it: what comes out, what is refused, what is kept; reviewed in a browser."
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from matchbook.bundles import open_bundle, open_model
from matchbook.datasets import InputError
from matchbook.match import find_by_model, group_listings, match_catalogue, open_catalogue
from matchbook.products.listings import Listings, read_listings
from matchbook.products.untrained import (RecipeConfig, ShippedThresholds, blend_scores, find_untrained,
                                          find_within, learn_terms, mirror, relate_scores,
                                          shipped_thresholds)
from matchbook.runs import read_run

rows = [("a", "Red mug 300ml"), ("b", "red mug 300 ml"), ("c", "Blue desk lamp"), ("d", "desk lamp, blue"),
        ("e", "chair")]


root = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch): monkeypatch.chdir(tmp_path)


def write(path, text, coding="utf-8"):
    path.write_bytes(text.encode(coding) if isinstance(text, str) else text)
    return path


def spell(separator=",", end="\n", quote='"'):
    lines = (f"{one}{separator}{quote}{text}{quote}" for one, text in rows)
    return end.join(["id" + separator + "title", *lines])


@pytest.mark.parametrize(("name", "data"), [
    ("c.csv", spell().encode()), ("c.csv", spell(";", "\r\n").encode("utf-8-sig")),
    ("c.csv", ("sep=;\n" + spell(";")).encode("utf-16")), ("c.tsv", spell("\t").encode()),
    ("c.csv.gz", gzip.compress(spell().encode())), ("c.csv", spell("|").encode("cp1252")),
    ("c.jsonl", "\n".join(json.dumps(dict(zip(("id", "title"), row))) for row in rows).encode())],
    ids=["csv", "semicolons", "excel", "tsv", "packed", "bars", "jsonl"])
def test_every_form_gives_the_same_groups(call, tmp_path, name, data):
    code, out, _ = call("match", write(tmp_path/name, data), "--out", tmp_path/"out", "--json")
    assert code == 0 and json.loads(out)["groups"] == 2
    groups = pd.read_csv(tmp_path/"out"/"groups.csv", dtype=str)
    assert groups["id"].tolist() == list("abcde") and groups["group"].tolist() == ["0", "0", "1", "1", "2"]
    assert {path.name for path in (tmp_path/"out").iterdir()} == {
        "groups.csv", "pairs.csv", "matches.json", "report.html", "review.html", ".lock"}


def test_parquet_and_standard_input_too(call, tmp_path, monkeypatch):
    pd.DataFrame(rows, columns=["id", "title"]).to_parquet(tmp_path/"c.parquet")
    assert call("match", tmp_path/"c.parquet", "--out", "one")[0] == 0
    class Stdin: buffer = __import__("io").BytesIO(spell().encode())
    monkeypatch.setattr(sys, "stdin", Stdin)
    assert call("match", "-", "--out", "two")[0] == 0
    assert (tmp_path/"one"/"pairs.csv").read_bytes() == (tmp_path/"two"/"pairs.csv").read_bytes()


@pytest.mark.parametrize(("name", "text", "words", "said"), [
    ("c.csv", "", (), "is empty"), ("c.csv", "id,title\n", (), "a header and no rows"),
    ("c.csv", "id,title\n1,\"a", (), "may be cut short"),
    ("c.csv", "id,id\n1,2\n", (), "two columns are named"),
    ("c.csv", "id,n\n1,2\n3,4\n", (), "no column holds words"),
    ("c.csv", "id,title\n1,a b\n2\n", (), "line 3"),
    ("c.csv", spell(), ("--text", "titel"), "did you mean 'title'?"),
    ("c.csv", spell(), ("--separator", "::"), "one character"),
    ("c.csv", spell(), ("--threshold", "3"), "at most 1"),
    ("c.csv", spell(), ("--precision", "95"), "between 0 and 1"),
    ("c.csv", spell(), ("--aim", "bold"), "bold"),
    ("c.csv", b"\xff\xfe\x00", (), "UTF-16"), ("c.csv", b"id,title\n1,a\0b\n", (), "NUL"),
    ("c.xlsx", "x", (), "was wanted"), ("c.zip", "x", (), "cannot read"),
    ("c.csv", spell(), ("--labels", "none.csv"), "no such file")])
def test_bad_files_and_words_end_in_one_line(call, tmp_path, name, text, words, said):
    code, out, err = call("match", write(tmp_path/name, text), "--out", tmp_path/"out", *words)
    lines = [line for line in err.splitlines() if line.startswith("matchbook: ")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert said in lines[0] and "Traceback" not in err
    assert not [path for path in (tmp_path/"out").glob("*") if path.name != ".lock"]


def test_a_folder_is_no_catalogue(call, tmp_path):
    code, _, err = call("match", tmp_path)
    assert code == 2 and "is a folder" in err


def test_equal_rows_are_one_group_and_empty_ones_none(call, tmp_path):
    write(tmp_path/"c.csv", "title\n" + "same mug\n"*3000)
    code, out, _ = call("match", tmp_path/"c.csv", "--out", "out", "--json")
    assert code == 0 and json.loads(out)["largest_group"] == 3000
    found = open_catalogue(write(tmp_path/"d.csv", 'title,b\nmug,1\n"",2\n"",3\n'))
    assert match_catalogue(found).group.tolist() == [0, 1, 2]


def test_a_huge_cell_is_cut_and_said(tmp_path, caplog):
    path = write(tmp_path/"c.csv", f"title\n{'mug '*2_500_000}\nlamp\n")
    assert len(open_catalogue(path).text[0]) == 10_000
    assert "1 texts are cut" in caplog.text


def test_labels_decide_and_the_loop_closes(call, tmp_path):
    write(tmp_path/"c.csv", spell())
    write(tmp_path/"labels.csv", "left,right,label\na,b,0\nd,e,1\n")
    assert call("match", "c.csv", "--labels", "labels.csv", "--out", "out")[0] == 0
    group = pd.read_csv(tmp_path/"out"/"groups.csv").set_index("id")["group"]
    assert group["a"] != group["b"] and group["d"] == group["e"]
    pairs = pd.read_csv(tmp_path/"out"/"pairs.csv").set_index(["left", "right"])
    assert pairs.loc[("d", "e"), "score"] == 1 and ("a", "b") not in pairs.index


def test_enough_labels_choose_the_threshold(tmp_path):
    listings, _ = read_listings("shopee-sample")
    table = pd.DataFrame({"id": listings.id, "title": listings.title})
    table.to_csv(tmp_path/"c.csv", index=False)
    catalogue = open_catalogue(tmp_path/"c.csv")
    pairs = match_catalogue(catalogue).pairs().head(400)
    labels = pairs[["left", "right"]].assign(
        label=(listings.group[pairs.left] == listings.group[pairs.right]).astype(int))
    few, many = (match_catalogue(catalogue, labels=some) for some in (labels.head(3), labels))
    assert few.chosen.startswith("shipped") and "labels of your own" in many.chosen
    best = max(np.unique(pairs.score), key=lambda at: 2*(labels.label[pairs.score >= at]).sum() /
               ((pairs.score >= at).sum() + labels.label.sum()))
    score = pairs.score.to_numpy()
    assert (score >= many.threshold).sum() == (score >= best).sum()


def test_a_bundle_takes_the_recipes_place(call, tmp_path):
    listings, _ = read_listings("shopee-sample")
    table = pd.DataFrame({"id": listings.id, "title": listings.title})
    table.to_csv(tmp_path/"c.csv", index=False)
    words = ("run", "duplicates", "--dataset", "shopee-sample", "--preset", "quick", "--out", "results")
    assert call(*words, "--model", "terms-two", "--save", "terms")[0] == 0
    code, out, err = call("match", "c.csv", "--model", "terms", "--out", "out", "--json")
    assert code == 0 and json.loads(out)["threshold_from"] == "of the model match-sets", err
    at = json.loads(out)["threshold"]
    found = open_model(tmp_path/"terms").find(listings)
    pairs = pd.read_csv(tmp_path/"out"/"pairs.csv")
    row = {one: number for number, one in enumerate(listings.id)}
    for one in pairs.head(200).itertuples():
        assert found[row[one.left], row[one.right]] == pytest.approx(one.score, abs=1e-4)
        assert one.match == (one.score >= at)
    assert call("match", "c.csv", "--model", "terms", "--precision", ".9", "--out", "out")[0] == 2
    assert call("match", "c.csv", "--model", "nowhere", "--out", "out")[0] == 2
    code, out, _ = call("search", "c.csv", *listings.title[:2], "--model", "terms", "--k", 3, "--json")
    cosines = sum(one.embed(listings.title[:2]) @ one.embed(listings.title).T
                  for one in open_model(tmp_path/"terms").encoders_.values()).toarray()/2
    best = [row for some in np.argsort(-cosines, axis=1, kind="stable") for row in some[:3]]
    assert code == 0 and [one["id"] for one in json.loads(out)] == listings.id[best].tolist()
    assert call("search", "c.csv", "shoes", "--model", "nowhere")[0] == 2


def test_parquet_goes_in_and_comes_out(call, tmp_path):
    pd.DataFrame(rows, columns=["id", "title"]).to_parquet(tmp_path/"c.parquet")
    assert call("match", "c.parquet", "--out", "out", "--format", "parquet")[0] == 0
    assert call("match", "c.parquet", "--out", "plain")[0] == 0
    for name in ("groups", "pairs"):
        tables = pd.read_parquet(f"out/{name}.parquet"), pd.read_csv(f"plain/{name}.csv")
        pd.testing.assert_frame_equal(*tables, check_dtype=False, rtol=1e-4)
    code, _, err = call("match", "c.parquet", "--out", "other", "--format", "xlsx")
    assert code == 2 and "no form of tables named 'xlsx'" in err and not (tmp_path/"other").exists()


def test_two_files_are_linked_across_alone(call, tmp_path):
    write(tmp_path/"a.csv", spell())
    write(tmp_path/"b.csv", "sku,name\nx,red mug 300ml\ny,sofa\n")
    code, _, err = call("match", "a.csv", "b.csv", "--out", "out", "--threshold", ".3")
    assert code == 0 and "second file: text from name" in err
    pairs = pd.read_csv(tmp_path/"out"/"pairs.csv")
    assert set(pairs["right"]) == {"x"} and set(pairs["left"]) == {"a", "b"}
    assert pd.read_csv(tmp_path/"out"/"groups.csv")["file"].tolist() == [1]*5 + [2]*2


def test_search_finds_the_nearest_first(call, tmp_path):
    code, out, _ = call("search", write(tmp_path/"c.csv", spell()), "blue lamp", "--k", 2, "--json")
    assert code == 0 and [one["id"] for one in json.loads(out)] == ["c", "d"]
    assert call("search", tmp_path/"c.csv")[0] == 2


def test_the_fast_way_agrees_with_the_plain_one():
    rng = np.random.default_rng(0)
    for _ in range(60):
        n = int(rng.integers(2, 9))
        first, second = np.triu_indices(n, 1)
        kept = rng.random(len(first)) < .6
        score = rng.random(kept.sum()).astype(np.float32)
        found = mirror(score, first[kept], second[kept], n)
        s = found.toarray().astype(float)
        best = [max((s[i, j] for j in range(n) if j != i and s[i, j] > 0), default=1e-9) for i in range(n)]
        r = np.array([[1 if i == j else s[i, j]**2/max(best[i], best[j]) for j in range(n)]
                      for i in range(n)])
        assert np.allclose(relate_scores(found).toarray(), r, atol=1e-6)
        pull = np.where(r >= .25, r, 0)
        b = pull @ s @ pull.T
        length = np.sqrt(np.diag(b))
        mixed = np.where(s > 0, .25*s + .75*np.minimum(1, b/np.outer(length, length)), 0)
        np.fill_diagonal(mixed, 1)
        assert np.allclose(blend_scores(found, .25, .75, int(rng.integers(1, 5))).toarray(), mixed, atol=1e-5)


def test_blocks_and_threads_change_nothing():
    titles = read_listings("shopee-sample")[0].title
    whole = find_untrained(titles)
    for config, threads in ((RecipeConfig(block=97), 1), (RecipeConfig(), 2)):
        other = find_untrained(titles, config, threads=threads)
        assert (whole.indices == other.indices).all() and np.allclose(whole.data, other.data, atol=1e-6)


def test_no_wrong_pair_chains_two_groups_together():
    table = np.zeros((6, 6), np.float32)
    table[:3, :3] = table[3:, 3:] = .9
    table[2, 3] = table[3, 2] = .8
    np.fill_diagonal(table, 1)
    from scipy import sparse
    assert group_listings(sparse.csr_matrix(table), .5).tolist() == [0, 0, 0, 1, 1, 1]


def test_a_job_that_is_killed_goes_on_and_ends_the_same(tmp_path):
    titles = np.tile(read_listings("shopee-sample")[0].title, 3)
    table = pd.DataFrame({"title": [f"{title} {n//7}" for n, title in enumerate(titles)]})
    table.to_csv(tmp_path/"c.csv", index=False)
    program = """import sys
import matchbook.match as m, matchbook.products.untrained as u
from matchbook.bundles import open_model
from matchbook.cli import main
small = u.RecipeConfig(block=150)
m.hold_folder.__wrapped__.__defaults__ = (small, *m.hold_folder.__wrapped__.__defaults__[1:])
m.match_catalogue.__defaults__ = (*m.match_catalogue.__defaults__[:-2], small, None)
main(["match", "c.csv", "--out", sys.argv[1]])"""
    def start(out):
        return subprocess.Popen([sys.executable, "-c", program, out], cwd=tmp_path, stderr=subprocess.PIPE,
                                text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    straight = start("straight")
    steps = [line for line in straight.communicate()[1].splitlines() if line.startswith("step")]
    assert straight.returncode == 0 and len(steps) > 8
    broken = start("broken")
    for line in broken.stderr:
        if line.startswith(steps[len(steps)//2]): break
    broken.send_signal(signal.SIGKILL)
    broken.communicate()
    assert list((tmp_path/"broken").glob(".steps-*/*")) and not (tmp_path/"broken"/"groups.csv").exists()
    again = start("broken")
    said = again.communicate()[1].splitlines()
    made = [line for line in said if line.startswith("step")]
    assert again.returncode == 0 and 0 < len(made) < len(steps)
    assert f"{len(steps) - len(made)} steps are done already; going on" in said
    for name in ("groups.csv", "pairs.csv", "matches.json", "report.html", "review.html"):
        assert (tmp_path/"straight"/name).read_bytes() == (tmp_path/"broken"/name).read_bytes()
    assert not list((tmp_path/"broken").glob(".steps-*"))


# --- a blocking key ------------------------------------------------------------------------------------

def keyed(tmp_path, name="k.csv", count=120):
    titles = read_listings("shopee-sample")[0].title[:count]
    shelf = [f" Shelf {n % 4} " if n % 8 < 4 else f"shelf {n % 4}" for n in range(count)]
    table = pd.DataFrame({"id": [f"p{n}" for n in range(count)], "title": titles, "shelf": shelf})
    table.to_csv(tmp_path/name, index=False)
    return table


def take_blocks(monkeypatch, size):
    import matchbook.match as place
    small, hold = RecipeConfig(block=size), place.hold_folder.__wrapped__
    monkeypatch.setattr(hold, "__defaults__", (small, *hold.__defaults__[1:]))
    monkeypatch.setattr(place.match_catalogue, "__defaults__",
                        (*place.match_catalogue.__defaults__[:-2], small, None))


def alike(one, other):
    return all(Path(one, name).read_bytes() == Path(other, name).read_bytes()
               for name in ("groups.csv", "pairs.csv"))


def test_within_a_blocking_key_nothing_crosses_and_every_part_finds_its_own(call, tmp_path):
    table = keyed(tmp_path)
    table["shelf"] = table["shelf"].str.strip().str.lower()
    table.loc[[0, 1, 4], "title"] = "the very same title of a mug"        # on shelves 0, 1 and 0 again
    table.to_csv(tmp_path/"k.csv", index=False)
    assert call("match", "k.csv", "--within", "shelf", "--out", "by")[0] == 0
    part = dict(zip(table["id"], table["shelf"]))
    pairs, groups = pd.read_csv("by/pairs.csv"), pd.read_csv("by/groups.csv")
    assert len(pairs) > 10
    assert all(part[left] == part[right] for left, right in zip(pairs["left"], pairs["right"]))
    assert groups.groupby("group")["id"].agg(lambda some: len({part[one] for one in some})).max() == 1
    assert groups["group"][0] == groups["group"][4] != groups["group"][1]
    assert "compared within shelf (4 values)" in json.loads(Path("by/matches.json").read_text())["columns"]
    assert call("match", "k.csv", "--out", "all")[0] == 0
    groups = pd.read_csv("all/groups.csv")
    assert groups["group"][0] == groups["group"][4] == groups["group"][1]


def test_one_part_is_the_whole_and_the_size_of_a_step_changes_nothing(call, tmp_path, monkeypatch):
    keyed(tmp_path).assign(one="x").to_csv("one.csv", index=False)
    for out, more in (("plain", ()), ("one", ("--within", "one"))):
        assert call("match", "one.csv", "--out", out, *more)[0] == 0
    assert alike("plain", "one")
    assert call("match", "k.csv", "--within", "shelf", "--out", "large")[0] == 0
    take_blocks(monkeypatch, 35)
    code, _, err = call("match", "k.csv", "--within", "shelf", "--out", "small")
    assert code == 0 and "step part-3" in err and "step seen-105" in err and "part-4" not in err
    assert alike("large", "small")


@pytest.mark.parametrize("block", [20_000, 50])
def test_parts_done_together_are_what_each_is_alone(block):
    some, config = read_listings("shopee-sample")[0], RecipeConfig(block=block)
    hashes, part = np.where(np.arange(len(some)) % 3, some.hash, ""), np.arange(len(some)) % 7
    side, terms = np.arange(len(some)) // 7 % 2, learn_terms(some.title, config)
    for across in (None, side):
        found = find_within(some.title, part, config, hashes, across)
        for one in range(7):
            mine = np.flatnonzero(part == one)
            alone = find_untrained(some.title[mine], config, hashes[mine],
                                   None if across is None else across[mine], terms=terms)
            np.testing.assert_array_equal(found[mine][:, mine].toarray(), alone.toarray())
            assert found[mine].nnz == alone.nnz > len(mine)


def test_a_threshold_goes_by_how_many_a_listing_is_compared_with(tmp_path, monkeypatch):
    keyed(tmp_path)
    assert open_catalogue("k.csv").crowd == 120 and open_catalogue("k.csv", within="shelf").crowd == 30
    monkeypatch.setattr(ShippedThresholds, "at", lambda self, n, precision=None: n/1000)
    for more, size in (({}, 120), ({"within": "shelf"}, 30)):
        assert match_catalogue(open_catalogue("k.csv", **more)).threshold == size/1000
    uneven = write(tmp_path/"u.csv", "title,b\nmug,1\nlamp,1\nbed,1\ndesk,2\n")
    assert open_catalogue(uneven, within="b").crowd == 2                      # (3·3 + 1·1)/4 is 2.5, to even


def test_a_model_of_a_catalogue_searches_within_the_parts(call, tmp_path):
    keyed(tmp_path)
    assert call("run", "duplicates", "--dataset", "shopee-sample", "--model", "terms", "--preset", "quick",
                "--out", "runs", "--save", "terms")[0] == 0
    bundle, catalogue = open_bundle(tmp_path/"terms"), open_catalogue("k.csv", within="shelf")
    found, _ = find_by_model(catalogue, bundle, RecipeConfig(block=35))
    none = np.full(120, "", dtype=object)
    for shelf in np.unique(catalogue.part):
        mine = np.flatnonzero(catalogue.part == shelf)
        own = Listings(catalogue.id[mine], catalogue.text[mine], none[mine], np.arange(len(mine)))
        np.testing.assert_array_equal(found[mine][:, mine].toarray(),
                                      np.maximum(bundle.model.find(own).toarray(), np.eye(len(mine))))
        assert found[mine].nnz == found[mine][:, mine].nnz
    code, _, err = call("match", "k.csv", "--within", "shelf", "--model", "terms", "--out", "m")
    assert code == 0 and "step found-" in err, err


def test_the_vectors_of_a_model_are_weighed_before_a_match(call, monkeypatch, tmp_path):
    from matchbook import datasets
    from matchbook.bundles import write_bundle
    from matchbook.match import expect_room
    from matchbook.products.pair_mlp import BoostedTrees
    from matchbook.products.pairs import read_pair_parts
    table = keyed(tmp_path)
    table.assign(title=table["title"].str[:20]).to_csv(tmp_path/"k.csv", index=False)
    parts, _ = read_pair_parts("pairs-sample")
    write_bundle(BoostedTrees(BoostedTrees.quick).fit(parts.train, parts.valid), tmp_path/"trees")
    bundle, catalogue, config = open_bundle(tmp_path/"trees"), open_catalogue("k.csv"), RecipeConfig()
    letters, vectors = sum(map(len, catalogue.text)), 4*384*120
    assert 2*vectors > 50*letters > 0
    assert expect_room(catalogue, config) == (50*letters, 30*letters)
    assert expect_room(catalogue, config, bundle) == (2*vectors, 30*letters + vectors)
    monkeypatch.setattr(datasets, "free_memory", lambda: 2*vectors - 1)
    code, _, err = call("match", "k.csv", "--model", "trees", "--out", "m")
    assert code == 2 and "a match of 120 listings takes" in err
    assert call("match", "k.csv", "--out", "m")[0] == 0
    monkeypatch.setattr(datasets, "free_memory", lambda: 2*vectors)
    code, _, err = call("match", "k.csv", "--model", "trees", "--out", "m")
    assert code == 0 and "step vectors-" in err, err


def test_a_blocking_key_that_is_not_there_or_empty_is_told(call, tmp_path, caplog):
    keyed(tmp_path)
    code, _, err = call("match", "k.csv", "--within", "shelve", "--out", "x")
    assert code == 2 and "did you mean 'shelf'" in err and "k.csv" in err
    write(tmp_path/"other.csv", "id,title\na,mug\n")
    code, _, err = call("match", "k.csv", "other.csv", "--within", "shelf", "--out", "x")
    assert code == 2 and "other.csv" in err and "shelf" in err
    write(tmp_path/"gaps.csv", "id,title,b\na,red mug,1\nb,red mug,\nc,red mug,\n")
    code, _, err = call("match", "gaps.csv", "--within", "b", "--out", "gaps")
    assert code == 0 and "2 rows have no b; they are compared with each other" in caplog.text
    assert pd.read_csv("gaps/groups.csv")["group"].tolist() == [0, 1, 1]


def test_steps_of_other_columns_of_the_same_file_are_not_taken(call, tmp_path, monkeypatch):
    import matchbook.match as place
    write(tmp_path/"two.csv", "id,name,note\n" + "".join(f"{n},mug {n//2},lamp {n//3}\n" for n in range(40)))
    take_blocks(monkeypatch, 20)
    assert call("match", "two.csv", "--text", "note", "--out", "straight")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(place, "group_listings", lambda *some: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert call("match", "two.csv", "--text", "name", "--out", "again")[0] != 0
    assert list((tmp_path/"again").glob(".steps-*/*"))
    assert call("match", "two.csv", "--text", "note", "--out", "again")[0] == 0
    assert Path("straight/pairs.csv").read_bytes() == Path("again/pairs.csv").read_bytes()


class Trouble:
    "An `os.fsync` that fails the n-th time."
    def __init__(self, at, error): self.at, self.error, self.count, self.really = at, error, 0, os.fsync

    def __call__(self, file):
        self.count += 1
        if self.count == self.at: raise self.error
        self.really(file)


@pytest.mark.parametrize("error, said", [(KeyboardInterrupt(), "stopped"),
                                         (OSError(28, "No space left on device"), "No space left on device")])
def test_in_every_phase_a_stop_or_a_full_disk_loses_nothing(call, tmp_path, monkeypatch, error, said):
    write(tmp_path/"c.csv", "id,title\n" + "".join(f"{n},mug {n % 7} red {n % 5}\n" for n in range(40)))
    take_blocks(monkeypatch, 20)

    def match(out, at=0):
        trouble = Trouble(at, error)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", trouble)
            code, _, err = call("match", "c.csv", "--out", out)
        assert not list(tmp_path.rglob(".part-*"))
        return code, err, trouble.count
    def steps(err): return [line for line in err.splitlines() if line.startswith("step")]
    code, err, writes = match("straight")
    whole, files = steps(err), sorted(path.name for path in (tmp_path/"straight").glob("[!.]*"))
    assert code == 0 and len(whole) > 6 and writes > len(whole) + len(files)
    for at in range(1, writes + 1, 2):            # every file; between them the folder is flushed
        code, first, _ = match(f"out-{at}", at)
        assert code in (1, 2) and said in first and "Traceback" not in first, at
        code, second, _ = match(f"out-{at}")
        assert code == 0 and len(steps(first)) + len(steps(second)) <= len(whole) + 1, at
        for name in files:
            assert (tmp_path/"straight"/name).read_bytes() == (tmp_path/f"out-{at}"/name).read_bytes(), at


def test_the_package_ships_what_the_run_file_says():
    run = read_run(root/"data/results/runs/duplicates/shopee/untrained-best-seed0.json")
    held = json.loads((root/"matchbook"/"products"/"untrained.json").read_text())
    assert held["config"] == run["config"]
    for name in ("thresholds", "thresholds_hashed", "held_out"): assert held[name] == run["details"][name]
    assert shipped_thresholds().at(20_672) == run["details"]["held_out"]["balanced_whole"]["threshold"]


def test_review_in_a_browser(browser, call, tmp_path):
    "Answers by button and by key, undo, a page closed and opened again, and the table that comes out."
    hostile = [*rows, ("f", '</script><img src=x onerror="document.title=1">mug'),
               ("g", 'a "red" mug, 300ml')]
    pd.DataFrame(hostile, columns=["id", "title"]).to_csv(tmp_path/"c.csv", index=False)
    assert call("match", "c.csv", "--out", "out")[0] == 0
    address = (tmp_path/"out"/"review.html").as_uri()
    browser.get(address)
    from selenium.webdriver.common.by import By
    cards = browser.find_elements(By.TAG_NAME, "article")
    assert len(cards) >= 3 and not browser.find_elements(By.TAG_NAME, "img")
    assert browser.title == "Review pairs"
    cards[0].find_element(By.CSS_SELECTOR, "button[value='1']").click()
    browser.find_element(By.TAG_NAME, "body").send_keys("d")
    browser.find_element(By.TAG_NAME, "body").send_keys("s")
    browser.find_element(By.TAG_NAME, "body").send_keys("u")
    status = lambda: browser.find_element(By.ID, "done").text
    assert status() == f"2 of {len(cards)} answered"
    browser.get("about:blank")
    browser.get(address)
    assert status() == f"2 of {len(cards)} answered"                       # nothing was lost
    text = browser.execute_script("return table()")
    write(tmp_path/"labels.csv", text)
    labels = pd.read_csv(tmp_path/"labels.csv")
    asked = json.loads(browser.execute_script("return document.getElementById('pairs').textContent"))["pairs"]
    assert labels["label"].tolist() == [1, 0]
    assert labels[["left", "right", "left_text", "right_text"]].to_numpy().tolist() == asked[:2]
    assert call("match", "c.csv", "--labels", "labels.csv", "--out", "again")[0] == 0
    browser.set_window_size(390, 844)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.set_window_size(1280, 900)


def test_a_column_without_a_name_is_refused_by_name(tmp_path):
    (tmp_path/"c.csv").write_text("id,title\n1,red mug\n2,blue mug\n")
    for named in ({"text": [""]}, {"id": ""}, {"hash": ""}):
        with pytest.raises(InputError, match="column"): open_catalogue(tmp_path/"c.csv", **named)
