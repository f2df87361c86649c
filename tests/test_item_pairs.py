"Pairs of items: what each reader takes, what it refuses or counts, and that no cut lets a product cross."
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from matchbook.datasets import InputError, load
from matchbook.products.listings import (Items, PairParts, Pairs, count_known, cut_by_cluster, hash_vectors,
                                         join_pairs, pair_keys, pair_listings, read_listings, read_ozon,
                                         read_pair_parts, split_listings, stack_vectors)
from matchbook.splits import find_clusters

parts_of = ("train", "valid", "test")
name, picture = "name_bert_64", "main_pic_embeddings_resnet_v1"


def whole(parts): return [getattr(parts, part) for part in parts_of]


def plain_items(texts, ids=None):
    return Items(np.arange(len(texts)) if ids is None else np.array(ids), np.array(texts, dtype=object),
                 *np.zeros((2, len(texts), 0), dtype=np.float32))


# Ozon: three parquet files

def ozon_tables():
    rng, ids = np.random.default_rng(0), np.arange(100, 112)
    return {"text_and_bert": pd.DataFrame({"variantid": ids, name: list(rng.normal(size=(12, 4)))}),
            "resnet": pd.DataFrame({"variantid": ids, picture: [[one] for one in rng.normal(size=(12, 3))]}),
            "train": pd.DataFrame({"variantid1": ids[:-1], "variantid2": ids[1:], "target": [0, 1]*5 + [0]})}


def write_ozon(folder, tables, **names):
    for stem, table in tables.items(): table.to_parquet(folder/f"{names.get(stem, stem)}.parquet")
    return folder


def original_unit(vector):
    length = np.sqrt(np.sum(np.square(vector)))
    return vector/length if length > .001 else vector


def test_vectors_and_cut_of_ozon_are_the_originals():
    parts, _ = read_pair_parts("ozon-sample")
    tables, items = load("ozon-sample"), parts.items
    row = {one: i for i, one in enumerate(items.id)}
    for table, column, found, there in (
            ("text_and_bert", name, items.text_vector, items.has_text),
            ("resnet", picture, items.image_vector, items.has_image)):
        table = tables[table]
        cells = table[column] if column == name else [one[0] for one in table[column]]
        slow = {row[one]: original_unit(np.asarray(cell)) for one, cell in zip(table["variantid"], cells)}
        np.testing.assert_allclose(found[list(slow)], np.stack(list(slow.values())), atol=1e-6)
        lacking = np.setdiff1d(np.arange(len(items)), list(slow))
        assert len(lacking) and not there[lacking].any() and not found[lacking].any()
        assert there.sum() == len(slow)
    train, test = train_test_split(tables["train"], test_size=.2, random_state=42)
    for part, table in ((parts.test, test), (parts.valid, train_test_split(train, test_size=.2,
                                                                           random_state=42)[1])):
        assert items.id[part.left].tolist() == table["variantid1"].tolist()
        assert items.id[part.right].tolist() == table["variantid2"].tolist()
        assert part.label.tolist() == table["target"].tolist()


def test_the_pictures_may_have_either_name_and_the_contests_comes_first(tmp_path):
    tables = ozon_tables()
    own = read_ozon(write_ozon(tmp_path, tables, resnet="images_embed"), "own").items
    assert own.has_image.all()
    tables["resnet"] = tables["resnet"].iloc[:5]
    assert read_ozon(write_ozon(tmp_path, tables), "both").items.has_image.sum() == 5


def test_an_item_that_lacks_a_vector_stays_with_its_mask(tmp_path):
    tables = ozon_tables()
    tables["resnet"][picture] = [None, [], [None], [np.zeros(3)], *tables["resnet"][picture][4:]]
    tables["resnet"] = pd.concat([tables["resnet"].iloc[::-1], pd.DataFrame(
        {"variantid": [7], picture: [[[0., 2, 0]]]})])                   # another order, and one item more
    tables["text_and_bert"] = tables["text_and_bert"].iloc[:-1]
    parts = read_ozon(write_ozon(tmp_path, tables), "gaps")
    items = parts.items
    assert items.id.tolist() == [*range(100, 111), 7, 111] or sorted(items.id) == [7, *range(100, 112)]
    row = {one: i for i, one in enumerate(items.id)}
    assert [one for one in row if not items.has_image[row[one]]] == [100, 101, 102, 103]
    assert {one for one in row if not items.has_text[row[one]]} == {7, 111}
    assert items.image_vector[row[7]].tolist() == [0, 1, 0]
    assert sum(map(len, whole(parts))) == 11                             # no pair is lost by it
    assert parts.counts()["items without image vector"] == 4


