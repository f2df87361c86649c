"The audit: what is impossible is flagged, what can be true is not, and every refusal names its place."
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from matchbook.datasets import InputError
from matchbook.evidence import (Finding, Printed, Report, anything, bound_mean_f1, change_ids, change_mates,
                                change_order, change_sides, check_invariance, check_leaks, check_seeds,
                                check_table, check_threshold, count_matrices, implied_share, metrics,
                                read_figures, read_part, read_printed_table, show_report, smallest_visible)
from matchbook.runs import claims_table

root = Path(__file__).parent.parent


def figures_of(hit, wrong, missed, rest):
    return ((hit + rest)/(hit + wrong + missed + rest), hit/(hit + wrong), hit/(hit + missed),
            2*hit/(2*hit + wrong + missed))


def draw_matrix(rng, positive, negative):
    hit, wrong = int(rng.integers(1, positive + 1)), int(rng.integers(0, negative + 1))
    return hit, wrong, positive - hit, negative - wrong


def write_table(rng, models, digits, percent):
    "A table as somebody may print it, of confusion matrices of one test part; its share, and its rows."
    positive, negative = rng.integers(50, 3000, 2)
    scale, sign = (100, "%") if percent else (1, "")
    rows = [dict(zip(metrics, (f"{scale*one:.{digits - 2*percent}f}{sign}"
                               for one in figures_of(*draw_matrix(rng, positive, negative)))))
            for _ in range(models)]
    table = pd.DataFrame(rows)
    table.insert(0, "model", [f"m{k}" for k in range(models)])
    return table, positive, int(positive + negative)


# One row

def test_the_implied_share_holds_all_that_sampling_finds_and_is_reached():
    rng = np.random.default_rng(0)
    for _ in range(40):
        values = figures_of(*draw_matrix(rng, *rng.integers(20, 400, 2)))
        row = read_figures([f"{one:.2f}" for one in values], "x")
        if row[1].low < .02 or row[2].low < .02: continue
        found = implied_share(*row)
        p, r, a = (rng.uniform(one.low, one.high, 200_000) for one in (row[1], row[2], row[0]))
        f = 2*p*r/(p + r)
        share = (1 - a)/((1 - r) + r*(1 - p)/p)
        share = share[(f >= row[3].low) & (f <= row[3].high) & (share*r <= a) & (share <= 1)]
        assert found[0] - 1e-9 <= share.min() and share.max() <= found[1] + 1e-9
        if len(share) > 1000:
            assert share.min() - found[0] < .15*(found[1] - found[0]) + 1e-6
            assert found[1] - share.max() < .15*(found[1] - found[0]) + 1e-6


@pytest.mark.parametrize("lost", [(), (0,), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3)])
def test_a_real_matrix_is_never_flagged_whatever_is_not_printed(lost):
    rng = np.random.default_rng(1)
    for _ in range(150):
        positive, negative = rng.integers(2, 2000, 2)
        values = figures_of(*draw_matrix(rng, positive, negative))
        row = read_figures([f"{one:.{rng.integers(1, 5)}f}" for one in values], "x")
        row = [anything if place in lost else one for place, one in enumerate(row)]
        low, high = implied_share(*row)
        assert low - 1e-9 <= positive/(positive + negative) <= high + 1e-9


def test_figures_that_no_matrix_has_are_impossible():
    def of(*values): return implied_share(*read_figures([f"{one:.3f}" for one in values], "x"))
    assert of(.8, .75, .75, .752) is None and of(.8, .75, .75, .75) is not None
    assert of(.1, .9, .9, .9) is None                # what is found is right already
    assert of(.8, 1, 1, 1) is None                   # errors, and none
    assert of(1, 1, 1, 1) == (0, 1)


def test_counting_matrices_is_as_by_looping():
    rng, kinds = np.random.default_rng(2), set()
    for _ in range(100):
        rows = int(rng.integers(5, 20))
        values = rng.choice(np.linspace(.1, 1, 19), 4) if rng.random() < .5 else None
        if values is None:
            positive = int(rng.integers(1, rows))
            values = figures_of(*draw_matrix(rng, positive, rows - positive))
        row = tuple(anything if rng.random() < .4 else one
                    for one in read_figures([f"{one:.2f}" for one in values], "x"))
        slow = 0
        for positive in range(rows + 1):
            for hit in range(positive + 1):
                for wrong in range(rows - positive + 1):
                    if hit + wrong == 0 or positive == 0: continue
                    there = figures_of(hit, wrong, positive - hit, rows - positive - wrong)
                    slow += all(one.low - 1e-9 <= v <= one.high + 1e-9 for v, one in zip(there, row))
        fast = count_matrices(row, rows, (0, 1))
        assert (fast > 0) == (slow > 0) and fast >= slow
        kinds.add(slow > 0)
    assert kinds == {True, False}


# Whole tables

