"Joins and indexes against the whole product, on drawn and awkward input; the memory a join takes."
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from matchbook.datasets import InputError
from matchbook.neighbours import (build_index, check_unit, hash_bits, index_kinds, join, join_equal,
                                  join_hamming, join_near)

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


def indexes(points):
    "Every kind, and the exact one over sparse rows."
    yield from ((kind, points, build_index(points, kind, probes=30)) for kind in index_kinds)
    yield "exact", sparse.csr_matrix(points), build_index(sparse.csr_matrix(points))


@pytest.mark.parametrize("k", [1, 7, 800, 810])
def test_the_nearest_come_in_falling_order_and_exact_kinds_find_them_all(points, k):
    wanted = -np.sort(-(points[:20] @ points.T), axis=1)[:, :k]
    for kind, rows, index in indexes(points):
        score, item = index.nearest(rows[:20], k)
        assert score.shape == item.shape == (20, k) and item.dtype == np.int64
        assert (np.diff(np.where(np.isinf(score), -2, score), axis=1) <= 0).all(), kind
        there = item >= 0
        assert np.isinf(score[~there]).all() and not there[:, 800:].any()
        assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in item)     # no item twice
        cosines = np.einsum("nd,nkd->nk", points[:20], points[item])
        np.testing.assert_allclose(score[there], cosines[there], atol=1e-5)
        if kind in ("exact", "flat"):
            assert there[:, :800].all()
            np.testing.assert_allclose(score[:, :800], wanted, atol=1e-5)


@pytest.mark.parametrize("threshold", [.8, .95, 1.])
def test_an_index_joins_as_the_join_does(points, threshold):
    product = points[:60] @ points.T
    for kind, rows, index in indexes(points):
        found = index.join(rows[:60], threshold)
        assert found.shape == product.shape and found.has_canonical_format
        assert (product[found.toarray() > 0] > threshold - 1e-5).all(), f"{kind} invents a pair"
        there = found.toarray()[product > threshold + 1e-5] > 0
        assert there.mean() > .95 if kind in ("ivf", "hnsw") and there.size else there.all()


def test_equal_scores_keep_the_order_of_the_items():
    rows = np.eye(3, dtype=np.float32)[np.arange(60) % 3]
    for k in (1, 5, 20, 60):
        slow = [sorted(range(60), key=lambda j, i=i: (-rows[i] @ rows[j], j))[:k] for i in range(3)]
        assert build_index(rows).nearest(rows[:3], k)[1].tolist() == slow


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


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
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