def test_ids_may_be_text_and_more_columns_are_passed_over(tmp_path):
    tables, asked = ozon_tables(), ("variantid", "variantid1", "variantid2")
    (tmp_path/"numbers").mkdir(), (tmp_path/"text").mkdir()
    first = read_ozon(write_ozon(tmp_path/"numbers", tables), "numbers")
    for table in tables.values():
        for column in table.columns.intersection(asked): table[column] = table[column].astype(str)
        table["more"] = "x"
    again = read_ozon(write_ozon(tmp_path/"text", tables), "text")
    assert again.items.id.tolist() == first.items.id.astype(str).tolist()
    assert (again.items.text_vector == first.items.text_vector).all()
    assert all((getattr(a, side) == getattr(b, side)).all() for a, b in zip(whole(again), whole(first))
               for side in ("left", "right", "label"))


def test_unknown_ids_are_counted_and_told(tmp_path, caplog):
    tables = ozon_tables()
    tables["train"].loc[[2, 5], "variantid2"] = 999
    with caplog.at_level(logging.WARNING): parts = read_ozon(write_ozon(tmp_path, tables), "gaps")
    assert parts.lost["unjoined"] == parts.counts()["pairs unjoined"] == 2
    assert sum(map(len, whole(parts))) == 9
    assert "train.parquet: of 11 pairs 2 unjoined" in caplog.text


def put(table, column, row, value):
    def change(tables):
        cells = list(tables[table][column])
        cells[row] = value
        tables[table][column] = cells
    return change


def each(table, column, make):
    def change(tables): tables[table][column] = [make(one) for one in tables[table][column]]
    return change


def backwards(tables):
    tables["resnet"] = tables["resnet"].iloc[::-1].reset_index(drop=True)
    put("resnet", picture, 2, [[1., np.nan, 0]])(tables)