def test_consistent_tables_are_not_flagged_at_any_rounding():
    rng = np.random.default_rng(3)
    for number in range(40):
        digits = 2 + number % 3
        table, positive, rows = write_table(rng, 5, digits, percent=number % 2 and digits > 2)
        for asked in ({}, {"share": f"{positive/rows:.4f}"}, {"rows": rows}):
            found = check_table(table, **asked)
            assert not found.wrong, [one for one in found.findings if one.wrong]


def test_the_table_of_the_report_cannot_be_true_row_by_row_nor_together():
    claims = claims_table("headlines", "webis17")
    rows = claims[claims["source"].str.contains("report of the original")]
    table = rows[["claimed for", *metrics]].map(lambda one: f"{one:.1%}" if isinstance(one, float) else one)
    found = check_table(table, share="24.08%")
    assert len(table) == 5 and [one.wrong for one in found.findings] == [True]*6
    together = check_table(table).findings
    assert [one.wrong for one in together] == [False]*5 + [True]
    assert all(.55 < one.figures["share_low"] < one.figures["share_high"] < .59 for one in together[:5])


def test_a_change_as_large_as_the_report_says_is_always_flagged():
    rng, seen = np.random.default_rng(4), 0
    for number in range(20):
        table, positive, rows = write_table(rng, 1, 2 + number % 3, False)
        share = f"{positive/rows:.4f}"
        told = check_table(table, share=share).findings[0].figures
        for name in metrics:
            change = told.get(f"visible_{name}")
            if change is None: continue
            for sign in (-1, 1):
                value = float(table[name].iloc[0]) + sign*change
                if not 0 < value <= 1: continue
                changed = table.assign(**{name: f"{value:.{2 + number % 3}f}"})
                assert check_table(changed, share=share).wrong, (name, table, changed)
                seen += 1
    assert seen > 60


def test_a_smaller_change_than_told_can_pass():
    figures = dict(zip(metrics, read_figures(["0.800", "0.750", "0.750", "0.750"], "x")))
    told = smallest_visible(figures, (.395, .405))
    for name, one in figures.items():
        steps = round(told[name]/one.unit) - 1
        kept = [implied_share(*(figures | {name: one.move(sign*steps)}).values()) for sign in (-1, 1)]
        assert any(found is not None and found[0] <= .405 and found[1] >= .395 for found in kept), name


def test_rows_that_cannot_be_counted_are_flagged():
    figures = ("0.812", "0.751", "0.747", "0.749")
    table = pd.DataFrame({name: [one] for name, one in zip(metrics, figures)})
    assert not check_table(table).wrong
    assert "no 100 rows can be counted" in check_table(table, rows=100).findings[0].said
    assert not check_table(table, rows=100_000).wrong


@pytest.mark.parametrize("cells,wanted", [
    (["83.2%"], (.8315, .8325)), (["83,2 %"], (.8315, .8325)), ([".5"], (.45, .55)), (["1"], (.5, 1)),
    (["**0.83**"], (.825, .835)), (["0.83*"], (.825, .835)), (["\\textbf{0.83}"], (.825, .835)),
    (["83.2\\%"], (.8315, .8325)), (["0.83 ± 0.01"], (.815, .845)), (["83.2 +/- 1.0"], (.8215, .8425)),
    (["n/a"], (0, 1)), (["–"], (0, 1)), ([""], (0, 1)), (["100%"], (.995, 1))])
def test_figures_are_read_as_people_print_them(cells, wanted):
    found, = read_figures(cells, "x")
    assert (found.low, found.high) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("cells,said", [
    (["0.8", "79.1"], "row 2 is a percentage and row 1 a fraction"), (["good"], "row 1: 'good'"),
    (["", "1.2.3"], "row 2: '1.2.3'"), (["140"], "140 is more than all"), (["-0.5"], "row 1: '-0.5'")])
def test_figures_that_cannot_be_read_are_refused_by_row(cells, said):
    with pytest.raises(InputError, match="t.csv, column f1.*" + said): read_figures(cells, "t.csv, column f1")


def test_percentages_with_a_sign_may_stand_among_fractions():
    assert [one.low for one in read_figures(["83.2%", "0.832"], "x")] == pytest.approx([.8315, .8315])


def test_missing_cells_leave_what_can_be_said(tmp_path):
    path = tmp_path/"t.csv"
    path.write_text("model,acc,prec,rec,F1\na,0.800,0.750,0.750,\nb,,0.75,0.75,0.80\nc,0.8,,,\n")
    found = check_table(read_printed_table(path), share="0.4").findings
    assert [one.wrong for one in found] == [False, True, False, False]
    assert "give an F1 of 0.7450 to 0.7550" in found[1].said


# Areas and averages

