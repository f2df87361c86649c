"Scores for files: the same whatever the blocks, in order, gone on with after a stop; a bad file is one line."
import errno
import gzip
import io
import json
import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from matchbook import scoring
from matchbook.api import read_frame
from matchbook.bundles import Bundle, open_bundle, write_bundle
from matchbook.clickbait.headlines import LinearHeadlines, read_headline_parts
from matchbook.clickbait.promise import LinearConfig, LinearMatcher
from matchbook.clickbait.videos import read_promise
from matchbook.datasets import InputError
from matchbook.products.listings import read_pair_parts
from matchbook.products.pair_mlp import BoostedTrees, BoostedTreesConfig, CosineConfig, CosineMatcher
from matchbook.scoring import read_blocks, score_file


@pytest.fixture(scope="module")
def parts(): return read_pair_parts("pairs-sample")[0]


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    matcher = CosineMatcher(CosineConfig("words")).fit(parts.train, parts.valid)
    return write_bundle(matcher, tmp_path_factory.mktemp("bundle")/"words")


@pytest.fixture(scope="module")
def bundle(folder): return open_bundle(folder)


@pytest.fixture
def table(parts):
    texts, test = parts.items.text, parts.test
    return pd.DataFrame({"id": [f"p{row}" for row in range(len(test))], "left": texts[test.left],
                         "right": texts[test.right]})


def write(table, path):
    "A table in the form that the name says."
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"): table.to_parquet(path)
    elif name.endswith(".jsonl"): table.to_json(path, orient="records", lines=True)
    elif name.endswith(".txt"): table[["left", "right"]].assign(label=0).to_csv(
        path, sep="\t", index=False, header=False)
    else: table.to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ",")
    return path


def lines(path): return [json.loads(line) for line in path.read_text().splitlines()]


# What comes out

@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz", "a.txt"])
def test_each_form_gives_the_models_own_scores_in_order(bundle, parts, table, tmp_path, name):
    path = write(table, tmp_path/name)
    assert score_file(bundle, path, tmp_path/"out.jsonl", 7) == len(table)
    found, model = lines(tmp_path/"out.jsonl"), bundle.model
    expected = model.score(read_frame(table))
    assert [row["score"] for row in found] == [round(float(one), 6) for one in expected]
    assert [row["match"] for row in found] == (expected >= model.threshold_).tolist()
    assert [row["id"] for row in found] == (list(range(len(table))) if name == "a.txt" else list(table["id"]))
    assert all(row["probability"] == row["score"] for row in found)
    assert 0 < sum(row["match"] for row in found) < len(found)
    np.testing.assert_allclose(expected, model.score(parts.test), atol=1e-6)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_blocks_do_not_change_a_score(bundle, table, tmp_path, size):
    path = write(table, tmp_path/"a.csv")
    score_file(bundle, path, tmp_path/"one.jsonl", size)
    score_file(bundle, path, tmp_path/"two.jsonl", 64)
    assert (tmp_path/"one.jsonl").read_bytes() == (tmp_path/"two.jsonl").read_bytes()
    assert {one.name for one in tmp_path.iterdir()} == {"a.csv", "one.jsonl", "two.jsonl"}


def test_a_model_that_makes_vectors_makes_them_itself_and_keeps_none(parts, table, tmp_path, monkeypatch):
    class Counting:
        opened = 0

        def encode(self, texts):
            Counting.opened += 1
            return np.array([[len(text), text.count("e"), 1] for text in texts])
    from matchbook.encoders import TransformerConfig
    config = BoostedTreesConfig(trees=5, encoder=TransformerConfig(Counting()))
    trees = BoostedTrees(config).fit(parts.train, parts.valid)
    monkeypatch.setattr("matchbook.encoders.from_cache", lambda *_: pytest.fail("a cache was filled"))
    found = scoring.answer_pairs(Bundle(tmp_path, {"kind": "boosted-trees", "run": {}}, trees), "a")(table)
    before = Counting.opened
    expected = trees.score(read_frame(table))
    assert [json.loads(one)["score"] for one in found] == [round(float(one), 6) for one in expected]
    assert before == Counting.opened - 1


def test_a_model_of_given_vectors_is_refused(tmp_path):
    from matchbook.runs import make_run, open_study
    make_run(open_study("pairs"), "ozon-sample", "cosine", "quick", save=tmp_path/"model")
    (tmp_path/"a.csv").write_text("left,right\na,b\n")
    with pytest.raises(InputError, match="has learnt from vectors that came with its data"):
        score_file(open_bundle(tmp_path/"model"), tmp_path/"a.csv")


