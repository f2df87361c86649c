"Videos: read by id and without a pickle, refused in one line, and the same from disk as from memory."
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch

from matchbook.batches import Ragged
from matchbook.clickbait.videos import (Videos, build_videos, convert_videos, count_words, cut_sentences,
                                        gather_views, group_alike, join_labels, part_names, read_arrays,
                                        read_bangla, read_labels, read_posts, read_promise, read_videos,
                                        stream_videos)
from matchbook.datasets import InputError, load, locate
from matchbook.encoders import TfidfEncoder, words
from matchbook.samples import draw_videos


class Letters:
    "An encoder of letters: how often each of the first eight comes."

    def embed(self, texts):
        return np.array([[text.lower().count(one) for one in "abcdefgh"] for text in texts], dtype=np.float32)


def objects(rows):
    "An object array of sequences, as the original has it."
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array


@pytest.fixture
def archive(tmp_path):
    "The original's archive of the made-up videos, with its table in another order."
    arrays, labels = draw_videos(n=40, width=6, sentences=(1, 5), frames=(1, 3))
    cut = {name: objects([arrays[f"emb_{name}_values"][a:b] for a, b in
                          zip(arrays[f"emb_{name}_offsets"], arrays[f"emb_{name}_offsets"][1:])])
           for name in ("stt", "kf")}
    cut["stt"][3] = np.zeros(0)
    np.savez(tmp_path/"old.npz", emb_title=arrays["emb_title"], emb_thumb=arrays["emb_thumb"],
             emb_stt=cut["stt"], emb_kf=cut["kf"], index=arrays["index"], title_col=np.array("title"))
    labels.to_csv(tmp_path/"labels.csv", index=False)
    return tmp_path


def two(**change):
    parts = {"id": np.array(["a", "b"]), "label": np.array([1, 0]), "promise": {"title": torch.eye(3)[:2]},
             "content": {"frames": Ragged(torch.eye(3), [0, 3, 3])}}
    return Videos(**parts | change)


# --- the files ------------------------------------------------------------------------------------


def test_labels_meet_their_videos_by_id_whatever_the_order(archive):
    first = read_videos(archive/"old.npz", trusted=True)
    table = pd.read_csv(archive/"labels.csv")
    truth = dict(zip(table["id"], table["label"]))
    assert [truth[one] == "clickbait" for one in first.id] == (first.label == 1).tolist()
    table.iloc[::-1].to_csv(archive/"labels.csv", index=False)
    assert (read_videos(archive/"old.npz", trusted=True).label == first.label).all()
    by_position = (table["label"] == "clickbait").to_numpy()
    assert .2 < (by_position == first.label).mean() < .8              # the original's way: the toss of a coin


def test_a_video_without_a_transcript_passes(archive):
    videos = read_videos(archive/"old.npz", trusted=True)
    assert videos.content["transcript"].lengths[3] == 0
    assert videos[[3]].content["transcript"].values.shape == (0, 6)


class Bomb:
    "What runs when it is unpickled."

    def __init__(self, path): self.path = path

    def __reduce__(self): return os.mkdir, (str(self.path),)


def test_a_pickle_bomb_does_not_go_off(tmp_path):
    np.savez(tmp_path/"bomb.npz", emb_title=np.eye(2), index=np.array(["a", "b"]),
             emb_stt=objects([Bomb(tmp_path/"went off"), Bomb(tmp_path/"again")]))
    for read in (read_arrays, read_videos, lambda path: convert_videos(path, tmp_path/"plain"),
                 lambda path: read_promise("any", path)):
        with pytest.raises(InputError, match="emb_stt: a pickle, which can run any program") as told:
            read(tmp_path/"bomb.npz")
        assert "\n" not in str(told.value)
    assert not (tmp_path/"went off").exists() and not (tmp_path/"plain").exists()
    with pytest.raises(InputError): read_videos(tmp_path/"bomb.npz", trusted=True)     # and trusted, it does
    assert (tmp_path/"went off").exists()


