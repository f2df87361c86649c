"""What Colab would do: the wheel alone in a fresh environment, the chapters in a folder of their own.

    python tests/colab.py                                every chapter, oldest and newest transformers allowed
    python tests/colab.py --transformers 5.0 24_lora     one of the two, some chapters

Nothing of the repository is within reach: no checkout around the notebooks, no data, no run file. Takes most
of an hour; a quick share of it is in test_packaging.py.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parent.parent
skipped = re.compile(r"^#\|\s*(slow|cuda|eval: *false)\b", re.M)   # cells that are not run, as in the book


def call(*words, **more):
    "Run a command and stop with its own words when it fails."
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def build_wheel(
    folder:Path,  # Where it goes
)->Path:          # The wheel
    "The package as it is released."
    call(sys.executable, "-m", "build", "--no-isolation", "-o", folder, root)
    return next(folder.glob("*.whl"))


def oldest_allowed(
    name:str,   # A requirement of settings.ini
)->str:         # Its lower bound
    "The oldest version that settings.ini allows."
    settings = ConfigParser(delimiters=["="])
    settings.read(root/"settings.ini", encoding="utf-8")
    return re.search(rf"^{name}>=(\S+)$", settings["DEFAULT"]["requirements"], re.M)[1]


def make_environment(
    folder:Path,        # Of the environment, made here
    wheel:Path,         # The package
    transformers:str,   # A version, or `newest`
)->Path:                # Its folder of programs
    "A fresh environment with the wheel and what it asks for, and what a notebook server needs."
    call(sys.executable, "-m", "venv", folder)
    pip = [folder/"bin"/"python", "-m", "pip", "install", "-q"]
    call(*pip, re.search(r"^torch==\S+$", (root/"constraints.txt").read_text(), re.M)[0])
    wanted = "transformers" if transformers == "newest" else f"transformers=={transformers}"
    call(*pip, f"matchbook[offline,book] @ {wheel.as_uri()}", wanted, "nbclient", "ipykernel")
    return folder/"bin"


def copy_chapter(
    source:Path,   # A notebook of the book
    folder:Path,   # Where the copy goes
)->Path:           # The copy
    "A chapter without the cells that need minutes or a GPU."
    notebook = json.loads(source.read_text(encoding="utf-8"))
    notebook["cells"] = [cell for cell in notebook["cells"] if not skipped.search("".join(cell["source"]))]
    copy = folder/source.name
    copy.write_text(json.dumps(notebook), encoding="utf-8")
    return copy


def run_chapter(
    programs:Path,  # Of the environment
    copy:Path,      # The notebook
    cache:Path,     # For samples and vectors
)->str:             # What went wrong, the last line; empty when all is well
    "Run a notebook from top to bottom in its folder."
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("MATCHBOOK", "PYTHON", "VIRTUAL"))}
    more = {"MATCHBOOK_CACHE": str(cache), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([programs/"jupyter", "execute", copy.name], cwd=copy.parent, env=clean | more,
                          capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else re.sub(r"\x1b\[[0-9;]*m", "", lines[-1] if lines else "died")


def main():
    "Read the command line, run, print one line a chapter; exit code 1 when one failed."
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("chapters", nargs="*", help="such as 24_lora; all when left out")
    parser.add_argument("--transformers", action="append", help="a version or newest; may be repeated")
    options, failed = parser.parse_args(), 0
    notebooks = sorted((root/"nbs").rglob("*.ipynb"))
    if unknown := set(options.chapters) - {path.stem for path in notebooks}:
        parser.error(f"no chapter {', '.join(sorted(unknown))}")
    for version in options.transformers or [oldest_allowed("transformers"), "newest"]:
        with tempfile.TemporaryDirectory() as folder:
            folder, started = Path(folder), time.time()
            programs = make_environment(folder/"environment", build_wheel(folder), version)
            found = call(programs/"python", "-m", "pip", "freeze")
            found = re.findall(r"^(?:transformers|torch|numpy|pandas)==\S+|^torch @ \S+", found, re.M)
            print(f"{' '.join(found)}; set up in {time.time() - started:.0f} s", flush=True)
            content = folder/"content"
            content.mkdir()
            for path in notebooks:
                if options.chapters and path.stem not in options.chapters: continue
                started = time.time()
                trouble = run_chapter(programs, copy_chapter(path, content), folder/"cache")
                failed += bool(trouble)
                word = "FAILED" if trouble else "ran"
                print(f"{word:6} {path.stem:32} {time.time() - started:5.1f} s {trouble}", flush=True)
    return int(failed > 0)


if __name__ == "__main__": sys.exit(main())
