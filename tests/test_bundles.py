"Bundles: models come back with the same scores; what is torn, newer or of another kind is one line."
import errno
import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from matchbook import bundles
from matchbook.bundles import (bundle_format, check_place, from_hub, kinds, open_bundle, open_model,
                               push_to_hub, read_bundle, write_bundle)
from matchbook.clickbait.headlines import MajorityHeadlines, read_headline_parts
from matchbook.datasets import InputError
from matchbook.products.listings import read_pair_parts
from matchbook.products.pair_mlp import BoostedTrees, CosineMatcher
from matchbook.runs import Outcome, make_run, open_study, read_run, studies

pairs = open_study("pairs")


@pytest.fixture(scope="module")
def parts(): return read_pair_parts("ozon-sample")[0]


@pytest.fixture(scope="module")
def trees(parts): return BoostedTrees(BoostedTrees.quick).fit(parts.train, parts.valid)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A bundle by `make_run`, and its run."
    folder = tmp_path_factory.mktemp("made")/"words"
    return folder, make_run(pairs, "ozon-sample", "tfidf-words", "quick", save=folder)


@pytest.fixture
def bundle(made, tmp_path): return shutil.copytree(made[0], tmp_path/"words")


def edit(folder, **changes):
    record = json.loads((folder/"bundle.json").read_text())
    (folder/"bundle.json").write_text(json.dumps(record | changes))


# Each study leaves a bundle whose model answers as the fitted one did

@pytest.mark.parametrize("study,model,settings,ask", [
    ("pairs", "boosted-trees", {}, lambda model: model.score(read_pair_parts("ozon-sample")[0].test)),
    ("pairs", "item-pair-mlp", {}, lambda model: model.score(read_pair_parts("ozon-sample")[0].test)),
    ("headlines", "tfidf-linear", {}, lambda model: model.score(posts().test)),
    ("duplicates", "title-or-hash", {}, lambda model: np.concatenate(model.match(listings()))),
    ("promise", "title-only", {}, lambda model: model.score(videos())),
    ("promise", "pair-fusion", {"training.epochs": 1}, lambda model: model.score(videos())),
    ("papers", "heco", {"training.epochs": 2, "probe.restarts": 2, "probe.steps": 5},
     lambda model: model.embed(graph()))])
def test_a_run_keeps_its_model(study, model, settings, ask, tmp_path, monkeypatch):
    plan, kept = open_study(study), []
    monkeypatch.setattr(bundles, "write_bundle", lambda one, *rest, write=bundles.write_bundle:
                        kept.append(one) or write(one, *rest))
    run = make_run(plan, plan.sample, model, "quick", 0, settings, save=tmp_path/"model")
    found = open_bundle(tmp_path/"model")
    assert np.array_equal(ask(found.model), ask(kept[0]))
    assert found.record["kind"] in kinds and found.record["task"] == study
    assert found.record["data"]["sha256"] == run["data"]["sha256"]
    assert "details" not in found.record["run"] and found.record["run"]["model"] == model
    assert not [name for name in found.record["files"] if name.endswith(bundles.pickles)]
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def posts(): return read_headline_parts("headlines-sample")[0]


def listings():
    from matchbook.products.listings import read_listings
    return read_listings("shopee-sample")[0]


def videos():
    from matchbook.clickbait.videos import read_promise
    return read_promise("videos-sample")[0]


def graph():
    from matchbook.papers.graph import read_heco
    return read_heco("heco-sample")[0]


def test_every_study_says_which_rows_leave_a_model():
    for plan in studies.values():
        assert plan.keeps is None or set(plan.keeps) <= set(plan.models)


def test_a_row_without_a_model_is_refused_before_the_work(tmp_path, monkeypatch):
    plan = replace(open_study("papers"), run=lambda **_: pytest.fail("work was begun"))
    with pytest.raises(InputError, match="'spread' of the study papers leaves no model .*these do: heco"):
        make_run(plan, "heco-sample", "spread", "quick", save=tmp_path/"model")
    (tmp_path/"mine.txt").write_text("notes")
    with pytest.raises(InputError, match="holds other things than a bundle"):
        make_run(replace(pairs, run=plan.run), "ozon-sample", "tfidf-words", "quick", save=tmp_path)


