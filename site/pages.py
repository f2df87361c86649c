"""Turns notebooks that have been run into pages: prepared here, processed by nbdev, rendered by smalldocs."""
import ast
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote

from notebooks import SiteError, ansi, join_lines, list_notebooks, read_notebook, root, write_notebook


@dataclass
class Chapter:
    "One page of the book."
    source:str        # The notebook, such as `1_foundations/10_datasets.ipynb`
    page:str          # The page, such as `1_foundations/datasets.html`, as nbdev's links spell it
    module:str = ""   # What it exports, such as `datasets`
    sizes:dict = field(default_factory=dict) # (width, height) of its pictures, by `name_picture`


def name_page(
    source:str, # A notebook's path
)->str:         # Its page, with `/`
    "Name of a notebook's page, as nbdev's links spell it: the number is dropped, the folder stays."
    head, _, name = source.rpartition("/")
    name = re.sub(r"^\d+[a-zA-Z0-9]*_", "", name.lower()).replace(".ipynb", ".html")
    return f"{head}/{name}" if head else name


def prepare_pages(
    build:Path,         # The build folder, run
    settings:dict,      # settings.ini
    folder:Path = root, # The project
)->list[Chapter]:       # The pages
    "Copy the run notebooks to `pages`, in the form nbdev and smalldocs expect."
    pages = build/"pages"
    if pages.exists(): shutil.rmtree(pages)
    chapters = [Chapter(name, name_page(name)) for name in list_notebooks(build/"nbs")]
    names = [c.page for c in chapters]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise SiteError(f"two notebooks make one page: {', '.join(twice)}")
    for path in (build/"nbs").rglob("*"):
        if path.is_file() and path.suffix != ".ipynb":
            copy = pages/path.relative_to(build/"nbs")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    for chapter in chapters:
        notebook = read_notebook(build/"nbs"/chapter.source)
        number = re.match(r"\d+", Path(chapter.source).name)
        prepare_cells(notebook, chapter, settings, folder)
        front = [f"order: {int(number[0])}"] if number else []
        sources = [c["source"] for c in notebook["cells"] if c["cell_type"] == "code"]
        if not any(re.search(r"^(show_doc\(|#\|\s*exec_doc)", s, re.M) for s in sources):
            front.append("skip_showdoc: true")   # nothing is run again: the names and lines are in the code
        if front: notebook["cells"].insert(0, make_cell("raw", "\n".join(["---", *front, "---"])))
        write_notebook(notebook, pages/chapter.page.replace(".html", ".ipynb"))
    return chapters


def make_cell(kind, source): return {"cell_type": kind, "metadata": {}, "source": source}


def prepare_cells(
    notebook:dict,      # Changed in place
    chapter:Chapter,    # Its page; `module` is filled in
    settings:dict,      # settings.ini
    folder:Path = root, # The project
):
    "Split the opening cell, show exported code, give every picture a text, and point links at pages."
    cells, heading = [], ""
    for cell in notebook["cells"]:
        source = cell["source"] = join_lines(cell["source"])
        if cell["cell_type"] == "markdown":
            source = cell["source"] = fill_settings(source, settings)
            if not cells: cells += split_opening(cell)   # nbdev drops what follows the promise in this cell
            else: cells.append(cell)
            for last in cells[-2:]: last["source"] = point_links(last["source"], chapter, settings, folder)
            heading = (re.findall(r"^#+\s+(.+?)\s*$", source, re.M) or [heading])[-1]
            continue
        cells.append(cell)
        if cell["cell_type"] != "code": continue
        if found := re.search(r"^#\|\s*default_exp\s+(\S+)", source, re.M): chapter.module = found[1]
        cell["source"] = re.sub(r"^(#\|\s*)export(\s*)$", r"\1exports\2", source, flags=re.M)
        for output in cell["outputs"]:
            if text := join_lines(output.get("data", {}).get("text/markdown", "")):
                text = point_links(fill_settings(text, settings), chapter, settings, folder)
                output["data"]["text/markdown"] = text
        for output in cell["outputs"]:
            for kind, size in output.get("metadata", {}).items():
                if isinstance(size, dict) and "width" in size and kind in output["data"]:
                    picture = name_picture(join_lines(output["data"][kind]))
                    chapter.sizes[picture] = size["width"], size["height"]
        if is_mixed(cell["source"]): cell["source"] = f"#| eval: false\n{cell['source']}"
        pictured = any(k.startswith("image/") for o in cell["outputs"] for k in o.get("data", {}))
        if pictured and not re.search(r"^#\|\s*fig-alt:", source, re.M):
            caption = re.search(r"^#\|\s*fig-cap:\s*(.+)$", source, re.M)
            text = caption[1].strip().strip("\"'") if caption else f"Picture: {re.sub('[`*$]', '', heading)}"
            cell["source"] = f"#| fig-alt: {json.dumps(text, ensure_ascii=False)}\n{cell['source']}"
    notebook["cells"] = cells


