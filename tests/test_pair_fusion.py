"Pair fusion: pools against plain loops, the original against its own way, and what every matcher promises."
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from matchbook.batches import Ragged
from matchbook.clickbait.pair_fusion import (PairFusion, PairFusionConfig, PairFusionNetwork, SeqPool,
                                             SlowPairFusion, SlowVideos, draw_drivers, find_drivers, judge,
                                             module_name, name_branches, pad_slowly, pair_features,
                                             pool_once, pools, rename_published, tabulate)
from matchbook.clickbait.videos import build_videos, count_words, gather_views, join_labels, read_promise
from matchbook.datasets import InputError
from matchbook.samples import draw_videos

each_pool = pytest.mark.parametrize("mode", pools)
four = {f"{p}-{c}": (p, c) for p in ("title", "thumbnail") for c in ("keyframes", "transcript")}
few = replace(PairFusion.quick, training=replace(PairFusion.quick.training, epochs=2))


@pytest.fixture(scope="module")
def videos(): return read_promise("videos-sample")[0]


@pytest.fixture(scope="module")
def parts(videos): return {part: videos[videos.part == part] for part in ("train", "valid", "test")}


presets = {"best": few, "as_published": replace(PairFusion.as_published, training=few.training),
           "top": replace(few, pool="top-norm", learnt=False), "mean": replace(few, pool="mean"),
           "alone": replace(few, branches=("title", "thumbnail-keyframes"))}


@pytest.fixture(scope="module", params=presets)
def model(request, parts):
    return PairFusion(presets[request.param], seed=3).fit(parts["train"], parts["valid"])


def pool_slowly(mode, cells, query, size, k, tau):
    "One sequence by a plain loop; a pad is never there."
    if not len(cells): return np.zeros(len(query))
    cosine = [float(cell @ query) for cell in cells]
    if mode == "mean": weights = [1/len(cells)]*len(cells)
    elif mode == "attention":
        parts = [np.exp(one/tau) for one in cosine]
        weights = [one/sum(parts) for one in parts]
    else:
        rank = size if mode == "top-norm" else cosine
        best = sorted(range(len(cells)), key=lambda at: (-rank[at], at))[:k]
        weights = [(at in best)/len(best) for at in range(len(cells))]
    return sum(weight*cell for weight, cell in zip(weights, cells))


@each_pool
def test_pools_do_what_a_loop_does(mode):
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = [rng.normal(size=(length, 5)).astype(np.float32) for length in rng.integers(0, 6, 4)]
        unit = [one/np.linalg.norm(one, axis=1, keepdims=True) for one in rows]
        query = F.normalize(torch.tensor(rng.normal(size=(4, 5)), dtype=torch.float32), dim=1)
        k, tau = int(rng.integers(1, 5)), float(rng.uniform(.05, 2))
        cells, mask = Ragged.from_list(unit, (5,)).padded(pad=3.)
        size = Ragged.from_list([np.linalg.norm(one, axis=1) for one in rows]).padded(pad=9.)[0]
        pooled, weights = SeqPool(mode, k, tau)(cells, mask, query, size)
        for row in range(4):
            wanted = pool_slowly(mode, unit[row], query[row].numpy(), np.linalg.norm(rows[row], axis=1), k,
                                 tau)
            np.testing.assert_allclose(pooled[row], wanted, atol=2e-6)
        assert not weights[~mask].any()
        np.testing.assert_allclose(weights.sum(1), mask.any(1).float(), atol=1e-6)


@each_pool
def test_pads_never_count(mode):
    rng = torch.Generator().manual_seed(0)
    cells = F.normalize(torch.randn(3, 4, 6, generator=rng), dim=2)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    query, size = F.normalize(torch.randn(3, 6, generator=rng), dim=1), torch.rand(3, 4, generator=rng)
    pool = SeqPool(mode)
    before = pool(cells, mask, query, size)[0]
    wide = pool(F.pad(cells, (0, 0, 0, 9), value=5.), F.pad(mask, (0, 9)), query,
                F.pad(size, (0, 9), value=9.))[0]
    np.testing.assert_allclose(before, wide, atol=1e-6)
    dirty = torch.where(mask[:, :, None], cells, torch.full_like(cells, 7.))
    np.testing.assert_allclose(pool(dirty, mask, query, size)[0], before, atol=1e-6)
    assert not before[2].any() and torch.isfinite(before).all()
    np.testing.assert_allclose(before[1].norm(), 1, atol=1e-6)       # the original: 1/3 beside a longer clip