def draw_classes(rng, classes):
    "What a table may print of a test part with some classes: all averages, as scikit-learn counts them."
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_recall_fscore_support
    truth = rng.choice(classes, 200, p=rng.dirichlet(np.ones(classes)))
    said = np.where(rng.random(200) < rng.random(), truth, rng.choice(classes, 200))
    found = {"accuracy": accuracy_score(truth, said)}
    for kind in ("macro", "micro", "weighted"):
        three = precision_recall_fscore_support(truth, said, average=kind, zero_division=0)[:3]
        found |= {f"{kind} {name}": one for name, one in zip(("precision", "recall", "F1"), three)}
    if set(said) <= set(truth): found["balanced accuracy"] = balanced_accuracy_score(truth, said)
    return found


def test_averages_that_were_counted_are_not_flagged_and_wrong_ones_are():
    rng, flagged = np.random.default_rng(8), []
    for number in range(150):
        found, digits = draw_classes(rng, int(rng.integers(2, 9))), 2 + number % 3
        def print_table(figures, digits=digits):
            return pd.DataFrame([{name: f"{one:.{digits}f}" for name, one in figures.items()}])
        classes = None if number % 2 else 3 if "balanced accuracy" in found else 9
        assert not check_table(print_table(found), classes=classes).wrong, found
        for name in ("micro F1", "weighted recall"):
            changed = print_table(found | {name: found[name] - .1 if found[name] > .5 else found[name] + .1})
            assert check_table(changed, classes=9).wrong
            told = check_table(changed[["accuracy", name]]).findings
            assert [one.mark for one in told] == ["look"]        # for a row may have several labels
        high = 2*found["macro precision"]*found["macro recall"]/(
            found["macro precision"] + found["macro recall"])
        if high < .95:
            changed = found | {"macro F1": high + .04}
            flagged.append(check_table(print_table(changed)).wrong)
    assert len(flagged) > 100 and all(flagged)


def test_bounds_of_mean_f1_hold_and_are_reached():
    rng = np.random.default_rng(9)
    for _ in range(300):
        p, r = rng.random((2, int(rng.integers(1, 6))))
        if rng.random() < .3: p, r = p.round(), r.round()
        f1 = np.divide(2*p*r, p + r, out=np.zeros_like(p), where=p + r > 0).mean()
        low, high = bound_mean_f1(*(Printed(one.mean(), one.mean(), 0) for one in (p, r)))
        assert low - 1e-9 <= f1 <= high + 1e-9
        if set(p) | set(r) <= {0, 1} and not ((p == 0) & (r == 0)).any(): assert f1 == pytest.approx(low)


def test_areas_that_were_measured_are_not_flagged_and_impossible_ones_are():
    from sklearn.metrics import (accuracy_score, balanced_accuracy_score, f1_score, precision_score,
                                 recall_score, roc_auc_score)
    rng, seen = np.random.default_rng(10), 0
    for number in range(150):
        truth = (rng.random(int(rng.integers(20, 400))) < rng.uniform(.1, .9)).astype(int)
        score = rng.normal(truth*rng.normal(1, 1), 1)
        if number % 5 == 0: score = score.round()                # ties
        said = score >= rng.normal(.5, .7)
        if len({*truth}) < 2 or not (said & (truth == 1)).any(): continue
        digits = 2 + number % 3
        figures = {"accuracy": accuracy_score, "precision": precision_score, "recall": recall_score,
                   "f1": f1_score, "balanced accuracy": balanced_accuracy_score}
        values = {name: measure(truth, said) for name, measure in figures.items()}
        values |= {"macro f1": f1_score(truth, said, average="macro"), "auc": roc_auc_score(truth, score)}
        lost = set(rng.choice(list(metrics), int(rng.integers(0, 2)), replace=False))
        table = {name: f"{one:.{digits}f}" for name, one in values.items() if name not in lost}
        table = pd.DataFrame([table])
        found = check_table(table, classes=2)
        assert not found.wrong, (values, found)
        if lost: continue
        false = (said & (truth == 0)).sum()/(truth == 0).sum()
        for area in (values["recall"]*(1 - false) - .1, 1 - false*(1 - values["recall"]) + .1):
            if not .02 < area < .98: continue
            assert check_table(table.assign(auc=f"{area:.{digits}f}"), share=f"{truth.mean():.4f}").wrong
            seen += 1
    assert seen > 50


@pytest.mark.parametrize("head,row,how,mark", [
    ("model,AUC", "a,0.43", {}, "look"), ("model,AUC", "a,1.00", {}, "look"),
    ("model,AUC", "a,0.5", {}, "fine"),
    ("model,PR-AUC", "a,0.20", {"share": ".4"}, "look"), ("model,PR-AUC", "a,0.20", {}, "fine"),
    ("model,AUROC (%)", "a,43.1", {}, "look"), ("model,accuracy,Mi-F1", "a,.80,.70", {}, "look"),
    ("model,accuracy,Mi-F1", "a,.80,.70", {"classes": 4}, "wrong"),
    ("model,macro recall,balanced accuracy", "a,.80,.70", {}, "wrong"),
    ("model,accuracy,P,R,balanced accuracy", "a,.90,.90,.90,.60", {"classes": 2, "share": ".5"}, "wrong"),
    ("model,accuracy,P,R,balanced accuracy", "a,.90,.90,.90,.60", {"share": ".5"}, "fine"),
    ("model,precision,recall,F1", "a,.60,.70,.50", {"average": "macro"}, "fine"),
    ("model,precision,recall,F1", "a,.60,.70,.50", {"average": "micro"}, "wrong")])