def fill_settings(
    text:str,      # Markdown
    settings:dict, # settings.ini
)->str:            # `{{git_url}}` and its like replaced
    "What stands in settings.ini is not written again in a notebook: `{{name}}` is replaced by it."
    return re.sub(r"\{\{(\w+)\}\}", lambda m: settings.get(m[1], m[0]), text)


def name_picture(data): return data.strip()[-80:]


def is_mixed(
    source:str, # A code cell
)->bool:        # Has it imports beside other code, and no export?
    "nbdev runs cells with imports again when it documents exports; it needs only exports and pure imports."
    if re.search(r"^#\|\s*(export|eval)", source, re.M): return False
    nodes = [n for top in parse_code(source) for n in ast.walk(top)]
    return any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in nodes) and not is_all_imports(source)


def split_opening(
    cell:dict,    # The first markdown cell
)->list[dict]:    # The title and the promise, then what follows them, if anything
    "Give the title and the promise a cell of their own; the promise on one line."
    found = re.match(r"\s*(# [^\n]+)\n+((?:>[^\n]*(?:\n|$))*)", cell["source"] + "\n")
    if not found: return [cell]
    promise = " ".join(line.lstrip("> ").strip() for line in found[2].splitlines())
    opening = found[1] + (f"\n\n> {promise}" if promise else "")
    rest = (cell["source"] + "\n")[found.end():].strip()
    return [{**cell, "source": opening}] + ([make_cell("markdown", rest)] if rest else [])


def point_links(
    text:str,           # Markdown
    chapter:Chapter,    # The page it stands on
    settings:dict,      # settings.ini
    folder:Path = root, # The project
)->str:                 # The same, with links to pages for notebooks and to the repository for other files
    "Links as they stand in a notebook, turned into links of the site."
    def point(found):
        target, hash_, anchor = found[1].partition("#")
        if not target or re.match(r"[a-z]+:|/", target): return found[0]
        path = posixpath.normpath(posixpath.join("nbs", posixpath.dirname(chapter.source), unquote(target)))
        if path.startswith("nbs/") and path.endswith(".ipynb"):
            page = name_page(path.removeprefix("nbs/")).replace(".html", ".ipynb")
            return f"]({posixpath.relpath(page, posixpath.dirname(chapter.page) or '.')}{hash_}{anchor})"
        if path.startswith("nbs/") or not (folder/path).exists(): return found[0]
        kind = "tree" if (folder/path).is_dir() else "blob"
        return f"]({settings['git_url']}/{kind}/{settings['branch']}/{path}{hash_}{anchor})"
    return re.sub(r"\]\(([^)\s]+)\)", point, text)


def process_pages(
    build:Path,         # The build folder, prepared
    chapters:list[Chapter], # Its pages
    settings:dict,      # settings.ini
    folder:Path = root, # The project
):
    "Let nbdev process the directives and document the exports, then set each export's name above its code."
    processed = build/"_proc"
    if processed.exists(): shutil.rmtree(processed)
    code = "from nbdev.serve import proc_nbs; proc_nbs('pages', n_workers=0, force=True)"
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=build, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SiteError(f"nbdev could not process the notebooks:\n{ansi.sub('', done.stderr).strip()}")
    by_page = {c.page: c for c in chapters}
    for name in list_notebooks(processed):
        notebook = read_notebook(processed/name)
        before = {c.get("id"): c.get("outputs") for c in read_notebook(build/"pages"/name)["cells"]}
        for cell in notebook["cells"]:
            cell["source"] = re.sub(r"^#\| eval: false\n", "", join_lines(cell["source"]))
            if cell.get("id") and before.get(cell["id"]): cell["outputs"] = before[cell["id"]]
        notebook["cells"] = [c for c in notebook["cells"] if not c["source"].startswith("<!-- WARNING:")]
        chapter = by_page[name.replace(".ipynb", ".html")]
        name_symbols(notebook, find_lines(chapter, settings, folder))
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        text = text.replace("](/blob/", f"]({settings['git_url']}/blob/")
        text = text.replace(f"]({settings['doc_url']}/", "](/")
        text = re.sub(r"skip_showdoc: true\\n", "", text)
        text = re.sub(r"\n?output-file: [^\\]*?\\n", lambda m: "\\n" if m[0][0] == "\n" else "", text)
        (processed/name).write_text(text, "utf-8")
    config = compose_config(folder/"_quarto.yml", list_notebooks(processed), settings)
    (processed/"_quarto.yml").write_text(config, "utf-8")