def test_an_empty_sequence_gives_no_gradient_that_is_not_a_number():
    query = torch.ones(1, 2, requires_grad=True)
    pool = SeqPool("attention", learnt=True)
    pool(torch.zeros(1, 3, 2), torch.zeros(1, 3, dtype=torch.bool), query)[0].sum().backward()
    assert torch.isfinite(query.grad).all() and torch.isfinite(pool.log_temperature.grad)


def test_the_temperature_is_learnt_only_where_it_is_asked_for(parts):
    learnt = PairFusion(replace(few, temperature=.5), 0).fit(parts["train"], parts["valid"])
    fixed = PairFusion(replace(few, temperature=.5, learnt=False), 0).fit(parts["train"], parts["valid"])
    assert all(abs(pool.log_temperature.item() - np.log(.5)) > 1e-4 for pool
               in learnt.network_.pools.values())
    assert all(abs(pool.log_temperature.item() - np.log(.5)) < 1e-6 for pool in fixed.network_.pools.values())
    assert not PairFusionNetwork(4, four, replace(few, pool="mean")).pools_learn
    loaded = PairFusionNetwork(16, four, few)
    assert "pools.transcript.log_temperature" in loaded.state_dict()


def test_norms_of_unit_vectors_are_noise_and_those_that_came_are_not():
    cells = torch.randn(1, 60, 64, generator=torch.Generator().manual_seed(1))
    unit = F.normalize(cells, dim=2)
    shaken, full = unit*(1 + 1e-7*torch.randn(1, 60, 1,
                                              generator=torch.Generator().manual_seed(2))), torch.ones(1,
                                                                                                       60).bool()
    old = [set(one.norm(dim=2).topk(3).indices[0].tolist()) for one in (unit, shaken)]
    new = [SeqPool("top-norm")(one, full, unit[:, 0],
                               cells.norm(dim=2))[1].nonzero().tolist() for one in (unit, shaken)]
    assert old[0] != old[1] and new[0] == new[1]


def test_features_stand_in_the_originals_order():
    a, b = torch.tensor([[1., -2]]), torch.tensor([[3., 1]])
    assert pair_features(a, b).tolist() == [[1, -2, 3, 1, 2, 3, 3, -2]]


# --- the original ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    arrays, _ = draw_videos(n=60, width=32, sentences=(2, 30), frames=(1, 20))
    promise, content, ids = gather_views(arrays)
    some = join_labels(promise, content, ids, None)
    return some[some.content["transcript"].lengths.numpy() > 0]


@pytest.mark.parametrize("asked", [tuple(four), ("title-transcript",), ("thumbnail-keyframes",
                                                                        "title-transcript")])
def test_the_fast_way_gives_the_originals_logits(drawn, asked):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        whole = PairFusionNetwork(32, four, PairFusionConfig()).eval()
        for weight in whole.parameters():
            weight.data += .3*torch.randn_like(weight)      # no norm is the identity
    part = PairFusionNetwork(32, {name: four[name] for name in asked}, PairFusionConfig()).eval()
    part.load_state_dict({name: whole.state_dict()[name] for name in part.state_dict()})
    with torch.no_grad():
        slow, own = SlowPairFusion(whole)(pad_slowly([SlowVideos(drawn)[row] for row in range(len(drawn))]),
                                          asked)
        fast = part(pool_once(part, tabulate(drawn, {})))
    assert slow.std() > .01
    np.testing.assert_allclose(fast["fused"], slow, atol=1e-5*max(1, float(slow.abs().max())))
    np.testing.assert_allclose(fast["branch"], own, atol=1e-5*max(1, float(own.abs().max())))


def test_gradients_of_both_ways_agree(drawn):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PairFusionNetwork(32, four, replace(PairFusionConfig(), dropout=0.))
    batch, table = pad_slowly([SlowVideos(drawn)[row] for row in range(20)]), tabulate(drawn[:20], {})
    found = []
    for way in (lambda: SlowPairFusion(network)(batch, tuple(four))[0], lambda: network(table)["fused"]):
        network.zero_grad()
        way().square().sum().backward()
        found.append({name: weight.grad.clone() for name,
                      weight in network.named_parameters() if weight.grad is not None})
    for name in found[0]:
        if name in found[1]: torch.testing.assert_close(found[0][name], found[1][name], atol=1e-4, rtol=1e-3)


