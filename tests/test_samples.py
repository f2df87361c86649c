"Samples: the same bytes everywhere, in the form of the real files, whole or not at all."
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest
from scipy import sparse

from matchbook import samples as made
from matchbook.samples import draw_headlines, draw_items, draw_listings, samples, write_sample

committed = Path(__file__).resolve().parent.parent/"data"/"samples"
sums = dict(reversed(line.split("  ")) for line in (committed/"SHA256SUMS").read_text().splitlines())
old_arrow = int(pyarrow.__version__.split(".")[0]) < 20          # lays out its pages in another way


def files_of(folder): return {path.relative_to(folder).as_posix(): path.read_bytes()
                              for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def sha256(content): return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    for name in samples: write_sample(name, folder)
    return folder


def read_lines(path): return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def test_every_file_has_its_recorded_sum(written):
    now = {name: sha256(content) for name, content in files_of(written).items()}
    checked = [name for name in sums if not (old_arrow and name.endswith(".parquet"))]
    assert list(now) == list(sums) and [name for name in checked if now[name] != sums[name]] == []


def test_what_is_committed_is_what_is_made(written):
    kept = {name: content for name, content in files_of(committed).items() if "/" in name}
    folders = {f"{one}-sample" for one in ("shopee", "pairs", "headlines", "papers")}
    assert {name.split("/")[0] for name in kept} == folders
    now = files_of(written)
    assert [name for name in kept if kept[name] != now[name]] == []
    assert sum(map(len, files_of(committed).values())) < 1_500_000


@pytest.mark.parametrize("hash_seed,zone", [("1", "UTC"), ("77", "Asia/Jakarta")])
def test_bytes_do_not_depend_on_the_hash_seed_or_the_clock(tmp_path, written, hash_seed, zone):
    code = """if True:
        import sys
        from matchbook.samples import samples, write_sample
        for name in samples: write_sample(name, sys.argv[1])"""
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=True)
    here, there = files_of(written), files_of(tmp_path)
    assert list(here) == list(there) and [name for name in here if here[name] != there[name]] == []


def test_another_seed_gives_another_sample(tmp_path, written):
    for name in samples: write_sample(name, tmp_path, seed=1)
    here, there = files_of(written), files_of(tmp_path)
    assert list(here) == list(there) and [name for name in here if here[name] == there[name]] == []


def test_nothing_needs_pickle_and_no_file_has_a_date(written):
    import zipfile
    for path in written.rglob("*.np[yz]"):
        values = np.load(path, allow_pickle=False)
        if path.suffix == ".npz":
            assert all(values[name] is not None for name in values.files)
            assert {one.date_time for one in zipfile.ZipFile(path).infolist()} == {(1980, 1, 1, 0, 0, 0)}
        else: assert values.dtype != object
    for path in written.rglob("*.parquet"): assert pyarrow.__version__.encode() not in path.read_bytes()


def test_listings_are_in_the_form_of_shopee(written):
    table = pd.read_csv(written/"shopee-sample/train.csv")
    assert list(table) == ["posting_id", "image", "image_phash", "title", "label_group"]
    assert table.notna().all().all() and table.title.str.strip().ne("").all()
    assert table.posting_id.str.fullmatch(r"train_\d+").all() and table.posting_id.is_unique
    assert table.image.str.fullmatch(r"[0-9a-f]{32}\.jpg").all()
    counts = table.groupby("label_group").size()
    assert counts.min() == 2 and counts.max() == 12
    by_size = counts.value_counts().sort_index()
    assert (by_size.diff().dropna() <= 0).all() and by_size[2] > len(counts) / 2
    hashes = table.groupby("label_group").image_phash
    equal, groups = (hashes.nunique() == 1).mean(), table.groupby("image_phash").label_group.nunique()
    assert .05 < equal < .5 and 0 < (groups > 1).sum() < 20


def test_pairs_are_in_the_form_of_ditto(written):
    side = r"COL name VAL .+ COL description VAL .* COL price VAL [\d.]* "
    for split, count in (("train", 900), ("valid", 300), ("test", 300)):
        lines = (written/f"pairs-sample/{split}.txt").read_text().split("\n")[:-1]
        assert len(lines) == count
        assert [line for line in lines if not re.fullmatch(rf"{side}\t{side}\t[01]", line)] == []
        assert .1 < np.mean([line[-1] == "1" for line in lines]) < .2


def test_items_are_in_the_form_of_ozon(written):
    folder = written/"ozon-sample"
    read = lambda name: pd.read_parquet(folder/f"{name}.parquet")
    texts, images, pairs = read("text_and_bert"), read("resnet"), read("train")
    assert list(texts) == ["variantid", "name", "categories", "name_bert_64"]
    assert list(pairs) == ["variantid1", "variantid2", "target"]
    first = images.main_pic_embeddings_resnet_v1[0]
    assert len(first) == 1 and len(first[0]) == 128 and texts.name_bert_64.map(len).eq(64).all()
    both = set(texts.variantid) & set(images.variantid)
    missing = ~(pairs.variantid1.isin(both) & pairs.variantid2.isin(both))
    assert 0 < missing.mean() < .1 and texts.variantid.is_unique and images.variantid.is_unique
    assert not pairs.apply(lambda row: tuple(sorted(row[:2])), axis=1).duplicated().any()


