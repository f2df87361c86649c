"""Garbage for every reader and every public function of arrays: it is answered rightly, or refused by an
`InputError`; nothing else is ever raised. MATCHBOOK_FUZZ_CASES says how much garbage (all together)."""
import io
import json
import os
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field
from inspect import isfunction, signature
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from matchbook import batches, datasets, evidence, match, measures, neighbours, runs, splits, training
from matchbook.bundles import open_bundle, open_model, write_bundle
from matchbook.clickbait import headlines, videos
from matchbook.datasets import InputError
from matchbook.encoders import TfidfEncoder, open_word_vectors
from matchbook.evidence import (check_leaks, check_seeds, check_table, check_threshold, find_edge_leaks,
                                read_figures, read_part, read_printed_table)
from matchbook.papers import graph, recommend
from matchbook.products import listings, match_sets, pair_judge, pair_mlp, untrained
from matchbook.samples import write_sample

cases = int(os.environ.get("MATCHBOOK_FUZZ_CASES", 1200))
quiet = {"deadline": None, "database": None, "phases": [Phase.explicit, Phase.generate],
         "suppress_health_check": list(HealthCheck),
         "derandomize": "MATCHBOOK_FUZZ_CASES" not in os.environ}


# --- garbage ---------------------------------------------------------------------------------------

@st.composite
def spoil(draw, whole):
    "The bytes of a good file, cut, turned, doubled; or no such file at all."
    is_good = draw(st.integers(0, 9)) > 0
    data = bytearray(draw(st.sampled_from(whole) if is_good else st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(("cut", "drop", "turn", "insert", "double")))
        if kind == "cut": del data[at:]
        elif kind == "drop": del data[at:at + draw(st.integers(1, 9))]
        elif kind == "turn" and at < len(data): data[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=5) | st.sampled_from((
                b'"', b"\0", b"\xff", b"\t", b"\n", b",", b"{", b"]", b"nan", b"1e999", b"-1", b"null",
                b"99999999999999999999999", b'"\\ud800"', b"\xef\xbb\xbf", b"\r", b"[" * 2000)))
        elif kind == "double": data[at:at] = data[at:at + 40]
    return bytes(data)


words = st.text(max_size=8) | st.sampled_from(("", "nan", "a b", "1", "0", "\ud7ff", "p1", "-1", "COL a VAL"))
plain = st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats() | words
values = st.recursive(plain, lambda some: st.lists(some, max_size=3) | st.dictionaries(words, some,
        max_size=3),
                      max_leaves=6)


def lines_of(**keys):
    "JSON lines whose objects have these keys, each with its own values or with anything."
    row = st.fixed_dictionaries({}, optional={key: some | values for key, some in keys.items()})
    return st.lists(row, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())


def tables_of(*names):
    "CSV files with some of these columns."
    return st.builds(lambda names, rows: pd.DataFrame([row[:len(names)] for row in rows], columns=names)
                     .to_csv(index=False).encode("utf-8", "replace"),
                     st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True),
                     st.lists(st.lists(words, min_size=len(names), max_size=len(names)), max_size=6))


floats = st.floats(width=32) | st.sampled_from((0., 1., .5, np.nan, np.inf, -np.inf, 1e-30, 3e38))
few = st.integers(0, 6)
numbers = st.one_of(
    hnp.arrays(np.float64, few, elements=floats), hnp.arrays(np.int64, few, elements=st.integers(-3, 3)),
    hnp.arrays(bool, few), st.lists(st.floats(0, 1), max_size=6), st.lists(words, max_size=4),
    st.lists(plain, max_size=4),
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=3), elements=floats),
    st.just([]), st.just(np.array(3.)))
scores = hnp.arrays(np.float64, few, elements=st.floats(0, 1)) | numbers
truths = hnp.arrays(np.int64, few, elements=st.integers(0, 1)) | numbers


def unit(rows):
    rows = np.asarray(rows, dtype=np.float32)
    return rows/np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


signs = hnp.arrays(np.float32, st.tuples(few, st.integers(1, 3)), elements=st.sampled_from((-1., 0., 1., 2.)))
spaces = signs.map(unit) | signs.map(unit).map(sparse.csr_matrix) | numbers


# --- good files ------------------------------------------------------------------------------------

