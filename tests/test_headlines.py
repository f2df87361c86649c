"Posts, their judgments, how they are cut, and the plain models."
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from matchbook.clickbait.headlines import (HeadlineParts, LinearHeadlines, MajorityHeadlines, Posts,
                                           clean_post, cut_posts, date_posts, from_table, group_near,
                                           headline_intervals, hold_out, judge_noise, measure_headlines,
                                           read_headline_parts, read_official, read_posts, spell_posts,
                                           spell_scores)
from matchbook.datasets import InputError, locate


@pytest.fixture(scope="module")
def posts(): return read_official(locate("headlines-sample")/"train")


@pytest.fixture(scope="module")
def parts(): return read_headline_parts("headlines-sample")[0]


def write(folder, instances, truth):
    for name, lines in (("instances", instances), ("truth", truth)):
        (folder/f"{name}.jsonl").write_text("\n".join(one if isinstance(one, str) else json.dumps(one)
                                                      for one in lines))
    return folder


post = {"id": "1", "postText": ["Rain", "again"], "targetTitle": "Wet", "targetDescription": "It rains."}
truth = {"id": "1", "truthJudgments": [0., 1/3, 1/3, 1., 1.], "truthMean": 8/15, "truthClass": "no-clickbait"}


# The official form

def test_the_official_form_is_read_as_by_hand(tmp_path):
    found = read_official(write(tmp_path, [{**post, "id": "2"}, post], [truth, {**truth, "id": "2"}]))
    assert found.id.tolist() == ["2", "1"] and found.text.tolist() == ["Rain again"]*2
    assert (found.title[0], found.description[0]) == ("Wet", "It rains.")
    np.testing.assert_allclose(found.mean, 8/15)
    assert found.judgments.shape == (2, 5) and found.label.tolist() == [0, 0]


def test_judgments_go_with_their_id_whatever_the_order(tmp_path):
    other = {**truth, "id": "2", "truthJudgments": [1.]*5, "truthMean": 1., "truthClass": "clickbait"}
    found = read_official(write(tmp_path, [post, {**post, "id": "2"}], [other, truth]))
    assert found.mean[0] == pytest.approx(8/15) and found.label.tolist() == [0, 1]


@pytest.mark.parametrize("instances,truths,message", [
    ([post, {**post, "id": "2"}], [truth], "instances.jsonl: 1 ids that truth.jsonl lacks, the first is 2"),
    ([post], [truth, {**truth, "id": "9"}], "truth.jsonl: 1 ids that instances.jsonl lacks, the first is 9"),
    ([post, post], [truth], "id 1 in row 1 and in row 2"),
    ([post], [truth, truth], "truth.jsonl: id 1 in row 1 and in row 2"),
    ([post, '{"id": "2", '], [truth], "line 2: not JSON"),
    ([post, "[]"], [truth], "line 2: list, an object was wanted"),
    ([{**post, "id": ""}], [truth], "row 1: no id"),
    ([{"id": "1"}], [truth], "no column named 'text'"),
    ([post], [{**truth, "truthMean": -0.1}], "row 1: truthMean -0.1; a number from 0 to 1"),
    ([post], [{**truth, "truthMean": "high"}], "truthMean 'high'"),
    ([post], [{**truth, "truthJudgments": [0, 2]}], "truthJudgments 2"),
    ([post], [{**truth, "truthJudgments": []}], "as many in each row"),
    ([post], [{**truth, "truthClass": "bait"}], "truthClass 'bait'; 0 or 1, or clickbait or no-clickbait"),
    ([post], [{**truth, "truthMean": .9, "truthJudgments": [0, 0]}],
     "row 1: truthMean 0.9, but its judgments"),
    ([{**post, "postText": [2017]}], [truth], "row 1: postText 2017; a text was wanted"),
    ([post], [{"id": "1"}], "none of truthMean, mean, truthClass, label, class")])
def test_what_is_not_in_order_is_refused_with_its_place(tmp_path, instances, truths, message):
    with pytest.raises(InputError) as error: read_official(write(tmp_path, instances, truths))
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_empty_posts_are_kept_and_counted(tmp_path, caplog):
    with caplog.at_level("INFO", "matchbook"):
        found = read_official(write(tmp_path, [{**post, "postText": [" "]}], [truth]))
    assert found.empty.tolist() == [True] and "1 of 1 posts have no text" in caplog.text