def test_the_command_saves_and_the_run_file_does_not_tell(call, tmp_path):
    words = ("run", "pairs", "--dataset", "ozon-sample", "--model", "tfidf-words", "--preset", "quick",
             "--out")
    assert call(*words, tmp_path/"out", "--save", tmp_path/"model")[0] == 0
    assert call(*words, tmp_path/"plain")[0] == 0
    saved, plain = (read_run(next((tmp_path/name).rglob("*.json"))) for name in ("out", "plain"))
    for name in ("command", "settings", "preset", "metrics"): assert saved[name] == plain[name]
    assert read_bundle(tmp_path/"model")["run"]["metrics"] == plain["metrics"]
    (tmp_path/"full").mkdir()
    (tmp_path/"full"/"notes").write_text("")
    code, _, err = call(*words, tmp_path/"out", "--save", tmp_path/"full")
    assert code == 2 and "holds other things than a bundle" in err.splitlines()[-1]
    assert list((tmp_path/"full").iterdir()) == [tmp_path/"full"/"notes"]


# The registry

def test_kinds_and_classes_agree():
    import importlib
    for name, kind in kinds.items():
        module, _, attribute = kind.place.partition(":")
        assert getattr(getattr(importlib.import_module(module), attribute), "kind", name) == name


def test_every_saved_model_of_a_study_is_of_a_known_kind():
    from matchbook.clickbait.headline_study import rows
    from matchbook.clickbait.promise import models
    from matchbook.products.pairs import _rows
    classes = {*(kind for kind, _ in rows.values()), *models.values(), *filter(None, _rows.values())}
    assert {one.kind for one in classes} <= set(kinds)


def test_a_model_of_other_input_is_refused(bundle):
    for opened in (open_model, open_bundle, read_bundle):
        with pytest.raises(InputError, match="reads pairs; a model of videos or posts was wanted"):
            opened(bundle, ("videos", "posts"))


# The record and the card

def test_the_record_says_where_the_model_comes_from(made):
    folder, run = made
    record = read_bundle(folder)
    assert record["thresholds"] == {"balanced": run["threshold"]} and record["calibration"]["kind"] == "platt"
    assert record["code"]["commit"] == run["commit"]
    assert re.fullmatch("[0-9a-f]{64}", record["code"]["sha256"])
    assert set(record["files"]) == {path.relative_to(folder).as_posix() for path in folder.rglob("*")
                                    if path.is_file()} - {"README.md", "bundle.json"}


def test_other_thresholds_are_kept(trees, tmp_path):
    record = read_bundle(write_bundle(trees, tmp_path/"trees", None, {"careful": .9}))
    assert record["thresholds"] == {"balanced": trees.threshold_, "careful": .9}


def test_the_card_is_in_the_hubs_form_and_holds_the_runs_figures(made):
    folder, run = made
    _, front, text = (folder/"README.md").read_text().split("---\n", 2)
    about, figures = yaml.safe_load(front), run["metrics"]["test"]
    assert about["license"] == "apache-2.0" and {"matchbook", "pairs", "cosine"} <= set(about["tags"])
    told = {one["type"]: one["value"] for one in about["model-index"][0]["results"][0]["metrics"]}
    assert set(about["metrics"]) == set(told) and all(figures[name] == value for name, value in told.items())
    low, high = run["intervals"]["test"]["f1"]
    valid = run["metrics"]["valid"]["f1"]
    assert f"| f1 | {valid:.3f} | {figures['f1']:.3f} | {low:.3f} to {high:.3f} |" in text
    for said in (run["command"] + " --save", run["data"]["sha256"], pairs.about, "matchbook score words"):
        assert said in text, said


def test_a_model_without_a_run_claims_nothing(trees, parts, tmp_path):
    text = (write_bundle(trees, tmp_path/"trees")/"README.md").read_text()
    assert "nothing is known of how good it is" in text
    assert "Figures" not in text and "model-index" not in text
    assert np.array_equal(open_bundle(tmp_path/"trees").model.score(parts.test), trees.score(parts.test))


# What is not in order

@pytest.mark.parametrize("spoil,message", [
    (lambda at: (at/"model.json").write_text("{}"), "model.json has changed since the bundle was written"),
    (lambda at: (at/"bag"/"idf.safetensors").unlink(), "bag/idf.safetensors is missing; the"),
    (lambda at: (at/"bag"/"idf.safetensors").write_bytes(b"x"), "bag/idf.safetensors has changed"),
    (lambda at: (at/"bag"/"weights.pkl").write_bytes(b"x"), "bag/weights.pkl is no part of the bundle"),
    (lambda at: edit(at, format=bundle_format + 1, matchbook="9.9"), "made by matchbook 9.9 in format 2"),
    (lambda at: edit(at, kind="boosted-tree"), "did you mean 'boosted-trees'"),
    (lambda at: edit(at, format=None), "names no format"),
    (lambda at: (at/"bundle.json").write_text("{"), "not a bundle"),
    (lambda at: (at/"bundle.json").write_text('{"format": 1}'), "no kind, files, thresholds, run"),
    (lambda at: shutil.rmtree(at), "no such folder")])