@pytest.mark.parametrize("change,said", [
    (put("text_and_bert", name, 3, np.ones(3)), 
     f"text_and_bert.parquet, column {name}, row 4: a vector of 3 numbers; the first has 4"),
    (put("text_and_bert", name, 1, np.array([1, np.nan, 0, 0])), "row 2: a number that is not finite"),
    (put("text_and_bert", name, 1, np.array([1e30, 1e30, 0, 0])), "row 2: a number that is not finite"),
    (backwards, f"resnet.parquet, column {picture}, row 3: a number that is not finite"),
    (each("resnet", picture, lambda one: one[0]), "row 1: float64; a vector in a list was wanted"),
    (each("resnet", picture, lambda one: [one]), "row 1: object of shape (1,); a row of numbers was wanted"),
    (each("text_and_bert", name, lambda one: [one]), "row 1: object of shape (1,)"),
    (each("text_and_bert", name, lambda one: "vector"), "row 1: str; a vector was wanted"),
    (put("text_and_bert", "variantid", 3, 102), "row 4: variantid 102 again"),
    (put("resnet", "variantid", 3, None), "resnet.parquet, row 4, column variantid: no id"),
    (each("resnet", "variantid", str), "column variantid: string, but text_and_bert.parquet has integer"),
    (lambda tables: [each("train", f"variantid{side}", str)(tables) for side in (1, 2)],
     "train.parquet: no pair is left of 11 (11 unjoined)"),
    (put("train", "target", 4, 2), "train.parquet, row 5: label 2; 0 or 1 was wanted"),
    (put("train", "target", 4, None), "train.parquet, row 5: label nan"),
    (lambda tables: tables["train"].insert(0, "taget", tables["train"].pop("target")),
     "did you mean 'taget'"),
    (lambda tables: tables.update(train=tables["train"].iloc[:4]), "4 pairs; five or more are cut in three"),
    (lambda tables: tables.update(train=tables["train"].iloc[:0]), "no pair is left of 0 (no rows)"),
])
def test_wrong_vectors_ids_and_labels_are_refused_by_file_and_row(tmp_path, change, said):
    tables = ozon_tables()
    change(tables)
    with pytest.raises(InputError) as error: read_ozon(write_ozon(tmp_path, tables), "wrong")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_missing_or_damaged_file_of_ozon_is_named(tmp_path):
    write_ozon(tmp_path, ozon_tables())
    (tmp_path/"resnet.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="resnet.parquet: not a parquet"): read_pair_parts("own", tmp_path)
    (tmp_path/"text_and_bert.parquet").unlink()
    with pytest.raises(InputError, match="no such file: .*text_and_bert"): read_pair_parts("own", tmp_path)


@pytest.mark.parametrize("vectors,said", [
    ([[1., 2], [1.]], "x, row 2: a vector of 1 numbers; the first has 2"),
    ([[1., 2], [np.inf, 0]], "x, row 2: a number that is not finite (1 such rows)"),
    ([[1e300, 1e300]], "x, row 1: a number that is not finite"), ([[1, [2, 3]]], "row 1: object"),
    ([3., [1.]], "row 1: float64 of shape ()"), ([["a"]], "a row of numbers was wanted")])
@pytest.mark.filterwarnings("error")
def test_a_vector_that_is_off_is_refused_without_other_noise(vectors, said):
    with pytest.raises(InputError) as error: stack_vectors(vectors, "x")
    assert said in str(error.value)


# Pairs by id

@pytest.mark.parametrize("contradictions", ["drop", "keep"])
def test_pairs_are_joined_as_by_looping(contradictions):
    items = plain_items(["a", "b", "c", "d"], ids=["a", "b", "c", "d"])
    for seed in range(200):
        rng = np.random.default_rng(seed)
        left, right = rng.choice(list("abcdx"), (2, 12))
        label = rng.integers(0, 2, 12)
        said = {}
        for a, b, yes in zip(left, right, label): said.setdefault(frozenset((a, b)), set()).add(int(yes))
        twofold = "with two labels" + ", kept"*(contradictions == "keep")
        lost, kept = {"unjoined": 0, "of one item": 0, twofold: 0}, []
        for a, b, yes in zip(left, right, label):
            two = len(said[frozenset((a, b))]) == 2
            reason = ("unjoined" if "x" in (a, b) else "of one item" if a == b else
                      twofold if two else None)
            if reason: lost[reason] += 1
            if reason in (None, twofold if contradictions == "keep" else None):
                kept.append(("abcd".index(a), "abcd".index(b), int(yes)))
        if not kept: continue
        once = [frozenset(pair[:2]) for pair in kept
                if len(said[frozenset("abcd"[one] for one in pair[:2])]) == 1]
        lost["given again, kept"] = len(once) - len(set(once))
        pairs, found = join_pairs(items, left, right, label, contradictions=contradictions)
        assert found == lost
        assert list(zip(pairs.left.tolist(), pairs.right.tolist(), pairs.label.tolist())) == kept


def test_contradictions_are_refused_by_their_rows_when_asked():
    items = plain_items(["", ""], ids=["a", "b"])
    with pytest.raises(InputError, match="shop.csv, rows 2 and 4: the same pair with two labels"):
        join_pairs(items, list("aaab"), list("abba"), [1, 1, 1, 0], "shop.csv", "refuse")
    with pytest.raises(InputError, match="did you mean 'drop'"):
        join_pairs(items, ["a"], ["b"], [1], contradictions="drob")


def test_a_pair_given_again_is_counted_and_told(caplog):
    with caplog.at_level(logging.WARNING):
        pairs, lost = join_pairs(plain_items(["", ""], ids=["a", "b"]), list("aab"), list("bba"), [1, 1, 1])
    assert len(pairs) == 3 and lost["given again, kept"] == 2 and "2 given again, kept" in caplog.text


@pytest.mark.parametrize("changed, said", [
    ({"left": [0, 9]}, "row 2: left is item 9; 0 to 2 was wanted"),
    ({"right": [-1, 1]}, "row 1: right is item -1"),
    ({"left": [0., 1.]}, "left is float64"), ({"label": [2, 0]}, "row 1: label 2; 0 or 1"),
    ({"label": [1, np.nan]}, "row 2: label nan"), ({"label": ["yes", "no"]}, "row 1: label 'yes'")])
def test_pairs_that_make_no_sense_are_refused(changed, said):
    with pytest.raises(InputError, match=said):
        Pairs(**{"items": plain_items([""]*3), "left": [0, 1], "right": [1, 2], "label": [1, 0]} | changed)


def test_lists_and_labels_as_text_become_arrays():
    pairs = Pairs(plain_items([""]*3), [0, 1], [1, 2], ["1", "0"])
    assert pairs[[1]].left.tolist() == [1] and pairs.label.tolist() == [1, 0]
    assert len(Pairs(plain_items([""]), [], [], [])) == 0


@pytest.mark.parametrize("changed, said", [
    ({"text_vector": np.eye(2)}, "3 ids, but text_vector is float64 of shape"),
    ({"image_vector": np.full((3, 2), np.nan)}, "row 1: image_vector has a number that is not finite"),
    ({"text_vector": [[1], [1, 2], [1]]}, "text_vector"), ({"text": ["a"]}, "3 ids, but text is"),
    ({"text_vector": np.zeros(3)}, "a matrix of numbers was wanted")])
def test_items_that_make_no_sense_are_refused(changed, said):
    with pytest.raises(InputError, match=said): replace(plain_items([""]*3), **changed)


def test_two_items_of_one_id_and_labels_without_pairs_are_refused():
    with pytest.raises(InputError, match="shop.csv: two items have the id 'a'"):
        join_pairs(plain_items([""]*3, ids=["a", "b", "a"]), ["a"], ["b"], [1], "shop.csv")
    with pytest.raises(InputError, match="1 left sides, 1 right sides, 2 labels"):
        join_pairs(plain_items([""]*2, ids=["a", "b"]), ["a"], ["b"], [1, 0])


def test_vectors_of_zeros_are_counted_apart_from_missing_ones(tmp_path, caplog):
    tables = ozon_tables()
    for row, cell in ((2, np.zeros(4)), (3, None)): put("text_and_bert", name, row, cell)(tables)
    with caplog.at_level(logging.WARNING): counts = read_ozon(write_ozon(tmp_path, tables), "gaps").counts()
    assert counts["items without text vector"] == 2 and counts["items with text vector of zeros"] == 1
    assert counts["items with image vector of zeros"] == 0 and "1 vectors of zeros" in caplog.text


def test_a_table_of_labels_takes_no_setting_that_it_cannot_follow(tmp_path):
    path = tmp_path/"mine.csv"
    lines = [f"mug {n},mug {n} {n % 2},{n % 2}" for n in range(30)]
    path.write_text("\n".join(["left_text,right_text,label", *lines]))
    parts, _ = read_pair_parts("mine", path, split="clusters")
    assert parts.split == "clusters" and not count_known(parts).any()
    for setting in ({"size": "huge"}, {"without": ("nope",)}):
        with pytest.raises(InputError, match="a table of labels is read as it is"):
            read_pair_parts("mine", path, **setting)


def test_new_negatives_are_as_near_as_those_that_were_lost():
    rng = np.random.default_rng(0)
    place = np.tile(rng.normal(size=(300, 3)), (2, 1))                     # i and 300 + i are one product
    items = replace(plain_items([""]*600), text_vector=stack_vectors(place))
    left, right = (side.ravel() for side in np.meshgrid(np.arange(300), np.arange(300, 600)))
    near = (items.text_vector[left]*items.text_vector[right]).sum(1)
    rows = np.flatnonzero((left + 300 == right) | ((near > .8) & (rng.random(len(left)) < .1)))
    rows = rng.permutation(rows)
    pairs, cut = Pairs(items, left[rows], right[rows], left[rows] + 300 == right[rows]), len(rows)//5
    new = cut_by_cluster(PairParts(pairs[2*cut:], pairs[:cut], pairs[cut:2*cut], {}))
    lost = new.likeness["lost"]
    assert lost == pytest.approx(new.likeness["negatives"], abs=.03)
    assert [new.likeness[f"drawn for {part}"] for part in parts_of] == pytest.approx([lost]*3, abs=.02)


def test_sides_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="2 left sides, 1 right sides, 2 labels"):
        Pairs(plain_items(["", ""]), np.array([0, 0]), np.array([1]), np.array([0, 1]))