def test_a_derived_file_may_have_fewer_posts_than_judgments(tmp_path):
    write(tmp_path, [], [truth, {**truth, "id": "2"}])
    (tmp_path/"instances.jsonl").rename(tmp_path/"posts.jsonl").write_text('{"id": "2", "text": "Rain"}')
    assert read_official(tmp_path).id.tolist() == ["2"]


# Tables

@pytest.mark.parametrize("columns,mean,label", [
    ({"text": "a", "label": "1"}, 1., 1), ({"headline": "a", "class": "no-clickbait"}, 0., 0),
    ({"postText": ["a"], "truthMean": .6}, .6, 1), ({"title": "a", "mean": "0.5"}, .5, 0),
    ({"text": "a", "mean": .3, "label": 1}, .3, 1),
    ({"text": "a", "truthJudgments": [[1., 1., 0.]]}, 2/3, 1)])
def test_a_table_says_text_and_mean_or_label(columns, mean, label):
    found = from_table(pd.DataFrame({name: value if isinstance(value, list) else [value]
                                     for name, value in columns.items()}), "here")
    assert found.text.tolist() == ["a"] and found.mean[0] == pytest.approx(mean) and found.label[0] == label


def test_csv_and_json_lines_are_read(tmp_path):
    (tmp_path/"a.csv").write_text("text,label\nRain,0\nWow,1\n")
    (tmp_path/"a.jsonl").write_text('{"text": "Rain", "label": 0}\n{"text": "Wow", "label": 1}\n')
    a, b = (read_posts(tmp_path/name) for name in ("a.csv", "a.jsonl"))
    assert a.text.tolist() == b.text.tolist() and (a.label == b.label).all()


def test_a_label_of_another_word_is_refused(tmp_path):
    (tmp_path/"a.csv").write_text("text,label\nRain,0\nWow,2\n")
    with pytest.raises(InputError, match="row 2: label '2'"): read_posts(tmp_path/"a.csv")


def test_tables_without_rows_or_with_numbers_for_texts_are_refused(tmp_path):
    (tmp_path/"a.csv").write_text("text,label\n")
    with pytest.raises(InputError, match="a.csv has no rows"): read_posts(tmp_path/"a.csv")
    (tmp_path/"a.jsonl").write_text('{"text": "Rain", "label": 0}\n{"text": 2017, "label": 1}\n')
    with pytest.raises(InputError, match="row 2: text 2017; a text was"): read_posts(tmp_path/"a.jsonl")


# What is read

@pytest.mark.parametrize("text,clean", [
    ("See https://t.co/x NOW", "see now"), ("@bbc: hi #wow www.a.b c", ": hi c"), ("", ""), (" A b ", "a b")])
def test_the_clean_up_is_the_originals(text, clean): assert clean_post(text) == clean


def test_clean_and_context_have_an_effect(posts):
    some = posts[posts.title != posts.description][:40]
    plain, nothing = spell_posts(some)
    clean, more = spell_posts(some, clean=True, context=True)
    assert nothing is None and plain == [*some.text]
    assert clean == [clean_post(text) for text in some.text] != plain
    assert all(clean_post(title) in text for title, text in zip(some.title, more))


# Groups and cuts

def test_near_groups_agree_with_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        texts = [" ".join(rng.choice(["rain", "wow", "cat", "tax", "star"], 3)) for _ in range(12)]
        same = [sorted(text.split()) for text in texts]                 # a bag of words: order does not count
        group = group_near(texts, .999)
        for a in range(12):
            for b in range(12): assert (group[a] == group[b]) == (same[a] == same[b])


def test_near_groups_link_what_is_linked_indirectly_and_leave_empty_ones_alone():
    assert group_near(["a b", "A b", "", "", "!!", "!!"], .9).tolist() == [0, 0, 1, 2, 3, 3]
    assert group_near(["a b", "a b"], 0).tolist() == [0, 1]


def crossing(parts, posts):
    "Groups of all posts that more than one part has."
    group = dict(zip(posts.id, group_near(posts.text)))
    train, valid, test = ({group[one] for one in part.id} for part in (parts.train, parts.valid, parts.test))
    return len(train & test) + len(train & valid) + len(valid & test)


def test_near_duplicates_do_not_cross_a_cut(posts):
    for parts in (cut_posts(posts), cut_posts(posts, "time"), cut_posts(posts, "field", field=np.array(
            ["test" if row % 3 else "train" for row in range(len(posts))]))):
        assert crossing(parts, posts) == 0, parts.split
    assert crossing(cut_posts(posts, "random"), posts) > 0                      # and the test can see it