@pytest.fixture(scope="module", autouse=True)
def good(tmp_path_factory):
    "A good file of each kind, by name."
    folder = tmp_path_factory.mktemp("good")
    for name in ("heco-sample", "videos-sample", "ozon-sample"): write_sample(name, folder)
    found = {"text": b"one\ntwo\n", "csv": b'a,b\n1,"two, three"\n4,5\n', "edges": b"0 1\n2\t3\n",
             "pairs": b"COL t VAL sony\tCOL t VAL sonny\t1\na\tb\t0\n", "vectors": b"red 1 2\nblue 3 4\n"}
    for path in (folder/"heco-sample").iterdir(): found[f"heco/{path.name}"] = path.read_bytes()
    for path in (folder/"videos-sample").iterdir(): found[f"videos/{path.name}"] = path.read_bytes()[:3000]
    table = pd.read_parquet(folder/"ozon-sample"/"train.parquet").head(9)
    for compression in (None, "snappy"):
        made = io.BytesIO()
        table.to_parquet(made, compression=compression)
        found[f"parquet/{compression}"] = made.getvalue()
    made = io.BytesIO()
    np.savez(made, index=np.array(["a", "b"]), emb_title=np.eye(2, dtype=np.float32),
             emb_stt_values=np.eye(2, dtype=np.float32), emb_stt_offsets=np.array([0, 1, 2]))
    found["videos/one.npz"] = made.getvalue()
    recorded = Path(__file__).parent.parent/"data"/"results"
    run = runs.read_run(sorted(recorded.rglob("*-quick-seed0.json"))[0])
    found["run"] = json.dumps({key: value for key, value in run.items() if key != "details"}).encode()
    encoder = TfidfEncoder().fit(["a b", "c"]).save(folder/"encoder")
    found |= {path.name: path.read_bytes() for path in encoder.iterdir()}
    posts, _ = headlines.read_headline_parts("headlines-sample")
    bundle = write_bundle(headlines.LinearHeadlines().fit(posts.train, posts.valid), folder/"bundle")
    found |= {f"bundle/{path.relative_to(bundle)}": path.read_bytes()
              for path in bundle.rglob("*") if path.is_file()}
    training.write_checkpoint(folder/"work", {"made_with": {}}, {"model": {"a": torch.ones(2)}})
    found |= {f"checkpoint/{path.name}": path.read_bytes() for path in (folder/"work").glob("*/*")}
    return found


def whole(*names):
    "A strategy of spoilt files; the good ones are there when it is drawn from."
    return st.deferred(lambda: spoil([store[name] for name in names]))


store = {}


@pytest.fixture(scope="module", autouse=True)
def stored(good): store.update(good)


def put(folder, name, data):
    path = Path(folder)/name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- what is attacked ------------------------------------------------------------------------------

@dataclass(frozen=True)
class Target:
    "A function, what it is given, and what an answer must be like."
    garbage:tuple            # One strategy for each argument of `call`
    call:object              # folder, *arguments → answer
    right:object = field(default=lambda answer: True)   # Whether an answer can be right
    weight:int = 1           # Share of the cases


def read_into(reader, name, **more):
    return lambda folder, data: reader(put(folder, name, data), **more)


def pass_to(function): return lambda folder, *some: function(*some)


def is_text(table): return all(isinstance(one, str) for one in table.to_numpy().ravel())


def in_unit(*names):
    return lambda found: all(np.isnan(found[name]) or -1e-6 <= found[name] <= 1 + 1e-6 for name in names)


def read_graph_of(folder, which, data):
    for name in [name for name in store if name.startswith("heco/")]: put(folder, name[5:], store[name])
    put(folder, which, data)
    return graph.read_heco("heco-sample", folder)


def read_videos_of(folder, which, data):
    for name in ("index", "emb_title", "emb_thumb", "emb_stt_values", "emb_stt_offsets", "emb_kf_values",
                 "emb_kf_offsets"): put(folder, f"{name}.npy", store[f"videos/{name}.npy"])
    put(folder, which, data)
    return videos.read_videos(folder)


def read_official(folder, posts, truth):
    put(folder, "instances.jsonl", posts)
    put(folder, "truth.jsonl", truth)
    return headlines.read_official(folder)


def read_run_file(folder, data):
    run = runs.read_run(put(folder, "runs/a/b/c.json", data))
    runs.table_rows([run])
    return run


def rank(found, groups, items, own):
    ranked = measures.rank_rows(found, groups, items, own)
    groups = np.arange(len(measures.row_scores(ranked, .5)["row_f1"]))
    return [untrained.pair_curve(ranked, np.arange(1, 0, -.1)), match_sets.measure_sets(ranked, .5, groups),
            measures.map_at_r(ranked), measures.choose_row_threshold(ranked)]


def ask_index(kind, items, queries, k):
    index = neighbours.build_index(items, kind)
    return index.nearest(queries, k), index.join(queries, .5)


def ask_shards(folder, kind, items, rows, spoilt):
    neighbours.write_shards(items, folder, "a", kind, rows)
    if spoilt is not None: put(folder, *spoilt)
    index = neighbours.ShardedIndex.load(folder, "a")
    return index.nearest(items, rows), index.join(items, .5)


def ask_collection(folder, items, payload, only, k):
    index = neighbours.write_collection(items, payload=payload, model="a")
    return index.nearest(items, k, only), index.join(items, .5, only)


matrices = hnp.arrays(np.float32, st.tuples(few, few), elements=st.floats(0, 1,
        width=32)).map(sparse.csr_matrix)
hexes = st.lists(st.text("0123456789abcdefg", min_size=3, max_size=4) | words, max_size=4)
post = {"id": words, "postText": st.lists(words, max_size=2), "text": words, "targetTitle": words}
truth = {"id": words, "truthMean": st.floats(0, 1), "truthClass": st.sampled_from(("clickbait",
        "no-clickbait")),
         "truthJudgments": st.lists(st.floats(0, 1), min_size=1, max_size=2)}