def test_what_can_be_judged_is_judged_and_the_rest_is_told(tmp_path, head, row, how, mark):
    (tmp_path/"t.csv").write_text(f"{head}\n{row}\n")
    marks = [one.mark for one in check_table(read_printed_table(tmp_path/"t.csv"), **how).findings]
    assert max(marks, key=["fine", "look", "wrong"].index) == mark


@pytest.mark.parametrize("name,text,said", [
    ("t.md", "# no table\n", "no table in it"),
    ("t.md", "| a | b |\n|---|---|\n| 1 |\n", "line 3: 1 cells under 2"),
    ("t.md", "| a | acc |\n|---|---|\n", "t.md: a table without rows"),
    ("t.csv", "model,acc,F1\n", "t.csv: .*rows"),
    ("t.xls", "", "a table in .csv"), ("t.csv", "model,score\na,1\n", "two or more columns were wanted"),
    ("t.csv", "model,acc,acc\na,1,1\n", "acc")])
def test_tables_that_cannot_be_read_are_refused(tmp_path, name, text, said):
    (tmp_path/name).write_text(text)
    with pytest.raises(InputError, match=said): check_table(read_printed_table(tmp_path/name))


def test_two_tables_of_the_same_models_are_one_and_others_are_not(audit, tmp_path):
    one = "| model | accuracy | F1 |\n|---|---|---|\n| a | 80.0% | 75.0% |\n\ntext\n\n"
    for two, code in (("| model | precision | recall |\n|---|---|---|\n| a | 75.0% | 55.0% |\n", 1),
                      ("| model | precision | recall |\n|---|---|---|\n| b | 75.0% | 55.0% |\n", 0)):
        (tmp_path/"t.md").write_text(one + two)
        assert audit("table", tmp_path/"t.md")[0] == code


# Leaks

@pytest.mark.parametrize("name,again,distinct,both", [("abt-buy", 24, 19, .933),
                                                      ("amazon-google", 124, 110, .883)])
def test_the_published_splits_of_pairs_leak_as_told(name, again, distinct, both):
    from matchbook.datasets import locate
    try: folder = locate(name)
    except InputError: pytest.skip(f"{name} is not here")
    found = check_leaks(read_part(folder/"train.txt"), read_part(folder/"test.txt")).findings
    pair, sides, _ = found
    assert (pair.figures["count"], pair.figures["distinct"]) == (again, distinct) and pair.wrong
    assert round(sides.figures["share"], 3) == both and not sides.wrong


def test_leaks_are_found_by_the_columns_there_are(tmp_path):
    train = pd.DataFrame({"id": [1, 2], "Title": ["ten easy ways to win big", "rain today"],
                          "Group": ["a", "b"]})
    test = pd.DataFrame({"id": [3, 4], "Title": ["Ten easy ways to win big!", "sun"], "Group": ["c", "b"]})
    kinds = {one.where.split(", ")[1]: one for one in check_leaks(train, test).findings}
    assert {name: one.figures["count"] for name, one in kinds.items()} == {
        "group": 1, "verbatim": 0, "near duplicate": 1}
    assert not check_leaks(train, test.assign(Group=["c", "d"], Title=["snow", "sun"])).wrong
    with pytest.raises(InputError, match="no column named 'titel'; did you mean 'Title'"):
        check_leaks(train, test, {"text": "titel"})
    with pytest.raises(InputError, match="train has id and test has id; in both a pair"):
        check_leaks(train[["id"]], test[["id"]])
    with pytest.raises(InputError, match="a file in .csv"): read_part(tmp_path/"x.doc")


def test_a_known_item_is_told_and_a_known_pair_is_wrong():
    train = pd.DataFrame({"left": ["a"], "right": ["b"]})
    for test, wrong in ((("b", "a"), True), (("a", "c"), False), (("c", "d"), False)):
        assert check_leaks(train, pd.DataFrame([test], columns=["left", "right"])).wrong == wrong


