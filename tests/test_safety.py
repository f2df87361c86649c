"""What files may do to us: no pickle is opened unless it is trusted, no name leads out of its folder, nothing
comes over an open line or unchecked, no code comes with a model, and no page runs what it shows."""
import ast
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from matchbook import datasets, encoders, runs
from matchbook.batches import Ragged
from matchbook.bundles import kinds, open_model
from matchbook.clickbait import fine_tuning, headline_study, headlines, videos
from matchbook.datasets import Card, InputError, cards
from matchbook.evidence import Finding, Report, read_part, read_printed_table, show_report
from matchbook.neighbours import Index
from matchbook.papers import graph
from matchbook.products import bottleneck, listings
from matchbook.training import read_checkpoint

root = Path(__file__).parent.parent
sources = sorted((root/"matchbook").rglob("*.py"))


class Bomb:
    "What makes a folder when it is unpickled, and does no other harm."
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (str(self.path),)


# Loader → the files it reads; each is given as a bare pickle, and as an array or archive with a pickle in it.
loaders = {
    "read_text": ("a.txt", datasets.read_text), "read_csv": ("a.csv", datasets.read_csv),
    "read_jsonl": ("a.jsonl", datasets.read_jsonl), "read_pairs": ("a.txt", datasets.read_pairs),
    "read_edges": ("a.txt", datasets.read_edges), "read_parquet": ("a.parquet", datasets.read_parquet),
    "read_graph npy": ("a.npy", lambda path: datasets.read_graph(path.parent)),
    "read_graph npz": ("a.npz", lambda path: datasets.read_graph(path.parent)),
    "read_heco": ("nei_a.npy", lambda path: graph.read_heco("heco-sample", path.parent)),
    "read_array": ("a.npz", lambda path: graph.read_array(path, "X")),
    "is_identity": ("a.npz", lambda path: graph.is_identity(path)),
    "read_arrays npz": ("a.npz", videos.read_arrays), "read_videos": ("index.npy", lambda path:
                                                                      videos.read_videos(path.parent)),
    "read_labels": ("a.xlsx", videos.read_labels), "read_posts": ("a.csv", headlines.read_posts),
    "read_part": ("a.parquet", read_part), "read_printed_table": ("a.csv", read_printed_table),
    "read_listings": ("a.csv", lambda path: listings.read_listings("mine", path)),
    "read_pair_parts": ("train.parquet", lambda path: listings.read_pair_parts("mine", path.parent)),
    "read_run": ("a.json", runs.read_run),
    "read_claims": ("claims.yaml", lambda path: runs.read_claims(path.parent)),
    "open_word_vectors txt": ("a.txt", lambda path: encoders.open_word_vectors(str(path))),
    "open_word_vectors gz": ("a.gz", lambda path: encoders.open_word_vectors(str(path))),
    "open_word_vectors kv": ("a.kv", lambda path: encoders.open_word_vectors(str(path))),
    "TfidfEncoder": ("idf.safetensors", lambda path: encoders.TfidfEncoder.load(path.parent)),
    "Ragged": ("values.npy", lambda path: Ragged.open(path.parent, mmap=False)),
    "Index": ("index.json", lambda path: Index.load(path.parent, "any")),
    "read_bundle": ("model.json", lambda path: headlines.read_bundle(path.parent)),
    "open_headline_bundle": ("model.json", lambda path: headline_study.open_headline_bundle(path.parent)),
    "open_base": ("pytorch_model.bin", lambda path: fine_tuning.open_base(str(path.parent))),
    "open_model": ("pytorch_model.bin", lambda path: encoders.open_model(str(path.parent))),
    "load_adapters": ("model.safetensors", lambda path: bottleneck.load_adapters(path.parent)),
    "read_checkpoint": ("checkpoint-1/record.json", lambda path: read_checkpoint(path.parent.parent, {})),
    **{f"model {kind}": ("model.safetensors", lambda path: open_model(path.parent)) for kind in kinds}}


def plant(folder, name, bomb, wrapped):
    path = folder/name
    path.parent.mkdir(parents=True, exist_ok=True)
    some = np.empty(1, dtype=object)
    some[0] = bomb
    if wrapped and name.endswith(".npz"): np.savez(path, X=some, index=some, format=some)
    elif wrapped: path.write_bytes(pickle_in_npy(some))
    else: path.write_bytes(pickle.dumps(bomb))
    return path


def pickle_in_npy(some):
    import io
    made = io.BytesIO()
    np.save(made, some, allow_pickle=True)
    return made.getvalue()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", list(loaders))
def test_no_loader_runs_a_pickle(tmp_path, name, wrapped):
    file, load = loaders[name]
    flag = tmp_path/"went off"
    path = plant(tmp_path/"files", file, Bomb(flag), wrapped)
    if name.startswith("model "):
        (path.parent/"model.json").write_text(json.dumps({"kind": name[6:], "config": {}}))
    if name.startswith("open_"): (path.parent/"config.json").write_text('{"model_type": "bert"}')
    try: load(path)
    except Exception as error: assert not isinstance(error, FileExistsError)   # how it is refused: elsewhere
    assert not flag.exists(), f"{name} has run what was in {file}"


def test_a_vector_in_the_cache_is_no_pickle(tmp_path, monkeypatch):
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path))
    encoders.from_cache("key", lambda: np.eye(2))
    path, = tmp_path.rglob("*.npy")
    plant(path.parent, path.name, Bomb(tmp_path/"went off"), True)
    assert (encoders.from_cache("key", lambda: np.eye(2)) == np.eye(2)).all()
    assert not (tmp_path/"went off").exists()


def test_the_payload_is_live(tmp_path):
    "Else the tests above would show nothing."
    pickle.loads(pickle.dumps(Bomb(tmp_path/"one")))
    some = np.empty(1, dtype=object)
    some[0], path = Bomb(tmp_path/"two"), tmp_path/"a.npz"
    np.savez(path, X=some)
    with pytest.raises(InputError, match="a pickle"): videos.read_arrays(path)
    videos.read_arrays(path, trusted=True)
    with pytest.raises(InputError): encoders.open_word_vectors(
        str(plant(tmp_path, "a.kv", Bomb(tmp_path/"three"), False)), trusted=True)
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
