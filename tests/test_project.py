"The repository itself: notebooks are the source, nothing is out of step, nothing private is in it."
import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
                if path.name not in ("__init__.py", "_modidx.py")}
    assert exported == set(modules)


def test_every_chapter_opens_with_a_promise():
    for path in notebooks:
        lines = "".join(cells(path)[0]["source"]).splitlines()
        assert lines[0].startswith("# ") and lines[2].startswith("> "), path.name


def test_the_repository_address_stands_once():
    address = settings["git_url"].removeprefix("https://")
    for path in tracked():
        if path.name in ("settings.ini", "README.md"): continue
        if path.suffix in (".png", ".parquet", ".npz", ".npy"): continue
        assert address not in path.read_text(errors="replace"), path


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
