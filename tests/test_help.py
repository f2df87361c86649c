"""Every command, whoever added it: an example in its help, completion, JSON, wrong usage in one line.

A new command with `--json` needs a line in `asked`."""
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from matchbook import cli, datasets, runs


def walk(command, words=()):
    "All commands with their words, groups too."
    yield words, command
    for name, inner in getattr(command, "commands", {}).items(): yield from walk(inner, (*words, name))


whole = typer.main.get_command(cli.app)
commands = dict(walk(whole))
leaves = {words: command for words, command in commands.items() if not hasattr(command, "commands")}


def title(words): return " ".join(words) or "matchbook"


def find_example(command):
    "The words of the example in a command's help."
    return shlex.split((command.epilog or command.help or "").partition("Example: ")[2])


@pytest.mark.parametrize("words", commands, ids=title)
def test_help_has_an_example_that_is_the_command(call, words):
    code, out, err = call(*words, "--help")
    example = find_example(commands[words])
    assert code == 0 and not err and example[:1 + len(words)] == ["matchbook", *words]
    assert "Example: matchbook" in " ".join(out.split())


@pytest.mark.parametrize("words", commands, ids=title)
def test_the_example_is_understood(words):
    *_, (found, command) = ((some, one) for some, one in leaves.items()
                            if find_example(commands[words])[1:1 + len(some)] == list(some))
    command.make_context(title(found), find_example(commands[words])[1 + len(found):])


@pytest.mark.parametrize("words", leaves, ids=title)
def test_unknown_options_are_refused_in_one_line(call, words):
    code, out, err = call(*words, "--nonsense")
    assert code == 2 and out == ""
    assert len(err.splitlines()) == 1 and err.startswith("matchbook: ") and "--nonsense" in err


needy = [words for words, command in leaves.items() if any(one.required for one in command.params)]


@pytest.mark.parametrize("words", needy, ids=title)
def test_a_missing_word_is_named_in_one_line(call, words):
    code, out, err = call(*words)
    first = next(one for one in leaves[words].params if one.required)
    assert code == 2 and out == "" and len(err.splitlines()) == 1
    assert err.startswith("matchbook: Missing") and first.name in err.lower()


@pytest.mark.parametrize("group", [words for words in commands if words not in leaves], ids=title)
def test_words_are_completed(group):
    asked = {"_MATCHBOOK_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("matchbook", *group, "")),
             "COMP_CWORD": str(1 + len(group))}
    code = ("import os, sys; os.environ.update(dict(zip(sys.argv[1::2], sys.argv[2::2]))); del sys.argv[1:]\n"
            "from matchbook.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code, *(one for pair in asked.items() for one in pair)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(commands[group].commands)


table = "model,accuracy,precision,recall,f1\na,.9,.8,.7,.75\n"
asked = {"run": "duplicates --dataset shopee-sample --model self-only --out OUT", "tables": "", "data": "",
         "prepare": "shopee-sample", "reproduce": "--study duplicates --samples --out OUT",
         "audit table": "table.csv", "audit leaks": "texts.csv texts.csv --text title",
         "match": "catalogue.csv --out OUT", "search": "catalogue.csv shoes",
         "recommend": "papers-sample --text graphs",
         "audit threshold": "scores.csv",
         "audit seeds": "runs.csv --figure f1",
         "audit invariance": "model --data pairs-sample --rows 8"}


@pytest.mark.parametrize("words", [words for words, command in leaves.items()
                                   if any("--json" in one.opts for one in command.params)], ids=title)
def test_json_is_json_and_nothing_else(call, words, tmp_path, monkeypatch):
    for name, text in {"table.csv": table, "texts.csv": "title\nred shoes\n",
                       "scores.csv": "score,label\n" + ".1,0\n.9,1\n.4,0\n.6,1\n"*9,
                       "catalogue.csv": "title\nred shoes 42\nshoes red 42\nblue mug\nmug 300 ml\n",
                       "runs.csv": "model,seed,f1\na,0,.5\na,1,.6\nb,0,.4\nb,1,.5\n"}.items():
        (tmp_path/name).write_text(text)
    short = replace(runs.studies["duplicates"], models=("self-only", "exact-title"))
    monkeypatch.setitem(runs.studies, "duplicates", short)
    same = SimpleNamespace(score=lambda pairs: np.zeros(len(pairs), dtype=np.float32))
    monkeypatch.setattr("matchbook.bundles.open_model", lambda folder, reads=None: same)
    assert title(words) in asked, f"matchbook {title(words)} prints JSON: add a line to `asked`"
    more = asked[title(words)].replace("OUT", str(tmp_path/"out")).split()
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*words, *more, "--json")
    assert code in (0, 1) and "Traceback" not in err, err
    assert isinstance(json.loads(out), list | dict)


def test_prepare_says_what_it_could_not_fetch(call, monkeypatch, tmp_path):
    monkeypatch.delenv("MATCHBOOK_DATA", raising=False)
    monkeypatch.setenv("MATCHBOOK_CACHE", str(tmp_path))
    fetched = []
    def fetch(card, folder):
        fetched.append(card.name)
        if card.name == "beer": raise datasets.InputError("could not download")
        return folder/card.name
    monkeypatch.setattr(datasets, "download", fetch)
    code, out, err = call("prepare", "--json")
    rows = {row["name"]: row["found"] for row in json.loads(out)}
    assert list(rows) == fetched == [card.name for card in datasets.cards.values() if card.get == "download"]
    assert code == 1 and rows["beer"] == "could not download" and str(tmp_path) in rows["abt-buy"]
    assert "cores" in err


def test_tables_go_to_standard_output_in_a_notebook_too(call, monkeypatch):
    "In Jupyter rich would show them beside it, where nobody who reads the output finds them."
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    code, out, _ = call("data")
    assert code == 0 and "shopee-sample" in out
