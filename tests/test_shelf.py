"Shelves of papers: lists for a paper by id or title and for a text, with reasons; as bundle and command."
import io
import json
import sys

import numpy as np
import pandas as pd
import pytest

from matchbook import encoders
from matchbook.bundles import open_bundle, write_bundle
from matchbook.datasets import InputError
from matchbook.papers import recommend as lists
from matchbook.papers.graph import read_paper_table
from matchbook.papers.recommend import Shelf, join_texts, open_shelf
from matchbook.runs import make_run, open_study


class Letters:
    "Stands for an encoder of texts."
    def encode(self, texts):
        pairs = [(a, b) for a in "aeinorst" for b in "aeinorst"]
        return np.array([[text.count(a + b) for a, b in pairs] for text in texts], dtype=float)


@pytest.fixture(scope="module")
def encoder(): return encoders.name_encoder(Letters(), "test/letters")


@pytest.fixture(scope="module")
def table(): return read_paper_table("papers-sample")[0].head(200)


@pytest.fixture(scope="module")
def shelf(table, encoder): return Shelf(table, None, encoder)


@pytest.fixture(scope="module")
def once(table):
    "A late row whose title is there once."
    count = table["title"].map(table["title"].value_counts())
    return int(np.flatnonzero(count == 1)[-1])


def plain(found): return [(row["id"], row["score"], row["reason"]) for row in found.rows.to_dict("records")]


def test_a_paper_is_found_by_id_number_and_title(shelf, table, once):
    expected = plain(shelf.list_for(table["doi"][once], 7))
    assert len(expected) == 7
    for paper in (once, f" {table['title'][once].upper()}"):
        assert plain(shelf.list_for(paper, 7)) == expected
    assert (shelf.list_for(once).rows["year"] < table["year"][once]).all()
    newer = shelf.list_for(once, 199, newer=True).rows
    assert (newer["year"] >= table["year"][once]).any() and once not in set(newer["row"])
    with pytest.raises(InputError, match="no paper named"): shelf.list_for("no such paper")


def test_a_title_of_several_papers_is_asked_back(table, encoder):
    twice = table.head(5).assign(title=["a", "b", "b", "c", "d"])
    with pytest.raises(InputError, match=f"2 papers have this title; say which by id: {table['doi'][1]}"):
        Shelf(twice, None, encoder).list_for("B")


def test_a_text_finds_what_says_the_same(shelf, table):
    text = join_texts(table)[42]
    found = shelf.list_for_text(text, 3).rows
    assert found["id"][0] == table["doi"][42] and found["score"][0] == pytest.approx(1, abs=1e-5)
    mine = {term.casefold() for name in ("author_terms", "ieee_terms") for term in table[name][42]}
    shared = set(found["reason"][0].shared.get("term", ()))
    assert shared and shared <= mine
    assert len(shelf.table) == 200 and shelf.graph.n == 200                  # the text was there for a moment
    with pytest.raises(InputError, match="an empty text"): shelf.list_for_text(" \n")


def test_what_the_graph_has_placed_takes_no_text(table):
    own = Shelf(table.head(3), np.eye(3, dtype=np.float32), "")
    with pytest.raises(InputError, match="a text has no place"): own.list_for_text("words")
    with pytest.raises(InputError, match="2 vectors of 3 papers"): Shelf(table.head(3), np.eye(2), "")


def test_a_shelf_comes_back_from_its_bundle(shelf, tmp_path, once):
    again = open_bundle(write_bundle(shelf, tmp_path/"shelf"), ("papers",)).model
    assert plain(again.list_for(once)) == plain(shelf.list_for(once))
    assert plain(again.list_for_text("time series")) == plain(shelf.list_for_text("time series"))
    assert plain(open_shelf(tmp_path/"shelf").list_for(once)) == plain(shelf.list_for(once))


def test_a_run_keeps_its_shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "embed_texts", lambda texts, *_: np.array(
        [[len(text), text.count("e"), 1] for text in texts], dtype=np.float32)/1e3)
    run = make_run(open_study("citations"), "papers-sample", "minilm", "quick", save=tmp_path/"shelf")
    found = open_bundle(tmp_path/"shelf", ("papers",))
    assert found.record["data"]["sha256"] == run["data"]["sha256"]
    assert found.model.graph.n == len(read_paper_table("papers-sample")[0])
    with pytest.raises(InputError, match="leaves no model to save; these do: minilm, heco"):
        make_run(open_study("citations"), "papers-sample", "popularity", "quick", save=tmp_path/"x")


# The command

def test_the_command_lists_papers_with_reasons(call, table, shelf, encoder, tmp_path, once, monkeypatch):
    path = tmp_path/"papers.jsonl"
    table.to_json(path, orient="records", lines=True)
    words = ("recommend", path, "--encoder", encoder, "--count", 3)
    code, out, _ = call(*words, table["doi"][once], "--json")
    rows = json.loads(out)
    assert code == 0 and [row["id"] for row in rows] == shelf.list_for(once, 3).rows["id"].tolist()
    assert set(rows[0]) == {"place", "id", "title", "year", "score", "reason"}
    code, out, _ = call(*words, table["doi"][once])
    assert code == 0 and f"To read beside: {table['title'][once]}" in out and rows[0]["id"] in out
    text = join_texts(table)[7]
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    for said in (text, "-"):
        assert json.loads(call(*words, "--text", said, "--json")[1])[0]["id"] == table["doi"][7]


@pytest.mark.parametrize("words,message", [
    (["papers.jsonl"], "a paper or --text: one of them was wanted"),
    (["papers.jsonl", "x", "--text", "y"], "one of them was wanted"),
    (["empty.jsonl", "x"], "is empty"), (["bare.jsonl", "x"], "no column 'id' or 'doi'"),
    (["nowhere", "x"], "no dataset named 'nowhere'"), (["folder", "x"], "holds no model.json"),
    (["papers.jsonl", "1", "--count", "0"], "--count"), (["one.jsonl", "a"], "nothing to list")])
def test_what_is_not_in_order_is_one_line(call, tmp_path, monkeypatch, encoder, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"folder").mkdir()
    for name, text in (("papers", '{"id": "a", "title": "x"}\n{"id": "b", "title": "y"}\n'), ("empty", ""),
                       ("bare", '{"title": "x"}\n'),
                       ("one", '{"id": "a", "title": "x", "year": 1999, "terms": ["t"]}\n')):
        (tmp_path/f"{name}.jsonl").write_text(text)
    code, out, err = call("recommend", *words, "--encoder", encoder)
    assert (code, out) == (2, "") and message in err.splitlines()[-1] and "Traceback" not in err


def test_papers_without_years_are_listed_too(encoder):
    bare = pd.DataFrame({"id": ["a", "b", "c"], "title": ["tree stone", "stone tree", "sea"]})
    with pytest.raises(InputError, match="no links of paper"): Shelf(bare, None, encoder)
    found = Shelf(bare.assign(references=[["c"], ["c"], []]), None, encoder).list_for("a", 2)
    assert found.rows["id"].tolist() == ["b", "c"] and np.isnan(found.rows["year"]).all()