def test_headlines_come_in_the_challenges_form(tmp_path, call):
    part = read_headline_parts("headlines-sample")[0]
    model = LinearHeadlines(LinearHeadlines.quick).fit(part.train, part.valid)
    folder = write_bundle(model, tmp_path/"model")
    rows = [{"id": int(one), "postText": [text], "targetTitle": title, "targetDescription": about,
             "truthMean": "unread"} for one, text, title, about in
            zip(part.test.id, part.test.text, part.test.title, part.test.description)]
    (tmp_path/"instances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert call("score", folder, tmp_path/"instances.jsonl", "--out", tmp_path/"out.jsonl", "--block",
                7)[0] == 0
    assert lines(tmp_path/"out.jsonl") == [
        {"id": str(one), "clickbaitScore": round(float(score), 6)}
        for one, score in zip(part.test.id, model.score(part.test))]
    (tmp_path/"mine.csv").write_text("text\nRain\n")
    assert json.loads(call("score", folder, tmp_path/"mine.csv")[1])["id"] == "0"
    (tmp_path/"empty.jsonl").write_text(
        "".join(f'{{"id": {k}, "text": "{text}"}}\n' for k, text in enumerate(("Rain", "", " "))))
    assert "2 of the posts scored have no text" in call("score", folder, tmp_path/"empty.jsonl")[2]
    for text, said in (('{"text": "Rain"}', "row 1: no id"),
                       ('{"id": 1, "words": "Rain"}', "known: id, words"),
                       ('{"id": 1, "text": 2017}', "row 1: text 2017; a text was wanted")):
        (tmp_path/"bad.jsonl").write_text(text)
        code, out, err = call("score", folder, tmp_path/"bad.jsonl")
        assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1
    code, _, err = call("score", folder, tmp_path/"mine.csv", "--device", "cpu")
    assert code == 0, err


def test_videos_come_from_a_folder_or_an_archive(tmp_path):
    videos, _ = read_promise("videos-sample")
    model = LinearMatcher(LinearConfig("title")).fit(videos[:200], videos[200:])
    bundle = open_bundle(write_bundle(model, tmp_path/"model"))
    place = tmp_path/"videos"
    place.mkdir()
    arrays = {"index": videos.id}
    arrays |= {f"emb_{view}": some.numpy() for view, some in videos.promise.items()}
    for view, some in videos.content.items():
        arrays |= {f"emb_{view}_values": some.values.numpy(), f"emb_{view}_offsets": some.offsets.numpy()}
    for name, array in arrays.items(): np.save(place/f"{name}.npy", array)
    np.savez(tmp_path/"videos.npz", **arrays)
    for path in (place, tmp_path/"videos.npz"):
        assert score_file(bundle, path, tmp_path/"out.jsonl", 64) == len(videos)
        expected = [round(float(one), 6) for one in model.score(videos)]
        assert [row["score"] for row in lines(tmp_path/"out.jsonl")] == expected


def test_standard_input_is_read(bundle, folder, table, tmp_path, monkeypatch, call):
    def feed(text):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    for name in ("a.csv", "a.jsonl"):
        path = write(table, tmp_path/name)
        score_file(bundle, path, tmp_path/"out.jsonl")
        feed(path.read_text())
        code, out, _ = call("score", folder, "-")
        assert code == 0 and out == (tmp_path/"out.jsonl").read_text()
    feed("")
    code, out, err = call("score", folder, "-")
    assert (code, out) == (2, "") and "- is empty" in err


# What is written stays

