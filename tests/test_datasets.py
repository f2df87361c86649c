"Datasets: damaged files are refused by name and line, nothing is half written, and where is looked first."
import dataclasses
import errno
import gzip
import hashlib
import http.server
import io
import pickle
import re
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from matchbook import datasets
from matchbook.datasets import (Card, InputError, cards, cards_page, check_columns, describe, download,
                                find_card, fingerprint, load, locate, parse_entity, read_csv, read_graph,
                                read_jsonl, read_pairs, read_text, register, write_whole)

root = Path(__file__).parent.parent


def short(value): return value if isinstance(value, str) and value.isprintable() and len(value) < 30 else ""


def to_bytes(data): return data if isinstance(data, bytes) else data.encode()


# Readers: what is refused, and what is taken

readers = {"csv": (read_csv, "id,title\n1,red shoe\n2,lamp\n"), "pairs": (read_pairs, "a\tb\t1\nc\td\t0\n"),
           "jsonl": (read_jsonl, '{"id": 1, "title": "a"}\n{"id": 2, "title": "b"}\n')}
every_reader = pytest.mark.parametrize("read,good", readers.values(), ids=readers)


def saved(folder, data, name="table.txt"):
    (folder/name).write_bytes(to_bytes(data))
    return folder/name


def assert_refused(call, path, said):
    with pytest.raises(InputError) as error: call(path)
    message = str(error.value)
    assert str(path) in message and said in message and "\n" not in message


@every_reader
def test_no_file_a_folder_and_an_empty_file_are_refused(read, good, tmp_path):
    assert_refused(read, tmp_path/"nowhere.txt", "no such file")
    assert_refused(read, tmp_path, "is a folder")
    for empty in ("", "\n\n", b"\xef\xbb\xbf"): assert_refused(read, saved(tmp_path, empty), "is empty")


@every_reader
def test_bytes_that_are_not_utf8_are_refused_with_their_line(read, good, tmp_path):
    for bad in (b"\xff", b"\xe9", b"\xed\xa0\xbd"):
        path = saved(tmp_path, good.encode() + b"\n" + bad)
        assert_refused(read, path, f"line {good.count(chr(10)) + 2}: byte 0x{bad[0]:02x} is not UTF-8")
    assert_refused(read, saved(tmp_path, good.encode("utf-16")), "line 1: byte 0xff is not UTF-8")


@every_reader
def test_marks_and_line_ends_of_other_systems_are_taken(read, good, tmp_path):
    wanted = read(saved(tmp_path, good))
    assert len(wanted) == 2
    for other in ("\ufeff" + good, good.replace("\n", "\r\n"), good.rstrip("\n"), good + "\n"):
        pd.testing.assert_frame_equal(read(saved(tmp_path, other)), wanted)


@every_reader
def test_a_gzipped_file_is_read_and_a_damaged_one_refused(read, good, tmp_path):
    packed = gzip.compress(good.encode(), mtime=0)
    wanted = read(saved(tmp_path, good))
    pd.testing.assert_frame_equal(read(saved(tmp_path, packed, "t.gz")), wanted)
    turned = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    for damaged in (packed[:-9], packed[:15], good, turned):
        assert_refused(read, saved(tmp_path, damaged, "t.gz"), "cannot read")