def find_lines(
    chapter:Chapter,    # A page
    settings:dict,      # settings.ini
    folder:Path = root, # The project
)->dict[str, str]:      # Address in the repository by name, methods as `Class.method`
    "Where the functions and classes of a chapter's module stand."
    file = f"{settings['lib_name']}/{chapter.module.replace('.', '/')}.py"
    if not chapter.module or not (folder/file).exists(): return {}
    lines = {}
    for node in parse_code((folder/file).read_text("utf-8")):
        if hasattr(node, "name"): lines[node.name] = node.lineno
        for inner in getattr(node, "body", []):
            if hasattr(inner, "name"): lines[f"{node.name}.{inner.name}"] = inner.lineno
    place = f"{settings['git_url']}/blob/{settings['branch']}/{file}"
    return {name: f"{place}#L{line}" for name, line in lines.items()}


def name_symbols(
    notebook:dict, # As processed by nbdev; changed in place
    links:dict,    # Where each name stands in the repository
):
    "Replace nbdev's signatures by the code itself, under its name and beside a link to the module."
    cells, done = notebook["cells"], []
    def is_shown(cell):
        return cell["cell_type"] == "code" and re.search(r"^show_doc\((\w[\w.]*)\)", cell["source"], re.M)
    index = 0
    while index < len(cells):
        cell = cells[index]
        group = [cell]
        while is_shown(group[-1]) and index + len(group) < len(cells): group.append(cells[index + len(group)])
        code = group[-1]
        if code["cell_type"] != "code" or "#| exports: true" not in code["source"]:
            done.append(cell)
            index += 1
            continue
        after = index + len(group)
        for cell in cells[after:]:
            if not (shown := is_shown(cell)) or not is_defined(shown[1], code["source"]): break
            group.insert(-1, cell)
            after += 1
        names = {name.rpartition(".")[2]: name for name in (is_shown(shown)[1] for shown in group[:-1])}
        for name, source in split_code(code["source"], names):
            link = links.get(name) or links.get(name.rpartition(".")[2])
            button = f"\n\n[source]({link}){{.symbol-source}}" if link else ""
            if name: done.append(make_cell("markdown", f"### {name} {{.symbol}}{button}"))
            done.append({**code, "source": source, "outputs": []})
        done[-1]["outputs"] = code["outputs"]
        index = after
    notebook["cells"] = done


def split_code(
    source:str,           # An exported cell
    names:dict[str, str], # Names it documents, by the name that stands after `def` or `class`
)->list[tuple[str, str]]: # (name, code) of each; what stands before a definition goes with it
    "One exported cell as one piece of code for each name it documents."
    lines = [line for line in source.splitlines() if not line.startswith(("#| code-", "#| exports:"))]
    if is_all_imports(source): lines[:0] = ["#| code-fold: true", '#| code-summary: "Imports"']
    nodes = [node for node in parse_code("\n".join(lines)) if getattr(node, "name", None) in names]
    if not nodes: return [("", "\n".join(lines))]
    ends = [node.end_lineno for node in nodes[:-1]] + [len(lines)]
    starts = [0, *ends[:-1]]
    pieces = ["\n".join(lines[start:end]).strip("\n") for start, end in zip(starts, ends)]
    return [(names[node.name], piece) for node, piece in zip(nodes, pieces)]


def parse_code(source):
    try: return ast.parse(source).body
    except SyntaxError: return []


def is_defined(name, source):
    return any(getattr(node, "name", "") == name.split(".")[-1] for node in parse_code(source))


def is_all_imports(source):
    nodes = parse_code(source)
    return bool(nodes) and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in nodes)


def compose_config(
    path:Path,         # The book's _quarto.yml
    pages:list[str],   # The notebooks to be rendered
    settings:dict,     # settings.ini
)->str:                # YAML
    "The book's own configuration without the parts that have no chapter yet, and with the site's address."
    import yaml
    config = yaml.safe_load(path.read_text("utf-8"))
    def has_pages(entry):
        globs = as_list(entry.get("contents", "*"))
        return "section" not in entry or any(fnmatch(page, glob) for page in pages for glob in globs)
    sidebar = config["website"]["sidebar"]
    sidebar["contents"] = [e for e in sidebar["contents"] if has_pages(e)]
    config["website"]["site-url"] = settings["doc_url"]
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def as_list(value): return value if isinstance(value, list) else [value]


def render_pages(
    build:Path, # The build folder, processed
)->Path:        # The rendered site
    "Render the processed notebooks to HTML by smalldocs."
    from smalldocs.config import BuildError, ConfigError
    from smalldocs.site import build as render
    try: site = render(build/"_proc", quiet=True)
    except (BuildError, ConfigError) as error: raise SiteError(str(error)) from None
    if site.warnings: raise SiteError("smalldocs:\n" + "\n".join(site.warnings))
    return site.out