def test_the_published_network_has_the_originals_weights():
    count = lambda network: sum(weight.numel() for weight in network.parameters())
    assert count(PairFusionNetwork(768, four, PairFusionConfig())) == 806_917
    names = {"b_TK.net.0.weight": 0, "att_w.weight": 1, "pre_norm.bias": 2, "b_ThS.net.3.bias": 3}
    assert list(rename_published(names)) == ["branches.title-keyframes.net.0.weight", "att_w.weight",
                                             "pre_norm.bias",
                                             "branches.thumbnail-transcript.net.3.bias"]
    state = PairFusionNetwork(8, four, PairFusionConfig()).state_dict()
    assert {name.split(".")[0] for name in state} == {"branches", "pre_norm", "norm_pair", "norm_z", "att_w",
                                                      "fuse_out"}


def test_the_loss_is_the_originals(drawn):
    labelled = replace(drawn, label=np.arange(len(drawn)) % 2)
    config = replace(PairFusion.as_published, dropout=0., training=few.training)
    model = PairFusion(config, 0).fit(labelled[:40], labelled[40:])
    model.weight_ = torch.tensor(1.7)
    table = pool_once(model.network_, tabulate(labelled[:8], {}))
    label = torch.from_numpy(labelled.label[:8]).float()
    target = label*(1 - .01) + .5*.01
    found, _ = model._loss(model.network_, type(table)(table.columns | {"target": target}))
    out = model.network_(table)
    def bce(logit):
        p = torch.sigmoid(logit)
        return -(1.7*target*p.log() + (1 - target)*(1 - p).log()).mean()
    wanted = .5*sum(bce(one) for one in out["branch"].T)/4 + 1.5*bce(out["fused"])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_as_published_ends_with_the_last_weights_and_best_with_the_best(parts):
    training = replace(PairFusion.as_published.training, epochs=20, learning_rate=.02, patience=None)
    config = replace(PairFusion.as_published, training=training)
    def area(model):
        return judge(model.logits(parts["valid"]), parts["valid"].label, parts["valid"].label)["roc_auc"]
    last = PairFusion(config, 0).fit(parts["train"], parts["valid"])
    best = PairFusion(replace(config, ends_best=True), 0).fit(parts["train"], parts["valid"])
    areas = [row["valid_roc_auc"] for row in last.history_.rows]
    assert areas == [row["valid_roc_auc"] for row in best.history_.rows] and areas[-1] < max(areas)
    assert area(last) == pytest.approx(areas[-1], abs=1e-9)
    assert area(best) == pytest.approx(max(areas), abs=1e-9)
    assert last.history_.best_epoch == len(areas) - 1


def test_the_rate_falls_on_a_plateau(parts):
    config = replace(PairFusion.as_published, training=replace(PairFusion.as_published.training, epochs=12,
                                                               patience=None,
                                                               learning_rate=1e-9))
    rates = [row["learning_rate"] for row in PairFusion(config, 0).fit(parts["train"],
                                                                       parts["valid"]).history_.rows]
    assert rates[0] == 1e-9 and rates[-1] < 1e-9


# --- what every matcher promises ------------------------------------------------------------------


def test_scores_are_float32_in_zero_to_one(model, parts):
    found = model.score(parts["test"])
    assert found.dtype == np.float32 and 0 <= found.min() < found.max() <= 1
    assert len(model.score(parts["test"][:0])) == 0


def test_a_score_is_its_videos_alone(model, parts):
    test = parts["test"]
    found, order = model.score(test), np.random.default_rng(0).permutation(len(test))
    np.testing.assert_allclose(model.score(test[order]), found[order], atol=1e-6)
    for row in (0, 17, 99): np.testing.assert_allclose(model.score(test[[row]]), found[[row]], atol=1e-6)
    np.testing.assert_allclose(model.score(test[50:60]), found[50:60], atol=1e-6)
    blind = replace(test, label=1 - test.label, strength=1 - test.strength, part=None, group=None)
    assert (model.score(blind) == found).all()


