"""What files may do to us: no pickle is opened unless it is trusted, no name leads out of its folder, nothing
comes over an open line or unchecked, no code comes with a model, and no page runs what it shows."""
import ast
import ctypes
import gzip
import importlib
import inspect
import io
import json
import os
import pickle
import pkgutil
import re
import struct
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from test_cross_encoder import tiny as tiny_pairs
from test_fine_tuning import make_base, make_posts, tiny

import matchbook
from matchbook import bundles, datasets, encoders, evidence, match, neighbours, runs, scoring, training
from matchbook.batches import Ragged
from matchbook.clickbait import fine_tuning, headline_study, headlines, videos
from matchbook.datasets import Card, InputError, cards
from matchbook.evidence import Finding, Report, show_report
from matchbook.papers import graph, heco, recommend
from matchbook.products import (adapter_bert, bottleneck, char_word_lstm, cross_encoder, listings, pair_judge,
                                pair_mlp)
from matchbook.samples import write_sample

root = Path(__file__).parent.parent
sources = sorted((root/"matchbook").rglob("*.py"))


# --- a payload, and who opens it --------------------------------------------------------------------

class Bomb:
    "What makes a folder when it is unpickled, and does no other harm."
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.makedirs, (str(self.path), 0o777, True)


def plant(path, bomb, wrapped=False):
    "A pickle in a file's place: bare, or in an array of objects, which an archive may hold."
    some, made = np.empty(1, dtype=object), io.BytesIO()
    some[0] = bomb
    if wrapped and path.suffix == ".npz":
        np.savez(made, **dict.fromkeys(("X", "E", "index", "format", "indices", "indptr", "data"), some))
    elif wrapped: np.save(made, some, allow_pickle=True)
    else: made.write(pickle.dumps(bomb))
    data = made.getvalue()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


heard = None   # Names of files that Python opens, while somebody listens


def hear(event, some):
    if event == "open" and heard is not None and isinstance(some[0], (str, os.PathLike)):
        heard.add(os.path.realpath(some[0]))


sys.addaudithook(hear)


@contextmanager
def watch(folder):
    "The files below a folder that are opened: by Python, and on Linux by any other code; filled at the end."
    global heard
    found, names, heard, libc = set(), {}, set(), ctypes.CDLL(None)
    files = [path for path in folder.rglob("*") if path.is_file()]
    seen = libc.inotify_init1(os.O_NONBLOCK) if hasattr(libc, "inotify_init1") else None
    if seen is not None:
        for path in files: names[libc.inotify_add_watch(seen, os.fsencode(path), 0x20)] = path   # IN_OPEN
    try: yield found
    finally:
        found.update(path for path in files if os.path.realpath(path) in heard)
        heard = None
        if seen is not None:
            try: data = os.read(seen, 2**20)
            except BlockingIOError: data = b""
            os.close(seen)
            while data:
                number, _, _, size = struct.unpack_from("iIII", data)
                found.add(names[number])
                data = data[16 + size:]


# --- good files of every kind -----------------------------------------------------------------------

quick = training.TrainingConfig(epochs=1, device="cpu")
pair_models = {"cosine": pair_mlp.CosineMatcher, "pair-mlp": pair_mlp.PairMLP,
               "item-pair-mlp": pair_mlp.ItemPairMLP, "symmetric-pair-mlp": pair_mlp.SymmetricPairMLP,
               "boosted-trees": pair_mlp.BoostedTrees}
rows = {"match-sets": ("duplicates", "shopee-sample", "terms-judged", {}),
        "pair-fusion": ("promise", "videos-sample", "pair-fusion", {"training.epochs": 1}),
        "linear": ("promise", "videos-sample", "title-only", {}),
        "majority": ("promise", "videos-sample", "majority", {}),
        "majority-headlines": ("headlines", "headlines-sample", "majority", {}),
        "linear-headlines": ("headlines", "headlines-sample", "tfidf-linear", {}),
        "heco": ("papers", "heco-sample", "heco", {"training.epochs": 1, "probe.restarts": 1,
                                                   "probe.steps": 2})}