paper = {"id": words, "doi": words, "title": words, "authors": st.lists(words, max_size=2),
        "year": st.integers(),
         "terms": st.lists(words, max_size=2), "references": st.lists(words, max_size=2)}
work = st.fixed_dictionaries({}, optional={
    "id": words | values, "title": words | values, "publication_year": st.integers() | values,
    "authorships": st.lists(st.fixed_dictionaries({"author": values}), max_size=2) | values,
    "concepts": st.lists(st.fixed_dictionaries({"display_name": words, "score": floats}),
            max_size=2) | values,
    "abstract_inverted_index": st.dictionaries(words, st.lists(st.integers(0, 9), max_size=2)) | values,
    "referenced_works": st.lists(words, max_size=2) | values})
page = st.builds(lambda cursor, works: json.dumps({"meta": {"next_cursor": cursor},
        "results": works}).encode(),
                 words | values, st.lists(work | values, max_size=3) | values) | values.map(
                     lambda one: json.dumps(one).encode())
graph_names = st.sampled_from(("labels.npy", "pa.txt", "ps.txt", "pos.npz", "p_feat.npz", "train_20.npy",
        "pap.npz"))
arrays = numbers.map(lambda one: np.asarray(one)).filter(lambda one: one.dtype != object)


@st.composite
def array_files(draw):
    made = io.BytesIO()
    np.save(made, draw(arrays))
    return made.getvalue()


@st.composite
def archives(draw, *names):
    made, some = io.BytesIO(), draw(st.dictionaries(st.sampled_from(names), arrays, max_size=len(names)))
    np.savez(made, **some)
    return made.getvalue()


@st.composite
def parquet_tables(draw, *names):
    cells = st.none() | st.integers(-9, 9) | st.floats(allow_nan=True) | words | st.lists(
        floats | st.none() | st.lists(floats, max_size=2), max_size=3)
    frame = {name: draw(st.lists(cells, min_size=3, max_size=3)) for name in names}
    made = io.BytesIO()
    try: pd.DataFrame(frame).to_parquet(made)
    except Exception: return draw(st.sampled_from((b"", b"PAR1")))   # pyarrow itself refuses mixed cells
    return made.getvalue()


def read_ozon_of(folder, texts, images, pairs):
    for name, data in (("text_and_bert", texts), ("resnet", images), ("train", pairs)):
        put(folder, f"{name}.parquet", data)
    return listings.read_pair_parts("mine", folder)


def read_pair_folder(folder, *parts):
    for name, data in zip(("train", "valid", "test"), parts): put(folder, f"{name}.txt", data)
    return listings.read_pair_parts("mine", folder)


def read_encoder(folder, card, weights):
    put(folder, "encoder.json", card)
    put(folder, "idf.safetensors", weights)
    return TfidfEncoder.load(folder).embed(["a b"])


def read_table_of(folder, suffix, data):
    return check_table(read_printed_table(put(folder, f"t{suffix}", data)), None, "24%", 100)


def check_parts_of(folder, suffix, first, second):
    return check_leaks(read_part(put(folder, f"a{suffix}", first)), read_part(put(folder, f"b{suffix}",
            second)))


def open_bundle_of(folder, which, data, checked):
    "With and without bundle.json, which holds the checksums of the other files."
    for name in [name for name in store if name.startswith("bundle/")]: put(folder, name, store[name])
    put(folder, f"bundle/{which}", data)
    if not checked: (folder/"bundle"/"bundle.json").unlink()
    return open_bundle(folder/"bundle", ("posts",)).model


def read_checkpoint_of(folder, which, data):
    for name in ("record.json", "model.safetensors"):
        put(folder, f"checkpoint-1/{name}", store[f"checkpoint/{name}"])
    put(folder, f"checkpoint-1/{which}", data)
    return training.read_checkpoint(folder, {})


def propose(vectors, side): return untrained.propose_neighbours(vectors, untrained.RecipeConfig(), side)


def weigh(titles, *pairs):
    vectors = untrained.weigh_titles(titles, untrained.RecipeConfig().words)
    return untrained.pair_cosines(vectors, *pairs)


def describe(titles, first, second):
    return pair_judge.describe_titles(titles, TfidfEncoder().fit(["a b", "c"]), first, second)


def join_ids(ids, left, right, label):
    empty = np.zeros((len(ids), 0), dtype=np.float32)
    items = listings.Items(np.array(ids, dtype=object), np.array(ids, dtype=object), empty, empty)
    return listings.join_pairs(items, left, right, label)


def place(score, cited): return recommend.measure_each(recommend.place_cited(score, cited))


squares = few.flatmap(lambda n: hnp.arrays(np.float32, (n, n), elements=st.floats(0, 1, width=32))).map(
    sparse.csr_matrix)
