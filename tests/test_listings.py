"Listings: what is refused and how it is said, the order of groups, and the cut."
import hashlib

import numpy as np
import pandas as pd
import pytest

from matchbook.datasets import InputError
from matchbook.products.listings import check_listings, count_parts, read_listings, split_listings
from matchbook.splits import split_by_percentile

columns = ["posting_id", "title", "label_group", "image_phash"]
keep = {"empty_titles": "keep", "single_groups": "keep"}


def table_of(*rows): return pd.DataFrame(rows, columns=columns[:len(rows[0])])


good = [("a", "red shoe", "10", "00ff"), ("b", "Red Shoe", "10", ""),
        ("c", "lamp", "9", None), ("d", "lamp", "9", " f0 ")]


def labelled(*labels):
    "One row a label."
    return table_of(*((str(row), "t", label) for row, label in enumerate(labels)))


@pytest.mark.parametrize("row,column,value,said", [
    (1, 0, "", "row 2, column posting_id: no id (1 such row)"),
    (1, 0, None, "row 2, column posting_id: no id"),
    (2, 0, "a", "row 3, column posting_id: id 'a' again"),
    (2, 0, " a ", "row 3, column posting_id: id 'a' again"),
    (1, 1, "", "row 2, column title: no title (1 such row); empty_titles=keep"),
    (3, 1, " \t", "row 4, column title: no title"), (0, 1, np.nan, "row 1, column title: no title"),
    (0, 2, "", "row 1, column label_group: no group"), (0, 2, np.nan, "row 1, column label_group: no group"),
    (0, 2, "nan", "row 1, column label_group: no group"),
    (0, 2, "11", "row 1, column label_group: group '11' has one row (2 such rows); single_groups=keep"),
])
def test_a_wrong_cell_is_refused_by_row_and_column(row, column, value, said):
    table = table_of(*good).astype(object)
    table.iloc[row, column] = value
    with pytest.raises(InputError) as error: check_listings(table, "shop.csv")
    assert str(error.value).startswith(f"shop.csv, {said}") and "\n" not in str(error.value)


@pytest.mark.parametrize("text,said", [
    ("posting_id,title\na,b\n", "no column named 'label_group'"), ("", "is empty"),
    ("posting_id,titel,label_group\na,b,1\n", "no column named 'title'; did you mean 'titel'"),
    ("posting_id,title,label_group\n", "no rows"),
    ("posting_id,title,label_group\na,b\n", "line 2: 2 fields"),
])
def test_a_wrong_file_is_refused_by_name(tmp_path, text, said):
    (tmp_path/"shop.csv").write_text(text)
    with pytest.raises(InputError, match="shop.csv") as error: read_listings(data=tmp_path/"shop.csv")
    assert said in str(error.value)


@pytest.mark.parametrize("handling", [{"empty_titles": "drop"}, {"single_groups": "yes"}])
def test_an_unknown_handling_is_refused(handling):
    with pytest.raises(InputError, match="one of refuse, keep was wanted"):
        check_listings(table_of(*good), **handling)


def test_what_is_kept_on_request_is_kept_as_it_came():
    listings = check_listings(table_of(("a", "", "1"), ("b", "x", "2"), ("c", "y", "2")), **keep)
    assert listings.title.tolist() == ["", "x", "y"] and listings.group.tolist() == [0, 1, 1]


@pytest.mark.parametrize("labels,wanted", [
    (["10", "9", "100", "9"], [1, 0, 2, 0]), (["-1", "2", "-10"], [1, 2, 0]), (["b10", "b9"], [0, 1]),
    ([10, 9, 100, 9], [1, 0, 2, 0]), (["10", "9", "x"], [0, 1, 2]), (["4294967296", "1"], [1, 0]),
])
def test_groups_are_numbered_as_numbers_where_all_are_numbers(labels, wanted):
    assert check_listings(labelled(*labels), **keep).group.tolist() == wanted


def test_a_missing_hash_is_empty_whether_the_cell_or_the_column_is_missing():
    assert check_listings(table_of(*good)).hash.tolist() == ["00ff", "", "", "f0"]
    assert check_listings(table_of(*good).drop(columns="image_phash")).hash.tolist() == [""]*4


def test_some_rows_keep_their_group_numbers():
    listings = check_listings(table_of(*good))
    some = listings[np.array([False, False, True, True])]
    assert len(some) == 2 and some.id.tolist() == ["c", "d"] and some.group.tolist() == [0, 0]
    assert listings.group.tolist() == [1, 1, 0, 0] and some.hash.tolist() == ["", "f0"]


def test_a_file_a_folder_and_a_name_give_the_same_listings(tmp_path):
    listings, named = read_listings("shopee-sample")
    names = ("id", "title", "hash", "group")
    table = pd.DataFrame({"posting_id": listings.id, "title": listings.title, "image_phash": listings.hash,
                          "label_group": listings.group, "more": "kept out"})
    table.to_csv(tmp_path/"train.csv", index=False)
    for place in (tmp_path, tmp_path/"train.csv"):
        again, digest = read_listings("shopee-sample", place)
        assert all((getattr(again, name) == getattr(listings, name)).all() for name in names)
        assert digest != named and len(digest) == 64
    assert digest == hashlib.sha256((tmp_path/"train.csv").read_bytes()).hexdigest()


def test_the_cut_keeps_groups_whole_and_is_counted():
    listings, _ = read_listings("shopee-sample")
    split = split_listings(listings)
    sides = [set(listings.group[rows]) for rows in (split.train, split.valid, split.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(set(listings.group))
    assert split.test.tolist() == split_by_percentile(listings.group).test.tolist()
    counts, parts = count_parts(listings, split), ("train", "valid", "test")
    assert counts["rows"] == sum(counts[f"{part}_rows"] for part in parts) == len(listings)
    assert [counts[f"{part}_groups"] for part in parts] == list(map(len, sides))


def test_too_few_groups_to_cut_are_refused():
    two = check_listings(table_of(*good))
    with pytest.raises(InputError, match="fewer than three groups"): split_listings(two)


@pytest.mark.parametrize("labels", [["²", "1"], ["--5", "1"], ["9"*25, "1"]])
def test_a_group_that_only_looks_like_a_number_is_text(labels):
    assert sorted(check_listings(labelled(*labels), **keep).group) == [0, 1]


def test_labels_that_differ_are_different_groups():
    assert len(set(check_listings(labelled("007", "7"), **keep).group)) == 2