def save_model(kind, folder, base):
    "A small trained model of a kind."
    if kind in rows:
        study, dataset, row, settings = rows[kind]
        return runs.make_run(runs.open_study(study), dataset, row, "quick", 0, settings, save=folder)
    if kind in pair_models:
        parts, model = listings.read_pair_parts("ozon-sample")[0], pair_models[kind]
        if kind.endswith("pair-mlp"): model = model(replace(model.quick, training=quick))
        else: model = model(model.quick)
        return model.fit(parts.train, parts.valid).save(folder)
    if kind == "cross-encoder":
        parts = listings.read_pair_parts("pairs-sample")[0]
        model = cross_encoder.CrossEncoder(tiny_pairs(base, training=quick))
        return model.fit(parts.train[:64], parts.valid[:64]).save(folder)
    if kind in ("char-word-lstm", "adapter-bert"):
        some, _ = listings.read_listings("shopee-sample")
        split = listings.split_listings(some)
        if kind == "adapter-bert":
            config = adapter_bert.AdapterBertConfig(base=base, max_length=16, batch=32, training=quick)
            model = adapter_bert.AdapterBert(config)
        else:
            (Path(base)/"words.txt").write_text("red 1 2\nlamp 3 4\n")
            model = char_word_lstm.CharWordLSTM(replace(
                char_word_lstm.CharWordLSTM.quick, vectors=f"{base}/words.txt", training=quick))
        return model.fit(some[split.train[:160]], some[split.valid[:120]]).save(folder)
    if kind == "shelf":
        table, _ = graph.read_paper_table("papers-sample")
        return recommend.Shelf(table, np.eye(len(table), 8, dtype=np.float32), base).save(folder)
    linear = headlines.LinearHeadlines.quick
    model = {"fine-tuned-headlines": lambda: fine_tuning.FineTuned(tiny(base, training=quick)),
             "ensemble-headlines": lambda: headline_study.EnsembleHeadlines(headline_study.EnsembleConfig(
                 tiny(base, training=quick), 2, linear, replace(linear, clean=True)))}[kind]()
    return model.fit(make_posts(160, 0), make_posts(60, 1)).save(folder)


def save_judge(folder, base):
    save_model("match-sets", folder/"sets", base)
    (folder/"sets"/"judge").rename(folder/"judge")


def save_index(kind):
    def save(folder, base):
        items = np.eye(40, 8, dtype=np.float32)
        items[:, 0] += np.arange(40)
        neighbours.build_index(items/np.linalg.norm(items, axis=1, keepdims=True), kind).save(folder, "any")
    return save


def save_adapters(folder, base):
    encoder = bottleneck.add_adapters(encoders.open_model(base)[1])
    bottleneck.save_adapters(encoder, bottleneck.houlsby, folder)


def save_base(folder, base):
    make_base(folder, "bert")


def save_old_base(folder, base):
    "A base whose weights are a pickle."
    import torch
    make_base(folder, "bert")
    torch.save(encoders.open_model(base)[1].state_dict(), folder/"pytorch_model.bin")
    (folder/"model.safetensors").unlink()


def save_artifacts(folder, base):
    folder.mkdir()
    (folder/"meta.json").write_text('{"num_papers": 2, "num_authors": 2, "num_concepts": 2}')
    path = sparse.csr_matrix(np.ones((2, 2), dtype=np.float32))
    for name in ("PA", "PC"): np.savez(folder/f"edges_{name}.npz", E=np.array([[0, 0], [1, 1]]))
    np.savez(folder/"metapath_PAP.npz", indptr=path.indptr, indices=path.indices)
    np.savez(folder/"features_papers.npz", X=np.eye(2, dtype=np.float32))


def save_pages(folder, base):
    works = {"meta": {"next_cursor": None}, "results": [
        {"id": "a", "title": "A", "authorships": [{"author": {"id": "c", "display_name": "C"}}]}]}
    datasets.write_whole(folder/"page-00001.json", json.dumps(works))


def save_checkpoint(folder, base):
    import torch
    training.write_checkpoint(folder, {"made_with": {}}, {"model": {"a": torch.ones(2)}})


def of_file(name, data, load):
    "Good bytes of one file, and what reads it."
    return (lambda folder, base: datasets.write_whole(folder/name, data)), lambda folder: load(folder/name)


def of_sample(name, load): return (lambda folder, base: write_sample(name, folder)), load


def parquet(**columns):
    import pandas as pd
    pd.DataFrame(columns).to_parquet(made := io.BytesIO())
    return made.getvalue()


def npz(**some):
    np.savez(made := io.BytesIO(), **some)
    return made.getvalue()


vectors = np.eye(2, dtype=np.float32)
run = next((root/"data"/"results").rglob("*-quick-seed0.json")).read_bytes()
video = npz(index=np.array(["a", "b"]), emb_title=vectors, emb_stt_values=vectors,
            emb_stt_offsets=np.array([0, 1, 2]))