tables = squares | matrices | matrices.map(lambda one: one.tocoo()) | numbers | hnp.arrays(
    np.float32, (2, 2), elements=floats).map(sparse.csr_matrix)
places = hnp.arrays(np.int64, few, elements=st.integers(-1, 5)) | numbers
texts = st.lists(words, max_size=4) | numbers
answers = st.builds(pd.DataFrame, st.fixed_dictionaries({}, optional={
    name: st.lists(st.integers(-1, 3) | plain, min_size=2, max_size=2)
    for name in ("left", "right", "label")}))
grids = hnp.arrays(np.float32, st.just((2, 3)), elements=floats) | numbers
whole_numbers = hnp.arrays(np.int64, few, elements=st.integers(-3, 9))
printed = (b"| model | accuracy | precision | recall | F1 |\n|---|---|---|---|---|\n"
           b"| a | .8 | .7 | .6 | .65 |\n")
seeds = st.builds(pd.DataFrame, st.fixed_dictionaries({}, optional={
    "model": st.lists(words, min_size=3, max_size=3), "seed": st.lists(plain, min_size=3, max_size=3),
    "f1": st.lists(floats | words, min_size=3, max_size=3)}))
frames = st.builds(pd.DataFrame, st.fixed_dictionaries({}, optional={
    name: st.lists(words, min_size=2, max_size=2) for name in ("left", "right", "text", "group", "label")}))


@dataclass(frozen=True)
class Settings:
    "Settings to replace fields of."
    rate:float = .1
    inner:datasets.Card|None = None


