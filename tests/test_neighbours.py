"Joins and indexes against the whole product, on drawn and awkward input; the memory a join takes."
import json
import os
import subprocess
import sys
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from matchbook.datasets import InputError
from matchbook.neighbours import (QdrantIndex, ShardedIndex, build_index, check_unit, connect_qdrant,
                                  filter_payload, hash_bits, index_kinds, join, join_equal, join_hamming,
                                  join_near, raise_probes, read_collection, saved_kinds, sharded_kinds,
                                  write_collection, write_shards)

forms = {"dense": np.asarray, "sparse": sparse.csr_matrix}
both_forms = pytest.mark.parametrize("form", list(forms.values()), ids=list(forms))


def unit_rows(rng, n, d, zeros=.5):
    "Random unit rows of any sign, some entries zero, so that now and then a whole row is."
    rows = rng.normal(size=(n, d))*(rng.random((n, d)) >= zeros)
    return (rows/np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9)).astype(np.float32)


def assert_is_join(found, queries, items, threshold, slack=1e-5):
    "Nothing above the threshold is missing, nothing below it is there, and the values are the cosines."
    product = np.asarray(queries, np.float64) @ np.asarray(items, np.float64).T
    assert found.shape == product.shape and found.dtype == np.float32 and found.has_canonical_format
    there = np.zeros(product.shape, dtype=bool)
    there[np.repeat(np.arange(len(product)), np.diff(found.indptr)), found.indices] = True
    assert there[product >= threshold + slack].all() and not there[product < threshold - slack].any()
    np.testing.assert_allclose(found.toarray()[there], product[there], atol=1e-5)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 12), m=st.integers(0, 12), d=st.integers(1, 30),
       zeros=st.sampled_from([0, .3, .8]), threshold=st.sampled_from([.05, .5, .9, .999, 1.]),
       sign=st.booleans())
def test_near_rows_are_joined_by_prefixes_as_by_the_whole_product(seed, n, m, d, zeros, threshold, sign):
    rng = np.random.default_rng(seed)
    queries, items = unit_rows(rng, n, d, zeros), unit_rows(rng, m, d, zeros)
    if not sign: queries, items = abs(queries), abs(items)
    if n and m: queries[0] = items[-1]
    found = join_near(sparse.csr_matrix(queries), sparse.csr_matrix(items), threshold, block=5)
    assert_is_join(found, queries, items, threshold)


@both_forms
@settings(max_examples=150, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 12), m=st.integers(0, 12), d=st.integers(1, 5),
       zeros=st.sampled_from([0, .3, .8]), threshold=st.floats(1e-3, 1), block=st.integers(1, 15))
def test_a_join_is_the_whole_product_cut(form, seed, n, m, d, zeros, threshold, block):
    rng = np.random.default_rng(seed)
    queries, items = unit_rows(rng, n, d, zeros), unit_rows(rng, m, d, zeros)
    items[:m//3] = items[m//3:2*(m//3)]                                     # duplicates
    assert_is_join(join(form(queries), form(items), threshold, block), queries, items, threshold)
    assert_is_join(join(form(items), threshold=threshold, block=block), items, items, threshold)


@both_forms
@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(*[st.sampled_from([-1, 0, 1])]*4), max_size=10), st.sampled_from([.25, .5, .75, 1]),
       st.integers(1, 12))
def test_a_pair_exactly_at_the_threshold_is_in(form, signs, threshold, block):
    signs = np.array(signs, dtype=np.float32).reshape(-1, 4)
    count = np.count_nonzero(signs, axis=1)
    rows = signs[np.isin(count, (0, 1, 4))]/np.sqrt(count[np.isin(count, (0, 1, 4))].clip(1))[:, None]
    product = rows @ rows.T                                                 # without rounding: quarters
    wanted = np.where(product >= threshold, product, 0)
    assert (join(form(rows), threshold=threshold, block=block).toarray() == wanted).all()


@both_forms
def test_a_row_of_zeros_is_near_nothing_not_even_itself(form):
    assert join(form(np.zeros((3, 2))), threshold=1e-3).nnz == 0