def test_a_named_column_is_always_looked_at_and_the_others_are_told(audit, tmp_path):
    same = "the very same title of an article"
    for name, first, second in (
            ("edges", f"source,target,title\na,b,{same}\n", f"source,target,title\nc,d,{same}\n"),
            ("pairs", f"left,right,title\na,b,{same}\n", f"left,right,title\nc,d,{same}\n")):
        for part, text in (("train", first), ("test", second)): (tmp_path/f"{part}.csv").write_text(text)
        paths = tmp_path/"train.csv", tmp_path/"test.csv"
        code, out, _ = audit("leaks", *paths, "--text", "title", "--json")
        assert code == 1 and any(one["where"].endswith("verbatim") and one["wrong"]
                                 for one in json.loads(out)["findings"]), name
        code, _, err = audit("leaks", *paths)
        if name == "edges":                     # a title says what a row is; source and target only may
            assert code == 1 and "other columns are not looked at: source, target" in err
        else: assert code == 0 and "other columns are not looked at: title" in err
    code, out, _ = audit("leaks", *paths, "--edges", "--text", "title", "--left", "left", "--right", "right",
                         "--json")
    kinds = [one["where"].split(", ")[1] for one in json.loads(out)["findings"]]
    assert code == 1 and {"repeated edge", "verbatim"} <= {*kinds}


def test_the_time_of_looking_for_leaks_is_a_row_of_the_benchmarks():
    from matchbook.evidence import make_up_parts
    from matchbook.runs import make_run, open_study
    run = make_run(open_study("benchmarks"), "shopee-sample", "leaks-speed", "quick")
    figures = run["metrics"]["test"]
    assert figures["seconds_whole"] > 0 and figures["peak_mb_whole"] > 0
    assert run["data"]["counts"] == {"train": 1000, "test": 1000, "copies": make_up_parts(1000)[2]}
    assert figures["pairs_whole"] >= .5*run["data"]["counts"]["copies"]


# Thresholds, seeds

def test_a_threshold_from_elsewhere_is_seldom_flagged_and_one_from_here_mostly():
    from matchbook.measures import choose_threshold
    rng, flagged = np.random.default_rng(5), {"here": 0, "elsewhere": 0}
    for _ in range(30):
        label = (rng.random((2, 800)) < .3).astype(int)
        score = rng.normal(label, 1.2)
        for name, part in (("here", 1), ("elsewhere", 0)):
            at = choose_threshold(score[part], label[part])
            flagged[name] += check_threshold(score[1], label[1], at, draws=60).wrong
    assert flagged["elsewhere"] <= 2 and flagged["here"] >= 25


def test_where_every_threshold_is_the_best_none_is_flagged():
    label = np.repeat([0, 1], 50)
    assert not check_threshold(label.astype(float), label, .5).wrong
    with pytest.raises(InputError): check_threshold(np.ones(3), np.array([1, 1, 2]))


def test_seeds_are_paired_where_they_can_be():
    rng = np.random.default_rng(6)
    luck = rng.normal(0, .05, 8)
    rows = [{"model": name, "seed": k, "f1": .7 + gain + luck[k] + rng.normal(0, .001)}
            for name, gain in (("a", 0), ("b", .01)) for k in range(8)]
    paired, = check_seeds(pd.DataFrame(rows), "f1").findings
    assert not paired.wrong and "seed by seed" in paired.said and paired.where == "b against a"
    apart = pd.DataFrame([row | {"seed": row["seed"] + 100*(row["model"] == "a")} for row in rows])
    welch, = check_seeds(apart, "f1").findings
    assert welch.wrong and "Welch" in welch.said
    for higher, where in ((True, "b against a"), (False, "a against b")):
        found, = check_seeds(pd.DataFrame(rows), "f1", higher_is_better=higher).findings
        assert found.where == where and 0 < found.figures["low"] < found.figures["difference"]


@pytest.mark.parametrize("rows,said", [
    ([("a", 0, 1.), ("a", 1, 1.)], "one model"), ([("a", 0, 1.), ("b", 0, "x")], "row 2, column f1: 'x'"),
    ([("a", 0, 1.), ("a", 0, 2.), ("b", 0, 1.)], "a has seed 0 twice")])
def test_runs_that_cannot_be_compared_are_refused(rows, said):
    with pytest.raises(InputError, match=said):
        check_seeds(pd.DataFrame(rows, columns=["model", "seed", "f1"]), "f1")