def test_a_pickle_in_a_folder_is_refused_too(tmp_path):
    np.save(tmp_path/"emb_stt.npy", objects([np.eye(2)]*2), allow_pickle=True)
    with pytest.raises(InputError, match="a pickle"): read_arrays(tmp_path)


def test_converted_once_no_pickle_is_needed(archive):
    folder = convert_videos(archive/"old.npz", archive/"plain", trusted=True)
    first, again = (read_videos(path, archive/"labels.csv", True) for path in (archive/"old.npz", folder))
    assert (first.id == again.id).all() and (first.label == again.label).all()
    for view in first.promise: assert torch.equal(first.promise[view], again.promise[view])
    for view in first.content:
        assert torch.equal(first.content[view].values, again.content[view].values)
        assert torch.equal(first.content[view].offsets, again.content[view].offsets)
    assert not any(np.load(path, mmap_mode="r").dtype == object for path in folder.glob("*.npy"))


def write_folder(folder, n, width=384, length=2):
    folder.mkdir()
    np.save(folder/"index.npy", np.arange(n).astype(str))
    np.save(folder/"emb_title.npy", np.ones((n, width), np.float16))
    np.save(folder/"emb_stt_offsets.npy", np.arange(n + 1)*length)
    np.save(folder/"emb_stt_values.npy", np.ones((n*length, width), np.float16))
    return folder


def test_a_video_from_disk_costs_the_same_whatever_the_folder_holds(tmp_path):
    "Neither titles nor ids are read anew for each block."
    import time
    import tracemalloc
    cost, peak = [], []
    for n in (1_000, 8_000):
        folder, seconds = write_folder(tmp_path/str(n), n), []
        for _ in range(2):
            start = time.process_time()
            assert sum(len(block) for block in stream_videos(folder, 50)) == n
            seconds.append((time.process_time() - start)/n)
        blocks = stream_videos(folder, 50)
        next(blocks)
        tracemalloc.start()
        held = tracemalloc.get_traced_memory()[0]
        next(blocks)
        peak.append(tracemalloc.get_traced_memory()[1] - held)
        tracemalloc.stop()
        cost.append(min(seconds))
    assert peak[1] < 1.2*peak[0], peak
    assert cost[1] < 3*cost[0], cost