def test_a_longer_company_changes_nothing(model, parts):
    "A batch mate with a very long transcript pads everyone."
    test = parts["test"][:20]
    long = {view: Ragged.concat([some[:19],
                                 Ragged(torch.randn(300, 16, generator=torch.Generator().manual_seed(0)),
                                        [0, 300])])
            for view, some in test.content.items()}
    np.testing.assert_allclose(model.score(replace(test, content=long))[:19], model.score(test)[:19],
                               atol=1e-6)


def test_blocks_of_pooling_change_nothing(model, parts):
    table = tabulate(parts["test"], model.views_["numbers"])
    one, other = (pool_once(model.network_, table, cells) for cells in (2**23, 600))
    for name in one.columns: torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-5)


def test_same_seed_same_numbers_another_seed_others(model, parts):
    again, other = (PairFusion(model.config, seed).fit(parts["train"], parts["valid"]) for seed in (3, 4))
    assert (again.score(parts["test"]) == model.score(parts["test"])).all()
    assert again.threshold_ == model.threshold_
    assert (other.score(parts["test"]) != model.score(parts["test"])).any()


def test_saved_and_loaded_gives_the_same_bits(model, parts, tmp_path):
    again = PairFusion.load(model.save(tmp_path/"model"))
    assert (again.score(parts["test"]) == model.score(parts["test"])).all()
    assert again.threshold_ == model.threshold_ and again.config == model.config
    assert {path.suffix for path in (tmp_path/"model").rglob("*") if path.is_file()} <= {".json",
                                                                                         ".safetensors"}


def test_valid_chooses_and_test_is_never_seen(parts):
    other = PairFusion(few, 3).fit(parts["train"], parts["valid"][:60])
    one = PairFusion(few, 3).fit(parts["train"], parts["valid"])
    assert other.threshold_ != one.threshold_


def test_attention_is_one_over_the_branches_that_are_there(model, parts):
    alpha = model.attend(parts["test"])
    np.testing.assert_allclose(alpha.sum(1), 1, atol=1e-6)
    gone = parts["test"].content["keyframes"]
    bare = replace(parts["test"], content=parts["test"].content | {
        "keyframes": Ragged(gone.values[:0], torch.zeros_like(gone.offsets))})
    some = [at for at, name in enumerate(model.branches) if name.endswith("keyframes")]
    assert not model.attend(bare)[:, some].any() and np.isfinite(model.score(bare)).all()


def test_what_an_absent_view_would_have_said_does_not_matter(model, parts):
    "Only that it is empty; with nothing at all the promise is left."
    test = parts["test"]
    nothing = {view: Ragged(some.values[:0], torch.zeros_like(some.offsets)) for view,
               some in test.content.items()}
    bare = model.score(replace(test, content=nothing))
    assert np.isfinite(bare).all() and len(np.unique(bare)) > 50


def test_only_chosen_branches_are_computed(parts):
    one = PairFusion(replace(few, branches="title-transcript"), 0).fit(parts["train"], parts["valid"])
    assert list(one.network_.branches) == ["title-transcript"] and list(one.network_.pools) == ["transcript"]
    wild = replace(parts["test"], promise=parts["test"].promise | {"thumbnail": torch.randn(100, 16)*9})
    assert (one.score(wild) == one.score(parts["test"])).all()


@pytest.mark.parametrize("change", [
    {"cosine": False}, {"fuse": "features"}, {"norms": "layer", "cosine": False}, {"blur": 0.},
    {"dropout": 0.}, {"k": 1, "pool": "top-similar"}, {"smoothing": .2}, {"branch_weight": 0.},
    {"fused_weight": 5.},
    {"weigh_positives": True, "branches": ("title-transcript",)},
    {"batch": 17}, {"temperature": 5.}, {"pool": "top-norm"}, {"hidden": 8}, {"soft": False},
    {"skip": "none"}, {"skip": "all", "branches": ("title", "title-keyframes")}])