@pytest.mark.filterwarnings("error")
def test_a_model_that_draws_nothing_is_one_number(audit, tmp_path):
    drawn = "".join(f"net,{k},{one}\n" for k, one in enumerate((.70, .71, .72)))
    def judge(rows, *words):
        (tmp_path/"r.csv").write_text("model,seed,f1\n" + rows)
        return audit("seeds", tmp_path/"r.csv", "--figure", "f1", *words)
    assert judge(drawn + "rule,0,.5\n")[0] == 1                      # one run, and nothing else is known
    for rows, words in (("rule,0,.5\n", ["--fixed", "rule"]), ("rule,0,.5\nrule,1,.5\nrule,2,.5\n", [])):
        code, out, err = judge(drawn + rows, *words)
        assert code == 0 and "draws nothing" in out and "drawing nothing: rule" in err
    code, out, _ = judge(drawn + "rule,0,.705\n", "--fixed", "rule")
    assert code == 1 and "the spread is larger" in out
    assert judge("a,0,.5\na,1,.5\nb,0,.4\nb,1,.4\n")[0] == 0        # neither draws
    assert judge("a,0,.5\na,1,.5\nb,0,.5\nb,1,.5\n")[0] == 1
    assert judge("a,0,.5\na,1,.6\nb,0,.4\nb,1,.5\n")[0] == 0        # apart by the same at every seed
    for rows, words, said in ((drawn + "rule,0,inf\n", [], "row 4, column f1: 'inf'; a number was wanted"),
                              (drawn + "rule,0,.5\n", ["--fixed", "rul"], "did you mean 'rule'"),
                              (drawn + "rule,0,.5\n", ["--fixed", "net"], "its runs differ")):
        code, out, err = judge(rows, *words)
        assert code == 2 and out == "" and err.count("\n") == 1 and said in err


@pytest.mark.parametrize("text,words,said", [
    ("score,label\n.5,1\ninf,0\n", [], "s.csv, row 2, column score: 'inf'; a number was wanted"),
    ("score,label\n.5,1\n.2,3\n", [], "s.csv, row 2, column label: '3'; 0 or 1 was wanted"),
    ("score,label\n.5,1\n.2,0\n", ["--seed", "-1"], "--seed"),
    ("score,label\n.5,1\n.2,0\n", ["--at", "nan"], "threshold nan; a number was wanted")])
def test_thresholds_that_cannot_be_judged_leave_one_line(audit, tmp_path, text, words, said):
    (tmp_path/"s.csv").write_text(text)
    code, out, err = audit("threshold", tmp_path/"s.csv", *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and said in err


# Invariance

@pytest.mark.parametrize("kind,preset,wrong", [("PairMLP", "as_published", {"swapped sides"}),
                                               ("SymmetricPairMLP", "quick", set())])
def test_the_published_pair_network_is_flagged_and_the_symmetric_one_is_not(kind, preset, wrong):
    from dataclasses import replace

    from matchbook.products import pair_mlp
    from matchbook.products.listings import read_pair_parts
    parts, _ = read_pair_parts("ozon-sample")
    kind = getattr(pair_mlp, kind)
    config = getattr(kind, preset)
    config = replace(config, training=replace(config.training, epochs=1))
    matcher = kind(config).fit(parts.train, parts.valid)
    changes = {"row order": change_order, "batch mates": change_mates, "swapped sides": change_sides}
    found = check_invariance(matcher.score, parts.test[np.arange(100)], changes, 1e-5)
    assert {one.where.split(", ")[1] for one in found.findings if one.wrong} == wrong


def test_the_published_lstm_is_flagged_by_its_padding_and_the_books_own_is_not(audit, tmp_path):
    from dataclasses import replace

    from matchbook.products.char_word_lstm import CharWordLSTM
    from matchbook.products.listings import read_listings, split_listings
    listings, _ = read_listings("shopee-sample")
    split = split_listings(listings)
    words = sorted({word for title in listings.title for word in title.lower().split()})[::2]
    rows = zip(words, np.random.default_rng(0).normal(size=(len(words), 8)).round(3))
    (tmp_path/"some.txt").write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in rows))
    for name, code in (("as_published", 1), ("best", 0)):
        preset = getattr(CharWordLSTM, name)
        config = replace(preset, vectors=str(tmp_path/"some.txt"), batch=64,
                         training=replace(preset.training, epochs=1, patience=None))
        CharWordLSTM(config).fit(listings[split.train[:200]], listings[split.valid]).save(tmp_path/name)
        left, out, _ = audit("invariance", tmp_path/name, "--data", "shopee-sample", "--rows", 150, "--json")
        wrong = [one["where"].split(", ")[1] for one in json.loads(out)["findings"] if one["wrong"]]
        assert (left, wrong) == (code, ["padding"]*code), (name, out)


def test_published_pair_fusion_is_flagged_by_its_top_and_the_books_own_is_not(audit, tmp_path):
    from dataclasses import replace

    from matchbook.clickbait.pair_fusion import PairFusion
    from matchbook.clickbait.videos import read_promise
    videos, _ = read_promise("videos-sample")
    train, valid = (videos[videos.part == part] for part in ("train", "valid"))
    short = replace(PairFusion.as_published.training, epochs=1)
    few = replace(PairFusion.best, hidden=16, training=replace(PairFusion.best.training, epochs=1))
    for name, config, code in (
            ("top", replace(PairFusion.as_published, pool="top-norm", training=short), 1),
            ("attention", replace(PairFusion.as_published, training=short), 0), ("best", few, 0)):
        PairFusion(config).fit(train, valid).save(tmp_path/name)
        left, out, _ = audit("invariance", tmp_path/name, "--data", "videos-sample", "--rows", 60, "--json")
        found = {one["where"].split(", ")[1]: one["wrong"] for one in json.loads(out)["findings"]}
        assert left == code and found.get("padding", False) == bool(code), (name, out)
        assert ("padding" in found) == (name != "best") and "ids" in found