def test_a_folder_is_looked_over_before_the_first_block(tmp_path):
    "What is wrong with the last video is said before the first is scored."
    folder, known = write_folder(tmp_path/"plain", 40, 4), pd.DataFrame({"id": np.arange(40).astype(str),
                                                                         "label": [0, 1]*20, "part": ""})
    def refuse(said, labels=None):
        with pytest.raises(InputError, match=said) as told: next(stream_videos(folder, 5, labels))
        assert "plain" in str(told.value) and "\n" not in str(told.value)

    assert next(stream_videos(folder, 5, known)).label.tolist() == [0, 1, 0, 1, 0]
    refuse("1 ids without a label, such as '39'", known[:39])
    refuse("1 ids without vectors, such as 'x'", pd.concat([known, known[:1].assign(id="x")]))
    for name, array, said in (
            ("emb_title", np.ones((39, 4)), "title has 39 rows, but there are 40 ids"),
            ("emb_thumb", np.ones((41, 4)), "thumb has 41 rows"),
            ("emb_kf", np.ones((39, 2, 4), np.float32), "kf has 39 rows"),
            ("emb_stt_offsets", np.arange(40)*80//39, "stt_offsets has 39 rows"),
            ("index", np.r_[np.arange(39), 3].astype(str), "id '3' stands 2 times")):
        before = np.load(folder/f"{name}.npy") if (folder/f"{name}.npy").is_file() else None
        np.save(folder/f"{name}.npy", array)
        refuse(said)
        if before is None: (folder/f"{name}.npy").unlink()
        else: np.save(folder/f"{name}.npy", before)
    np.save(folder/"emb_kf.npy", np.ones((40, 2, 4), np.float32))      # all of one length: no offsets
    assert next(stream_videos(folder, 5)).content["keyframes"].lengths.tolist() == [2]*5


def test_a_block_from_disk_is_the_same_as_from_memory(archive):
    folder = convert_videos(archive/"old.npz", archive/"plain", trusted=True)
    labels, whole = read_labels(archive/"labels.csv"), read_videos(folder, archive/"labels.csv")
    for size in (1, 7, 40, 100):
        blocks = list(stream_videos(folder, size, labels))
        assert [len(one) for one in blocks] == [min(size, 40 - at) for at in range(0, 40, size)]
        assert np.concatenate([one.id for one in blocks]).tolist() == whole.id.tolist()
        assert np.concatenate([one.label for one in blocks]).tolist() == whole.label.tolist()
        for view in whole.content:
            joined = Ragged.concat([one.content[view] for one in blocks])
            assert torch.equal(joined.values, whole.content[view].values)
            assert torch.equal(joined.offsets, whole.content[view].offsets)
    with pytest.raises(InputError, match="size = 0"): next(stream_videos(folder, 0))


def test_streaming_holds_one_block(tmp_path):
    "The peak of what Python holds does not grow with the folder; the maps are closed."
    from matchbook.runs import peak_memory_mb, reset_peak
    peaks = []
    for n in (2_000, 8_000):
        folder = tmp_path/str(n)
        folder.mkdir()
        np.save(folder/"index.npy", np.arange(n).astype(str))
        np.save(folder/"emb_title.npy", np.ones((n, 64), np.float16))
        np.save(folder/"emb_stt_offsets.npy", np.arange(n + 1)*100)
        values = np.lib.format.open_memmap(folder/"emb_stt_values.npy", "w+", np.float16, (n*100, 64))
        values[:] = 1
        values.flush()
        del values
        next(stream_videos(folder, 100))
        reset_peak()
        held = peak_memory_mb()
        for block in stream_videos(folder, 100): assert len(block) == 100
        peaks.append(peak_memory_mb() - held)
    assert peaks[1] < 30, peaks                                       # the larger folder has 98 MB


@pytest.mark.parametrize("array,found", [
    (np.ones((2, 4, 3)), [4, 4]), (objects([np.ones((1, 3)), np.ones(3)]), [1, 1]),
    (objects([[[1, 2, 3]], []]), [1, 0])])
def test_sequences_in_all_their_forms(array, found):
    content = gather_views({"emb_title": np.eye(3)[:2], "emb_x": array, "index": np.array(["a", "b"])})[1]
    assert content["x"].lengths.tolist() == found and content["x"].values.shape[1] == 3


# --- the labels -----------------------------------------------------------------------------------


def test_excel_with_blank_rows_is_read(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in ((" id ", "label", "split", "title"), (12, "Clickbait", "VAL", "a"), (None,)*4,
                ("007", " normal", "valid", "b"), (None,)*4, ("x", "clickbait", "Train", None),
                (None, "  ", None, None)): book.active.append(row)
    book.save(tmp_path/"labels.xlsx")
    found = read_labels(tmp_path/"labels.xlsx")
    assert found["id"].tolist() == ["12", "007", "x"] and found["label"].tolist() == [1, 0, 1]
    assert found["part"].tolist() == ["valid", "valid", "train"] and found["title"].tolist() == ["a", "b", ""]
    book.active.append((None, "clickbait", "test", None))
    book.save(tmp_path/"labels.xlsx")
    with pytest.raises(InputError, match="row 8: no id"): read_labels(tmp_path/"labels.xlsx")
    (tmp_path/"no.xlsx").write_text("id,label\n")
    with pytest.raises(InputError, match="no.xlsx: not a sheet"): read_labels(tmp_path/"no.xlsx")


@pytest.mark.parametrize("written", list(part_names) + ["Val", " VALID "])
def test_parts_as_people_write_them(tmp_path, written):
    (tmp_path/"labels.csv").write_text(f"id,label,split\na,1,{written}\nb,0,test\n")
    wanted = part_names[written.strip().lower()]
    assert read_labels(tmp_path/"labels.csv")["part"].tolist() == [wanted, "test"]


@pytest.mark.parametrize("text,said", [
    ("id,label\na,clickbait\na,normal\n", "row 3: id 'a' stands there before"),
    ("id,label\na,\n", "row 2: no label"), ("id,label\n,clickbait\n", "row 2: no id"),
    ("id,lable\na,clickbait\n", "no column named 'label'; did you mean 'lable'"),
    ("id,label,split\na,clickbait,tset\n", "row 2, column split: no split named 'tset'; did you mean 'test'"),
    ("id,label\na,clickbait\nb,normal\nc,news\n", "row 4, column label: 'news' beside 'normal'"),
    ("id,label\na,clickbait\nb,clikbait\n", "row 3, column label: 'clikbait'; did you mean 'clickbait'"),
    ("id,label\na,Hot\nb,Hot\n", "row 2, column label: 'Hot' in every row; clickbait was wanted")])
def test_a_table_that_is_not_in_order_gets_one_line(tmp_path, text, said):
    (tmp_path/"labels.csv").write_text(text)
    with pytest.raises(InputError, match=said) as told: read_labels(tmp_path/"labels.csv")
    assert "labels.csv" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("bait", ["clickbait", "Click-Bait", "click bait", "1", "1.0", "TRUE"])
@pytest.mark.parametrize("other", ["normal", "non_clickbait", "no-clickbait", "not clickbait", "0", "0.0",
                                   "news"])
def test_labels_as_people_write_them(tmp_path, bait, other):
    (tmp_path/"labels.csv").write_text(f"id,label\na,{bait}\nb,{other}\nc,clickbait\n")
    assert read_labels(tmp_path/"labels.csv")["label"].tolist() == [1, 0, 1]


def test_an_id_that_only_one_file_has(archive):
    table = pd.read_csv(archive/"labels.csv")
    table.iloc[1:].to_csv(archive/"fewer.csv", index=False)
    with pytest.raises(InputError, match=f"1 ids without a label, such as '{table['id'][0]}'"):
        read_videos(archive/"old.npz", archive/"fewer.csv", True)
    pd.concat([table, table.tail(1).assign(id="new")]).to_csv(archive/"more.csv", index=False)
    with pytest.raises(InputError, match="1 ids without vectors, such as 'new'"):
        read_videos(archive/"old.npz", archive/"more.csv", True)
    with pytest.raises(InputError, match="3 tables; say which"): read_videos(archive/"old.npz", trusted=True)


# --- the views ------------------------------------------------------------------------------------


@pytest.mark.parametrize("change,said", [
    ({"promise": {"title": torch.eye(3)}}, "view 'title' has 3 rows, but there are 2 ids"),
    ({"content": {"frames": Ragged(torch.eye(3), [0, 3])}}, "view 'frames' has 1 rows"),
    ({"content": {"frames": Ragged(torch.eye(4), [0, 4, 4])}}, "'frames' is 4 wide, but 'title' is 3 wide"),
    ({"promise": {"title": torch.tensor([[1., 0, 0], [float("inf"), 0, 0]])}}, "'title', id 'b': a number"),
    ({"content": {"frames": Ragged(torch.tensor([[1., 1, 1], [1, 1, 1], [0, float("nan"), 0]]), [0, 1, 3])}},
     "'frames', id 'b', element 1: a number that is not finite"),
    ({"content": {"": Ragged(torch.eye(3), [0, 3, 3])}}, "a view without a name"),
    ({"promise": {}}, "without a promise view"), ({"label": np.array([1])}, "label has 1 rows"),
    ({"id": np.array(["a", "a"])}, "id 'a' stands 2 times"),
    ({"promise": {"title": torch.ones(2)}}, "view 'title' has shape"),
    ({"label": np.array([1, 5])}, "id 'b': label 5; 1 (clickbait), 0"),
    ({"label": np.array([.3, 1])}, "id 'a': label 0.3")])
def test_views_that_are_not_in_order_get_one_line(change, said):
    two()
    with pytest.raises(InputError, match=said.replace("(", "\\(").replace(")", "\\)")) as told: two(**change)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("arrays,said", [
    ({"emb_title": np.eye(2)}, "no array named index"),
    ({"emb_title": np.eye(2), "index": np.arange(2)}, "0 content views"),
    ({"emb_stt_values": np.eye(2), "index": np.arange(2)}, "stt_values without stt_offsets"),
    ({"emb_stt_offsets": np.arange(3), "index": np.arange(2)}, "stt_offsets without stt_values"),
    ({"emb_stt_values": np.eye(2), "emb_stt_offsets": np.array([0, 3]), "index": np.arange(1)},
     "end at 3, but there are 2"),
    ({"emb_stt": objects([np.ones((1, 2)), np.ones((1, 3))]), "index": np.arange(2)},
     "vectors of 2 and of 3 numbers"),
    ({"emb_stt": objects(["a", "b"]), "index": np.arange(2)}, "row 0: str, vectors were wanted"),
    ({"emb_title": np.ones(3), "index": np.arange(3)}, "rows of vectors were wanted"),
    ({"emb_title": np.array([["1", "2"]]), "index": np.arange(1)}, "title: numbers of type <U1; real"),
    ({"emb_title": np.eye(2)*1j, "index": np.arange(2)}, "title: numbers of type complex128"),
    ({"emb_stt_values": np.array([["a"]]), "emb_stt_offsets": np.array([0, 1]), "index": np.arange(1)},
     "stt_values: numbers of type <U1"),
    ({"emb_stt": objects([np.eye(2)*1j]), "index": np.arange(1)}, "stt, row 0: ndarray, vectors were wanted"),
    ({"emb_stt": objects([["1", "2"]]), "index": np.arange(1)}, "stt, row 0: list, vectors were wanted"),
    ({"emb_title": np.eye(2), "index": np.array(["a", np.nan], object)}, "index, row 1: .nan. is no id"),
    ({"emb_title": np.eye(2), "index": np.array(["a", " "])}, "index, row 1: .* is no id"),
    ({"emb_title": np.zeros((0, 3)), "emb_stt": np.zeros((0, 2, 3)), "index": np.zeros(0, str)},
     "index: no ids")])
def test_arrays_that_are_no_views_get_one_line(arrays, said):
    with pytest.raises(InputError, match=said) as told: gather_views(arrays, "some.npz")
    assert "some.npz" in str(told.value) and "\n" not in str(told.value)


def test_rows_of_a_table_are_rows_of_everything():
    videos, _ = read_promise("videos-sample")
    some = np.array([7, 3, 300])
    part = videos[some]
    assert part.id.tolist() == videos.id[some].tolist() and part.text.tolist() == videos.text[some].tolist()
    for view in videos.content:
        for at, row in enumerate(some):
            assert torch.equal(part.content[view][at], videos.content[view][int(row)])
    assert videos[videos.label == 1].label.all() and len(videos[10:20]) == 10


# --- texts ----------------------------------------------------------------------------------------


def test_texts_become_views_in_their_own_order():
    videos = build_videos(["x", "y", "z"], [1, 0, -1], {"title": ["ab", "", "c"], "thumb": ["b", "b", "b"]},
                          {"said": ["a b. c! ", None, ["a", " ", "bb"]]}, Letters(), group=np.array([1, 1,
                                                                                                     2]))
    assert videos.promise["title"][:, :3].tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert videos.content["said"].lengths.tolist() == [2, 0, 2]
    assert videos.content["said"].values[:, :3].tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 2, 0]]
    assert videos.pieces["said"] == [["a b.", "c!"], [], ["a", "bb"]] and videos.group.tolist() == [1, 1, 2]
    assert set(videos.numbers) == {"title", "thumb", "title-said", "thumb-said"}