table = b"left,right,text,label,left_text,right_text\na,b,red lamp,1,red,lamp\n"
quoted = b"| model | accuracy | precision | recall | F1 |\n|---|---|---|---|---|\n|a|.8|.7|.6|.65|\n"
catalogue = match.Catalogue(*np.array([["a", "b"], ["red", "lamp"]], dtype=object))
spoken = b'{"id": "a", "postText": ["x"], "text": "x"}\n'
shopee = b"posting_id,title,label_group,image_phash\na,red,1,ab12\nb,lamp,1,ab13\n"

class Ones:
    "An encoder."
    def embed(self, texts): return np.ones((len(list(texts)), 2), dtype=np.float32)


# Loader → what writes the files it reads (into a folder, with a base model at hand), and how they are read.
loaders = {
    "read_text": of_file("a.txt", b"one", datasets.read_text),
    "read_text gz": of_file("a.gz", gzip.compress(b"one"), datasets.read_text),
    "read_json": of_file("a.json", b"{}", datasets.read_json),
    "read_csv": of_file("a.csv", table, datasets.read_csv),
    "read_jsonl": of_file("a.jsonl", b"{}", datasets.read_jsonl),
    "read_pairs": of_file("a.txt", b"COL a VAL b\tCOL a VAL c\t1\n", datasets.read_pairs),
    "read_edges": of_file("a.txt", b"0 1\n", datasets.read_edges),
    "read_parquet": of_file("a.parquet", parquet(a=[1]), datasets.read_parquet),
    "read_table csv": of_file("a.csv", table, datasets.read_table),
    "read_table parquet": of_file("a.parquet", parquet(a=["1"]), datasets.read_table),
    "read_graph": of_sample("heco-sample", lambda folder: datasets.read_graph(folder/"heco-sample")),
    "read_heco": of_sample("heco-sample", lambda folder: graph.read_heco("heco-sample", folder)),
    "read_array": of_file("a.npz", npz(X=vectors), lambda path: graph.read_array(path, "X")),
    "is_identity": of_file("a.npz", npz(X=vectors), graph.is_identity),
    "read_artifacts": (save_artifacts, graph.read_artifacts),
    "read_openalex": (save_pages, graph.read_openalex),
    "read_page": (save_pages, lambda folder: graph.read_page(folder/"page-00001.json")),
    "read_paper_table": of_file("a.jsonl", b'{"id": "a"}\n', lambda path: graph.read_paper_table(data=path)),
    "read_papers": of_file("a.jsonl", b'{"id": "a", "authors": ["b"]}\n', lambda path: graph.read_papers(
        data=path)),
    "map_tables": ((lambda folder, base: graph.write_tables({"a": vectors}, folder, {})), graph.map_tables),
    "Reader": ((lambda folder, base: heco.Reader(graph.read_heco("heco-sample")[0], heco.HeCoConfig()).save(
        folder)), lambda folder: heco.Reader.load(folder, heco.HeCoConfig())),
    "read_arrays": of_file("a.npz", video, videos.read_arrays),
    "read_videos npz": of_file("a.npz", video, videos.read_videos),
    "read_videos": of_sample("videos-sample", lambda folder: videos.read_videos(folder/"videos-sample")),
    "read_videos_in_blocks": of_file("a.npz", video, lambda path: list(
        scoring.read_videos_in_blocks(path, 9))),
    "videos.read_labels": of_file("l.csv", b"id,label\na,1\n", videos.read_labels),
    "read_bangla": of_file("a.jsonl", b'{"video_id": "a", "title": "b", "human_label": "clickbait", '
                           b'"summary": "c"}\n', lambda path: videos.read_bangla(path, Ones())),
    "read_posts": of_file("a.csv", b"id,text,mean\na,b,.5\n", headlines.read_posts),
    "read_instances": of_file("a.jsonl", spoken, headlines.read_instances),
    "read_official": of_sample("headlines-sample", lambda folder: headlines.read_official(
        folder/"headlines-sample"/"train")),
    "read_part": of_file("a.parquet", parquet(text=["a"]), evidence.read_part),
    "read_printed_table": of_file("a.md", quoted, evidence.read_printed_table),
    "open_catalogue": of_file("a.csv", b"id,title\na,red lamp\n", match.open_catalogue),
    "match.read_labels": of_file("a.csv", b"left,right,label\na,b,1\n", lambda path: match.read_labels(
        path, catalogue)),
    "read_step": ((lambda folder, base: match.write_step(folder, "a", lambda: {"x": vectors})),
                  lambda folder: match.read_step(folder, "a")),
    "read_rows": of_file("a.csv", table, lambda path: list(scoring.read_rows(path, "csv"))),
    "read_blocks": of_file("a.parquet", parquet(a=["1"]), lambda path: list(scoring.read_blocks(path, 9))),
    "read_listings": of_file("a.csv", shopee, lambda path: listings.read_listings("mine", path)),
    "read_pair_parts txt": of_sample("pairs-sample", lambda folder: listings.read_pair_parts(
        "mine", folder/"pairs-sample")),
    "read_pair_parts parquet": of_sample("ozon-sample", lambda folder: listings.read_pair_parts(
        "mine", folder/"ozon-sample")),
    "read_run": of_file("runs/a/b/c.json", run, runs.read_run),
    "read_claims": of_file("claims.yaml", b"[]", lambda path: runs.read_claims(path.parent)),
    "open_word_vectors txt": of_file("a.txt", b"red 1 2\n", lambda path:
                                     encoders.open_word_vectors(str(path))),
    "open_word_vectors gz": of_file("a.gz", gzip.compress(b"red 1 2\n"), lambda path:
                                    encoders.open_word_vectors(str(path))),
    "TfidfEncoder": ((lambda folder, base: encoders.TfidfEncoder().fit(["a b"]).save(folder)),
                     encoders.TfidfEncoder.load),
    "Ragged": ((lambda folder, base: Ragged.from_list([[1], [2, 3]]).save(folder)), Ragged.open),
    "Ragged in memory": ((lambda folder, base: Ragged.from_list([[1], [2, 3]]).save(folder)),
                         lambda folder: Ragged.open(folder, mmap=False)),
    **{f"Index {kind}": (save_index(kind), lambda folder: neighbours.Index.load(folder, "any"))
       for kind in ("exact", "flat", "ivf", "hnsw")},
    "ShardedIndex": ((lambda folder, base: neighbours.write_shards(
        np.eye(40, dtype=np.float32), folder, "any", "flat", 20)),
                     lambda folder: neighbours.ShardedIndex.load(folder, "any")),
    "PairJudge": (save_judge, lambda folder: pair_judge.PairJudge.load(folder/"judge")),
    "open_model": (save_base, lambda folder: encoders.open_model(str(folder))),
    "open_model, weights a pickle": (save_old_base, lambda folder: encoders.open_model(str(folder))),
    "load_adapters": (save_adapters, lambda folder: bottleneck.load_adapters(
        encoders.open_model(store["base"])[1], folder)),
    "read_checkpoint": (save_checkpoint, lambda folder: training.read_checkpoint(folder, {})),
    "open_bundle": ((lambda folder, base: bundles.write_bundle(headlines.MajorityHeadlines().fit(
        make_posts(90, 0), make_posts(60, 1)), folder)), bundles.open_bundle),
    **{f"model {kind}": (lambda folder, base, kind=kind: save_model(kind, folder, base), bundles.open_model)
       for kind in bundles.kinds}}