targets = {
    "read_text": Target((whole("text"),), read_into(datasets.read_text, "a.txt"),
            lambda text: "\0" not in text),
    "read_text gz": Target((st.binary(max_size=99).map(lambda data: b"\x1f\x8b\x08" + data),),
                           read_into(datasets.read_text, "a.gz")),
    "read_csv": Target((whole("csv") | tables_of("a", "b"),), read_into(datasets.read_csv, "a.csv"), is_text),
    "read_table": Target((whole("csv", "parquet/None", "text") | tables_of("a", "b") | lines_of(a=values),
                          st.sampled_from((".csv", ".tsv", ".jsonl", ".parquet", ".txt", ".csv.gz")),
                          st.sampled_from((None, ",", ";", "\\t", "", "ab"))),
                         lambda folder, data, end, separator: datasets.read_table(
                             put(folder, f"t{end}", data), separator), is_text),
    "read_json": Target((whole("run") | values.map(lambda one: json.dumps(one).encode()),),
                        read_into(datasets.read_json, "a.json"), lambda found: isinstance(found, dict)),
    "read_jsonl": Target((lines_of(a=words) | whole("text"),), read_into(datasets.read_jsonl, "a.jsonl"),
            len),
    "read_pairs": Target((whole("pairs"),), read_into(datasets.read_pairs, "a.txt"),
                         lambda table: set(table["label"]) <= {0, 1}),
    "read_edges": Target((whole("edges"),), read_into(datasets.read_edges, "a.txt"),
                         lambda edges: edges.shape[1:] == (2,)),
    "parse_entity": Target((words | st.text(),), lambda folder, text: datasets.parse_entity(text)),
    "read_parquet": Target((whole("parquet/None", "parquet/snappy"),), read_into(datasets.read_parquet,
            "a.parquet")),
    "read_graph": Target((st.sampled_from(("a.npy", "a.npz", "a.txt")),
                          whole("heco/labels.npy", "heco/pos.npz", "heco/pa.txt") | array_files() | archives(
                              "data", "indices", "indptr", "shape", "format")),
                         lambda folder, name, data: datasets.read_graph(put(folder, name, data).parent)),
    "read_heco": Target((graph_names, whole("heco/labels.npy", "heco/pos.npz",
            "heco/pa.txt") | array_files()),
                        read_graph_of),
    "read_artifacts": Target((values.map(json.dumps) | st.builds(
        lambda n: json.dumps({f"num_{word}s": n for word in ("paper", "author", "concept")}), plain),
        archives("E"), archives("E"), archives("indptr", "indices"), archives("X")),
        lambda folder, meta, *parts: [put(folder, "meta.json", meta.encode()), *(
            put(folder, f"{name}.npz", data) for name, data in zip(
                ("edges_PA", "edges_PC", "metapath_PAP", "features_papers"), parts))] and
        graph.read_artifacts(folder)),
    "read_papers": Target((lines_of(**paper),), lambda folder, data: graph.read_papers(
        data=put(folder, "p.jsonl", data))),
    "read_openalex": Target((page,), lambda folder, data: graph.read_openalex(
        put(folder, "page-00001.json", data).parent)),
    "read_videos npz": Target((whole("videos/one.npz") | archives(
        "index", "emb_title", "emb_stt_values", "emb_stt_offsets", "emb_../x", "other"),),
        read_into(videos.read_videos, "a.npz")),
    "read_videos folder": Target((st.sampled_from((
        "index.npy", "emb_title.npy", "emb_stt_values.npy", "emb_stt_offsets.npy", "labels.csv")),
        array_files() | whole("videos/index.npy", "videos/emb_title.npy", "videos/emb_stt_offsets.npy") |
        tables_of("id", "label", "split")), read_videos_of),
    "read_labels": Target((tables_of("id", "label", "split", "group", "title"), st.sampled_from((".csv",
            ".xlsx"))),
                          lambda folder, data, end: videos.read_labels(put(folder, f"l{end}", data)),
                          lambda table: set(table["label"]) <= {0, 1}),
    "read_posts": Target((tables_of("id", "text", "label", "mean", "title") | lines_of(**(post | truth)),
                          st.sampled_from((".csv", ".jsonl"))),
                         lambda folder, data, end: headlines.read_posts(put(folder, f"p{end}", data)),
                         lambda posts: set(posts.label) <= {0, 1}),
    "read_official": Target((lines_of(**post), lines_of(**truth)), read_official),
    "read_listings": Target((tables_of("posting_id", "title", "label_group", "image_phash"),),
                            lambda folder, data: listings.read_listings("mine", put(folder, "c.csv", data))),
    "read_pair_parts": Target((whole("pairs"),)*3, read_pair_folder),
    "read_labelled_pairs": Target((tables_of("left_text", "right_text", "label", "score"),),
                                  read_into(listings.read_labelled_pairs, "l.csv")),
    "read_ozon": Target((parquet_tables("variantid", "name_bert_64", "name"),
                         parquet_tables("variantid", "main_pic_embeddings_resnet_v1"),
                         parquet_tables("variantid1", "variantid2", "target")), read_ozon_of),
    "stack_vectors": Target((st.lists(st.none() | numbers, max_size=4),),
                            pass_to(listings.stack_vectors),
                            lambda rows: np.isfinite(rows).all()),
    "read_printed_table": Target((st.sampled_from((".csv", ".tsv", ".md", ".jsonl")),
                                  st.just(printed).map(lambda one: [one]).flatmap(spoil) |
                                  tables_of("model", "accuracy", "precision", "recall", "f1") |
                                  lines_of(accuracy=words, f1=words)), read_table_of),
    "read_part": Target((st.sampled_from((".csv", ".tsv", ".txt", ".jsonl", ".parquet")),
                         *(tables_of("text", "label_group", "left", "right") | lines_of(text=words) |
                           whole("pairs", "parquet/None"),)*2), check_parts_of),
    "check_leaks": Target((frames, frames), pass_to(check_leaks)),
    "check_seeds": Target((seeds,), lambda folder, some: check_seeds(some, "f1")),
    "check_threshold": Target((scores, truths), pass_to(check_threshold)),
    "read_run": Target((whole("run"),), read_run_file, lambda run: set(runs.run_keys) <= set(run)),
    "read_claims": Target((st.binary(max_size=60) | values.map(lambda one: json.dumps(one).encode()),),
                          lambda folder, data: runs.read_claims(put(folder, "claims.yaml", data).parent)),
    "parse_settings": Target((st.lists(words | st.builds("{}={}".format, words, values.map(json.dumps)),
                                       max_size=3),),
                             pass_to(runs.parse_settings)),
    "replace_setting": Target((st.sampled_from(("rate", "inner", "rate.x", "inner.x.y", "", ".",
            "x")) | words,
                               values), lambda folder, *some: runs.replace_setting(Settings(), *some)),
    "open_model": Target((whole("run") | values.map(lambda one: json.dumps(one).encode()),),
                         lambda folder, data: open_model(put(folder, "model.json", data).parent)),
    "TfidfEncoder.load": Target((whole("encoder.json"), whole("idf.safetensors")), read_encoder),
    "open_word_vectors": Target((whole("vectors"),), lambda folder, data: open_word_vectors(
        str(put(folder, "v.txt", data)))),

    "check_scores": Target((scores, truths), pass_to(measures.check_scores)),
    "binary_measures": Target((scores, truths, floats), pass_to(measures.binary_measures),
                              in_unit("f1", "precision", "recall", "accuracy", "pr_auc", "roc_auc")),
    "choose_threshold": Target((scores, truths), pass_to(measures.choose_threshold), np.isfinite),
    "reliability": Target((scores, truths, st.integers(-1, 12)), pass_to(measures.reliability)),
    "fit_calibration": Target((scores, truths, st.sampled_from((*measures.calibrations, "x"))),
                              pass_to(measures.fit_calibration)),
    "f1_at_share": Target((st.floats(0, 1) | floats,)*4, pass_to(measures.f1_at_share),
                          lambda f1: 0 <= f1 <= 1),
    "rank_rows": Target((matrices, numbers, st.none() | numbers, st.none() | numbers),
                        pass_to(rank)),
    "list_measures": Target((st.lists(hnp.arrays(np.int64, few, elements=st.integers(-1, 60)) | numbers,
            max_size=3),),
                            pass_to(measures.list_measures),
                            in_unit("recall_at_10", "recall_at_50", "mrr")),
    "rank_over_datasets": Target(
        (hnp.arrays(np.float64, st.tuples(few, few), elements=floats), st.booleans()),
        pass_to(measures.rank_over_datasets)),
    "class_measures": Target((hnp.arrays(np.float64, st.tuples(few, few), elements=floats) | numbers, truths),
                             pass_to(measures.class_measures)),
    "bootstrap_interval": Target((scores, st.none() | numbers, st.sampled_from((.95, 0, 1, 2, np.nan)),
                                  st.sampled_from((0, 1, 20, -1))),
                                 pass_to(measures.bootstrap_interval)),
    "compare": Target((scores, scores, st.none() | numbers), lambda folder,
            *some: measures.compare(*some, draws=20)),
    "read_figures": Target((st.lists(words | floats, max_size=4),), lambda folder,
            some: read_figures(some, "x")),
    "find_edge_leaks": Target((numbers, numbers), pass_to(find_edge_leaks)),

    "join": Target((spaces, st.none() | spaces, floats), pass_to(neighbours.join)),
    "join_near": Target((spaces, spaces, floats), pass_to(neighbours.join_near)),
    "join_equal": Target((numbers, st.none() | numbers), pass_to(neighbours.join_equal)),
    "hash_bits": Target((hexes,), pass_to(neighbours.hash_bits)),
    "join_hamming": Target((hnp.arrays(np.uint8, st.tuples(few, st.integers(0, 2))) | numbers,
                            st.none() | numbers, st.integers(-1, 20)),
                           pass_to(neighbours.join_hamming)),
    "build_index": Target((st.sampled_from(("exact", "flat", "hnsw", "ivf", "x")), spaces, spaces,
                           st.integers(-1, 9)), pass_to(ask_index)),
    "write_shards": Target((st.sampled_from(("flat", "ivf", "x")), spaces, st.integers(-1, 9),
                            st.none() | st.tuples(st.sampled_from(("shards.json", "shard-00000.faiss")),
                                                  values.map(lambda one: json.dumps(one).encode()))),
                           ask_shards),
    "write_collection": Target((spaces, st.none() | st.lists(st.dictionaries(words, values), max_size=4),
                                st.none() | st.dictionaries(words, values, max_size=2), st.integers(-1, 9)),
                               ask_collection),
    "connect_qdrant": Target((words.filter(lambda one: not one.startswith("http")),),
                             pass_to(neighbours.connect_qdrant)),
    "filter_payload": Target((st.none() | st.dictionaries(words, values),),
                             pass_to(neighbours.filter_payload)),
    "hash_file": Target((st.binary(max_size=99), st.none() | st.integers(-1, 9)),
                        lambda folder, data, pages: neighbours.hash_file(put(folder, "a", data), pages), len),

    "split_by_percentile": Target((numbers, floats, floats), pass_to(splits.split_by_percentile)),
    "split_by_group": Target((numbers, st.lists(floats, min_size=2, max_size=4) | st.just((.6, .2, .2))),
                             pass_to(splits.split_by_group)),
    "split_by_time": Target((numbers, plain, plain), pass_to(splits.split_by_time)),
    "split_into_folds": Target((truths, numbers, st.integers(-1, 5)),
                               pass_to(splits.split_into_folds)),
    "find_clusters": Target((numbers, numbers, truths, st.integers(-1, 9)),
                            pass_to(splits.find_clusters)),
    "split_by_cluster": Target((numbers, numbers, truths, st.integers(-1, 9)),
                               pass_to(splits.split_by_cluster)),
    "open_catalogue": Target((tables_of("id", "title", "image_phash", "b"), st.lists(words, max_size=2),
                              st.none() | st.sampled_from(("id", "x")), st.none() | words),
                             lambda folder, data, *more: match.open_catalogue(
                                 put(folder, "c.csv", data), *more),
                             lambda found: len(found) == len(set(found.id))),
    "match.read_labels": Target((tables_of("left", "right", "label"),), lambda folder, data:
                                match.read_labels(put(folder, "l.csv", data), match.Catalogue(
                                    np.array(["a b", "1"], dtype=object), None)),
                                lambda found: set(found.label) <= {0, 1}),
    "open_bundle": Target((st.sampled_from(("bundle.json", "model.json", "weights.safetensors", "README.md")),
                           whole("bundle/bundle.json", "bundle/model.json") |
                           values.map(lambda one: json.dumps(one).encode()), st.booleans()), open_bundle_of),
    "read_checkpoint": Target((st.sampled_from(("record.json", "model.safetensors")),
                               whole("checkpoint/record.json", "checkpoint/model.safetensors") |
                               values.map(lambda one: json.dumps(one).encode())), read_checkpoint_of),
    "read_tensors": Target((whole("checkpoint/model.safetensors"),), read_into(training.read_tensors, "a")),

    "lift_best": Target((tables, st.none() | places), pass_to(match_sets.lift_best)),
    "keep_mutual": Target((tables, st.integers(-1, 3)), pass_to(match_sets.keep_mutual)),
    "cluster_scores": Target((tables, floats), pass_to(match_sets.cluster_scores)),
    "blend_vectors": Target((spaces, tables, floats), pass_to(match_sets.blend_vectors)),
    "count_neighbours": Target((tables, floats), pass_to(match_sets.count_neighbours)),
    "floor_for_neighbours": Target((tables, floats), pass_to(match_sets.floor_for_neighbours)),
    "propose_neighbours": Target((spaces, st.none() | truths), pass_to(propose)),
    "weigh_titles": Target((texts, places, places), pass_to(weigh)),
    "mirror": Target((scores, places, places, st.integers(-1, 6)), pass_to(untrained.mirror)),
    "relate_scores": Target((tables,), pass_to(untrained.relate_scores)),
    "blend_scores": Target((tables, floats, floats), pass_to(untrained.blend_scores)),
    "find_untrained": Target((texts, st.none() | hexes | numbers, st.none() | truths),
                             lambda folder, titles, hashes, side: untrained.find_untrained(
                                 titles, hashes=hashes, side=side)),
    "find_within": Target((texts, texts | numbers, st.none() | hexes | numbers, st.none() | truths),
                          lambda folder, titles, part, hashes, side: untrained.find_within(
                              titles, part, hashes=hashes, side=side)),
    "pack_parts": Target((texts | truths, st.integers(-1, 4)), pass_to(untrained.pack_parts)),
    "keep_across": Target((tables, truths), pass_to(untrained.keep_across)),
    "propose_pairs": Target((st.lists(tables, max_size=2),), pass_to(pair_judge.propose_pairs)),
    "read_cells": Target((tables, places, places), pass_to(pair_judge.read_cells)),
    "sort_sides": Target((numbers, numbers), pass_to(pair_judge.sort_sides)),
    "rank_cells": Target((tables,), pass_to(pair_judge.rank_cells)),
    "describe_space": Target((tables, places, places), pass_to(pair_judge.describe_space)),
    "describe_titles": Target((texts, places, places), pass_to(describe)),
    "place_cited": Target((grids | numbers, tables), pass_to(place)),
    "level_scores": Target((grids,), pass_to(recommend.level_scores)),
    "mix_scores": Target((st.lists(grids, max_size=3), st.lists(floats, max_size=3)),
                         pass_to(recommend.mix_scores)),
    "choose_weights": Target((st.lists(grids, max_size=2), tables | hnp.arrays(
        np.float32, (2, 3), elements=st.sampled_from((0., 1.))).map(sparse.csr_matrix), st.integers(-1, 3)),
        pass_to(recommend.choose_weights)),
    "check_labels": Target((numbers | truths,), pass_to(listings.check_labels)),
    "pair_keys": Target((places, places), pass_to(listings.pair_keys)),
    "join_pairs": Target((st.lists(words, max_size=4, unique=True), texts, texts, truths), pass_to(join_ids)),
    "hash_vectors": Target((hexes | st.lists(st.text("0123456789abcdef", min_size=16, max_size=16) | st.just(
        ""), max_size=3) | numbers,), pass_to(listings.hash_vectors)),
    "overlap": Target((tables, tables), pass_to(pair_mlp.overlap)),
    "find_telling": Target((grids,), pass_to(pair_mlp.find_telling)),
    "join_sides": Target((hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=3)).map(
        torch.from_numpy),)*2, pass_to(pair_mlp.join_sides)),
    "check_offsets": Target((whole_numbers | numbers, st.integers(-1, 9)), pass_to(batches.check_offsets)),
    "to_positions": Target((whole_numbers.filter(lambda some: (abs(some) < 4).all()) | hnp.arrays(bool, few) |
                            st.lists(st.floats(0, 1), max_size=3) | st.lists(
                                st.none() | words | st.integers(-9, 8), max_size=3), st.just(9)),
                           pass_to(batches.to_positions)),
    "cut_rows": Target((whole_numbers.map(torch.from_numpy), st.integers(-1, 4), st.booleans()),
                       pass_to(batches.cut_rows)),
    "order_by_length": Target((whole_numbers.map(torch.from_numpy), st.integers(-1, 4)),
                              pass_to(batches.order_by_length)),
    "group_listings": Target((tables, floats, st.none() | texts, st.none() | texts),
                             pass_to(match.group_listings)),
    "fix_labelled": Target((tables, answers), pass_to(match.fix_labelled)),
    "choose_by_labels": Target((tables, answers), pass_to(match.choose_by_labels)),
    "lift_alone": Target((tables, floats), pass_to(match.lift_alone)),
    "measure_groups": Target((numbers, numbers, places), pass_to(match.measure_groups)),
    "locate_elements": Target((whole_numbers.map(torch.from_numpy),)*2, pass_to(batches.locate_elements)),
    "show_costs": Target((st.just({.5: {"precision": .5, "recall": .5}}), scores), pass_to(match.show_costs)),
    "draw_histogram": Target((scores, floats, st.integers(-1, 5)), pass_to(match.draw_histogram)),
    "find_text_leaks": Target((st.lists(words, max_size=3),)*2, pass_to(splits.find_text_leaks)),
    "find_group_leaks": Target((numbers, numbers), pass_to(splits.find_group_leaks)),
}