def test_every_setting_has_an_effect(parts, change):
    tilted = replace(parts["train"], strength=np.clip(parts["train"].strength*.8 + .1, 0, 1))
    base = replace(few, branches=change.get("branches", ()),
                   pool="top-similar" if "k" in change else few.pool)
    train = tilted[np.arange(150)] if "weigh_positives" in change else tilted
    if "weigh_positives" in change:
        train = train[np.flatnonzero((train.label == 0) | (np.arange(150) % 3 > 0))]
    one, other = (PairFusion(config, 0).fit(train, parts["valid"]).logits(parts["test"])
                  for config in (base, replace(base, **change)))
    assert np.abs(one - other).max() > 1e-5


def test_words_have_a_say(parts):
    "Numbers of words are told where there are some, and recounted when a sentence is taken away."
    class Letters:
        def embed(self, texts):
            return np.array([[text.count(one) for one in "aeiou"] for text in texts], np.float32)
    texts = ["a dog sings", "no dog here", "tea at three", "ten of us"]*10
    said = [["a dog sings.", "it rains"], ["rain", "wind"], ["tea at three"], ["one", "two", "three"]]*10
    videos = build_videos(range(40), [0, 1, 0, 1]*10, {"title": texts}, {"said": said}, Letters())
    model = PairFusion(few, 0).fit(videos, videos)
    assert model.views_["numbers"] == {"title-said": 4}
    drivers = find_drivers(model, videos, 3)
    assert drivers["element"].tolist()[:3] == [0, 1, 2] and np.isnan(drivers["element"][3])
    assert drivers["piece"].tolist()[:3] == ["one", "two", "three"]
    np.testing.assert_allclose(drivers["weight"][:3].sum(), 1, atol=1e-5)
    without = build_videos(range(1), [1], {"title": ["ten of us"]}, {"said": [["one", "three"]]}, Letters())
    assert (without.numbers["title-said"] == count_words(["ten of us"], [["one", "three"]])).all()
    wanted = model.logits(videos[[3]])[0] - model.logits(without)[0]
    assert drivers["adds"][1] == pytest.approx(float(wanted), abs=1e-5)
    bare = build_videos(range(1), [1], {"title": ["ten of us"]}, {"said": [[]]}, Letters())
    assert drivers["adds"][3] == pytest.approx(float(model.logits(videos[[3]])[0] - model.logits(bare)[0]),
                                               abs=1e-5)
    with pytest.raises(InputError, match="no numbers for 'title-said'"):
        model.score(replace(videos, numbers={}))


def test_words_of_every_promise_are_counted_anew():
    "A sentence that the thumbnail promises too is missed there as well."
    class Letters:
        def embed(self, texts):
            return np.array([[text.count(one) for one in "aeiou"] for text in texts], np.float32) + .01
    titles, thumbs = ["a dog sings", "no dog here", "tea at three", "ten of us"]*10, ["one wind", "two dogs",
                                                                                       "cups", "one three"]*10
    said = [["a dog sings.", "it rains"], ["rain", "wind"], ["tea at three"], ["one", "two", "three"]]*10
    build = lambda rows, told: build_videos(rows, [row % 2 for row in rows],
                                            {"title": [titles[row] for row in rows],
                                             "thumbnail": [thumbs[row] for row in rows]}, {"said": told},
                                            Letters())
    videos = build(range(40), said)
    config = replace(few, training=replace(few.training, epochs=6, learning_rate=.02))
    model = PairFusion(config, 0).fit(videos, videos)
    drivers = find_drivers(model, videos, 3)
    for at, kept in enumerate((["two", "three"], ["one", "three"], ["one", "two"], [])):
        wanted = model.logits(videos[[3]])[0] - model.logits(build([3], [kept]))[0]
        assert drivers["adds"][at] == pytest.approx(float(wanted), abs=1e-5)


def test_drivers_are_drawn_for_a_moderator(parts):
    import matplotlib.pyplot as plt
    model = PairFusion(few, 0).fit(parts["train"], parts["valid"])
    drivers, (fig, ax) = find_drivers(model, parts["test"], 0), plt.subplots()
    draw_drivers(drivers, ax, "what it is")
    alone = drivers[drivers["element"].notna()]
    assert ax.get_title() == "what it is" and len(ax.patches) == len(alone)
    assert [bar.get_width() for bar in ax.patches][::-1] == pytest.approx(alone["adds"].tolist())
    assert ax.get_yticklabels()[-1].get_text() == "transcript 1"
    plt.close(fig)


# --- the skip -------------------------------------------------------------------------------------


