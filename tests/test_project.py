"The repository itself: notebooks are the source, nothing is out of step, nothing private is in it."
import ast
import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

root = Path(__file__).parent.parent
notebooks = sorted((root/"nbs").rglob("*.ipynb"))
settings = configparser.ConfigParser(delimiters=["="])
settings.read(root/"settings.ini")
settings = settings["DEFAULT"]


def tracked():
    "Files of the project, without what is made."
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"],
                            capture_output=True, text=True)
    if listed.returncode: pytest.skip("not a git checkout")
    return [root/line for line in listed.stdout.splitlines() if (root/line).is_file()]


def cells(path): return json.loads(path.read_text())["cells"]


@pytest.mark.parametrize("path", notebooks, ids=lambda path: path.stem)
def test_notebooks_are_clean(path):
    for cell in cells(path):
        assert not cell.get("outputs") and cell.get("execution_count") is None and not cell["metadata"]


def test_exported_code_is_in_step(tmp_path):
    for name in ("nbs", "matchbook"): shutil.copytree(root/name, tmp_path/name)
    for name in ("pyproject.toml", "settings.ini"): shutil.copy(root/name, tmp_path)
    subprocess.run([sys.executable, "-c", "from nbdev.doclinks import nbdev_export; nbdev_export()"],
                   cwd=tmp_path, check=True)
    for path in sorted((tmp_path/"matchbook").rglob("*.py")):
        here = root/path.relative_to(tmp_path)
        assert path.read_text() == here.read_text(), f"{path.name}: run nbdev-export"


def test_one_notebook_one_module():
    modules = [found[1] for path in notebooks for cell in cells(path)
               if (found := re.search(r"#\| *default_exp +(\S+)", "".join(cell["source"])))]
    assert len(set(modules)) == len(modules)
    exported = {path.relative_to(root/"matchbook").with_suffix("").as_posix().replace("/", ".")
                for path in (root/"matchbook").rglob("*.py")
                if path.name not in ("__init__.py", "__main__.py", "_modidx.py")}
    assert exported == set(modules)


def test_every_chapter_opens_with_a_promise():
    for path in notebooks:
        lines = "".join(cells(path)[0]["source"]).splitlines()
        assert lines[0].startswith("# ") and lines[2].startswith("> "), path.name


# The first code cell of each chapter. The name `matchbook` alone is another project's in the package index.
colab = ('#| hide\nif "google.colab" in str(get_ipython()): get_ipython().system("pip install -q '
         f"'matchbook[offline,book] @ git+{settings['git_url']}' && matchbook prepare\")  # noqa: E501")


@pytest.mark.parametrize("path", [path for path in notebooks if path.name != "index.ipynb"],
                         ids=lambda path: path.stem)
def test_a_chapter_begins_with_the_line_for_colab(path):
    first, *others = ["".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "code"]
    assert first == colab, f"the first code cell of {path.name} has to be:\n{colab}"
    assert not any("google.colab" in cell for cell in others)


@pytest.mark.parametrize("shell,asked", [("<ipykernel.zmqshell.ZMQInteractiveShell object>", 0),
                                         ("<google.colab._shell.Shell object>", 1)])
def test_that_line_does_nothing_elsewhere(shell, asked):
    commands = []
    class Shell:
        def __str__(self): return shell
        def system(self, command): commands.append(command)
    exec(colab, {"get_ipython": Shell})
    assert len(commands) == asked
    for command in commands:
        words = shlex.split(command)
        assert words[:3] == ["pip", "install", "-q"] and words[-3:] == ["&&", "matchbook", "prepare"]
        wanted = Requirement(words[3])
        assert wanted.name == settings["lib_name"] and wanted.url == f"git+{settings['git_url']}"
        assert {f"{extra}_requirements" for extra in wanted.extras} <= set(settings)


def test_the_repository_address_stands_once():
    address = settings["git_url"].removeprefix("https://")
    for path in tracked():
        if path.name in ("settings.ini", "README.md"): continue
        if path.suffix in (".png", ".parquet", ".npz", ".npy"): continue
        text = path.read_text(errors="replace")
        if path.suffix == ".ipynb": text = text.replace(json.dumps(colab)[1:-1].split("\\n")[1], "")
        assert address not in text, path


def test_nothing_private_is_named():
    home = str(Path.home())
    for path in tracked():
        text = path.read_bytes()
        for word in (b"/root/", b"/home/", b"/tmp/", *([home.encode()] if len(home) > 6 else [])):
            if path.name in ("test_project.py", "test_site.py", "checks.py", "notebooks.py"): continue
            assert word not in text, (path, word)


def test_files_are_small():
    for path in tracked(): assert path.stat().st_size < 1_000_000, path


def test_requirements_are_pinned():
    pinned = {re.split(r"[=<>@ ]", line)[0].lower().replace("_", "-")
              for line in (root/"constraints.txt").read_text().splitlines() if not line.startswith("#")}
    for key, value in settings.items():
        if not key.endswith("requirements"): continue
        for line in value.split("\n"):
            name = re.split(r"[\[<>=;]", line.strip())[0].lower()
            assert not name or name in pinned, f"{name} of {key} is not in constraints.txt"


def test_commands_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z]+):", (root/"Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"^make (\w+)", (root/"README.md").read_text(), flags=re.M)) <= targets


def test_ci_runs_the_readme_command(): assert "\nmake test\n" in (root/".ci"/"run").read_text()