store = {}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    store["base"] = make_base(tmp_path_factory.mktemp("base"), "bert")
    return store["base"]


@pytest.mark.parametrize("name", list(loaders))
def test_no_loader_runs_a_pickle(tmp_path, base, name):
    "Each file that a good load opens is a pickle once: opened again, run by nobody, and told of."
    (save, load), folder, flag = loaders[name], tmp_path/"files", tmp_path/"went off"
    save(folder, base)
    with watch(folder) as good: load(folder)
    assert good
    for path in sorted(good):
        whole = path.read_bytes()
        for wrapped in (False, True):
            plant(path, Bomb(flag), wrapped)
            with watch(folder) as found:
                try: load(folder)
                except InputError as error: assert "\n" not in str(error)
            assert not flag.exists(), f"{name} has run what was in {path.name}"
            assert path in found, f"{name} has not come to {path.name}"
        path.write_bytes(whole)


# Loaders that read by another one of the list
through = {
    "read_bundle": "open_bundle", "hash_files": "open_bundle", "hash_file": "ShardedIndex",
    "read_record": "model heco", "read_tensors": "model heco", "open_lines": "read_rows",
    "read_text_pairs": "read_pair_parts txt",
    "read_ozon": "read_pair_parts parquet", "read_labelled_pairs": "read_pair_parts txt",
    "read_runs": "read_run", "read_growing": "Reader", "open_shelf": "model shelf",
    "PairFeatures": "model boosted-trees", "PairMatcher": "model pair-mlp", "HeCo": "model heco",
    "HeadlineModel": "model linear-headlines", "Shelf": "model shelf", "MatchSets": "model match-sets",
    "AdapterBert": "model adapter-bert", "CharWordLSTM": "model char-word-lstm"}