def test_cosines_and_numbers_reach_the_fused_logit_straight(parts):
    "Neither blurred nor dropped: with a branch that says nothing, the logit is the skip's alone."
    model = PairFusion(few, 0).fit(parts["train"], parts["valid"])
    network = model.network_.train()
    table = pool_once(network, model._table(parts["test"]))
    with torch.no_grad(): network.fuse_out.weight.zero_()
    features = network.describe(table)
    plain = torch.cat([features[name][:, 4*16:] for name in features], dim=1)
    assert plain.shape == (100, 4*2) and torch.equal(plain, network.plain(features))
    wanted = plain @ network.skip.weight[0] + network.fuse_out.bias
    torch.testing.assert_close(network(table)["fused"], wanted)
    frames = parts["test"].content["keyframes"]
    unit = Ragged(F.normalize(frames.values, dim=1), frames.offsets)
    mean = F.cosine_similarity(parts["test"].promise["title"], unit.mean(), dim=1)
    raw = network.describe(table, scaled=False)["title-keyframes"][:, 4*16 + 1]   # after that of the pooled
    torch.testing.assert_close(raw, mean, atol=1e-5, rtol=0)


def test_the_skip_begins_as_a_logistic_regression_and_without_it_nothing_changes(parts):
    from sklearn.linear_model import LogisticRegression
    still = replace(few, training=replace(few.training, epochs=1, learning_rate=1e-12, weight_decay=0.))
    model = PairFusion(still, 0).fit(parts["train"], parts["valid"])
    tables = [pool_once(model.network_, model._table(parts[part])) for part in ("train", "valid")]
    with torch.no_grad():
        known, asked = (model.network_.plain(model.network_.describe(table)).numpy() for table in tables)
    found = [LogisticRegression(C=strength, max_iter=500).fit(known, parts["train"].label).coef_[0]
             for strength in (1e-4, 3e-4, .001, .003, .01, .03, .1, 1.)]
    area = lambda weight: judge(asked @ weight, *[parts["valid"].label]*2)["pr_auc"]
    np.testing.assert_allclose(model.network_.skip.weight.detach()[0], max(found, key=area), atol=1e-5)
    for config in (replace(few, skip="none"), PairFusion.as_published, replace(few, branches="title")):
        network = PairFusionNetwork(16, name_branches(parts["train"], config.branches), config)
        assert not hasattr(network, "skip")


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("promise,content", [
    (("title", "thumb"), ("stt.v2", "kf")), (("title", "thumb"), ("type", "items")),
    (("a.b", "pop"), ("training", "_modules")), (("%pop", "pop"), ("%2E", "."))])
def test_views_may_have_any_name(promise, content, parts, tmp_path):
    def name(videos):
        return replace(videos, promise=dict(zip(promise, videos.promise.values())),
                       content=dict(zip(content, videos.content.values())))
    model = PairFusion(few, 3).fit(*(name(parts[part]) for part in ("train", "valid")))
    plain = PairFusion(few, 3).fit(parts["train"], parts["valid"])
    assert model.branches == [f"{p}-{c}" for p in promise for c in content]
    again = PairFusion.load(model.save(tmp_path/"model"))
    found = again.score(name(parts["test"]))
    assert (found == model.score(name(parts["test"]))).all()
    np.testing.assert_allclose(found, plain.score(parts["test"]), atol=.05)
    alone = PairFusion(replace(few, branches=promise), 3).fit(name(parts["train"]), name(parts["valid"]))
    assert alone.branches == list(promise)
    assert module_name("title-transcript") == "title-transcript"       # the original's weights keep theirs


def test_two_branches_of_one_name_are_refused(parts):
    def name(promise, content):
        return replace(parts["train"], promise=dict(zip(promise, parts["train"].promise.values())),
                       content=dict(zip(content, parts["train"].content.values())))
    for some in (name(("a-b", "a"), ("c", "b-c")), name(("a", "a-b"), ("b", "c"))):
        with pytest.raises(InputError, match="are both called 'a-b") as told: PairFusion(few).fit(some, some)
        assert "\n" not in str(told.value)