wrong = [
    ("csv", "id,title\n1,a\n2\n", "line 3: 1 fields, but the header has 2"),
    ("csv", "id,title\n1,a,b\n", "line 2: 3 fields"), ("csv", 'id,title\n1,"a\nb\n', "line 3: unexpected"),
    ("csv", 'id,title\n1,"a"b\n', "line 2: ',' expected"), ("csv", "id,id\n1,2\n", "two columns are named"),
    ("pairs", "a\tb\t1\na\tb\n", "line 2: 2 fields"), ("pairs", "a\tb\t1\t1\n", "line 1: 4 fields"),
    ("pairs", "a\tb\t2\n", "line 1: label '2'"), ("pairs", "a\tb\t\n", "line 1: label ''"),
    ("pairs", "a b 1\n", "line 1: 1 fields"), ("jsonl", '{"a": 1}\n{"a":\n', "line 2: not JSON"),
    ("jsonl", '{"a": 1}\n\n[1]\n', "line 3: list, an object was wanted"), ("jsonl", "3\n", "line 1: int"),
    ("jsonl", '{"a": "x\0"}\n', "line 1: a NUL byte"), ("jsonl", '{"a": 1} {"a": 2}\n', "line 1: not JSON"),
    ("jsonl", "["*200_000, "line 1: not JSON"), ("jsonl", '{}\n{"a": ["\\uD83D"]}\n', "line 2: half of"),
    ("csv", "id,title\n1,a\0b\n", "line 2: a NUL byte"), ("pairs", "a\0\tb\t1\n", "line 1: a NUL byte"),
]


@pytest.mark.parametrize("name,text,said", wrong, ids=short)
def test_a_wrong_line_is_refused_by_its_number(name, text, said, tmp_path):
    assert_refused(readers[name][0], saved(tmp_path, text), said)


@pytest.mark.parametrize("title", ['"red\nshoe"', '"red\r\nshoe"', '"red\u2028shoe"', "5\" tv",
                                   "red\u2028shoe", "red\x85shoe", "red\x0cshoe", "red\x1eshoe"])
def test_a_break_within_a_field_stays_there(title, tmp_path):
    read = read_csv(saved(tmp_path, f"id,title\n1,{title}\n2,lamp\n"))
    assert read["title"].tolist() == [title.strip('"'), "lamp"]


def test_a_long_field_is_read(tmp_path):
    assert len(read_csv(saved(tmp_path, "id,title\n1," + "x"*200_000 + "\n"))) == 1


def test_columns_that_are_missing_are_named_with_the_nearest(tmp_path):
    wanting = lambda path: read_csv(path, ["title"])
    assert_refused(wanting, saved(tmp_path, "id,titel\n"), "did you mean 'titel'")
    text = '{"id": 1, "title": "a"}\n{"id": 2}\n'
    assert_refused(lambda path: read_jsonl(path, ["id", "title"]), saved(tmp_path, text), "line 2: no column")
    assert check_columns(iter(["a", "b"]), ["b"], "here") is None


def test_text_stays_text(tmp_path):
    read = read_csv(saved(tmp_path, 'id,title\n007,NA\n1e5,"a ""b"", c"\n,\n'))
    assert read.to_dict("list") == {"id": ["007", "1e5", ""], "title": ["NA", 'a "b", c', ""]}
    assert read_csv(saved(tmp_path, "a;b\n1,5;2\n"), delimiter=";").loc[0].tolist() == ["1,5", "2"]
    assert read_text(saved(tmp_path, "\ufeffé\r\n")) == "é\r\n"
    assert read_jsonl(saved(tmp_path, '{"id": "\\ud83d\\ude00 \\\\ud83d"}'))["id"].tolist() == ["😀 \\ud83d"]


@pytest.mark.parametrize("text,fields", [
    ("COL a VAL 1 COL b VAL 2", {"a": "1", "b": "2"}), ("COL a VAL COL b VAL x", {"a": "", "b": "x"}),
    ("COL a VAL PROTOCOL 5", {"a": "PROTOCOL 5"}), ("plain", {"text": "plain"}), ("", {"text": ""})])
def test_the_fields_of_an_entity(text, fields): assert parse_entity(text) == fields


# Graphs: arrays without pickles

ran = []


def note(word): ran.append(word)


class Payload:
    "Leaves a note when it is unpickled."
    def __reduce__(self): return note, ("unpickled",)


def in_bytes(save, *values, **named):
    file = io.BytesIO()
    save(file, *values, **named)
    return file.getvalue()