elsewhere = {"QdrantIndex"}   # reads no files


def test_every_loader_is_in_the_list():
    found = set()
    for module in pkgutil.walk_packages(matchbook.__path__, "matchbook."):
        if module.name.endswith("__main__"): continue
        for name in getattr(place := importlib.import_module(module.name), "__all__", ()):
            one = getattr(place, name)
            if inspect.isclass(one) and {"load", "open"} & vars(one).keys(): found.add(name)
            elif inspect.isfunction(one) and name.split("_")[0] in ("read", "open", "load", "map", "hash"):
                if next(iter(inspect.signature(one).parameters), "") in ("path", "folder"): found.add(name)
    listed = {name.split(" ")[0].split(",")[0].split(".")[-1] for name in loaders}
    assert found - listed - through.keys() - elsewhere == set()
    assert set(through.values()) <= loaders.keys()


def test_a_vector_in_the_cache_is_no_pickle(tmp_path, monkeypatch):
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path))
    encoders.from_cache("key", lambda: np.eye(2))
    path, = tmp_path.rglob("*.npy")
    plant(path, Bomb(tmp_path/"went off"), True)
    assert (encoders.from_cache("key", lambda: np.eye(2)) == np.eye(2)).all()
    assert not (tmp_path/"went off").exists()


def test_the_payload_is_live_and_an_opened_file_is_noticed(tmp_path):
    "Else the tests above would show nothing."
    pickle.loads(pickle.dumps(Bomb(tmp_path/"one")))
    path = plant(tmp_path/"a.npz", Bomb(tmp_path/"two"), True)
    with watch(tmp_path) as found, pytest.raises(InputError, match="a pickle"): videos.read_arrays(path)
    assert found == {path}
    with watch(tmp_path) as found: path.stat()
    assert not found
    videos.read_arrays(path, trusted=True)
    with pytest.raises(InputError): encoders.open_word_vectors(
        str(plant(tmp_path/"a.kv", Bomb(tmp_path/"three"))), trusted=True)
    assert all((tmp_path/name).exists() for name in ("one", "two", "three"))


# --- the source -------------------------------------------------------------------------------------

def find_unsafe(source):
    "Calls that run what a file or the network says."
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call): continue
        called = ast.unparse(node.func)
        given = {word.arg: word.value for word in node.keywords}
        value = {name: getattr(one, "value", None) for name, one in given.items()}
        if called in ("eval", "exec", "os.system", "pickle.load", "pickle.loads", "yaml.load", "joblib.load"):
            found.append(called)
        if called == "torch.load" and value.get("weights_only") is not True: found.append(called)
        found += [f"{called}({name})" for name in ("trust_remote_code", "shell", "allow_pickle")
                  if name in given and value[name] is not False
                  and ast.unparse(given[name]) != "trusted"]
        if called.endswith("extractall"): found.append(called)
    return found


@pytest.mark.parametrize("path", sources, ids=lambda path: path.stem)
def test_nothing_unsafe_is_called(path): assert not find_unsafe(path.read_text())


def test_no_cell_calls_anything_unsafe_but_one():
    "It serves the folder that the chapter has just written."
    found = []
    for path in sorted((root/"nbs").rglob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] != "code" or "#| export" in source: continue     # those are in the modules
            source = re.sub(r"^([ \t]*)[%!](.*\\\n)*.*$", r"\1pass", source, flags=re.M)
            for one in find_unsafe(source): found.append((path.stem, one, source))
    assert [some[:2] for some in found] == [
        ("33_bottleneck_adapters", "AutoModel.from_pretrained(trust_remote_code)")]
    assert re.search(r"folder = write_merged\([^\n]*\n(.*\n)*served = AutoModel.from_pretrained\(folder, ",
                     found[0][2])