def test_a_bundle_that_is_not_in_order_is_refused(bundle, spoil, message):
    open_bundle(bundle)
    spoil(bundle)
    with pytest.raises(InputError, match=re.escape(message)) as error: open_bundle(bundle)
    assert "\n" not in str(error.value)


def test_the_card_may_be_edited_and_notes_may_lie_beside(bundle):
    (bundle/"README.md").write_text("mine")
    (bundle/"notes.txt").write_text("mine")
    (bundle/".cache").mkdir()
    (bundle/".cache"/"x.pt").write_text("the hub's")
    open_bundle(bundle)


def test_a_models_own_folder_opens_too(trees, parts, tmp_path):
    found = open_bundle(trees.save(tmp_path/"trees"), ("pairs",))
    assert found.reads == "pairs" and found.threshold == trees.threshold_
    (tmp_path/"trees"/"weights.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="is damaged"): open_bundle(tmp_path/"trees")


def test_a_damaged_set_of_matches_is_one_line(tmp_path):
    (tmp_path/"model.json").write_text('{"kind": "match-sets"}')
    with pytest.raises(InputError, match="model.json is not what MatchSets.save writes"): open_model(tmp_path)


# Writing: whole or not at all, whatever happens

@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_a_write_that_is_stopped_leaves_the_old_bundle(bundle, trees, monkeypatch, error):
    def fall(*_, **__): raise error
    monkeypatch.setattr(bundles, "write_card", fall)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else InputError) as stop:
        write_bundle(trees, bundle)
    assert isinstance(error, KeyboardInterrupt) or "No space left" in str(stop.value)
    assert read_bundle(bundle)["kind"] == "cosine" and list(bundle.parent.iterdir()) == [bundle]


def test_a_bundle_takes_the_place_of_another_and_leaves_nothing_of_it(bundle, trees):
    write_bundle(trees, bundle)
    assert read_bundle(bundle)["kind"] == "boosted-trees" and not (bundle/"bag").exists()


def test_what_is_no_model_and_no_place_is_refused(tmp_path, trees):
    with pytest.raises(InputError, match="dict cannot be saved"): write_bundle({}, tmp_path/"x")
    (tmp_path/"file").write_text("")
    with pytest.raises(InputError, match="is a file"): write_bundle(trees, tmp_path/"file")
    with pytest.raises(InputError, match="cannot write"): check_place(tmp_path/"file"/"x")
    with pytest.raises(InputError, match="not trained yet"): write_bundle(CosineMatcher(), tmp_path/"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_outcomes_without_a_model_still_stand():
    assert Outcome({}, {}, None, {}, "", {}, {}).model is None


# The hub, as a folder that plays it

@pytest.fixture
def hub(tmp_path, monkeypatch):
    import huggingface_hub
    store = tmp_path/"hub"

    class Api:
        def create_repo(self, name, private, exist_ok):
            assert private and exist_ok
            (store/name).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
            assert "cosine" in commit_message
            for name in allow_patterns:
                (store/repo_id/name).parent.mkdir(exist_ok=True)
                shutil.copy(folder_path/name, store/repo_id/name)
            return f"hub/{repo_id}"

    def download(name, revision, ignore_patterns):
        assert "*.pkl" in ignore_patterns
        if not (store/name).is_dir(): raise ConnectionError("no route to host\nsecond line")
        return str(store/name)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return store


def test_a_bundle_goes_to_the_hub_and_comes_back(bundle, hub, parts):
    (bundle/"secret.txt").write_text("no part of it")
    assert push_to_hub(bundle, "me/words") == "hub/me/words"
    assert not (hub/"me"/"words"/"secret.txt").exists()
    again = open_bundle("me/words")
    assert np.array_equal(again.model.score(parts.test), open_bundle(bundle).model.score(parts.test))
    (hub/"me"/"words"/"model.json").write_text("{}")
    with pytest.raises(InputError, match="has changed since"): from_hub("me/words")


def test_without_a_network_one_line_says_so(hub, trees, tmp_path):
    with pytest.raises(InputError, match="the hub does not answer .*no route to host.; without") as error:
        open_bundle("me/nothing")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="holds no bundle.json; write_bundle makes one"):
        push_to_hub(trees.save(tmp_path/"trees"), "me/trees")


def test_offline_mode_of_the_real_library_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="without a network a bundle"): from_hub("me/nothing")


def test_headlines_are_bundles_too(tmp_path):
    part = posts()
    model = MajorityHeadlines().fit(part.train, part.valid)
    found = open_bundle(write_bundle(model, tmp_path/"most"), ("posts",))
    assert found.record["calibration"]["kind"] == "none" and found.threshold == model.threshold_