@pytest.mark.parametrize("same", [127, 128, 129, 1025])
def test_rows_that_come_back_full_are_complete(same):
    items = np.eye(3, dtype=np.float32)[np.r_[np.zeros(same, int), [1, 1, 2]]]
    queries = sparse.csr_matrix(np.eye(3)[[1, 0, 2, 0]])
    found = join(queries, sparse.csr_matrix(items), .5)
    assert np.diff(found.indptr).tolist() == [2, same, 1, same]
    assert_is_join(found, queries.toarray(), items, .5)


def test_threads_and_block_change_nothing():
    rows = sparse.csr_matrix(unit_rows(np.random.default_rng(0), 700, 12, .7))
    first = join(rows, threshold=.3)
    for threads, block in ((2, 2048), (1, 64), (2, 701)):
        assert (join(rows, threshold=.3, block=block, threads=threads) != first).nnz == 0


def test_the_memory_of_a_join_is_far_below_the_whole_product():
    code = """if True:
        import numpy as np
        from scipy import sparse
        from matchbook.neighbours import join
        from matchbook.runs import peak_memory_mb, reset_peak
        n, length, words = 20_000, 8, 400                # one pair of rows in seven shares a word
        column = np.random.default_rng(0).integers(0, words, n*length)
        ends = np.arange(0, n*length + 1, length)
        rows = sparse.csr_matrix((np.ones(n*length, np.float32), column, ends), (n, words))
        rows.sum_duplicates()
        rows = sparse.diags(1/np.sqrt(np.asarray(rows.multiply(rows).sum(1)).ravel())) @ rows
        join(rows[:10], threshold=.5)
        reset_peak()
        before = peak_memory_mb()
        found = join(rows.tocsr(), threshold=.3)
        print(peak_memory_mb() - before, found.nnz)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    grown, pairs = map(float, done.stdout.split())
    assert pairs > 100_000 and grown < 20_000**2*4/2**20/8, f"{grown} MB"


keys = st.lists(st.sampled_from(["", "a", "b", "c", "éé"]), max_size=12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(keys, keys)
def test_equal_keys_by_looping(left, right):
    slow = np.array([[float(a == b != "") for b in right] for a in left]).reshape(len(left), len(right))
    found = join_equal(left, right)
    assert found.dtype == np.float32 and (found.toarray() == slow).all()
    assert (join_equal(left) != join_equal(left, left)).nnz == 0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(1, 9), st.integers(1, 8), st.integers(0, 64))
def test_near_hashes_by_looping(seed, n, m, width, bits):
    rng = np.random.default_rng(seed)
    texts = [bytes(rng.integers(0, 256, width, dtype=np.uint8)).hex() for _ in range(m)]
    items = hash_bits(texts)
    queries = items[rng.integers(0, m, n)] ^ (rng.random((n, width)) < .3).astype(np.uint8)
    apart = np.unpackbits(queries[:, None] ^ items[None], axis=2).sum(2, dtype=int)
    found = join_hamming(queries, items, bits)
    row = np.repeat(np.arange(n), np.diff(found.indptr))
    assert sorted(zip(row, found.indices)) == list(zip(*(apart <= bits).nonzero()))
    np.testing.assert_allclose(found.data, 1 - apart[row, found.indices]/(8*width), atol=1e-6)
    assert [bytes(row).hex() for row in items] == texts


@pytest.fixture(scope="module")
def points(): return abs(unit_rows(np.random.default_rng(1), 800, 8, 0))


# The in-process mode always, and a real server where QDRANT_URL says where one is.
servers = [":memory:", *filter(None, [os.environ.get("QDRANT_URL")])]
ways = [*saved_kinds, "sparse", *(f"{kind} in files" for kind in sharded_kinds), *servers]


@pytest.fixture
def client():
    "Clients by server; collections that were made are removed."
    used = []
    def connect(server):
        client = connect_qdrant(server)
        used.append(client)
        return client
    yield connect
    for one in used:
        for there in one.get_collections().collections:
            if there.name.startswith("matchbook-test-"): one.delete_collection(there.name)


def new_name(): return f"matchbook-test-{uuid.uuid4().hex}"


@pytest.fixture(params=ways)
def way(request, points, tmp_path, client):
    "Each way to ask the points: its name, the points in its form, an index."
    name = request.param
    if name == "sparse": return name, sparse.csr_matrix(points), build_index(sparse.csr_matrix(points))
    if name in servers:
        return name, points, build_index(points, "qdrant", server=client(name), collection=new_name())
    if name in saved_kinds: return name, points, build_index(points, name, probes=30)
    folder = write_shards(points, tmp_path/"index", "a", name.split()[0], rows=300, probes=30)
    return name, points, ShardedIndex.load(folder, "a")


@pytest.mark.parametrize("k", [1, 7, 800, 810])
def test_the_nearest_come_in_falling_order_and_exact_kinds_find_them_all(points, way, k):
    name, rows, index = way
    wanted = -np.sort(-(points[:20] @ points.T), axis=1)[:, :k]
    score, item = index.nearest(rows[:20], k)
    assert score.shape == item.shape == (20, k) and item.dtype == np.int64 and score.dtype == np.float32
    assert (np.diff(np.where(np.isinf(score), -2, score), axis=1) <= 0).all()
    there = item >= 0
    assert np.isinf(score[~there]).all() and not there[:, 800:].any()
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in item)     # no item twice
    cosines = np.einsum("nd,nkd->nk", points[:20], points[item])
    np.testing.assert_allclose(score[there], cosines[there], atol=1e-5)
    if name in ("exact", "sparse", "flat", "flat in files", ":memory:"):
        assert there[:, :800].all()
        np.testing.assert_allclose(score[:, :800], wanted, atol=1e-5)


@pytest.mark.parametrize("threshold", [.8, .95, 1.])
def test_an_index_joins_as_the_join_does(points, way, threshold):
    product, (name, rows, index) = points[:60] @ points.T, way
    found = index.join(rows[:60], threshold)
    assert found.shape == product.shape and found.has_canonical_format and found.dtype == np.float32
    assert (product[found.toarray() > 0] > threshold - 1e-5).all(), "a pair is invented"
    there = found.toarray()[product > threshold + 1e-5] > 0
    near = name in ("ivf", "ivf in files", "hnsw", os.environ.get("QDRANT_URL"))
    assert there.mean() > .95 if near and there.size else there.all()


def test_queries_of_another_width_or_length_and_no_queries(way):
    name, rows, index = way
    assert index.nearest(rows[:0], 3)[1].shape == (0, 3) and index.join(rows[:0], .5).shape == (0, 800)
    assert index.nearest(rows[:2], 0)[0].shape == (2, 0)
    for ask in (lambda some: index.nearest(some, 3), lambda some: index.join(some, .5)):
        with pytest.raises(InputError, match="7 dimensions, items 8"): ask(0*rows[:, :7])
        with pytest.raises(InputError, match="row 0 has length"): ask(2*rows)
    with pytest.raises(InputError, match="a cosine above 0"): index.join(rows, 0)


def test_equal_scores_keep_the_order_of_the_items():
    rows = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    for k in (1, 5, 20, 60):
        slow = [sorted(range(60), key=lambda j, i=i: (-rows[i] @ rows[j], j))[:k] for i in range(3)]
        assert build_index(rows).nearest(rows[:3], k)[1].tolist() == slow


def test_the_more_cells_are_looked_into_the_more_is_found(points, tmp_path):
    found = {}
    for probes in (1, 5, 20):
        folder = write_shards(points, tmp_path/str(probes), "a", "ivf", 300, 20, probes)
        files = ShardedIndex.load(folder, "a")
        found[probes] = build_index(points, "ivf", 20, probes).join(points, .9).nnz
        assert found[probes] == files.join(points, .9).nnz
    assert found[1] < found[5] < found[20] == join(points, threshold=.9).nnz


def test_the_seed_decides_about_the_cells(points):
    probe = [build_index(points, "ivf", probes=1, seed=seed).nearest(points, 5)[1] for seed in (0, 0, 1)]
    assert (probe[0] == probe[1]).all() and (probe[0] != probe[2]).any()


@pytest.mark.parametrize("call,said", [
    (lambda: check_unit(np.ones(3)), "1 dimensions"),
    (lambda: check_unit(np.full((2, 2), 9.)), "row 0 has length"),
    (lambda: check_unit(sparse.csr_matrix([[1., 0], [np.inf, 0]])), "row 1 has length inf"),
    (lambda: join(np.eye(2), np.eye(3)), "2 dimensions, items 3"),
    (lambda: join(np.eye(2), sparse.eye(2)), "one side is sparse"),
    *[(lambda t=t: join(np.eye(2), threshold=t), "a cosine above 0") for t in (0, -1, 1.1, float("nan"))],
    (lambda: build_index(sparse.eye(2), "flat"), "flat wants dense"),
    (lambda: build_index(np.eye(2), "flaat"), "did you mean 'flat'"),
    (lambda: hash_bits(["ff", "fg"]), "row 1"), (lambda: hash_bits(["ff", "ffff"]), "row 1"),
    (lambda: build_index(np.eye(2)).join(np.eye(3), .5), "3 dimensions, items 2"),
])
def test_refusals_say_what_is_wrong(call, said):
    with pytest.raises(InputError, match=said): call()


def test_equal_scores_keep_the_order_of_sparse_items():
    rows = sparse.csr_matrix(np.ones((50, 1)))
    assert build_index(rows).nearest(rows[:1], 5)[1].tolist() == [[0, 1, 2, 3, 4]]


def test_no_neighbours_of_sparse_items():
    code = """if True:
        from scipy import sparse
        from matchbook.neighbours import build_index
        for _ in range(300): build_index(sparse.eye(4).tocsr()).nearest(sparse.eye(4).tocsr(), 0)
    """
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("kind", index_kinds[1:])
@pytest.mark.parametrize("n,k", [(4, 0), (0, 3)])
def test_no_neighbours_and_no_items(kind, n, k):
    assert build_index(np.eye(4)[:n], kind).nearest(np.eye(4), k)[0].shape == (4, k)


@pytest.mark.parametrize("items,queries", [(np.eye(4), sparse.eye(4)), (sparse.eye(4), np.eye(4))])
def test_sparse_queries_of_a_dense_index_are_refused_and_the_reverse(items, queries):
    with pytest.raises(InputError, match="sparse"): build_index(items).nearest(queries, 2)


@pytest.mark.parametrize("hashes", [["0ff", "0ab"], ["00 ff", "00ff"]])
def test_an_odd_number_of_digits_or_a_space_is_refused(hashes):
    with pytest.raises(InputError, match="row 0"): hash_bits(hashes)


def test_no_hashes_are_no_rows(): assert len(hash_bits([])) == 0


@both_forms
def test_a_block_of_no_rows_is_refused(form):
    with pytest.raises(InputError, match="block"): join(form(np.eye(3)), block=0)


# Indexes in files.

@pytest.mark.parametrize("rows", [1, 60, 799, 800, 5000])
@pytest.mark.parametrize("kind", sharded_kinds)
def test_files_find_what_memory_finds(points, tmp_path, kind, rows):
    some = points[:80] if rows == 1 else points
    memory = build_index(some, kind, cells=9, probes=2, seed=3)
    np.save(tmp_path/"points.npy", some)
    mapped = np.load(tmp_path/"points.npy", mmap_mode="r")
    files = ShardedIndex.load(write_shards(mapped, tmp_path/"index", "a", kind, rows, 9, 2, 3), "a", 8)
    assert len(files.engines) == -(-len(some)//rows)
    one, other = memory.join(some, .9), files.join(some, .9, block=100)
    assert (one.indptr == other.indptr).all() and (one.indices == other.indices).all()
    np.testing.assert_allclose(one.data, other.data, atol=0 if kind == "ivf" else 1e-6, rtol=0)
    for first, second in zip(memory.nearest(some, 9), files.nearest(some, 9)):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_opening_and_asking_an_index_in_files_leaves_it_on_disk(tmp_path):
    rows = unit_rows(np.random.default_rng(0), 200_000, 64, 0)                       # 51 MB
    write_shards(rows, tmp_path, "a", "flat", rows=60_000)
    code = f"""if True:
        import numpy as np
        from matchbook.neighbours import ShardedIndex
        def private():                                   # memory that no file stands behind, in MB
            lines = open("/proc/self/status").read().splitlines()
            return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])/1024
        ShardedIndex.load({str(tmp_path)!r}, "a").nearest(np.eye(64)[:1], 3)        # libraries are loaded
        before = private()
        index = ShardedIndex.load({str(tmp_path)!r}, "a", 64)
        index.nearest(np.eye(64), 3)
        print(private() - before)
    """
    if not os.path.exists("/proc/self/status"): pytest.skip("memory is told apart on Linux only")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert float(done.stdout) < 10, done.stderr


def test_an_index_in_files_is_opened_for_its_own_alone(points, tmp_path):
    folder = write_shards(points, tmp_path/"index", "a", "flat", 300)
    data = json.loads((folder/"shards.json").read_text())["data"]
    ShardedIndex.load(folder, "a", 8, data, whole=True)
    for words, said in ((("b",), "of model 'a'; 'b' was wanted"), (("a", 9), "of dimensions 8; 9 was wanted"),
                        (("a", 8, "c"), "an index of data")):
        with pytest.raises(InputError, match=said): ShardedIndex.load(folder, *words)
    with pytest.raises(InputError, match="holds no shards.json"): ShardedIndex.load(tmp_path, "a")
    shard, other = folder/"shard-00001.faiss", tmp_path/"other"
    write_shards(-points, other, "a", "flat", 300)
    kept = shard.read_bytes()
    for content in (kept[:-1], (other/shard.name).read_bytes()):
        shard.write_bytes(content)
        with pytest.raises(InputError, match="is not the file"): ShardedIndex.load(folder, "a")
    shard.write_bytes(kept[:5000] + b"?" + kept[5001:])        # between the pages that are looked at, perhaps
    with pytest.raises(InputError, match="is not the file"): ShardedIndex.load(folder, "a", whole=True)
    shard.unlink()
    with pytest.raises(InputError, match="is missing"): ShardedIndex.load(folder, "a")


@pytest.mark.parametrize("change,said", [
    (lambda card: card["shards"][0].update(items=301), "300 items of 8 dimensions; shards.json tells of 301"),
    (lambda card: card.update(dimensions=9), "300 items of 8 dimensions; shards.json tells of 300 of 9")])
def test_a_card_that_does_not_fit_its_files_is_refused(points, tmp_path, change, said):
    folder = write_shards(points, tmp_path, "a", "flat", 300)
    card = json.loads((folder/"shards.json").read_text())
    change(card)
    (folder/"shards.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=said): ShardedIndex.load(folder, "a")


@pytest.mark.parametrize("items,more,said", [
    (np.eye(3, dtype=np.float32), {"kind": "hnsw"}, "index in files"),
    (np.eye(3, dtype=np.float32), {"rows": 0}, "at least one item a file"),
    (np.eye(3), {}, "float64 of shape"), (np.eye(3, dtype=np.float32)[:0], {}, "of shape"),
    (np.float32([[1, 0], [0, 1], [1, 1]]), {"rows": 2}, "from row 2: row 0")])
def test_what_is_no_index_in_files_is_not_written(tmp_path, items, more, said):
    with pytest.raises(InputError, match=said): write_shards(items, tmp_path/"index", "a", **more)
    assert not (tmp_path/"index"/"shards.json").exists()


# Qdrant.

@pytest.mark.parametrize("server", servers)
def test_payloads_are_filtered_by_the_server(points, client, server):
    payload = [{"brand": "abc"[row % 3], "year": row % 5, "new": row % 2 == 0} for row in range(800)]
    index = build_index(points, "qdrant", server=client(server), collection=new_name(), payload=payload)
    near, row = join(points[:9], points, .9).toarray(), np.arange(800)
    for only, right in (({"brand": "b"}, row % 3 == 1), ({"brand": ["a", "c"], "year": 3}, (row % 3 != 1) &
                        (row % 5 == 3)), ({"new": True}, row % 2 == 0), ({"brand": "d"}, row < 0)):
        np.testing.assert_allclose(index.join(points[:9], .9, only).toarray(), near*right, atol=1e-5)
        score, item = index.nearest(points[:2], 300, only)
        assert right[item[item >= 0]].all() and ((item >= 0).sum(1) == min(300, right.sum())).all()
        assert np.isinf(score[item < 0]).all()
    for only in ({"brand": .5}, {"brand": []}, {"brand": None}):
        with pytest.raises(InputError, match="only brand = "): index.nearest(points[:1], 1, only)


@pytest.mark.parametrize("server", servers)
def test_a_collection_is_opened_for_its_own_model_and_goes_on_where_it_was_left(points, client, server):
    there, name = client(server), new_name()
    with pytest.raises(InputError, match="holds no collection"): QdrantIndex.load(there, name, "a")
    index = write_collection(points, there, name, "a")
    again = QdrantIndex.load(there, name, "a", 8)
    assert (index.nearest(points[:9], 4)[1] == again.nearest(points[:9], 4)[1]).all()
    with pytest.raises(InputError, match="of model 'a'; 'b' was"): QdrantIndex.load(there, name, "b")
    with pytest.raises(InputError, match="of dimensions 8; 9 was"): QdrantIndex.load(there, name, "a", 9)
    for items, model, payload in ((points[::-1], "a", None), (points, "b", None), (points, "a", [{}]*800)):
        with pytest.raises(InputError, match="take another name"):
            write_collection(items, there, name, model, payload)
    there.delete(name, points_selector=list(range(500, 800)), wait=True)        # as if it had been stopped
    with pytest.raises(InputError, match="500 of 800 items; write_collection goes on"):
        QdrantIndex.load(there, name, "a")
    write_collection(points, there, name, "a")
    assert read_collection(there, name)["held"] == 800
    there.update_collection(name, metadata={"matchbook": None})
    with pytest.raises(InputError, match="not made by matchbook"): QdrantIndex.load(there, name, "a")


def test_answers_as_many_as_were_asked_for_are_asked_again(points):
    index = build_index(points, "qdrant")
    asked = []
    ask = index.client.query_batch_points
    index.client.query_batch_points = lambda name, some: asked.append(
        (len(some), some[0].limit)) or ask(name, some)
    found = index.join(points[:30], .9, k=4)
    full = [(np.diff(found.indptr) >= limit).sum() for limit in (4, 32, 256)]
    assert asked == [(30, 4), *((many, limit) for many, limit in zip(full, (32, 256, 800)) if many)]
    assert full[0] and abs(found - join(points[:30], points, .9)).max() < 1e-5


@pytest.mark.parametrize("exact", [False, True])
def test_the_server_is_told_to_go_through_all_items(points, exact):
    class Server:
        def query_batch_points(self, collection, asked):
            self.asked = asked
            return []
    QdrantIndex(server := Server(), "some", (800, 8), exact).nearest(points[:1], 3)
    assert [(one.limit, one.params and one.params.exact) for one in server.asked] == [(3, exact or None)]


@pytest.mark.parametrize("server,said", [
    ("some/folder", "kept as pickles"), ("http://127.0.0.1:1", "Qdrant, collection 'matchbook': .*refused")])
def test_a_server_that_is_none_is_said_in_one_line(points, server, said):
    with pytest.raises(InputError, match=said) as caught: build_index(points, "qdrant", server=server)
    assert "\n" not in str(caught.value)


def test_without_the_package_qdrant_says_what_to_install(points, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(InputError, match="pip install 'matchbook.scale.'"): build_index(points, "qdrant")


def test_payloads_one_an_item(points):
    with pytest.raises(InputError, match="2 payloads of 800"): build_index(points, "qdrant", payload=[{}]*2)
    with pytest.raises(InputError, match="takes no server"): build_index(points, "ivf", server=":memory:")


@pytest.mark.parametrize("kind,name,value", [
    ("hnsw", "links", 0), ("hnsw", "links", 1), ("hnsw", "breadth", 0), ("ivf", "probes", 0),
    ("ivf", "probes", -3), ("ivf", "cells", -1), ("ivf", "probes", 2.5), ("ivf", "seed", -1)])
def test_an_engine_that_cannot_be_is_refused_in_one_line(kind, name, value):
    rows = np.eye(8, dtype=np.float32)
    with pytest.raises(InputError, match=f"{name} = {value}: a whole number from") as error:
        build_index(rows, kind, **{name: value})
    assert "\n" not in str(error.value)


def test_cells_are_added_until_enough_is_found():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(700, 12)), 4, 0) + .2*rng.normal(size=(2800, 12))
    rows = (rows/np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    exact, index = join(rows, threshold=.8).nnz - len(rows), build_index(rows, "ivf", cells=60, probes=1)
    def recall(): return (index.join(rows, .8).nnz - len(rows))/exact
    before = recall()
    assert before < .98 and raise_probes(index, .8, .99) > 1 and recall() > .98
    assert raise_probes(index, .8, 1.) <= 60
    for call in (lambda: raise_probes(build_index(rows), .8), lambda: raise_probes(index, .8, 1.2)):
        with pytest.raises(InputError, match="was wanted"): call()


@pytest.mark.parametrize("name", ["", "a..b", "["])
def test_a_filter_by_what_is_no_field_is_refused(name):
    with pytest.raises(InputError, match="name of a field"): filter_payload({name: "x"})