# Texts: Magellan and WDC

lines = ["COL song VAL {0} one COL by VAL ann\tCOL song VAL {0} 1 COL by VAL ann\t1",
         "COL song VAL {0} two COL by VAL\tCOL song VAL {0} three COL by VAL bo\t0"]


def write_texts(folder, ending="", end="\n", **more):
    for part in parts_of:
        there = [line.format(part) for line in lines] + more.get(part, [])
        file = folder/(f"{part}.txt{ending}" if part != "test" else "test.txt")
        file.write_bytes((end.join(there) + end).encode())
    return folder


def test_a_folder_of_other_fields_is_read_by_any_name(tmp_path):
    parts, digest = read_pair_parts("songs", write_texts(tmp_path))
    assert [part.label.tolist() for part in whole(parts)] == [[1, 0]]*3 and len(digest) == 64
    assert parts.items.fields[0] == {"song": "train one", "by": "ann"} and parts.two_tables
    assert "train two" in parts.items.plain and len(parts.items) == 12


def test_line_ends_of_windows_change_nothing(tmp_path):
    (tmp_path/"a").mkdir(), (tmp_path/"b").mkdir()
    first, again = (read_pair_parts("songs", write_texts(tmp_path/place, end=end))[0]
                    for place, end in (("a", "\n"), ("b", "\r\n")))
    assert first.items.text.tolist() == again.items.text.tolist()
    assert [part.label.tolist() for part in whole(first)] == [part.label.tolist() for part in whole(again)]