def test_a_given_test_part_stays_whole_and_training_gives_way(parts):
    whole = read_official(locate("headlines-sample")/"test")
    assert parts.test.id.tolist() == whole.id.tolist() and parts.split == "official"
    rest = read_official(locate("headlines-sample")/"train")
    assert len(parts.train) + len(parts.valid) + parts.dropped == len(rest)
    doubled = hold_out(rest, rest[:50], "official")
    assert doubled.dropped >= 50 and not set(doubled.train.id) & set(rest.id[:50])


def test_a_time_cut_reports_on_what_is_later(posts):
    parts = cut_posts(posts, "time", near=0)
    assert date_posts(parts.train).max() < date_posts(parts.test).min()
    with pytest.raises(InputError, match="carry no time"): date_posts(Posts(*[np.array(["a"])]*7))


def test_cuts_are_the_same_each_time_and_lose_nothing(posts):
    a, b = cut_posts(posts), cut_posts(posts)
    for name in ("train", "valid", "test"): assert (getattr(a, name).id == getattr(b, name).id).all()
    assert sum(len(getattr(a, name)) for name in ("train", "valid", "test")) == len(posts)


@pytest.mark.parametrize("options,message", [
    ({"split": "tim"}, "did you mean 'time'"), ({"near": 2}, "a cosine from 0 to 1"),
    ({"near": "abc"}, "near='abc': a cosine"), ({"near": None}, "near=None: a cosine"),
    ({"train": "."}, "both folders"), ({"data": "nowhere"}, "no such file")])
def test_bad_ways_to_read_are_refused(options, message):
    with pytest.raises(InputError, match=message): read_headline_parts("headlines-sample", **options)


def test_a_time_split_needs_ids_of_tweets(posts):
    few = replace(posts[:4], id=np.array(["1", "2", "3", "4"], dtype=object))
    with pytest.raises(InputError, match="id 1 is no tweet's"): cut_posts(few, "time")


def test_a_field_split_needs_the_field(posts):
    with pytest.raises(InputError, match="no field 'split'"): cut_posts(posts, "field")


def test_two_official_folders_are_the_parts():
    folder = locate("headlines-sample")
    found, digest = read_headline_parts("mine", train=folder/"train", test=folder/"test")
    known, other = read_headline_parts("headlines-sample")
    assert found.train.id.tolist() == known.train.id.tolist() and digest != other   # other names of files


# Models

kinds = {"majority": MajorityHeadlines(), "tfidf": LinearHeadlines(LinearHeadlines.quick)}


@pytest.fixture(scope="module", params=kinds)
def fitted(request, parts): return kinds[request.param].fit(parts.train, parts.valid)


def test_scores_are_float32_in_zero_to_one_and_by_their_own_post(fitted, parts):
    strength, chance = fitted.judge(parts.test)
    for found in (strength, chance): assert found.dtype == np.float32 and 0 <= found.min() <= found.max() <= 1
    rows = np.array([9, 2, 40])
    np.testing.assert_allclose(fitted.score(parts.test[rows]), strength[rows], atol=1e-6)
    assert len(fitted.score(parts.test[:0])) == 0


def test_judgments_of_the_test_part_are_not_looked_at(fitted, parts):
    n = len(parts.test)
    hidden = Posts(*(getattr(parts.test, name) for name in ("id", "text", "title", "description")),
                   np.zeros((n, 0)), np.full(n, np.nan), -np.ones(n))
    np.testing.assert_array_equal(fitted.score(hidden), fitted.score(parts.test))


def test_saved_and_loaded_answers_are_the_same_to_the_bit(fitted, parts, tmp_path):
    again = type(fitted).load(fitted.save(tmp_path))
    for a, b in zip(again.judge(parts.test), fitted.judge(parts.test)): np.testing.assert_array_equal(a, b)
    assert again.threshold_ == fitted.threshold_ and again.config == fitted.config


def test_the_majority_is_the_class_of_most_posts(parts):
    for train in (parts.train, replace(parts.train, label=1 - parts.train.label)):
        model = MajorityHeadlines().fit(train, parts.valid)
        assert set(model.chance(parts.test) >= model.threshold_) == {train.label.mean() > .5}


def test_thresholds_come_from_validation(fitted, parts):
    if isinstance(fitted, MajorityHeadlines): return
    said, label = fitted.valid_judged_[1], parts.valid.label
    best = max(f1(said >= cut, label) for cut in np.unique(said))
    assert f1(said >= fitted.threshold_, label) == pytest.approx(best)


