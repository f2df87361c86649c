"The study of promises: areas and shares against loops, folds that keep groups, rows that run alike twice."
from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from matchbook import cli
from matchbook.clickbait.promise import (LinearConfig, LinearMatcher, Majority, draw_areas, draw_groups,
                                         draw_splits, find_slices, interval, looks, models, open_row,
                                         share_out, study, weigh_difference)
from matchbook.clickbait.videos import build_videos, convert_videos, read_promise
from matchbook.datasets import InputError, locate
from matchbook.runs import make_run, read_run, write_run

rows = ["majority", "cosine", "title-only", "title-only-words", "title-and-cosine", "mean-pool",
        "title-only-network", "pair-fusion", "pair-fusion-grid"]
measures = {"f1", "precision", "recall", "accuracy", "pr_auc", "roc_auc", "ece", "mse"}
once = {"rotations": 1}


def test_the_study_has_exactly_these_rows():
    assert list(study.models) == rows == list(models) and study.sample == "videos-sample"
    assert study.measure == "pr_auc" and study.baseline == "title-only-network"   # what valid likes best
    assert set(study.columns) <= measures


@pytest.fixture(scope="module")
def videos(): return read_promise("videos-sample")[0]


@pytest.fixture(scope="module")
def parts(videos): return {part: videos[videos.part == part] for part in ("train", "valid", "test")}


@pytest.fixture(scope="module")
def runs():
    small = {"training.epochs": 1}
    return {row: make_run(study, "videos-sample", row, "quick",
                          settings=once | (small if row.endswith("grid") else {}))
            for row in rows}


# --- measures -------------------------------------------------------------------------------------


def test_areas_on_draws_are_scikit_learns():
    rng = np.random.default_rng(0)
    for case in range(200):
        n = int(rng.integers(4, 30))
        score, label = rng.random(n).round(1 if case % 2 else 8), np.r_[0, 1, rng.integers(0, 2, n - 2)]
        weights = np.concatenate([np.ones((1, n), int), rng.integers(0, 3, (3, n))])
        found = draw_areas(score, label, weights)
        for at, many in enumerate(weights):
            drawn = np.repeat(np.arange(n), many)
            if len(set(label[drawn].tolist())) < 2:
                assert np.isnan(found["roc_auc"][at])
                continue
            assert found["roc_auc"][at] == pytest.approx(roc_auc_score(label[drawn], score[drawn]))
            assert found["pr_auc"][at] == pytest.approx(average_precision_score(label[drawn], score[drawn]))


def test_groups_are_drawn_whole_and_as_often_as_there_are():
    groups = np.array([3, 3, 9, 9, 9, 1])
    drawn = draw_groups(groups, 50, seed=1)
    assert drawn.shape == (51, 6) and (drawn[0] == 1).all()
    assert (drawn[:, 0] == drawn[:, 1]).all() and (drawn[:, 2] == drawn[:, 4]).all()
    assert (drawn[:, 0] + drawn[:, 2] + drawn[:, 5] == 3).all() and len(np.unique(drawn, axis=0)) > 5
    assert interval(np.r_[7., np.arange(101)]) == (7, 2.5, 97.5)


def test_shares_are_the_mean_over_all_orders():
    rng = np.random.default_rng(0)
    for m in (1, 2, 3, 4):
        players = list("abcd"[:m])
        value = {frozenset(some): rng.random() for k in range(1,
                                                              m + 1) for some in combinations(players, k)}
        value[frozenset()] = .5
        slow = dict.fromkeys(players, 0.)
        orders = list(permutations(players))
        for order in orders:
            for at, one in enumerate(order):
                slow[one] += (value[frozenset(order[:at + 1])] - value[frozenset(order[:at])])/len(orders)
        found = share_out({key: one for key, one in value.items() if key}, players, .5)
        for one in players: assert found[one] == pytest.approx(slow[one])
        assert sum(found.values()) == pytest.approx(value[frozenset(players)] - .5)


# --- splits ---------------------------------------------------------------------------------------