def test_scores_that_hang_on_ids_are_flagged():
    from matchbook.clickbait.videos import read_promise
    videos, _ = read_promise("videos-sample")
    by_id = lambda some: np.array([hash(one) % 97 for one in some.id.tolist()], dtype=float)
    found, = check_invariance(by_id, videos, {"ids": change_ids}).findings
    assert found.wrong and found.where.endswith("ids")


def test_a_score_that_is_no_number_is_flagged():
    rows = np.ones((4, 2))
    calls = iter([np.zeros(4), np.array([0, np.nan, 0, 0])])
    assert check_invariance(lambda _: next(calls), rows, {"row order": change_order}).wrong


# The command

@pytest.fixture
def audit(call): return lambda *words: call("audit", *words)


def test_the_command_leaves_by_what_it_found(audit, tmp_path):
    good, bad = ("accuracy,precision,recall,f1\n0.80,0.75,0.75,0.75\n" + end
                 for end in ("", "0.80,0.75,0.75,0.80\n"))
    for text, code in ((good, 0), (bad, 1)):
        (tmp_path/"t.csv").write_text(text)
        left, out, err = audit("table", tmp_path/"t.csv", "--html", tmp_path/"t.html")
        assert left == code and "Traceback" not in err and "taken for granted" in err
        assert ("wrong</td>" in (tmp_path/"t.html").read_text()) == bool(code)
        left, out, _ = audit("table", tmp_path/"t.csv", "--json")
        assert left == code and json.loads(out)["wrong"] == bool(code)
    assert audit("table", tmp_path/"none.csv")[0] == 2
    assert audit("table", tmp_path/"t.csv", "--f1", "nothing")[0] == 2


@pytest.mark.parametrize("text,words,code,said", [
    ("model,accuracy,precision,recall,F1\na,0.80,0.75,,0.75\nb,,,,\n", [], 0, "5 empty cells could hold"),
    ("model,accuracy,F1\na,0.80,0.75\nb,79.1,70.2\n", [], 2, "row 2 is a percentage and row 1 a fraction"),
    ("model,accuracy,F1\na,80%,75%\nb,0.791,0.702\n", [], 0, "one test part"),
    ("Modell;Genauigkeit;Trefferquote\na;0,80;0,75\n", [], 2, "Modell, Genauigkeit, Trefferquote; name"),
    ("Modell;Genauigkeit;Trefferquote\na;0,80;0,75\n",
     ["--accuracy", "Genauigkeit", "--recall", "Trefferquote"], 0, "of the positive class"),
    ("Modell,Makro\na,0.8\n", ["--column", "macro_f1=Makro", "--column", "roc_auc=Makro"], 0, "all classes"),
    ("Modell,Makro\na,0.8\n", ["--column", "Makro"], 2, "figure=COLUMN was wanted"),
    ("Modell,Makro\na,0.8\n", ["--column", "makro_f1=Makro"], 2, "did you mean 'macro_f1'"),
    ("model,accuracy,F1\na,0.8\n", [], 2, "line 2: 2 fields, but the header has 3"), ("", [], 2, "is empty"),
    ("model,accuracy,F1\na,0.8,0.75\n", ["--share", ""], 2, "the share '': one such as 24.08% was wanted"),
    ("model,P,R,F1\na,.6,.7,.5\n", ["--average", "middle"], 2, "no average named 'middle'")])
def test_bad_tables_leave_one_line_or_an_assumption(audit, tmp_path, text, words, code, said):
    (tmp_path/"t.csv").write_text(text)
    left, out, err = audit("table", tmp_path/"t.csv", *words)
    assert left == code and said in err and "Traceback" not in err
    if code == 2: assert out == "" and err.count("\n") == 1


def test_parts_of_different_columns_leave_one_line_or_an_assumption(audit, tmp_path):
    texts = {"a": "title,group\nsun,1\n", "b": "title,views\nrain,7\n", "c": "id1,id2\n1,2\n"}
    for name, text in texts.items(): (tmp_path/f"{name}.csv").write_text(text)
    left, out, err = audit("leaks", tmp_path/"a.csv", tmp_path/"b.csv")
    assert left == 0 and "columns of one part alone are not looked at: group, views" in err
    left, out, err = audit("leaks", tmp_path/"a.csv", tmp_path/"c.csv")
    assert left == 2 and out == "" and err.count("\n") == 1
    assert "train has title, group and c.csv has id1, id2" in err
    left, _, err = audit("leaks", tmp_path/"a.csv", tmp_path/"b.csv", "--group", "group")
    assert left == 2 and "b.csv: no column named 'group'" in err