def test_an_empty_right_side_is_an_item_without_text(tmp_path):
    parts, _ = read_pair_parts("songs", write_texts(tmp_path, train=["COL song VAL x\t\t0"]))
    assert parts.items.plain[parts.train.right[2]] == "" and len(parts.train) == 3


@pytest.mark.parametrize("text,plain", [
    ("PROTOCOL 5 analyser", "PROTOCOL 5 analyser"), ("baju COL anak", "baju COL anak"), ("COL", "COL"),
    ("COL a VAL PROTOCOL 5", "PROTOCOL 5"), ("COL a VAL", ""), ("COL a VAL x\ny COL b VAL z", "x\ny z")])
def test_words_of_a_text_are_not_taken_for_names_of_fields(text, plain):
    assert plain_items([text]).plain.tolist() == [plain]


@pytest.mark.parametrize("line,said", [
    ("COL song VAL x\tCOL song VAL y\t2", "train.txt, line 3: label '2'; 0 or 1 was wanted"),
    ("COL song VAL x\t1", "train.txt, line 3: 2 fields; wanted left, right, label"),
    ("COL song VAL x\tCOL song VAL y\t", "line 3: label ''")])
def test_a_wrong_line_is_refused_by_its_number(tmp_path, line, said):
    with pytest.raises(InputError) as error: read_pair_parts("songs", write_texts(tmp_path, train=[line]))
    assert said in str(error.value)


def test_an_empty_part_and_a_folder_of_nothing_are_refused(tmp_path):
    write_texts(tmp_path)
    (tmp_path/"valid.txt").write_text("\n")
    with pytest.raises(InputError, match="valid.txt is empty; pairs were wanted"):
        read_pair_parts("songs", tmp_path)
    (tmp_path/"valid.txt").unlink()
    with pytest.raises(InputError, match="lacks valid.txt; it has test.txt, train.txt"):
        read_pair_parts("songs", tmp_path)
    (tmp_path/"nothing").mkdir()
    with pytest.raises(InputError, match="has none of"): read_pair_parts("songs", tmp_path/"nothing")
    with pytest.raises(InputError, match="a folder with files of pairs was wanted"):
        read_pair_parts("songs", tmp_path/"test.txt")


def test_offers_of_one_pool_with_one_text_stay_a_pair_and_sizes_are_told_apart(tmp_path):
    same = "COL title VAL lamp\tCOL title VAL lamp\t1"
    write_texts(tmp_path, ".small", train=[same])
    small, _ = read_pair_parts("offers", tmp_path)
    assert small.lost["of one item"] == 1 and not small.two_tables
    write_texts(tmp_path, ".medium", train=[lines[1].format("more")])
    medium, _ = read_pair_parts("offers", tmp_path, size="medium")
    assert (len(small.train), len(medium.train)) == (3, 3)   # two shops may write the same
    with pytest.raises(InputError, match="lacks train.txt.large, valid.txt.large"):
        read_pair_parts("offers", tmp_path, size="large")
    for part in ("train", "valid"): (tmp_path/f"{part}.txt.small").rename(tmp_path/f"{part}.txt")
    two, _ = read_pair_parts("shops", tmp_path)                          # two tables: two lamps
    assert len(two.train) == 3 and two.lost["of one item"] == 0