def test_builders_refuse():
    with pytest.raises(InputError, match="view 'said' has 2 rows, but there are 1 ids"):
        build_videos(["x"], [1], {"title": ["a"]}, {"said": ["a", "b"]}, Letters())
    with pytest.raises(InputError, match="no texts at all"):
        build_videos(["x"], [1], {"title": [""]}, {"said": [None]}, Letters())
    with pytest.raises(InputError, match="0 promise and 1 content views"):
        build_videos(["x"], [1], {}, {"said": ["a"]}, Letters())
    with pytest.raises(InputError, match="id 'y': label 5"):
        build_videos(["x", "y"], [1, 5], {"title": ["a", "b"]}, {"said": ["a", "b"]}, Letters())
    with pytest.raises(InputError, match="are both called 'a-b-c'"):
        build_videos(["x"], [1], {"a-b": ["a"], "a": ["a"]}, {"c": ["a"], "b-c": ["b"]}, Letters())
    with pytest.raises(InputError, match="gives sparse vectors"):
        build_videos(["x"], [1], {"title": ["a"]}, {"said": ["b"]}, TfidfEncoder(words).fit(["a"]))


def test_words_are_counted_as_a_loop_counts_them():
    rng = np.random.default_rng(0)
    draw = lambda most: " ".join(rng.choice(list("abcdef"), rng.integers(0, most)))
    for _ in range(200):
        promise, content = draw(6), [draw(4) for _ in range(rng.integers(0, 3))]
        p, c = set(promise.split()), {one for text in content for one in text.split()}
        both = sum(one in c for one in p)
        wanted = [0]*4
        if p and c: wanted = [both/len(p), both/len(c), np.log(1 + len(p) - both), np.log(1 + len(c) - both)]
        np.testing.assert_allclose(count_words([promise], [content])[0], wanted, rtol=1e-5)
    assert count_words(["Is it 5?", "no"], None)[:, 1:].tolist() == [[1, 1], [0, 0]]


