"""Makes the book's site: runs every notebook once, turns them into pages, finishes the pages and checks them.

    python site/build.py              run, render, check; the site is in _site
    python site/build.py --run-only   run the notebooks: this is their test
    python site/build.py --no-run     render what was run last

The working copies are in build/book: `nbs` (as run, with outputs), `pages` (prepared), `_proc` (processed).
`quarto render build/book/_proc` renders the same pages with Quarto.
"""
import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from checks import check_site
from finish import finish_site
from notebooks import SiteError, list_notebooks, read_settings, root, run_notebooks, say, stage
from pages import prepare_pages, process_pages, render_pages


def build_site(
    out:Path = root/"_site",  # Where the site is put
    build:Path = root/"build"/"book", # Working copies
    run:bool = True,          # Run the notebooks? Else render what was run last
    render:bool = True,       # Render them? Else only run them
    workers:int = 2,          # Notebooks run at the same time
    folder:Path = root,       # The project
)->Path:                      # The site
    "Run, prepare, process, render, finish, check; the site is replaced only when all is well."
    settings, started = read_settings(folder), time.time()
    if not list_notebooks(folder/"nbs"): raise SiteError(f"no notebooks in {folder/'nbs'}")
    unrun = stage(build, fresh=run, folder=folder)
    if run:
        if failures := run_notebooks(build, workers, folder):
            raise SiteError("\n".join(f"\nnbs/{name}\n{text}" for name, text in sorted(failures.items()))
                            + f"\n\n{len(failures)} of {len(list_notebooks(build/'nbs'))} notebooks failed: "
                            + ", ".join(f"nbs/{name}" for name in sorted(failures)))
        say(f"{len(list_notebooks(build/'nbs'))} notebooks ran in {time.time() - started:.0f} s")
    elif unrun: say("changed since the last run, shown without outputs: " + ", ".join(unrun))
    if not render: return out
    started = time.time()
    chapters = prepare_pages(build, settings, folder)
    process_pages(build, chapters, settings, folder)
    site = render_pages(build)
    finish_site(site, chapters, settings)
    if trouble := check_site(site, folder):
        raise SiteError("\n".join([*trouble, f"faults of the site: {len(trouble)}"]))
    if out.exists(): shutil.rmtree(out)
    shutil.copytree(site, out)
    say(f"{len(chapters)} pages in {time.time() - started:.0f} s: {os.path.relpath(out/'index.html')}")
    return out


def main(
    args:list[str] | None = None, # Command line; the process's own by default
)->int:                           # 0, or 1 if a notebook or the site failed
    "Read the command line and build."
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run-only", action="store_true", help="run the notebooks and stop")
    which.add_argument("--no-run", action="store_true", help="render what was run last")
    parser.add_argument("--out", type=Path, default=root/"_site", help="where the site is put (_site)")
    parser.add_argument("--workers", type=int, default=2, help="notebooks run at the same time (2)")
    options = parser.parse_args(args)
    run, render = not options.no_run, not options.run_only
    try: build_site(out=options.out.resolve(), run=run, render=render, workers=options.workers)
    except SiteError as error:
        say(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