def test_data_cards_are_made_from_the_registry():
    from matchbook.datasets import cards_page
    assert (root/"data"/"README.md").read_text() == cards_page() + "\n"


# No figure is typed: what a reader takes for a measurement comes from a run file or from claims.yaml.

count = r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|fifty|hundred|thousand)"
figure = re.compile(r"(?<![\w.])(?:0?\.\d+\b|\d+\.\d+|\d+(?:\.\d+)?\s?(?:%|times\b|x\b)|\d+\s+of\s+\d+\b"
                    rf"|{count}(?:\s+per\s?cent|\s+times\s+(?:\w+er|as|more|less))\b)", flags=re.I)
structural = re.compile(r"95\s?%|row 0\.\d+|Python \d\.\d+")   # a level, a row of the list of flaws
known = {   # Chapter → figures that are by hand, by arithmetic, or a setting
    "15_neighbours": ("1.6", ".9"),                # GB of a table of all pairs: rows² · 4 bytes; a threshold
    "16_measures": (".9", ".6", ".8"),             # three rows by hand; an example
    "19_evidence": (".8315", ".8325", "40 of 100"),   # what 83.2 % can stand for; a matrix by hand
    "21_pair_fusion": (".6", ".3", ".5"),          # elements by hand; a setting
    "22_headlines": (".8",),                       # the cosine of near duplicates, a setting
    "25_promise": (".8", ".045"),                  # Hanley and McNeil's formula for the original's test part
    "31_pair_mlp": (".5", ".8"),                   # the original's threshold; an example
    "32_char_word_lstm": ("1.2",),                 # million rows of the file of word vectors
    "35_match_sets": ("five times as",),           # a catalogue of which a fifth is tested
    "37_pairs": (".05",),                          # the step of a weight
    "38_pair_judge": (".5", ".55"),                # an example
    "41_heco": ("20 of 5",),                       # papers with labels, by hand
    "52_products": (".8", ".5"),                   # the original's threshold; a setting of the join
    "58_what_the_originals_got_wrong": (".8", ".25")}   # thresholds that the original sets by hand


def strip_sources(text):
    "Markdown without what is no prose: code, formulas, addresses, tables that a test fills again."
    for kept in (r"```.*?```", r"<!-- (?:table|claims|headline).*?<!-- end of table -->", r"`[^`]*`",
                 r"\$\$.*?\$\$", r"\$[^$]*\$", r"(?<=\])\([^)]*\)", r"https?://\S+", r"\{[^{}]*\}"):
        text = re.sub(kept, " ", text, flags=re.S)
    return structural.sub(" ", text)


def typed_figures(cell, is_result):
    "Figures in a cell's prose, or in the texts of a cell that prints for the reader."
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown": return [one[0] for one in figure.finditer(strip_sources(source))]
    if not (is_result or "echo: false" in source): return []
    tree, found = ast.parse(re.sub(r"^[!%].*$", "", source, flags=re.M)), []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant): continue
        if isinstance(node.value, str):
            if re.fullmatch(r"[\w.+-]*\w=\S*|0?\.\d+|[+,]*\.\d[fge%]", node.value): continue   # no prose
            found += [one[0] for one in figure.finditer(strip_sources(node.value))]
        elif is_result and isinstance(node.value, float) and re.search(r"\.\d{3,}", repr(node.value)):
            found.append(repr(node.value))                                     # as results are printed
    return found


@pytest.mark.parametrize("path", notebooks, ids=lambda path: path.stem)
def test_no_figure_is_typed(path):
    found = {}
    for number, cell in enumerate(cells(path)):
        for one in typed_figures(cell, path.parent.name == "5_results"):
            if one not in known.get(path.stem, ()): found.setdefault(number, []).append(one)
    assert not found, f"{path.name}: cell → figures that no run file or claim stands behind: {found}"


@pytest.mark.parametrize(("kind", "source"), [
    ("markdown", "It reaches 0.813."), ("markdown", "F1 rises by .02 or so."),
    ("markdown", "That is 12 % better"),
    ("markdown", "some 4.5 times faster"), ("markdown", "some ten times slower"),
    ("markdown", "twelve per cent"), ("markdown", "an F1 of .8"), ("markdown", "in 7 of 9 seeds"),
    ("code", "#| echo: false\nMarkdown('F1 = 0.813')"), ("code", "#| echo: false\nMarkdown('all of 83.2%')"),
    ("code", "#| echo: false\nMarkdown(f'it is {x:.2f}, not .75')"), ("code", "x = .8345"),
    ("code", "pd.DataFrame({'f1': [.813, .8]})")])
def test_a_typed_figure_is_found(kind, source):
    assert typed_figures({"cell_type": kind, "source": [source]}, True)


@pytest.mark.parametrize(("kind", "source"), [
    ("markdown", "`x = .813` and $p = .813$ and [a](b-0.813.html)"), ("markdown", "a 95 % interval, 3 rows"),
    ("code", "#| echo: false\nax.plot(x, color='0.75', linewidth=.5)"),
    ("code", "#| echo: false\nfind(f'best+lr=0.004+{x:.1%}')"),
    ("code", "#| echo: false\nMarkdown(f'{mean:.3f} of {n:,}')")])
def test_what_is_no_figure_is_let_be(kind, source):
    assert not typed_figures({"cell_type": kind, "source": [source]}, True)