def test_sentences():
    assert cut_sentences("A b. C?\nd… e") == ["A b.", "C?", "d…", "e"]
    assert cut_sentences("") == cut_sentences(None) == []
    assert cut_sentences("v1.2 is out") == ["v1.2 is out"]


# --- the datasets ---------------------------------------------------------------------------------


def test_the_sample_has_the_originals_shape():
    videos, digest = read_promise("videos-sample")
    assert len(videos) == 398 and list(videos.promise) == ["title", "thumbnail"]      # the title first
    assert list(videos.content) == ["transcript", "keyframes"] and len(digest) == 64
    assert {part: int((videos.part == part).sum()) for part in ("train", "valid", "test")} == {
        "train": 200, "valid": 98, "test": 100}
    assert read_promise("videos-sample", width=768)[0].width == 768
    with pytest.raises(InputError, match="only videos-sample is drawn"):
        read_promise("webis-promise", locate("videos-sample"), width=8)


def test_posts_and_their_articles():
    folder = locate("headlines-sample")/"train"
    videos = read_posts(folder, Letters())
    posts = load("headlines-sample")["train"]
    truth = posts["truth"].set_index("id").loc[posts["instances"]["id"]]
    assert (videos.label == (truth["truthClass"] == "clickbait")).all()
    np.testing.assert_allclose(videos.strength, truth["truthMean"], rtol=1e-6)
    assert list(videos.content) == ["headline", "description"]
    assert (videos.content["headline"].lengths <= 1).all()
    assert videos.text[0] == " ".join(posts["instances"]["postText"][0]).strip()