def test_drivers_of_one_frame_and_of_vectors_alone(parts):
    model = PairFusion(few, 0).fit(parts["train"], parts["valid"])
    row = int(np.flatnonzero(parts["test"].content["keyframes"].lengths.numpy() == 1)[0])
    drivers = find_drivers(model, parts["test"], row)
    frames = drivers[drivers["view"] == "keyframes"]
    assert len(frames) == 2 and frames["adds"].iloc[0] == pytest.approx(frames["adds"].iloc[1])
    assert np.isnan(frames["element"].iloc[1])


# --- what is refused ------------------------------------------------------------------------------


def test_what_is_refused_in_one_line(parts, tmp_path):
    train, valid, fitted = parts["train"], parts["valid"], PairFusion(few, 0).fit(parts["train"],
                                                                                  parts["valid"])
    wide = read_promise("videos-sample", width=20)[0]
    for act, said in (
            (lambda: PairFusion().fit(train[train.label == 1], valid),
             "the train part has videos of one class only"),
            (lambda: PairFusion().fit(train, valid[:0]), "the valid part is empty; videos were wanted"),
            (lambda: PairFusion().fit(replace(train, label=np.where(np.arange(200) == 5, -1, train.label)),
                                      valid),
             f"videos without a label, such as '{train.id[5]}'"),
            (lambda: PairFusion(replace(few, branches=("title-frames",))).fit(train, valid),
             "did you mean 'title-keyframes'"),
            (lambda: PairFusion(replace(PairFusion.as_published,
                                        branches=("title", "title-keyframes"))).fit(train, valid),
             "fuse='features' wants branches alike"),
            (lambda: fitted.score(wide), "vectors of 20 numbers; pair-fusion was trained on 16"),
            (lambda: fitted.score(replace(valid, content={"keyframes": valid.content["keyframes"]})),
             "pair-fusion reads it"),
            (lambda: PairFusion().score(valid), "call fit first"), (lambda: PairFusion.load(tmp_path),
                                                                    "holds no model.json"),
            (lambda: PairFusionConfig(pool="max"),
             "no pool named 'max'"), (lambda: PairFusionConfig(dropout=1.), "dropout = 1.0"),
            (lambda: PairFusionConfig(monitor="auc"),
             "no monitor named 'auc'"), (lambda: PairFusionConfig(hidden=0), "hidden = 0"),
            (lambda: SeqPool("top-similar", k=0), "k = 0"), (lambda: SeqPool(temperature=0),
                                                             "temperature = 0")):
        with pytest.raises(InputError, match=said) as told: act()
        assert "\n" not in str(told.value)


def test_a_torn_bundle_is_refused(parts, tmp_path):
    folder = PairFusion(few, 0).fit(parts["train"], parts["valid"]).save(tmp_path/"model")
    (folder/"weights.safetensors").write_bytes((folder/"weights.safetensors").read_bytes()[:500])
    with pytest.raises(InputError, match="is damaged"): PairFusion.load(folder)


def test_branches_by_name(videos):
    assert list(name_branches(videos)) == ["title-transcript", "title-keyframes", "thumbnail-transcript",
                                           "thumbnail-keyframes"]
    assert name_branches(videos, ("thumbnail", "title-keyframes")) == {"thumbnail": ("thumbnail", None),
                                                                       "title-keyframes": ("title",
                                                                                           "keyframes")}


def test_a_stopped_training_goes_on_as_if_nothing_had_happened(parts, tmp_path):
    "Through the place that a run keeps; the last weights too."
    from matchbook.runs import keep_places
    from matchbook.training import Training
    config = replace(presets["as_published"], training=replace(few.training, epochs=5, checkpoint_seconds=0))
    whole = PairFusion(config, 1).fit(parts["train"], parts["valid"])
    end, calls = Training.end_epoch, []
    def stop(self, metrics):
        row = end(self, metrics)
        calls.append(row)
        if len(calls) == 3: raise RuntimeError("stopped")
        return row
    Training.end_epoch = stop
    try:
        with pytest.raises(RuntimeError), keep_places(tmp_path/"work"):
            PairFusion(config, 1).fit(parts["train"], parts["valid"])
    finally: Training.end_epoch = end
    with keep_places(tmp_path/"work"): again = PairFusion(config, 1).fit(parts["train"], parts["valid"])
    assert len(calls) == 3 and (again.score(parts["test"]) == whole.score(parts["test"])).all()