class Stop:
    "Lets some blocks pass, then raises."
    def __init__(self, monkeypatch, after, error):
        self.left, made = after, scoring.answer_pairs
        def make(*words):
            answer = made(*words)
            def once(block):
                if not self.left: raise error
                self.left -= 1
                return answer(block)
            return once
        monkeypatch.setitem(scoring.readers, "pairs", (read_blocks, make))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_a_stopped_command_goes_on_to_the_same_bytes(folder, bundle, table, tmp_path, monkeypatch, call,
                                                     error):
    path, out = write(table, tmp_path/"a.csv"), tmp_path/"out.jsonl"
    score_file(bundle, path, tmp_path/"straight.jsonl", 16)
    with monkeypatch.context() as patch:
        Stop(patch, 2, error)
        code, _, err = call("score", folder, path, "--out", out, "--block", 16)
    assert code == (1 if isinstance(error, KeyboardInterrupt) else 2)
    assert "32 rows are kept" in err and not out.exists()
    part = tmp_path/".out.jsonl.part"
    assert len(part.read_text().splitlines()) == 32
    with part.open("a") as file: file.write('{"torn')                       # what a kill may leave
    code, _, err = call("score", folder, path, "--out", out, "--block", 16)
    assert code == 0 and "32 rows are scored already; going on" in err
    assert out.read_bytes() == (tmp_path/"straight.jsonl").read_bytes()
    assert not [one for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_other_input_another_model_or_other_blocks_begin_anew(folder, table, tmp_path, monkeypatch, call):
    path, out = write(table, tmp_path/"a.csv"), tmp_path/"out.jsonl"
    def stop():
        with monkeypatch.context() as patch:
            Stop(patch, 1, KeyboardInterrupt())
            assert call("score", folder, path, "--out", out, "--block", 16)[0] == 1
    stop()
    assert "going on" not in call("score", folder, path, "--out", out, "--block", 8)[2]
    stop()
    write(table.iloc[::-1], path)
    assert "going on" not in call("score", folder, path, "--out", out, "--block", 16)[2]
    assert [row["id"] for row in lines(out)] == list(table["id"][::-1])
    stop()
    other = shutil.copytree(folder, tmp_path/"other")
    (other/"bundle.json").write_text((other/"bundle.json").read_text() + " ")
    assert "going on" not in call("score", other, path, "--out", out, "--block", 16)[2]


# What is not in order

@pytest.mark.parametrize("name,content,message", [
    ("a.csv", "", "is empty; rows were wanted"),
    ("a.csv", "left,right\n", "has no rows"),
    ("a.csv", "left,right\nx,y\nz\n", "line 3: 1 fields, but the header has 2; the file may be cut short"),
    ("a.csv", 'left,right\nx,"y', "the file may be cut short"),
    ("a.csv", "left,right\nx,caf\xe9\n".encode("latin-1"), "line 2: byte 0xe9 is not UTF-8; save as UTF-8"),
    ("a.csv", "left,left\nx,y\n", "two columns are named 'left'"),
    ("a.csv", "name,price,colour\nx,y,z\n", "no two sides among the columns name, price, colour"),
    ("a.csv", "left_name,right_title\nx,y\n", "stands on one side only"),
    ("a.jsonl", '{"left": "x", "right": "y"}\n{"left": ', "line 2: not JSON"),
    ("a.jsonl", "[1]\n", "line 1: list, an object was wanted"),
    ("a.txt", "only one\n", "line 1: 1 fields; wanted left, right, label"),
    ("a.parquet", "PAR1 no", "not a Parquet file"),
    ("a.csv.gz", "not gzipped", "cannot read"),
    ("a.docx", "x", "a file in .csv"),
    ("a.csv", None, "no such file")])
def test_bad_files_are_one_line(folder, tmp_path, call, name, content, message):
    path = tmp_path/name
    if content is not None: path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(tmp_path.iterdir())
    code, out, err = call("score", folder, path, "--out", tmp_path/"out.jsonl")
    assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1, err
    assert sorted(tmp_path.iterdir()) == before


def test_delimiters_marks_and_long_cells_are_read(tmp_path):
    (tmp_path/"a.csv").write_bytes("\ufeffleft;right\n\"x; y\";z\n".encode())
    found = next(read_blocks(tmp_path/"a.csv", 5)).to_dict("records")
    assert found == [{"id": 0, "left": "x; y", "right": "z"}]
    (tmp_path/"long.csv.gz").write_bytes(gzip.compress(b"left,right\n" + b"x"*10**7 + b",y\n"))
    assert len(next(read_blocks(tmp_path/"long.csv.gz", 5))["left"][0]) == 10**7


def test_places_and_models_that_do_not_fit(folder, bundle, tmp_path, call):
    (tmp_path/"a.csv").write_text("left,right\nx,y\n")
    assert "is a folder; a file was wanted" in call("score", folder, tmp_path)[2]
    assert "is a folder; a file was wanted" in call("score", folder, tmp_path/"a.csv", "--out", tmp_path)[2]
    assert "holds no model.json" in call("score", tmp_path, tmp_path/"a.csv")[2]
    (tmp_path/"model.json").write_text('{"kind": "match-sets"}')
    assert "a model of pairs or videos or posts was wanted" in call("score", tmp_path, tmp_path/"a.csv")[2]
    assert call("score", folder, tmp_path/"a.csv", "--block", 0)[0] == 2
    with pytest.raises(InputError, match="0 rows at a time"): score_file(bundle, tmp_path/"a.csv", size=0)