def test_thresholds_and_seeds_by_the_command(audit, tmp_path):
    rng = np.random.default_rng(7)
    label = (rng.random(500) < .4).astype(int)
    pd.DataFrame({"score": rng.normal(label, 1), "label": label}).to_csv(tmp_path/"s.csv", index=False)
    assert audit("threshold", tmp_path/"s.csv")[0] == 1
    assert audit("threshold", tmp_path/"s.csv", "--at", ".9")[0] == 0
    (tmp_path/"s.csv").write_text("score,label\n0.5,1\nhigh,0\n")
    code, out, err = audit("threshold", tmp_path/"s.csv")
    assert code == 2 and out == "" and "s.csv, row 2, column score: 'high'" in err
    runs = root/"data"/"results"/"runs"/"pairs"/"abt-buy"
    code, out, _ = audit("seeds", runs, "--figure", "f1", "--json")
    assert code in (0, 1) and len(json.loads(out)["findings"]) > 3
    assert "did you mean 'pr_auc'" in audit("seeds", runs, "--figure", "prauc")[2]


def test_a_saved_model_is_looked_at_by_the_command(audit, tmp_path):
    from dataclasses import replace

    from matchbook.products.listings import read_pair_parts
    from matchbook.products.pair_mlp import PairMLP, SymmetricPairMLP
    parts, _ = read_pair_parts("ozon-sample")
    for kind, preset, code in ((PairMLP, "as_published", 1), (SymmetricPairMLP, "best", 0)):
        config = getattr(kind, preset)
        config = replace(config, training=replace(config.training, epochs=1))
        kind(config).fit(parts.train, parts.valid).save(tmp_path/kind.__name__)
        left, out, _ = audit("invariance", tmp_path/kind.__name__, "--data", "ozon-sample", "--rows", 40,
                             "--json")
        found = {one["where"].split(", ")[1]: one["wrong"] for one in json.loads(out)["findings"]}
        assert left == code and found["swapped sides"] == bool(code) and not found["ids"]
    assert "holds no model.json" in audit("invariance", tmp_path, "--data", "ozon-sample")[2]
    path = tmp_path/"PairMLP"/"model.json"                       # as another version of the book wrote it
    saved = json.loads(path.read_text())
    for change in ({"config": saved["config"] | {"spin": .5}}, {"kind": "pair-mlp-2"}):
        path.write_text(json.dumps(saved | change))
        code, out, err = audit("invariance", tmp_path/"PairMLP", "--data", "ozon-sample")
        assert code == 2 and out == "" and len(err.strip().splitlines()) == 1 and "Traceback" not in err
        assert "spin" in err or "pair-mlp-2" in err


def test_a_page_shows_findings_and_nothing_else_runs():
    page = show_report(Report("<b>", (Finding("a&b", "<script>", True),), ("all",)))
    assert "&lt;script&gt;" in page and "<script" not in page and "http" not in page
    assert Printed(.1, .2, .01).move(2).low == pytest.approx(.12)


def test_held_out_edges_are_found_in_either_direction_and_short_ways_between_their_ends(audit, tmp_path):
    rng = np.random.default_rng(0)
    for case in range(40):
        n = int(rng.integers(4, 9))
        train, test = (pd.DataFrame(rng.integers(0, n, (int(rng.integers(1, 14)), 2)).astype(str),
                                    columns=["source", "target"]) for _ in range(2))
        known = {frozenset(edge) for edge in train.to_numpy().tolist()}
        nodes = {end for edge in known for end in edge}
        beside = {node: {other for edge in known if node in edge for other in edge - {node}}
                  for node in nodes}
        edges = [frozenset(edge) for edge in test.to_numpy().tolist()]
        wanted = {"repeated edge": sum(edge in known for edge in edges),
                  "common neighbour": sum(bool(set.intersection(*(beside.get(end, set()) for end in edge)))
                                          for edge in edges if len(edge) == 2 and edge not in known),
                  "unknown end": sum(not edge <= nodes for edge in edges)}
        found = {one.where.split(", ")[1]: one for one in check_leaks(train, test).findings}
        assert {name: one.figures["count"] for name, one in found.items()} == wanted, case
        assert [name for name, one in found.items() if one.wrong] == (
            ["repeated edge"] if wanted["repeated edge"] else [])
    pd.DataFrame({"a": ["1", "2"], "b": ["2", "3"]}).to_csv(tmp_path/"train.csv", index=False)
    pd.DataFrame({"a": ["2", "1"], "b": ["1", "3"]}).to_csv(tmp_path/"test.csv", index=False)
    code, out, _ = audit("leaks", tmp_path/"train.csv", tmp_path/"test.csv", "--edges", "--left", "a",
                        "--right", "b", "--json")
    assert code == 1 and [one["figures"]["count"] for one in json.loads(out)["findings"]] == [1, 1, 0]
    assert audit("leaks", tmp_path/"train.csv", tmp_path/"test.csv", "--edges")[0] == 2