def test_a_pair_with_two_labels_goes_from_what_is_learnt_from_and_stays_in_test(tmp_path, caplog):
    other = {part: [lines[0].format(part)[:-1] + "0"] for part in parts_of}
    with caplog.at_level(logging.WARNING): parts, _ = read_pair_parts("x", write_texts(tmp_path, **other))
    assert [len(part) for part in whole(parts)] == [1, 1, 3]
    assert "train.txt: of 3 pairs 2 with two labels" in caplog.text
    assert (parts.lost["with two labels"], parts.lost["with two labels, kept"]) == (4, 2)
    with pytest.raises(InputError, match="train.txt, rows 1 and 3"):
        read_pair_parts("x", tmp_path, contradictions="refuse")


def test_a_size_or_field_that_is_not_there_is_refused(tmp_path, shopee):
    with pytest.raises(InputError, match="lacks train.txt.large, valid.txt.large; it has test.txt"):
        read_pair_parts("songs", write_texts(tmp_path), size="large")
    with pytest.raises(InputError, match="no field named 'bye'; did you mean 'by'"):
        read_pair_parts("songs", tmp_path, without=("song", "bye"))
    (tmp_path/"train.csv").write_text("")
    with pytest.raises(InputError, match="songs comes in one size, not in size=large"):
        read_pair_parts("songs", tmp_path, size="large")
    with pytest.raises(InputError, match="songs has no fields, so none for without=by"):
        read_pair_parts("songs", tmp_path, without="by")


@pytest.mark.parametrize("without", ["by", ("by",), ["by"]])
def test_a_field_is_left_out_when_asked(tmp_path, without):
    parts, _ = read_pair_parts("songs", write_texts(tmp_path), without=without)
    assert {name for one in parts.items.fields for name in one} == {"song"}


def test_the_field_that_tells_is_left_out_by_default(tmp_path):
    telling = "COL name VAL x COL class VAL 7\tCOL name VAL y COL class VAL 7\t1"
    write_texts(tmp_path, train=[telling])
    read = [read_pair_parts("fodors-zagats", tmp_path, **asked)[0] for asked in ({}, {"without": ()})]
    fields = [{name for one in parts.items.fields for name in one} for parts in read]
    assert fields == [{"song", "by", "name"}, {"song", "by", "name", "class"}]


# Cut by product

def draw_parts(seed):
    "Three parts of random pairs between 30 left and 30 right items, which look alike where they are one."
    rng = np.random.default_rng(seed)
    entity = rng.integers(0, 20, 60)
    # some are one product by way of others alone
    same, chance = entity[:30, None] == entity[None, 30:], rng.random((30, 30))
    left, right = np.nonzero((same & (chance < .7)) | (~same & (chance < .08)))
    label = (entity[left] == entity[right + 30]).astype(int)
    order = rng.permutation(len(left))
    vectors = rng.normal(size=(20, 4))[entity] + rng.normal(size=(60, 4))/4
    items = replace(plain_items([""]*60), text_vector=stack_vectors(vectors))
    pairs, cut = Pairs(items, left[order], right[order] + 30, label[order]), len(order)//5
    return PairParts(pairs[2*cut:], pairs[:cut], pairs[cut:2*cut], {})


def test_no_product_crosses_and_new_negatives_are_new_and_negative_and_enough():
    for seed in range(60):
        parts = draw_parts(seed)
        new = cut_by_cluster(parts, seed)
        left, right, label = (np.concatenate([getattr(part, side) for part in whole(parts)])
                              for side in ("left", "right", "label"))
        product = find_clusters(left, right, label, 60)
        before, prior = dict(zip(zip(left, right), label)), label.mean()
        seen, keys = [], []
        for part in whole(new):
            mine = list(zip(part.left, part.right))
            keys += mine
            seen.append(set(product[part.left]) | set(product[part.right]))
            drawn = [pair for pair in mine if pair not in before]
            for pair, yes in zip(mine, part.label): assert yes == before.get(pair, 0)
            assert all(product[a] != product[b] for a, b in drawn)
            inside = [{one for one in side if product[one] in seen[-1]} for side in (left, right)]
            room = sum(product[a] != product[b] and (a, b) not in before
                       for a in inside[0] for b in inside[1])
            wanted = round(part.label.sum()*(1 - prior)/prior) - (part.label == 0).sum() + len(drawn)
            assert min(wanted, room) - 1 <= len(drawn) <= max(0, wanted)  # the prior, if it can be had
        assert len(set(keys)) == len(keys) and new.split == "clusters"
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
        assert sum(part.label.sum() for part in whole(new)) == label.sum()