def test_posts_without_a_truth(tmp_path):
    folder = locate("headlines-sample")/"train"
    (tmp_path/"instances.jsonl").write_bytes((folder/"instances.jsonl").read_bytes())
    (tmp_path/"truth.jsonl").write_text("\n".join((folder/"truth.jsonl").read_text().splitlines()[1:]))
    with pytest.raises(InputError, match="1 ids without a truth"): read_posts(tmp_path, Letters())


@pytest.mark.parametrize("truth,said", [
    ([{"id": "2"}], "1 ids without a truth, such as '1'"),
    ([{}, {"id": "2"}], "1 ids without a post, such as '2'"),
    ([{}, {}], "truth.jsonl: id '1' stands 2 times"),
    ([{"truthClass": "Clickbait"}], "truth.jsonl, row 1: truthClass 'Clickbait'; clickbait or no-clickbait"),
    ([{"truthMean": 7}], "truth.jsonl, row 1: truthMean 7; a number from 0 to 1"),
    ([{"truthMean": "much"}], "truth.jsonl, row 1: truthMean 'much'"),
    ([{"truthMean": None}], "truth.jsonl, row 1: truthMean")])
def test_truths_that_are_not_in_order(tmp_path, truth, said):
    whole = {"id": "1", "truthClass": "clickbait", "truthMean": .8}
    post = {"id": "1", "postText": ["a"], "targetTitle": "b", "targetDescription": "c"}
    (tmp_path/"instances.jsonl").write_text(json.dumps(post))
    (tmp_path/"truth.jsonl").write_text("\n".join(json.dumps(whole | one) for one in truth))
    with pytest.raises(InputError, match=said) as told: read_posts(tmp_path, Letters())
    assert "\n" not in str(told.value)