@pytest.mark.parametrize("name", list(targets))
def test_garbage_is_answered_or_refused(name):
    target, count = targets[name], Counter()

    @settings(max_examples=max(10, -(-cases//len(targets))), **quiet)
    @given(st.tuples(*target.garbage))
    def attack(some):
        with tempfile.TemporaryDirectory(dir=store["folder"]) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")   # garbage may warn; what counts is how it ends
            try: answer = target.call(Path(folder), *some)
            except InputError as error:
                count["refused"] += 1
                assert str(error)
                return
        count["answered"] += 1
        assert target.right(answer), answer
    attack()
    if path := os.environ.get("MATCHBOOK_FUZZ_RECORD"):
        with open(path, "a") as file: file.write(json.dumps({"what": name, **count}) + "\n")


@pytest.fixture(scope="module", autouse=True)
def space(tmp_path_factory):
    "Where files go: in memory where there is such a folder."
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        store["folder"] = folder
        yield


def test_an_error_of_another_kind_is_noticed(monkeypatch):
    def fall(*_): raise KeyError("x")
    monkeypatch.setitem(targets, "read_text", Target((words,), fall))
    with pytest.raises(KeyError): test_garbage_is_answered_or_refused("read_text")


def test_a_new_function_of_arrays_is_noticed(monkeypatch):
    def brand_new(rows:np.ndarray): return rows
    monkeypatch.setattr(match_sets, "brand_new", brand_new, raising=False)
    monkeypatch.setattr(match_sets, "__all__", [*match_sets.__all__, "brand_new"])
    with pytest.raises(AssertionError, match="match_sets"):
        test_every_reader_and_every_function_of_arrays_is_attacked()


def test_a_wrong_answer_is_noticed(monkeypatch):
    monkeypatch.setitem(targets, "read_text", Target((words,), lambda folder, one: one, lambda one: False))
    with pytest.raises(AssertionError): test_garbage_is_answered_or_refused("read_text")


# Public functions that are attacked through another one: name → target
through = {
    **dict.fromkeys(("row_scores", "row_f1_curve", "halve", "choose_row_threshold", "map_at_r"), "rank_rows"),
    **dict.fromkeys(("make_engine", "open_faiss"), "build_index"), "read_collection": "write_collection",
    "calibration_error": "binary_measures", "check_unit": "join", "check_cosine": "join",
    "draw_negatives": "split_by_cluster",
    "find_pair_leaks": "check_leaks", "leak_report": "check_leaks", "read_arrays": "read_videos npz",
    "read_judged": "read_posts", "read_instances": "read_official", "read_headline_parts": "read_posts",
    "read_array": "read_artifacts", "read_abstract": "read_openalex", "read_work": "read_openalex",
    "read_page": "read_openalex", "read_paper_table": "read_papers", "read_text_pairs": "read_pair_parts",
    "read_ids": "read_videos folder", "read_field": "read_posts", "read_texts": "read_posts",
    "read_promise": "read_videos folder", "read_bangla": "read_jsonl",
    "read_bundle": "open_model",
    "bootstrap_measure": "bootstrap_interval", "pair_cosines": "weigh_titles", "pair_curve": "rank_rows",
    "measure_sets": "rank_rows", "measure_each": "place_cited", "learn_terms": "find_within"}


covered = (measures, neighbours, splits, match_sets, untrained, pair_judge, recommend, listings, pair_mlp,
           batches, evidence, match)
# Not attacked, and why: what they take beside arrays is made, and checked, by other functions
left_out = {
    "measure_thresholds": "listings", "raise_probes": "an index", "rank_growing": "a catalogue",
    "find_near_pairs": "items", "make_list": "a graph",
    "recommend": "a graph", "prepare_graph": "a moment", "quote_lists": "a moment",
    "score_vectors": "a moment", "count_flips": "a model", "gather_sides": "a table of a network",
    "judge_pairs": "a bundle", "show_examples": "pairs of a match", "join_parts": "packs of parts"}


def takes_arrays(function):
    return any(word in str(one.annotation) for one in signature(function).parameters.values()
               for word in ("ndarray", "csr_matrix", "Tensor"))


def test_every_reader_and_every_function_of_arrays_is_attacked():
    attacked = {name.partition(" ")[0] for name in targets} | through.keys()
    for module in (measures, neighbours, splits):
        functions = {name for name in module.__all__ if isfunction(getattr(module, name))}
        assert functions - left_out.keys() <= attacked, functions - left_out.keys() - attacked
    for module in covered:
        functions = {name for name in module.__all__ if isfunction(found := getattr(module, name))
                     and takes_arrays(found)}
        assert functions - attacked - left_out.keys() == set(), module.__name__
    assert not left_out.keys() & attacked
    for module in (datasets, videos, headlines, graph, listings):
        readers = {name for name in module.__all__ if name.startswith("read_")}
        assert readers <= attacked, readers - attacked
    assert set(through.values()) <= targets.keys()