matrix, numbers = sparse.csr_matrix(np.eye(3)), np.arange(5)
npz, npy = in_bytes(sparse.save_npz, matrix), in_bytes(np.save, numbers)
objects = np.array([Payload()], dtype=object)
pickled = in_bytes(np.save, objects, allow_pickle=True)  # harmless: for readers that must refuse it


def test_a_graph_is_read_and_its_pickles_are_passed_over(tmp_path):
    np.load(io.BytesIO(pickled), allow_pickle=True)
    assert ran == ["unpickled"]                                              # the payload works
    ran.clear()
    files = {"pos.npz": npz, "labels.npy": npy, "really_npy.npz": npy, "pa.txt": "0 1\n2 3\n",
             "nei_a.npy": pickled, "nei_b.npz": pickled, "notes.md": "x"}
    for name, data in files.items(): saved(tmp_path, data, name)
    parts = read_graph(tmp_path)
    assert set(parts) == {"pos", "labels", "really_npy", "pa"} and ran == []
    assert parts["pos"].format == "csr" and (parts["pos"] != matrix).nnz == 0
    assert parts["pa"].tolist() == [[0, 1], [2, 3]] and (parts["really_npy"] == numbers).all()


@pytest.mark.parametrize("name", ["bare.npy", "bare.npz"])
def test_a_bare_pickle_is_never_opened(name, tmp_path):
    saved(tmp_path, "0 1\n", "pa.txt")
    saved(tmp_path, pickle.dumps(Payload()), name)
    ran.clear()
    try: assert list(read_graph(tmp_path)) == ["pa"]
    except InputError as error: assert name in str(error)
    assert ran == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name,data", [
    ("labels.npy", npy[:-9]), ("labels.npy", npy[:30]), ("labels.npy", ""), ("labels.npy", "<html></html>"),
    ("pos.npz", npz[:60]), *(("pos.npz", in_bytes(np.savez, a=some)) for some in (objects, numbers)),
    ("pa.txt", "0 1\nx y\n"), ("pa.txt", "0 1\n2\n"), ("pa.txt", b"0 1\n\xff 2\n"), ("pa.txt", ""),
    ("pa.txt", "0\n1\n"), ("pa.txt", "0 1.5\n")], ids=short)
def test_a_damaged_part_of_a_graph_is_refused_by_name(name, data, tmp_path):
    saved(tmp_path, "0 1\n", "ps.txt")
    saved(tmp_path, data, name)
    ran.clear()
    with pytest.raises(InputError, match=name): read_graph(tmp_path)
    assert not ran


@pytest.mark.parametrize("place", [".", "nowhere", "file"])
def test_a_folder_without_a_graph_is_refused(place, tmp_path):
    saved(tmp_path, "", "file")
    with pytest.raises(InputError): read_graph(tmp_path/place)


def test_a_damaged_parquet_file_is_refused_by_name(tmp_path):
    for name in cards["ozon"].files: saved(tmp_path, "junk", name)
    with pytest.raises(InputError, match="text_and_bert.parquet"): load("ozon", tmp_path)


# Whole or not at all

def full(*_, **__): raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("before", [None, "old"])
def test_a_full_disk_leaves_what_was_there(call, before, tmp_path, monkeypatch):
    if before: (tmp_path/"run.json").write_text(before)
    monkeypatch.setattr(datasets.os, call, full)
    with pytest.raises(InputError, match=r"cannot write .*run\.json: No space left on device"):
        write_whole(tmp_path/"run.json", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ([before] if before else [])


def test_a_killed_write_leaves_no_file_of_that_name(tmp_path, monkeypatch):
    def stop(_): raise KeyboardInterrupt
    monkeypatch.setattr(datasets.os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt): write_whole(tmp_path/"run.json", "new")
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_as_it_is_and_others_may_read_it(tmp_path):
    for data in ("é\r\n", b"\x00\xff", ""):
        assert write_whole(tmp_path/"a"/"b", data) == tmp_path/"a"/"b"
        assert (tmp_path/"a"/"b").read_bytes() == to_bytes(data)
    assert (tmp_path/"a"/"b").stat().st_mode & 0o777 == 0o644


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path/"file").write_text("")
    for place in (tmp_path/"file"/"b", tmp_path):
        assert_refused(lambda path: write_whole(path, "x"), place, "cannot write")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Where it looks