def test_a_pair_on_whose_label_two_parts_disagree_is_in_none():
    for seed in range(20):
        parts = draw_parts(seed)
        train, test = parts.train, parts.test
        sides = (np.r_[getattr(test, side), getattr(train, side)[:9]] for side in ("left", "right"))
        other = Pairs(parts.items, *sides, np.r_[test.label, 1 - train.label[:9]])
        odd = set(zip(train.left[:9], train.right[:9]))
        new = cut_by_cluster(replace(parts, test=other), seed)
        assert not odd & {pair for part in whole(new) for pair in zip(part.left, part.right)}
        assert new.lost["with two labels in all"] == 18


def test_the_same_seed_cuts_the_same_and_the_original_parts_stay():
    parts = draw_parts(1)
    before = parts.train.left.copy()
    first, again, other = (cut_by_cluster(parts, seed) for seed in (1, 1, 2))
    same = [all((getattr(a, side) == getattr(b, side)).all() for a, b in zip(whole(first), whole(again)))
            for side in ("left", "right", "label")]
    assert all(same) and (parts.train.left == before).all()
    assert first.test.left.tolist() != other.test.left.tolist()


def test_a_dataset_is_cut_by_product_when_asked():
    parts, _ = read_pair_parts("ozon-sample", split="clusters")
    assert parts.split == "clusters" and (count_known(parts) == 0).all()
    shares = [part.label.mean() for part in whole(parts)]
    assert shares == pytest.approx([shares[0]]*3, abs=.02)


def test_known_items_are_counted_as_by_looping():
    for seed in range(20):
        parts = draw_parts(seed)
        known = {*parts.train.left, *parts.train.right}
        assert count_known(parts).tolist() == [(a in known) + (b in known) for a, b in
                                               zip(parts.test.left, parts.test.right)]


# Pairs out of groups

@pytest.fixture(scope="module")
def shopee(): return read_listings("shopee-sample")[0]


def test_pairs_of_listings_have_the_right_labels_and_stay_in_their_part(shopee):
    split = split_listings(shopee)
    parts = pair_listings(shopee, split)
    for part, rows in zip(whole(parts), (split.train, split.valid, split.test)):
        assert np.isin(part.left, rows).all() and np.isin(part.right, rows).all()
        assert ((shopee.group[part.left] == shopee.group[part.right]) == part.label).all()
        assert len(set(pair_keys(part.left, part.right))) == len(part) and (part.left != part.right).all()
        in_pairs = {*part.left[part.label == 1], *part.right[part.label == 1]}
        assert in_pairs == set(rows)                                     # each listing has a partner
        assert 0 < part.label.mean() < 1 and (part.left > part.right).mean() == pytest.approx(.5, abs=.1)


def test_pairs_of_listings_are_the_same_for_the_same_seed(shopee):
    split = split_listings(shopee)
    first, again, other = (pair_listings(shopee, split, seed=seed).train for seed in (0, 0, 1))
    assert (first.left == again.left).all() and (first.right == again.right).all()
    assert len(first) != len(other) or (first.left != other.left).any()


def test_bits_of_a_hash_are_eighths_and_none_is_zeros():
    found = hash_vectors(np.array(["8000000000000001", "", "FFFFFFFFFFFFFFFF"], dtype=object))
    assert found[0].tolist() == [1/8] + [-1/8]*62 + [1/8] and not found[1].any() and (found[2] == 1/8).all()
    with pytest.raises(InputError, match="row 2, column image_phash: '00ff'; 16 hex digits"):
        hash_vectors(np.array(["", "00ff"], dtype=object))


def test_pairs_of_listings_are_cut_by_product_whatever_is_asked(tmp_path):
    load("shopee-sample").to_csv(tmp_path/"train.csv", index=False)
    first, again = (read_pair_parts("shopee-pairs", tmp_path, split=split)[0]
                    for split in ("published", "clusters"))
    assert [len(part) for part in whole(first)] == [len(part) for part in whole(again)]
    assert again.split == "clusters" and (count_known(first) == 0).all()


def test_a_wrong_word_for_a_cut_is_answered_with_the_nearest():
    for word, said in (("cluster", "did you mean 'clusters'"), (3, "no split named 3")):
        with pytest.raises(InputError, match=said): read_pair_parts("ozon-sample", split=word)