def test_headlines_are_in_the_form_of_webis(written):
    for split, count in (("train", 600), ("test", 200)):
        folder = written/"headlines-sample"/split
        posts, truths = read_lines(folder/"instances.jsonl"), read_lines(folder/"truth.jsonl")
        assert len(posts) == count and [one["id"] for one in posts] == [one["id"] for one in truths]
        assert list(posts[0]) == ["id", "postTimestamp", "postText", "postMedia", "targetTitle",
                                  "targetDescription", "targetKeywords", "targetParagraphs", "targetCaptions"]
        for truth in truths:
            judged = truth["truthJudgments"]
            assert len(judged) == 5 and set(judged) <= {0., .3333333333, .6666666666, 1.}
            assert truth["truthMean"] == pytest.approx(np.mean(judged))
            assert truth["truthMedian"] == np.median(judged)
            assert judged.count(truth["truthMode"]) == max(map(judged.count, judged))
            is_clickbait = sum(value > .5 for value in judged) >= 3
            assert truth["truthClass"] == ("clickbait" if is_clickbait else "no-clickbait")


def test_some_posts_are_posted_again_and_few_of_them_in_the_other_split():
    posts = draw_headlines()
    key = posts.postText.str[0] + posts.targetTitle
    train, test = (key[posts.split == name] for name in ("train", "test"))
    assert posts.id.is_unique and .02 < train.duplicated().mean() < .12 and test.isin(train).mean() < .12


def test_videos_join_by_id(written):
    folder = written/"videos-sample"
    labels, ids = pd.read_csv(folder/"labels.csv"), np.load(folder/"index.npy")
    assert set(labels.id) == set(ids) and (labels.id != ids).mean() > .9
    assert labels.split.value_counts().to_dict() == {"train": 200, "test": 100, "val": 98}
    assert (labels.label == "clickbait").groupby(labels.split).mean().between(.49, .51).all()
    for name in ("emb_stt", "emb_kf"):
        values = np.load(folder/f"{name}_values.npy", mmap_mode="r")
        offsets = np.load(folder/f"{name}_offsets.npy")
        assert values.shape == (offsets[-1], 16) and len(offsets) == 399 and (np.diff(offsets) >= 0).all()


def test_papers_are_in_the_form_of_the_collection(written):
    papers = read_lines(written/"papers-sample/papers.jsonl")
    fields = {"doi", "title", "abstract", "year", "venue", "source", "authors", "author_terms", "ieee_terms",
              "dynamic_terms", "citing_paper_count", "authors_dedup", "references", "internal_references"}
    assert set(papers[0]) == fields
    dois = {one["doi"] for one in papers}
    for one in papers: assert set(one["internal_references"]) <= dois & set(one["references"]) - {one["doi"]}
    assert {type(one["abstract"]) for one in papers} == {str, type(None)} and "NaN" not in json.dumps(papers)


def test_graph_is_in_the_form_of_heco(written):
    folder = written/"heco-sample"
    labels = np.load(folder/"labels.npy")
    loaded = {one: sparse.load_npz(folder/f"{one}.npz") for one in ("p_feat", "a_feat", "pap", "psp", "pos")}
    assert labels.dtype == np.float64 and loaded["pap"].dtype == bool and loaded["pos"].dtype == np.float64
    assert [one.format for one in loaded.values()] == ["csr", "coo", "coo", "coo", "coo"]
    for name, path in (("pa", "pap"), ("ps", "psp")):
        edges = np.loadtxt(folder/f"{name}.txt", dtype=int)
        links = sparse.csr_matrix((np.ones(len(edges)), edges.T))
        assert ((links @ links.T > 0) != loaded[path].tocsr()).nnz == 0  # a path is the product of its edges
    positives = loaded["pos"].tocsr()
    assert positives.diagonal().all() and positives.sum(1).max() == 5
    for per_class in (20, 40, 60):
        rows = np.load(folder/f"train_{per_class}.npy")
        assert rows.dtype == np.int64 and np.bincount(labels[rows].astype(int)).tolist() == [per_class]*3


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(folder, seed):
        (folder/"half.txt").write_text("half")
        raise KeyboardInterrupt
    monkeypatch.setitem(made.samples, "pairs-sample", made.Sample("fails", fail))
    with pytest.raises(KeyboardInterrupt): write_sample("pairs-sample", tmp_path)
    assert os.listdir(tmp_path) == []


def test_refusals_are_one_clear_line(tmp_path):
    for call, said in ((lambda: write_sample("papers", tmp_path), "did you mean 'papers-sample'"),
                       (lambda: write_sample("heco-sample", tmp_path, seed=.5), "seed must be a whole"),
                       (lambda: draw_listings(0), "n_groups must be 1 or more, got 0"),
                       (lambda: draw_items(5), "n_items must be 100 or more, got 5")):
        with pytest.raises(ValueError, match=said) as caught: call()
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_second_writing_repairs_the_first(tmp_path, written):
    folder = write_sample("headlines-sample", tmp_path)
    (folder/"train/truth.jsonl").write_text("broken")
    (folder/"test/instances.jsonl").unlink()
    assert write_sample("headlines-sample", tmp_path) == folder
    assert files_of(folder) == files_of(written/"headlines-sample")


@pytest.mark.skipif(not os.environ.get("MATCHBOOK_DATA"), reason="MATCHBOOK_DATA names no real data")
def test_no_real_row_is_in_a_sample(written):
    real, normal = Path(os.environ["MATCHBOOK_DATA"]), lambda text: " ".join(re.findall(r"\w+", text.lower()))
    papers = [one["title"] for one in read_lines(written/"papers-sample/papers.jsonl")]
    texts = {"shopee/train.csv": (pd.read_csv(written/"shopee-sample/train.csv").title, "title"),
             "webis17-170630-cleaned/posts.jsonl": (draw_headlines().postText.str[0], "text"),
             "vispub/papers.jsonl": (papers, "title")}
    for name, (ours, column) in texts.items():
        if not (real/name).exists(): continue
        theirs = pd.read_csv(real/name) if name.endswith("csv") else pd.DataFrame(read_lines(real/name))
        assert not {normal(text) for text in ours} & {normal(text) for text in theirs[column]} - {""}