def test_paragraphs_where_the_file_has_them(tmp_path):
    post = {"id": "1", "postText": ["a"], "targetTitle": "b", "targetDescription": "c. d"}
    (tmp_path/"truth.jsonl").write_text('{"id": "1", "truthClass": "clickbait", "truthMean": 0.8}')
    (tmp_path/"instances.jsonl").write_text(json.dumps(post))
    with pytest.raises(InputError, match="no column named 'targetParagraphs'"):
        read_posts(tmp_path, Letters(), True)
    (tmp_path/"instances.jsonl").write_text(json.dumps(post | {"targetParagraphs": ["e", "", "f. g"]}))
    assert read_posts(tmp_path, Letters(), True).content["paragraphs"].lengths.tolist() == [2]


def test_bangla(tmp_path):
    path = tmp_path/"title_summary_label.jsonl"
    path.write_text('{"video_id": "a", "title": "b", "human_label": "clickbait", "summary": "এক। দুই।"}\n'
                    '{"video_id": "b", "title": "c", "human_label": "non_clickbait", "summary": null}\n')
    videos = read_bangla(path, Letters())
    assert videos.label.tolist() == [1, 0] and videos.content["summary"].lengths.tolist() == [2, 0]
    path.write_text(path.read_text().replace("non_clickbait", "news"))
    with pytest.raises(InputError, match="row 2: human_label 'news'"): read_bangla(path, Letters())


def test_near_duplicates_and_channels_are_one_group():
    videos = build_videos(range(6), [0, 1]*3, {"title": ["red shoe 42", "Red shoe, 42!", "tea", "lamp", "",
                                                         ""]},
                          {"said": [""]*6}, Letters(), group=np.array([0, 1, 2, 2, 3, 4]))
    group = group_alike(videos)
    assert group[0] == group[1] and group[2] == group[3] and len(set(group.tolist())) == 4
    told = ["He won. Again.", "he won.  Again.", "x", "", "", "x y"]
    videos = build_videos(range(6), [0, 1]*3, {"post": list("abcdef")}, {"said": told,
                          "more": ["z", *[""]*4, "z"]}, Letters())
    group = group_alike(videos)                                       # two posts that lead to one article
    assert group[0] == group[1] == group[5] and len(set(group.tolist())) == 4
    flat = two(promise={"title": torch.tensor([[1., 0, 0], [2, .01, 0]])})
    assert len(set(group_alike(flat).tolist())) == 1                  # vectors, where there are no texts


def test_a_folder_of_nothing_known(tmp_path):
    with pytest.raises(InputError, match="was wanted"): read_promise("any", tmp_path)
    with pytest.raises(InputError, match="no such file or folder"): read_promise("any", tmp_path/"none")


def test_no_table_means_no_label():
    promise, content, ids = gather_views(read_arrays(locate("videos-sample")))
    assert set(join_labels(promise, content, ids, None).label.tolist()) == {-1}
