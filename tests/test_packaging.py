"""The wheel and the sdist: whole, with nothing else in them, and good without the tools of developers.

The long form, in fresh environments and with the chapters, is `make colab`."""
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser

import pytest
from colab import copy_chapter, oldest_allowed
from packaging.requirements import Requirement
from test_project import notebooks, root, settings

import matchbook

develop = {"nbdev", "fastcore", "IPython", "matplotlib", "pytest", "hypothesis", "selenium", "smalldocs",
           "latex2mathml", "peft", "bitsandbytes", "ray", "qdrant_client"}   # no part of the requirements


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The sdist, and the wheel made from it."
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run([sys.executable, "-m", "build", "--no-isolation", "-o", str(folder), str(root)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    "The wheel as pip would lay it down."
    folder = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(built[1]).extractall(folder)
    return folder


def run_python(code, installed, place, *words):
    "Run code that sees the wheel and not the checkout, in a folder without results."
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MATCHBOOK")}
    clean |= {"PYTHONPATH": str(installed), "MATCHBOOK_CACHE": str(place/"cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, *words], cwd=place, env=clean, capture_output=True,
                          text=True)


command = "import sys; from matchbook.cli import main; main(sys.argv[1:])"


def below(folder, pattern): return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


def test_the_wheel_holds_all_of_the_package_and_every_run_file(built):
    held = {name for name in zipfile.ZipFile(built[1]).namelist() if ".dist-info/" not in name}
    code = {f"matchbook/{name}" for name in below(root/"matchbook", "*.*") if "__pycache__" not in name}
    results = {f"matchbook/results/{path.relative_to(root/'data'/'results').as_posix()}"
               for path in (root/"data"/"results").rglob("*") if path.is_file()}
    assert held == code | results
    assert built[1].stat().st_size < 10e6


def test_the_sdist_can_be_built_and_tested(built):
    held = {name.partition("/")[2] for name in tarfile.open(built[0]).getnames()}
    wanted = {"settings.ini", "pyproject.toml", "setup.py", "constraints.txt", "README.md", "CHANGELOG.md",
              "LICENSE", "_quarto.yml", "Makefile", "data/README.md", "data/results/claims.yaml",
              "tests/colab.py"}
    wanted |= {path.relative_to(root).as_posix() for path in notebooks}
    wanted |= {f"{name}/{file}" for name in ("data/samples", "tests", "site")
               for file in below(root/name, "*.[a-z]*") if "__pycache__" not in file}
    assert wanted <= held
    assert not [name for name in held if "__pycache__" in name or name.endswith(".pyc")]


def test_the_metadata_says_what_the_package_is(built):
    text = next(zipfile.ZipFile(built[1]).read(name).decode() for name in zipfile.ZipFile(built[1]).namelist()
                if name.endswith("/METADATA"))
    said = HeaderParser().parsestr(text)
    assert said["Version"] == matchbook.__version__ and said["Summary"] == settings["description"]
    assert said["License-Expression"] == settings["license"] and said["License-File"] == "LICENSE"
    assert said["Requires-Python"] == f">={settings['min_python']}"
    assert "Programming Language :: Python :: 3.11" in said.get_all("Classifier")
    links = dict(line.split(", ") for line in said.get_all("Project-URL"))
    assert {"Documentation", "Source", "Changelog", "Issues"} <= set(links)
    assert {f"{extra}_requirements" for extra in said.get_all("Provides-Extra")} == {
        key for key in settings if key.endswith("_requirements")}
    free = {Requirement(line).name for line in said.get_all("Requires-Dist") if "extra ==" not in line}
    assert free == {re.split(r"[\[<>=;]", line)[0] for line in settings["requirements"].split()}
    assert not re.search(r"\]\((?!https?://)", said.get_payload()), "a link that leads nowhere in the index"


def test_every_module_imports_without_the_tools_of_developers(installed, tmp_path):
    code = f"""
import importlib, pathlib, sys
sys.modules.update(dict.fromkeys({develop!r}))       # as if they were not there
import matchbook
folder = pathlib.Path(matchbook.__file__).parent
assert folder == pathlib.Path(sys.argv[1])/"matchbook", folder
for path in folder.rglob("*.py"):
    importlib.import_module(".".join(path.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"))
"""
    done = run_python(code, installed, tmp_path, str(installed))
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_command_works_away_from_the_checkout(installed, tmp_path):
    done = run_python(command, installed, tmp_path, "--version")
    assert (done.returncode, done.stdout.strip()) == (0, matchbook.__version__), done.stderr
    tables = run_python(command, installed, tmp_path, "tables", "--study", "papers")
    assert tables.returncode == 0 and "papers on heco-acm" in tables.stdout
    assert not list(tmp_path.rglob("*.json"))


def test_a_run_away_from_the_checkout_is_written_where_one_is(installed, tmp_path):
    before = below(installed, "*")
    done = run_python(command, installed, tmp_path, "run", "duplicates", "--dataset", "shopee-sample",
                      "--model", "self-only")
    assert done.returncode == 0, done.stderr
    assert below(tmp_path/"data"/"results", "*.json") == {
        "runs/duplicates/shopee-sample/self-only-best-seed0.json"}
    assert {name for name in below(installed, "*") - before if "__pycache__" not in name} == set()
    tables = run_python(command, installed, tmp_path, "tables")
    assert "self-only" in tables.stdout and "heco" not in tables.stdout       # now one's own


def test_chapters_are_copied_without_cells_that_take_long(tmp_path):
    for path in notebooks:
        text = copy_chapter(path, tmp_path).read_text()
        assert not re.search(r'"#\|\s*(slow|cuda)\b', text), path.name
    assert oldest_allowed("transformers") == "5.0"
