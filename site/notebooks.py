"""Runs the notebooks of the book: every one once, in place in a copy, each in a process of its own."""
import base64
import io
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import tomllib
from configparser import ConfigParser
from multiprocessing.connection import wait
from pathlib import Path

root = Path(__file__).resolve().parent.parent   # The project
ansi = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class SiteError(Exception):
    "The site cannot be made; the message lists why, a line each."


def say(text): print(text, file=sys.stderr, flush=True)


def read_settings(
    folder:Path = root,  # The project
)->dict:                 # settings.ini as a dictionary
    "What the project is: its repository, branch and address."
    parser = ConfigParser(delimiters=["="])
    parser.read(folder/"settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])


def read_skip_flags(
    folder:Path = root,  # The project
)->list[str]:            # Such as `slow` and `cuda`
    "Directives of the cells that are not run, from `[tool.nbdev] tst_flags`."
    return tomllib.loads((folder/"pyproject.toml").read_text("utf-8"))["tool"]["nbdev"]["tst_flags"].split()


def read_notebook(path): return json.loads(Path(path).read_text("utf-8"))


def write_notebook(notebook, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


def join_lines(text): return "".join(text) if isinstance(text, list) else text


def list_notebooks(
    folder:Path, # A folder of notebooks
)->list[str]:    # Their paths in it, with `/`, sorted
    "The notebooks of a folder, without checkpoints and files whose name starts with `_` or `.`."
    paths = (p.relative_to(folder) for p in folder.rglob("*.ipynb"))
    return sorted(p.as_posix() for p in paths if not any(part[0] in "._" for part in p.parts))



def stage(
    build:Path,         # The build folder
    fresh:bool,         # Copy all notebooks without outputs, also those run before?
    folder:Path = root, # The project
)->list[str]:           # Notebooks whose copy has no outputs of a run
    "Copy the notebooks to where they are run, and link everything they may read beside them."
    build.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.name[0] in "._" or entry.name in ("nbs", "build", "dist", "site"): continue
        link = build/entry.name
        if link.is_symlink() or link.is_file(): link.unlink()
        if not link.exists(): link.symlink_to(entry, target_is_directory=entry.is_dir())
    copies, unrun, passed = build/"nbs", [], read_seconds(build)
    for name in set(list_notebooks(copies)) - set(list_notebooks(folder/"nbs")): (copies/name).unlink()
    for name in list_notebooks(folder/"nbs"):
        source, copy = folder/"nbs"/name, copies/name
        same = copy.exists() and list_sources(source) == list_sources(copy)
        if same and name in passed and not fresh: continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        unrun.append(name)
    for path in (folder/"nbs").rglob("*"):
        if path.is_file() and path.suffix != ".ipynb" and path.name[0] not in "._":
            copy = copies/path.relative_to(folder/"nbs")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return unrun


def read_seconds(
    build:Path,      # The build folder
)->dict[str, float]: # Seconds by notebook
    "How long the notebooks took that passed when they were last run."
    record = build/"seconds.json"
    return json.loads(record.read_text("utf-8")) if record.exists() else {}


def list_sources(path):
    return [(c["cell_type"], join_lines(c["source"])) for c in read_notebook(path)["cells"]]


def run_one(
    path:str,        # The notebook, run in place
    flags:list[str], # Directives of cells to skip
    project:str,     # Put first on the path of imports
    answer,          # Connection that gets (passed, seconds, what went wrong)
):
    "Run one notebook with nbdev's runner, in a process of its own."
    from nbdev.config import get_config
    from nbdev.test import test_nb
    sys.__stderr__ = errors = io.StringIO()   # where nbdev writes the traceback
    limit = get_config(Path(path).parent).cell_timeout
    try: passed, seconds = test_nb(path, skip_flags=flags, basepath=project, save=True, cell_timeout=limit)
    except Exception as error: passed, seconds = False, 0; errors.write(f"{type(error).__name__}: {error}")
    answer.send((passed, seconds, ansi.sub("", errors.getvalue()).strip()))


def run_notebooks(
    build:Path,         # The build folder, staged
    workers:int = 2,    # Notebooks run at the same time
    folder:Path = root, # The project
)->dict[str, str]:      # What went wrong, by notebook; empty when all is well
    "Run every staged notebook once, in place, each in a new process."
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    context = multiprocessing.get_context("forkserver")
    # what most notebooks import is imported once, in the process that the others are forked from
    context.set_forkserver_preload(["nbdev.test", "pandas", "matplotlib.pyplot", "sklearn", "torch"])
    flags, before = read_skip_flags(folder), read_seconds(build)
    queue = sorted(list_notebooks(build/"nbs"), key=lambda name: -before.get(name, 1e9))   # longest first
    running, failures, times = {}, {}, {}
    while queue or running:
        while queue and len(running) < workers:
            name = queue.pop(0)
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=run_one, args=(str(build/"nbs"/name), flags, str(folder), there))
            process.start()
            there.close()
            running[here] = name, process
        for here in wait(list(running)):
            name, process = running.pop(here)
            try: passed, seconds, trouble = here.recv()
            except EOFError: passed, seconds, trouble = False, 0, None
            process.join()
            if trouble is None: trouble = f"its process died with exit code {process.exitcode}"
            if passed:
                trouble = "\n".join(tidy_outputs(build/"nbs"/name, flags, build, folder))
                passed = not trouble
            if passed: times[name] = seconds
            else: failures[name] = trouble.replace(str(build/"nbs"), "nbs")
            say(f"{'ran' if passed else 'FAILED'} nbs/{name} in {seconds:.1f} s")
    (build/"seconds.json").write_text(json.dumps(times, indent=1), "utf-8")
    return failures


def shrink_picture(
    data:str,  # A PNG in base64, as an output holds it
)->str:        # The same, with at most 256 colours; as it was where that is not smaller
    "What a chart needs of its picture: a palette instead of four bytes a pixel."
    from PIL import Image
    picture, file = Image.open(io.BytesIO(base64.b64decode(data))), io.BytesIO()
    if picture.mode == "RGBA" and picture.getextrema()[3] != (255, 255): return data   # seen through
    few = picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True, dpi=picture.info.get("dpi"))
    return min(base64.b64encode(file.getvalue()).decode(), data, key=len)