good_pairs = readers["pairs"][1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    "An empty cache, data folder and place of one's own, and a registry that forgets what is added."
    for name, folder in (("MATCHBOOK_CACHE", "cache"), ("MATCHBOOK_DATA", "data")):
        monkeypatch.setenv(name, str(tmp_path/folder))
    monkeypatch.setattr(datasets, "cards", dict(cards))
    return tmp_path


def put(folder, text=good_pairs):
    folder.mkdir(parents=True, exist_ok=True)
    (folder/"pairs.txt").write_text(text)
    return folder


def card_of(get="by hand", url="", files=("pairs.txt",), name="toy"):
    digest = hashlib.sha256(good_pairs.encode()).hexdigest()
    urls = {file: (f"{url}/{file}", digest) for file in files} if url else {}
    return Card(name, "A toy.", files, lambda folder: read_pairs(folder/files[0]), get, "the shelf", "none",
                how="fetch pairs.txt", urls=urls)


def test_the_folder_given_comes_before_the_data_folder_before_the_cache(home):
    register(card_of())
    cache, data = put(home/"cache"/"data"/"toy"), home/"data"/"toy"
    assert locate("toy") == cache
    put(data)
    assert locate("toy") == data
    own, around = put(home/"own"), put(home/"around"/"toy")
    assert locate("toy", own) == own and locate("toy", around.parent) == around
    (data/"pairs.txt").unlink()
    assert locate("toy") == cache and len(load("toy")) == 2


def test_a_folder_given_is_the_only_place_looked_at(home):
    register(card_of())
    put(home/"data"/"toy")
    (home/"own").mkdir()
    with pytest.raises(InputError, match="own lacks pairs.txt of dataset 'toy'"): load("toy", home/"own")
    with pytest.raises(InputError, match="no such folder"): load("toy", home/"nowhere")


def test_what_is_nowhere_says_what_to_fetch_and_where_to_put_it(home):
    register(card_of())
    with pytest.raises(InputError) as error: load("toy")
    for part in ("'toy' is not on this machine", "fetch pairs.txt", "shelf", "terms: none", "MATCHBOOK_DATA"):
        assert part in str(error.value)
    with pytest.raises(InputError, match="named 'abt-bay'; did you mean 'abt-buy'"): load("abt-bay")


def test_samples_are_made_in_the_cache_once(home):
    first = locate("pairs-sample")
    assert (home/"cache") in first.parents
    stamp = (first/"train.txt").stat().st_mtime_ns
    assert locate("pairs-sample") == first and (first/"train.txt").stat().st_mtime_ns == stamp
    assert {part: len(table) > 0 for part, table in load("pairs-sample").items()} == dict.fromkeys(
        ("train", "valid", "test"), True)


def test_a_cache_that_is_a_file_is_refused_in_one_line(home, monkeypatch):
    monkeypatch.setenv("MATCHBOOK_CACHE", str(saved(home, "", "file")))
    with pytest.raises(InputError, match="cannot write"): load("pairs-sample")


def test_a_fingerprint_is_of_names_and_bytes(home):
    register(card_of(), card_of(name="renamed", files=("b.txt",)))
    one, other = put(home/"a"), put(home/"b", good_pairs + "\n")
    (one/"b.txt").write_text(good_pairs)
    prints = {fingerprint("toy", one), fingerprint("toy", put(home/"c")), fingerprint("toy", other)}
    assert len(prints) == 2 and all(re.fullmatch("[0-9a-f]{64}", text) for text in prints)
    assert fingerprint("renamed", one) not in prints


# Downloads, from a server of our own

@pytest.fixture
def server(monkeypatch):
    "Answers with `pages`; a page set to `short` breaks off in the middle."
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            page = server.pages.get(self.path)
            if page is None: return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(page) + 50*(self.path in server.short)))
            self.end_headers()
            self.wfile.write(page)
        def log_message(self, *_): pass
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.short, server.asked = {"/pairs.txt": good_pairs.encode()}, set(), []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": .02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_is_checked_kept_and_not_repeated(home, server):
    register(card_of("download", server.url))
    assert len(load("toy")) == 2 and locate("toy") == home/"cache"/"data"/"toy"
    load("toy")
    assert server.asked == ["/pairs.txt"]