@pytest.mark.parametrize("source", [
    "AutoModel.from_pretrained(x, trust_remote_code=True)", "subprocess.run(x, shell=True)", "pickle.load(f)",
    "np.load(x, allow_pickle=True)", "torch.load(x)", "torch.load(x, weights_only=False)", "yaml.load(x)",
    "from_pretrained(x, trust_remote_code=flag)", "archive.extractall(x)", "eval('1')"])
def test_what_is_unsafe_is_found(source): assert find_unsafe(source)


def test_no_address_is_an_open_line():
    for path in sources:
        assert not re.search(r"""["']http://(?!www\.w3\.org|")""", path.read_text()), path


# --- downloads --------------------------------------------------------------------------------------

def test_every_download_is_over_https_and_checked():
    asked = [card for card in cards.values() if card.get == "download"]
    assert asked
    for card in asked:
        assert set(card.urls) == set(card.files)
        for url, digest in card.urls.values():
            assert url.startswith("https://") and re.fullmatch("[0-9a-f]{64}", digest), card.name


@pytest.mark.parametrize("url", ["http://a.example/x", "file:///x", "ftp://a.example/x", "https://a.example/x"])
def test_a_card_with_an_open_line_or_without_a_sum_is_refused(url):
    with pytest.raises(ValueError, match="https and a sha256 in hex were wanted"):
        Card("x", "", ("x",), None, "download", "", "", urls={"x": (url, "0"*63)})
    if not url.startswith("https"):
        with pytest.raises(ValueError, match="https and a sha256"):
            Card("x", "", ("x",), None, "download", "", "", urls={"x": (url, "0"*64)})


def test_a_download_is_tried_again_and_given_up_in_one_line(tmp_path, monkeypatch):
    import pooch
    import requests
    tried = []
    def fail(self, url, output, pooch):
        tried.append(url)
        raise requests.exceptions.ConnectionError("unplugged\nlong story")
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    card = next(card for card in cards.values() if card.get == "download")
    with pytest.raises(InputError, match="unplugged") as told: datasets.download(card, tmp_path)
    assert len(tried) == 4 and "\n" not in str(told.value)


def test_word_vectors_are_asked_for_three_times(monkeypatch):
    import gensim.downloader
    tried, waits = [], []
    def fail(name, return_path):
        tried.append(name)
        raise OSError("unplugged\nlong story")
    monkeypatch.setattr(gensim.downloader, "load", fail)
    monkeypatch.setattr(encoders._fetch_vectors, "__defaults__", (3, waits.append))
    with pytest.raises(InputError, match="unplugged") as told: encoders.open_word_vectors("glove-twitter-25")
    assert len(tried) == 3 and waits == [1, 2] and "\n" not in str(told.value)


def test_a_download_with_another_sum_is_thrown_away(tmp_path, monkeypatch):
    import pooch
    write = lambda self, url, output, pooch: Path(output).write_text("x")
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", write)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    card = next(card for card in cards.values() if card.get == "download")
    with pytest.raises(InputError, match="sha256|hash"): datasets.download(card, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# --- names ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["../x", "a/b", "..", "/x"])
def test_a_run_file_stays_in_its_folder(tmp_path, name):
    names = {"study": "a", "dataset": "b", "model": "c", "preset": "d", "seed": 0}
    run = dict.fromkeys(runs.run_keys) | names
    assert runs.write_run(run, tmp_path/"in").is_relative_to(tmp_path/"in")
    for key in ("study", "dataset", "model"):
        if key == "model" and name == "..": continue           # `..-best-seed0.json` is a name like others
        with pytest.raises(InputError, match="slash"): runs.write_run(run | {key: name}, tmp_path/"in")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("name", ["emb_/../../x", "emb_a/../../../x", "emb_..\\x"])
def test_arrays_of_an_archive_stay_in_their_folder(tmp_path, name):
    vectors = np.eye(2, dtype=np.float32)
    np.savez(tmp_path/"a.npz", **{"index": np.array(["a", "b"]), name: vectors, "emb_stt_values": vectors,
                                  "emb_stt_offsets": np.array([0, 1, 2])})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="a slash leads elsewhere"): videos.convert_videos(tmp_path/"a.npz",
                                                                                           tmp_path/"in")
    assert sorted(tmp_path.rglob("*")) == before


# --- pages ------------------------------------------------------------------------------------------

script = "<script>alert('x')</script>"


def test_a_report_shows_what_it_is_told_and_runs_none_of_it():
    page = show_report(Report(script, (Finding(script, script, True),), (script,)))
    assert "<script" not in page and page.count("&lt;script&gt;") == 5