def test_folds_keep_groups_and_test_everyone_once(videos):
    grouped = type(videos)(**vars(videos) | {"group": np.arange(398) // 3})
    splits = draw_splits(grouped, "folds", 5, 5, seed=2)
    assert np.sort(np.concatenate([one.test for one in splits])).tolist() == list(range(398))
    for one in splits:
        sides = [set(grouped.group[getattr(one, part)].tolist()) for part in ("train", "valid", "test")]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert (draw_splits(grouped, "folds", 5, 5, 3)[0].test.tolist() != splits[0].test.tolist())
    published = draw_splits(videos, "published")
    assert len(published) == 1
    assert [len(getattr(published[0], part)) for part in ("train", "valid", "test")] == [200, 98, 100]


def test_a_split_that_cannot_be_is_refused(videos):
    one_class = type(videos)(**vars(videos) | {"label": np.where(videos.part == "test", 1, videos.label)})
    with pytest.raises(InputError, match="the test part has videos of one class only"):
        draw_splits(one_class, "published")
    bare = type(videos)(**vars(videos) | {"part": np.full(398, "")})
    with pytest.raises(InputError, match="no published split: parts"):
        draw_splits(bare, "published")
    with pytest.raises(InputError, match="rotations = 6"): draw_splits(videos, "folds", 5, 6)
    with pytest.raises(InputError, match="folds = 2"): draw_splits(videos, "folds", 2, 1)


# --- baselines ------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", looks)
def test_a_linear_row_keeps_what_a_matcher_promises(of, parts, tmp_path):
    model = LinearMatcher(LinearConfig(of), 0).fit(parts["train"], parts["valid"])
    test, found = parts["test"], model.score(parts["test"])
    assert found.dtype == np.float32 and 0 <= found.min() <= found.max() <= 1
    order = np.random.default_rng(0).permutation(100)
    np.testing.assert_allclose(model.score(test[order]), found[order], atol=1e-6)
    assert (LinearMatcher.load(model.save(tmp_path/"m")).score(test) == found).all()
    assert (LinearMatcher(LinearConfig(of), 9).fit(parts["train"], parts["valid"]).score(test) == found).all()
    hidden = type(test)(**vars(test) | {"label": 1 - test.label})
    assert (model.score(hidden) == found).all()


def test_the_title_only_rows_see_the_title_only(parts):
    test = parts["test"]
    other = type(test)(**vars(test) | {"promise": test.promise | {"thumbnail": torch.randn(100, 16)},
                                       "content": {view: some[torch.arange(100).flip(0)] for view,
                                                   some in test.content.items()}})
    for of, same in (("title", True), ("words", True), ("cosine", False), ("mean", False),
                     ("title-and-cosine", False)):
        model = LinearMatcher(LinearConfig(of)).fit(parts["train"], parts["valid"])
        assert (model.score(other) == model.score(test)).all() == same


def test_title_and_cosine_has_the_title_the_cosines_and_the_counts(parts):
    from torch.nn import functional as F
    class Letters:
        def embed(self, texts):
            return np.array([[text.count(one) for one in "aeiou"] for text in texts], np.float32) + .01
    matcher, near = (LinearMatcher(LinearConfig(of)) for of in ("title-and-cosine", "cosine"))
    title = F.normalize(parts["test"].promise["title"], dim=1)
    np.testing.assert_allclose(matcher._look(parts["test"]), np.c_[title, near._look(parts["test"])])
    told = build_videos(range(3), [0, 1, 0], {"title": ["a dog", "tea", "one"]},
                        {"said": [["a dog"], [], ["two"]]}, Letters())
    assert (matcher._look(told)[:, -4:] == told.numbers["title-said"].numpy()).all()
    assert matcher._look(told).shape == (3, 5 + 2 + 4)


def test_valid_picks_the_strength(parts):
    one = LinearMatcher(LinearConfig("title")).fit(parts["train"], parts["valid"])
    areas = {}
    for strength in one.config.strengths:
        model = LinearMatcher(LinearConfig("title", (strength,))).fit(parts["train"], parts["valid"])
        areas[strength] = average_precision_score(parts["valid"].label, model.logits(parts["valid"]))
    assert areas[one.strength_] == max(areas.values())


def test_the_majority_says_the_larger_class(parts, tmp_path):
    few, many = (parts["train"][np.flatnonzero((parts["train"].label == label) | (np.arange(200) % 3 == 0))]
                 for label in (0, 1))
    for train, said in ((few, False), (many, True)):
        model = Majority().fit(train, parts["valid"])
        assert ((model.score(parts["test"]) >= model.threshold_) == said).all()
        again = Majority.load(model.save(tmp_path/str(said)))
        assert (again.score(parts["test"]) == model.score(parts["test"])).all()
        assert again.threshold_ == model.threshold_


# --- the study ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows)
def test_every_row_has_its_figures_and_its_file(row, runs, tmp_path):
    one = runs[row]
    assert set(one["metrics"]["valid"]) == set(one["metrics"]["test"]) == measures
    assert all(0 <= value <= 1 for value in one["metrics"]["test"].values())
    assert one["threshold_from"] == "valid"
    for name in ("pr_auc", "roc_auc"):
        low, high = one["intervals"]["test"][name]
        assert low <= one["metrics"]["test"][name] <= high
    counts = one["data"]["counts"]
    assert counts["videos"] == 398 == sum(counts[f"{part}_rows"] for part in ("train", "valid", "test"))
    assert counts["splits"] == 1
    assert read_run(write_run(one, tmp_path))["metrics"] == one["metrics"]


def test_the_grid_has_every_set_and_pool_and_shares_that_sum(runs):
    details = runs["pair-fusion-grid"]["details"]
    cells = {(one["pool"], frozenset(one["branches"])): one for one in details["grid"]}
    assert len(cells) == len(details["grid"]) == 15*4
    best = max(details["grid"], key=lambda one: one["valid_pr_auc"])
    assert (best["pool"], best["branches"]) == (details["pool"], details["chosen"])
    assert runs["pair-fusion-grid"]["metrics"]["test"]["pr_auc"] == pytest.approx(best["pr_auc"][0])
    every = frozenset(one["branch"] for one in details["branches"])
    whole = cells["attention", every]["roc_auc"][0]
    assert sum(one["shapley"][0] for one in details["branches"]) == pytest.approx(whole - .5)
    assert sum(one["attention"] for one in details["branches"]) == pytest.approx(1, abs=1e-5)
    for one in details["branches"]:
        assert one["left_out"][0] == pytest.approx(whole - cells["attention",
                                                                 every - {one["branch"]}]["roc_auc"][0])


def test_fusion_is_compared_on_the_same_draws(runs):
    against = runs["pair-fusion"]["details"]["against"]
    assert set(against) == {"title-only", "title-only-words", "title-only-network", "title-and-cosine"}
    for row, found in against.items():
        for name, one in found.items():
            wanted = runs["pair-fusion"]["metrics"]["test"][name] - runs[row]["metrics"]["test"][name]
            assert one["difference"] == pytest.approx(wanted)
            assert one["low"] <= one["difference"] <= one["high"]
            assert 0 < one["p"] <= 1


def test_slices_say_where_the_content_gains(runs):
    slices = runs["pair-fusion"]["details"]["slices"]
    assert len(slices) >= 3
    for one in slices:
        away = one["roc_auc"]["pair-fusion"] - one["roc_auc"]["title-only-network"]
        assert one["gain"]["difference"] == pytest.approx(away)
        assert one["gain"]["low"] <= one["gain"]["high"] and 0 < one["gain"]["p"] <= 1


def test_a_difference_has_its_interval_and_p():
    away = np.r_[.1, np.linspace(-.1, .3, 401)]
    found = weigh_difference(away)
    assert found == pytest.approx({"difference": .1, "low": -.09, "high": .29, "p": 2*101/401}, abs=1e-9)
    assert weigh_difference(np.r_[1., np.ones(200)])["p"] == 2/200 == weigh_difference(-np.ones(201))["p"]


def test_the_same_run_twice_gives_the_same_figures(runs):
    again = make_run(study, "videos-sample", "pair-fusion", "quick", settings=once)
    for key in ("metrics", "intervals", "threshold", "config", "data"):
        assert again[key] == runs["pair-fusion"][key]
    other = make_run(study, "videos-sample", "pair-fusion", "quick", 1, once)
    assert other["metrics"] != again["metrics"]


def test_slices_part_the_videos(videos):
    masks = list(find_slices(videos).values())
    assert (np.sum(masks, axis=0) == 1).all()
    bare = videos.content["transcript"].lengths.numpy() == 0
    assert (masks[0] == bare).all() and bare.sum() == 3


def test_the_test_part_takes_part_in_no_choice(videos, tmp_path):
    "Other vectors of the published test part leave thresholds and validation as they were."
    from matchbook.clickbait.promise import judge_row
    from matchbook.clickbait.pair_fusion import PairFusion
    splits = draw_splits(videos, "published")
    spoilt = {view: torch.where(torch.from_numpy(videos.part == "test")[:, None], -some, some) for view,
              some in videos.promise.items()}
    other = type(videos)(**vars(videos) | {"promise": spoilt})
    one, two = (judge_row(lambda seed: PairFusion(PairFusion.quick, seed), some, splits,
                          0) for some in (videos, other))
    assert one.thresholds == two.thresholds and one.held == two.held and one.tested != two.tested


def test_files_of_ones_own_and_settings_of_reading(tmp_path):
    folder = locate("videos-sample")
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    rows_of = lambda name: np.split(arrays[f"emb_{name}_values"], arrays[f"emb_{name}_offsets"][1:-1])
    packed = {}
    for name in ("stt", "kf"):
        packed[f"emb_{name}"] = np.empty(398, dtype=object)
        packed[f"emb_{name}"][:] = rows_of(name)
    np.savez(tmp_path/"mine.npz", **packed, **{name: arrays[name] for name in ("emb_title", "emb_thumb",
                                                                               "index")})
    (tmp_path/"labels.csv").write_bytes((folder/"labels.csv").read_bytes())
    with pytest.raises(InputError, match="a pickle"):
        make_run(study, "mine", "cosine", data=tmp_path/"mine.npz", settings=once)
    run = make_run(study, "mine", "cosine", data=tmp_path/"mine.npz", settings=once | {"data.trusted": True})
    plain = convert_videos(tmp_path/"mine.npz", tmp_path/"plain", trusted=True)
    with pytest.raises(InputError, match="398 videos without a label"):
        make_run(study, "mine", "cosine", data=plain, settings=once)
    again = make_run(study, "mine", "cosine", data=plain,
                     settings=once | {"data.labels": str(tmp_path/"labels.csv")})
    assert run["metrics"] == again["metrics"] == make_run(study, "videos-sample", "cosine",
                                                          settings=once)["metrics"]


@pytest.mark.parametrize("words,said", [
    (["--model", "pair-fusions"], "did you mean 'pair-fusion'"),
    (["--dataset", "videos"], "no dataset named 'videos'"),
    (["--model", "cosine", "--preset", "as_published"], "the original has no model like 'cosine'"),
    (["--model", "cosine", "--set", "of=titel"], "did you mean 'title'"),
    (["--model", "pair-fusion", "--set", "pol=mean"], "did you mean 'pool'"),
    (["--model", "cosine", "--set", "data.encodr=minilm"], "did you mean 'encoder'"),
    (["--model", "cosine", "--set", "split=fold"], "did you mean 'folds'"),
    (["--dataset", "webis-promise", "--model", "cosine", "--set", "split=published"],
     "no published split|not on this machine"),
    (["--model", "pair-fusion", "--set", "hidden=wide"], "hidden='wide': int was wanted")])
def test_wrong_words_get_one_line(words, said, capsys, tmp_path, monkeypatch):
    import re
    monkeypatch.delenv("MATCHBOOK_DATA", raising=False)
    with pytest.raises(SystemExit) as left: cli.main(["run", "promise", *words, "--out", str(tmp_path)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("matchbook: ")]
    assert left.value.code == 2 and len(lines) == 1 and re.search(said, lines[0]), lines


def test_settings_reach_the_row():
    assert open_row("pair-fusion", "best", {"training.epochs": 2, "pool": "mean"}).training.epochs == 2
    assert open_row("title-only-words", "quick", {}).of == "words"
    assert open_row("cosine", "best", {}).of == "cosine"


def test_the_benchmark_measures_the_same_numbers():
    from matchbook.products.match_sets import benchmarks
    small = {"videos": 600, "width": 16, "block": 100, "epochs": 2,
             "lengths": ((1, 2, 1, 2), (3, 6, 2, 4))}
    run = make_run(benchmarks, "videos-sample", "fusion-speed", "quick", settings=small)
    found, lengths = run["metrics"]["test"], run["details"]["lengths"]
    assert [tuple(one["sentences"]) for one in lengths] == [(1, 2), (3, 6)]
    assert found["epoch_speedup"] == lengths[-1]["epoch_speedup"]
    assert found["epoch_difference"] == max(one["epoch_difference"] for one in lengths)
    assert max(found["epoch_difference"], found["branch_difference"]) < 1e-5
    assert [one["videos"] for one in run["details"]["points"]] == [100, 150, 300, 600]
    assert {"epoch_speedup", "branch_speedup", "stream_mb_more", "stream_videos_per_second"} <= set(found)