@pytest.mark.parametrize("accident", ["other bytes", "not there", "broken off", "no server"])
def test_a_failed_download_says_why_and_leaves_nothing(accident, home, server):
    url = server.url
    if accident == "other bytes": server.pages["/pairs.txt"] += b"e\tf\t1\n"
    if accident == "not there": server.pages.clear()
    if accident == "broken off": server.short.add("/pairs.txt")
    if accident == "no server": url = "http://127.0.0.1:9"
    register(card_of("download", url))
    with pytest.raises(InputError) as error: load("toy")
    said = str(error.value)
    assert "could not download pairs.txt of dataset 'toy' from http" in said and "MATCHBOOK_DATA" in said
    assert not [path for path in (home/"cache").rglob("*") if path.is_file()] and "\n" not in said


def test_half_a_download_is_not_taken_for_the_whole(home, server):
    register(card_of("download", server.url, files=("pairs.txt", "more.txt")))
    with pytest.raises(InputError, match="could not download more.txt"): load("toy")
    server.pages["/more.txt"] = good_pairs.encode()
    assert len(load("toy")) == 2 and server.asked[:2] == ["/pairs.txt", "/more.txt"]
    assert server.asked.count("/pairs.txt") == 1
    assert download(datasets.cards["toy"], home/"cache"/"data") == home/"cache"/"data"/"toy"


# Cards

@pytest.mark.parametrize("card", cards.values(), ids=cards)
def test_every_card_is_complete(card):
    assert re.fullmatch("[a-z0-9-]+", card.name) and find_card(card.name) is card
    assert card.about[0].isupper() and card.about.endswith(".") and "\n" not in card.about
    assert 0 < len(set(card.files)) == len(card.files) and ".." not in "".join(card.files)
    assert card.source and card.terms and callable(card.read)
    assert card.how or card.get == "download"
    assert all(re.fullmatch("https://[^ ]+", url) and re.fullmatch("[0-9a-f]{64}", digest)
               for url, digest in card.urls.values())
    assert (set(card.urls) == set(card.files)) == (card.get == "download")


def test_a_card_that_says_too_little_or_takes_a_name_is_refused(home):
    with pytest.raises(ValueError, match="needs an address and a sha256"): card_of("download")
    with pytest.raises(ValueError, match="get='somehow'"): card_of("somehow")
    with pytest.raises(ValueError, match="registered already"): register(cards["shopee"])
    with pytest.raises(dataclasses.FrozenInstanceError): cards["shopee"].name = "other"


def test_the_table_and_the_page_hold_every_card():
    assert describe()["name"].tolist() == list(cards) == re.findall("^## (.+)$", cards_page(), re.M)
    if not (root/"data"/"README.md").exists(): pytest.skip("data/README.md is not made yet")
    assert (root/"data"/"README.md").read_text() == cards_page() + "\n"


def test_parquet_whose_notes_for_pandas_are_damaged_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    note = {b"pandas": b'{"index_columns": [], "columns": [{"name": "a"}]}'}
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(note), tmp_path/"t.parquet")
    with pytest.raises(InputError, match="not a parquet file"): datasets.read_parquet(tmp_path/"t.parquet")