def tidy_outputs(
    path:Path,          # A notebook that has been run
    flags:list[str],    # Directives of cells that were skipped
    build:Path,         # The build folder
    folder:Path = root, # The project
)->list[str]:           # What must not be on a page, a line each
    "Drop what went to stderr, shrink pictures, mark cells that were not run, look for what no page may show."
    notebook, trouble = read_notebook(path), []
    private = [re.escape(str(place)) for place in (Path.home(), folder, build) if len(str(place)) > 4]
    private += [re.escape(tempfile.gettempdir() + os.sep), r"/home/\w", r"/Users/\w"]
    unwanted = {re.compile("|".join(private)): "a path of this machine",
                re.compile(r" at 0x[0-9a-f]{6,}"): "an address in memory"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code": continue
        cell["outputs"] = [o for o in cell["outputs"] if o.get("name") != "stderr"]
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data: data["image/png"] = shrink_picture(join_lines(data["image/png"]))
            shown = [v for kind, v in output.get("data", {}).items() if kind.startswith("text/")]
            text = "\n".join(map(join_lines, [output.get("text", ""), *shown]))
            for pattern, what in unwanted.items():
                if found := pattern.search(text):
                    line = text[max(0, found.start() - 40):found.end() + 40].strip().replace("\n", " ")
                    trouble.append(f"cell {number} ({cell.get('id', 'no id')}) prints {what}: … {line} …")
        skipped = [f for f in flags if re.search(rf"^#\|\s*{f}\b", join_lines(cell["source"]), re.M)]
        if skipped and not cell["outputs"]:
            reason = {"slow": "it takes minutes", "cuda": "it needs a GPU"}.get(skipped[0], skipped[0])
            cell["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": {
                "text/html": f'<p class="not-run">Not run for this page: {reason}.</p>'}}]
    write_notebook(notebook, path)
    return trouble