def f1(said, label): return 2*(said & (label == 1)).sum()/max(1, said.sum() + label.sum())


def test_context_and_features_change_what_is_read(parts):
    quick, found = LinearHeadlines.quick, []
    for config in (quick, type(quick)(context=True, ridge=(3.,), room=(1.,)),
                   type(quick)(clean=True, ridge=(3.,), room=(1.,))):
        found.append(LinearHeadlines(config).fit(parts.train, parts.valid).score(parts.test))
    assert abs(found[0] - found[1]).max() > .01 and abs(found[0] - found[2]).max() > 1e-3


def test_a_bag_of_words_beats_the_mean_of_all(parts):
    errors = [((model.fit(parts.train, parts.valid).score(parts.test) - parts.test.mean)**2).mean()
              for model in kinds.values()]
    assert errors[1] < .8*errors[0]


@pytest.mark.parametrize("change,message", [
    (lambda p: (p.train[:0], p.valid), "the train part is empty"),
    (lambda p: (p.train[p.train.label == 1], p.valid), "the train part has posts of one class only"),
    (lambda p: (p.train, Posts(*(getattr(p.valid, n) for n in ("id", "text", "title", "description",
     "judgments")), np.full(len(p.valid), np.nan), p.valid.label)), "the valid part has posts that nobody")])
def test_parts_that_teach_nothing_are_refused(parts, change, message):
    with pytest.raises(InputError, match=message): MajorityHeadlines().fit(*change(parts))


def test_damaged_bundles_are_refused(fitted, tmp_path):
    with pytest.raises(InputError, match="holds no model.json"): type(fitted).load(tmp_path)
    folder = fitted.save(tmp_path/"one")
    other = LinearHeadlines if isinstance(fitted, MajorityHeadlines) else MajorityHeadlines
    with pytest.raises(InputError, match=f"{other.kind}' was wanted"): other.load(folder)
    if (folder/"weights.safetensors").exists():
        (folder/"weights.safetensors").write_bytes(b"cut")
        with pytest.raises(InputError, match="is damaged"): type(fitted).load(folder)


# Measures

def test_measures_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = 30
        strength, chance, mean = rng.random((3, n))
        label = (rng.random(n) < .4).astype(int)
        label[:2] = 0, 1
        blank = np.array([""]*n, dtype=object)
        found = measure_headlines((strength, chance), Posts(np.arange(n).astype(str), blank, blank, blank,
                                                            np.zeros((n, 0)), mean, label), .6, .4)
        assert found["mse"] == pytest.approx(sum((s - m)**2 for s, m in zip(strength, mean))/n)
        assert found["brier"] == pytest.approx(sum((c - one)**2 for c, one in zip(chance, label))/n)
        for name, score, cut in (("f1", chance, .6), ("f1_at_half", strength, .5),
                                 ("f1_strength", strength, .4)):
            hits = sum(s >= cut and one == 1 for s, one in zip(score, label))
            assert found[name] == pytest.approx(2*hits/max(1, sum(score >= cut) + sum(label)))


def test_intervals_hold_the_figure(parts, fitted):
    judged = fitted.judge(parts.test)
    found = headline_intervals(judged, parts.test, fitted.threshold_, draws=100)
    low, high = found["mse"]
    assert low < ((judged[0] - parts.test.mean)**2).mean() < high


def test_the_noise_of_the_judges_is_what_drawing_them_gives():
    rng = np.random.default_rng(0)
    truth = rng.random(4000)
    judgments = (rng.random((4000, 5)) < truth[:, None]).astype(float)
    blank = np.array([""]*4000, dtype=object)
    posts = Posts(blank, blank, blank, blank, judgments, judgments.mean(1), truth)
    assert judge_noise(posts) == pytest.approx(((judgments.mean(1) - truth)**2).mean(), rel=.05)


def test_the_submission_has_a_line_a_post(parts):
    lines = [json.loads(line) for line in spell_scores(parts.test[:3], np.array([0., .25, 1.])).splitlines()]
    assert [line["id"] for line in lines] == parts.test.id[:3].tolist()
    assert [line["clickbaitScore"] for line in lines] == [0, .25, 1]
    assert list(lines[0]) == ["id", "clickbaitScore"]


def test_parts_are_counted(parts):
    counts = parts.counts()
    assert counts["test"] == len(parts.test) and counts["test_clickbait"] == (parts.test.label == 1).sum()
    assert isinstance(parts, HeadlineParts)
