"The book's site: what its builder does to a notebook, what its pages hold, how they behave in a browser."
import base64
import contextlib
import csv
import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root/"site"))
import checks  # noqa: E402
import finish  # noqa: E402
import notebooks  # noqa: E402
import pages  # noqa: E402

settings = notebooks.read_settings(root)


# ---- The builder, on small pieces

def cell(source, *outputs, kind="code"):
    return {"cell_type": kind, "id": "a1", "metadata": {}, "source": source, "outputs": list(outputs)}


def printed(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def tidy(tmp_path, *cells):
    path = tmp_path/"nbs"/"a.ipynb"
    notebooks.write_notebook({"cells": list(cells)}, path)
    trouble = notebooks.tidy_outputs(path, ["slow", "cuda"], tmp_path, root)
    return trouble, notebooks.read_notebook(path)["cells"]


def test_pages_are_named_as_nbdev_links_them():
    assert pages.name_page("index.ipynb") == "index.html"
    assert pages.name_page("1_foundations/10_datasets.ipynb") == "1_foundations/datasets.html"


def test_stderr_never_reaches_a_page(tmp_path):
    trouble, [after] = tidy(tmp_path, cell("x", printed("kept"), printed("100%|###|", "stderr")))
    assert trouble == [] and [o["text"] for o in after["outputs"]] == ["kept"]


@pytest.mark.parametrize("text", [
    f"{Path.home()}/data", f"saved {root}/data/x.json", f"{tempfile.gettempdir()}/tmpab12/model",
    "/home/someone/x", "<Axes at 0x7f3a5c0d1e50>"])
def test_private_output_is_named_with_its_cell(tmp_path, text):
    trouble, _ = tidy(tmp_path, cell("1"), cell("x", printed(text)))
    assert len(trouble) == 1 and trouble[0].startswith("cell 1 (a1) prints")


def test_a_cell_that_was_not_run_says_so(tmp_path):
    _, [after] = tidy(tmp_path, cell("#| cuda\ntrain()"))
    assert "needs a GPU" in after["outputs"][0]["data"]["text/html"]


def test_opening_keeps_what_follows_the_promise():
    first = cell("# Title\n\n> one\n> promise\n\nIn: a. Out: b.\n\n- key: value", kind="markdown")
    opening, rest = pages.split_opening(first)
    assert opening["source"] == "# Title\n\n> one promise"
    assert rest["source"] == "In: a. Out: b.\n\n- key: value"


def test_links_lead_to_pages_and_to_the_repository():
    chapter = pages.Chapter("3_products/35_match_sets.ipynb", "3_products/match_sets.html")
    def point(text): return pages.point_links(text, chapter, settings, root)
    assert point("[a](../1_foundations/16_measures.ipynb#f1)") == "[a](../1_foundations/measures.ipynb#f1)"
    assert point("[a](30_listings.ipynb)") == "[a](listings.ipynb)"
    repository = f"{settings['git_url']}/blob/{settings['branch']}"
    assert point("[a](../../settings.ini)") == f"[a]({repository}/settings.ini)"
    for same in ("[a](https://example.com/x.ipynb)", "[a](#here)", "[a](../../missing.txt)"):
        assert point(same) == same


def test_what_stands_in_the_settings_is_filled_in():
    filled = pages.fill_settings("git+{{git_url}} {{other}}", settings)
    assert filled == "git+" + settings["git_url"] + " {{other}}"


def test_each_exported_name_stands_above_its_own_code():
    before, after = "limit = 3\n\ndef _help(): pass\n\ndef first(): pass", "class Second: pass\n\nlast = 1"
    names = {"first": "first", "Second": "Second"}
    split = pages.split_code(f"#| exports: true\n{before}\n\n{after}", names)
    assert split == [("first", before), ("Second", after)]
    [(name, code)] = pages.split_code("#| exports: true\nimport os", {})
    assert name == "" and code.startswith("#| code-fold: true")


def test_parts_without_a_chapter_do_not_show():
    config = pages.compose_config(root/"_quarto.yml", ["index.ipynb", "3_products/listings.ipynb"], settings)
    assert "section: Products" in config and "section: Clickbait" not in config


@pytest.mark.parametrize("tex", [
    r"\begin{aligned} a &= b \\ c &\le d \end{aligned}", r"\begin{cases} 1 & x > 0 \\ 0 & y \end{cases}",
    r"\operatorname*{arg\,max}_x f(x)", r"\mathbb{1}[x \in \mathcal{P}_i]"])
def test_maths_becomes_mathml(tex):
    result = finish.convert_maths(tex, block=True)
    shown = re.sub('alttext="[^"]*"', "", result)
    assert shown.startswith("<math ") and "&<" not in shown and "\\" not in shown


def test_letters_are_of_their_alphabet():
    assert "𝟙" in finish.convert_maths(r"\mathbb{1}", block=False)
    assert "𝒉" in finish.convert_maths(r"\boldsymbol{h}", block=False)


@pytest.mark.parametrize("tex", [r"\nosuchthing x", "a & b"])
def test_maths_that_is_not_known_is_refused(tex):
    with pytest.raises(notebooks.SiteError, match="maths"): finish.convert_maths(tex, block=False)


def test_the_check_names_page_and_fault(tmp_path):
    page = '<title>t</title><h1 id="top">t</h1><a href="{}">x</a>'
    (tmp_path/"search.json").write_text('[{"href": "gone.html"}]')
    (tmp_path/"good.html").write_text(page.format("good.html#top"))
    (tmp_path/"a.html").write_text(page.format("missing.html"))
    (tmp_path/"b.html").write_text(page.format("good.html#nowhere"))
    (tmp_path/"c.html").write_text('<img src="good.html"><script src="https://example.com/x.js"></script>')
    (tmp_path/"d.css").write_text("@import url(https://example.com/font.css);")
    found = checks.check_site(tmp_path, root)
    assert sorted(found) == [
        "a.html: link missing.html leads nowhere",
        "b.html: link good.html#nowhere has no such anchor",
        "c.html: 0 main headings (h1), wanted 1",
        "c.html: loads https://example.com/x.js from another host",
        "c.html: no title",
        "c.html: picture good.html has no alternative text",
        "d.css: loads https://example.com/font.css from another host",
        "search.json: gone.html leads nowhere"]


# ---- The pages

@pytest.fixture(scope="session")
def site(tmp_path_factory):
    "The folder of the site: the one named by MATCHBOOK_SITE, else one built here."
    if folder := os.environ.get("MATCHBOOK_SITE"):
        assert (root/folder/"index.html").is_file(), f"MATCHBOOK_SITE={folder} has no index.html"
        return (root/folder).resolve()
    out = tmp_path_factory.mktemp("site")/"_site"
    command = [sys.executable, root/"site"/"build.py", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def htmls(site):
    return {p.relative_to(site).as_posix(): p.read_text("utf-8") for p in sorted(site.rglob("*.html"))}


@pytest.fixture(scope="session")
def chapters():
    names = notebooks.list_notebooks(root/"nbs")
    return {pages.name_page(name): name for name in names if name != "index.ipynb"}


def test_every_notebook_has_its_page(htmls, chapters): assert set(htmls) == {"index.html", *chapters}


def test_nothing_is_broken(site): assert checks.check_site(site, root) == []


def test_colab_badge_of_each_chapter_comes_from_the_settings(htmls, chapters):
    owner = settings["git_url"].removeprefix("https://github.com/")
    for page, notebook in chapters.items():
        address = f"https://colab.research.google.com/github/{owner}/blob/{settings['branch']}/nbs/{notebook}"
        assert f'<a class="colab" href="{address}">' in htmls[page], page
        assert f'href="{settings["git_url"]}/blob/{settings["branch"]}/nbs/{notebook}"' in htmls[page], page


def test_the_repository_address_stands_once():
    folders = [root/name for name in ("nbs", "site", "tests", ".github", ".ci")]
    files = [p for folder in folders for p in folder.rglob("*") if "__pycache__" not in p.parts]
    files = [p for p in [*files, *root.iterdir()] if p.is_file() and p.name != "README.md"]   # of the index
    colab = re.compile(rb'"if ..google.colab.. in str[^\n]*')   # what begins a chapter, see test_project
    holders = [p.name for p in files if settings["git_url"].encode() in colab.sub(b"", p.read_bytes())]
    assert holders == ["settings.ini"]


def test_maths_needs_no_script(htmls):
    for name, text in htmls.items():
        said = re.sub(r"base64,[^\"]+", "", text).lower()          # a picture may hold any letters
        assert "katex" not in said and "mathjax" not in said, name
        assert not re.search(r'class="math[^>]*>(?!<math )', text), f"{name} shows maths that is not MathML"


def test_pictures_are_small(site, htmls):
    for name, text in htmls.items():
        for data in re.findall(r'src="data:image/[^;]+;base64,([^"]+)"', text):
            assert len(base64.b64decode(data)) < 100_000, f"{name}: a picture of {len(data)*3//4:,} bytes"
    for path in site.rglob("*"):
        if path.suffix in (".png", ".jpg", ".gif", ".svg"): assert path.stat().st_size < 100_000, path.name


def test_no_progress_bars_and_no_errors_in_outputs(htmls):
    for name, text in htmls.items():
        assert "cell-output-stderr" not in text and "cell-output-error" not in text, name
        assert not re.search(r"\d+%\|[█▏▎▍▌▋▊▉ #]*\|", text), f"{name} shows a progress bar"


# ---- In a browser

@contextlib.contextmanager
def serve(folder):
    "The address of a folder."
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def address(site):
    with serve(site) as address: yield address


# Contrast of every text that can be seen, by WCAG 2: how many, and of the poor ones
# [ratio, wanted, colour, background, element, text]
contrast = """
const parse = (c) => {
  const n = (c.match(/[\\d.]+(?:e-?\\d+)?/g) || []).map(Number), k = c.startsWith('color(') ? 255 : 1;
  return [n[0]*k, n[1]*k, n[2]*k, n.length > 3 ? n[3] : 1];
};
const over = (a, b) => [0, 1, 2].map((i) => a[i]*a[3] + b[i]*(1 - a[3])).concat(1);
const light = (c) => {
  const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4);
  return .2126*r + .7152*g + .0722*b;
};
const known = new Map();
const look = (el) => {   // background below an element's text, and how opaque the text is
  if (!el) return { ground: [255, 255, 255, 1], opacity: 1 };
  if (!known.has(el)) {
    const style = getComputedStyle(el), above = look(el.parentElement);
    known.set(el, { style, ground: over(parse(style.backgroundColor), above.ground),
                    opacity: above.opacity * style.opacity });
  }
  return known.get(el);
};
const poor = new Map(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
for (let node; (node = walker.nextNode());) {
  const el = node.parentElement;
  if (!node.textContent.trim() || /^(SCRIPT|STYLE|NOSCRIPT)$/.test(el.tagName)) continue;
  if (!el.getClientRects().length) continue;
  if (!el.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
  const { style, ground, opacity } = look(el), colour = parse(style.color);
  colour[3] *= opacity;
  const a = light(over(colour, ground)), b = light(ground);
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700);
  seen += 1;
  const wanted = large ? 3 : 4.5, text = node.textContent.trim().slice(0, 30);
  if (ratio < wanted) poor.set(style.color + ground,
    [ratio.toFixed(2), wanted, style.color, ground.join(), `${el.tagName}.${el.className}`, text]);
}
return [seen, [...poor.values()]];
"""

# What leaves the window to the right or left without a box of its own to scroll in
overflow = """
const out = [], wide = innerWidth;
const all = document.scrollingElement.scrollWidth;
if (all > wide) out.push(`the page is ${all} wide`);
document.querySelectorAll('header *, main, main *, footer *').forEach((el) => {
  const box = el.getBoundingClientRect();
  if (!box.width || !box.height || (box.right <= wide + 1 && box.left >= -1)) return;
  for (let e = el.parentElement; e && e.id !== 'quarto-content'; e = e.parentElement) {
    const boxed = /auto|scroll|hidden/.test(getComputedStyle(e).overflowX);
    if (boxed && e.getBoundingClientRect().right <= wide + 1) return;
  }
  const [left, right] = [box.left, box.right].map(Math.round);
  out.push(`${el.tagName}.${el.getAttribute('class')} from ${left} to ${right}`);
});
return out.slice(0, 5);
"""


def show(browser, url=None, width=1280, dark=False):
    "Open a page, or keep the one shown, in a window of this width, in light or dark, and let it settle."
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    if url: browser.get(url)
    wait(browser, .09)   # smalldocs settles the colours after 50 ms
    for _ in range(50):  # a busy machine takes longer to tell the page
        if is_dark(browser) == dark: break
        wait(browser, .1)


def wait(browser, seconds):
    browser.execute_async_script("setTimeout(arguments[1], arguments[0])", seconds*1000)


def is_dark(browser):
    return browser.execute_script("return document.documentElement.classList.contains('quarto-dark')")


@pytest.fixture(scope="session")
def visits(browser, address, htmls):
    "Every page, first wide and light, then as on a phone and dark; what each visit found."
    browser.get_log("browser"), browser.get_log("performance")
    found = {}
    for name in htmls:
        show(browser, address + name)
        record = {"light": browser.execute_script(contrast), "desk": browser.execute_script(overflow)}
        show(browser, width=390, dark=True)
        record["is dark"] = is_dark(browser)
        record["dark"], record["phone"] = browser.execute_script(contrast), browser.execute_script(overflow)
        record["console"] = [entry["message"] for entry in browser.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        known = address, "data:", "blob:", "chrome:", "chrome-untrusted:"   # two of the first tab
        record["foreign"] = sorted({url for url in asked if not url.startswith(known)})
        record["asked"] = len(asked)
        found[name] = record
    return found


def gather(visits, key): return {name: record[key] for name, record in visits.items() if record[key]}


def test_no_console_message(visits): assert gather(visits, "console") == {}


def test_no_request_to_another_host(visits):
    assert all(record["asked"] >= 8 for record in visits.values())   # the page and its files: the log works
    assert gather(visits, "foreign") == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable(visits, scheme):
    assert all(record["is dark"] for record in visits.values())
    assert all(record[scheme][0] > 20 for record in visits.values())
    assert {name: record[scheme][1] for name, record in visits.items() if record[scheme][1]} == {}


@pytest.mark.parametrize("window", ["desk", "phone"])
def test_nothing_overflows(visits, window): assert gather(visits, window) == {}


def test_search_finds_a_chapter(browser, address, htmls, chapters):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait
    page = sorted(chapters)[len(chapters)//2]
    title = re.search(r'<h1 class="title">(.*?)</h1>', htmls[page])[1]
    for width in (1280, 390):
        show(browser, address + "index.html", width)
        browser.find_element(By.CSS_SELECTOR, "#quarto-search input").send_keys(title)
        hit = WebDriverWait(browser, 10).until(lambda b: b.find_element(By.CSS_SELECTOR, ".search-result"))
        assert 0 <= hit.rect["x"] and hit.rect["x"] + hit.rect["width"] <= width
        assert title in hit.text
        hit.click()
        WebDriverWait(browser, 10).until(lambda b: page in b.current_url)
        assert browser.find_element(By.TAG_NAME, "h1").text == title


sample = """<table><thead><tr><th>model</th><th>F1</th><th>share</th><th>command</th></tr></thead><tbody>
<tr><td>b</td><td>0.797 ± 0.004</td><td>12 %</td><td><code>matchbook run b</code></td></tr>
<tr><td>a10</td><td></td><td>9 %</td><td><code>matchbook run a</code></td></tr>
<tr><td>c</td><td>.0801 [.07, .09]</td><td>100 %</td><td><code>matchbook run c</code></td></tr>
<tr><td>d</td><td>0.8</td><td>20.5 %</td><td><code>matchbook run e</code></td></tr>
<tr><td>a9</td><td>1,081</td><td>−3 %</td><td><code>matchbook run d</code></td></tr></tbody></table>"""


def read_rows(browser):
    rows = "[...document.querySelectorAll('main tbody tr')]"
    return browser.execute_script(f"return {rows}.map((row) => row.cells[0].textContent)")


def test_a_table_sorts_by_mouse_and_keyboard(browser, address, site):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    show(browser, address + "index.html")
    box = f'<div class="table-box">{sample}</div>'
    browser.execute_script("document.querySelector('main').innerHTML = arguments[0]", box)
    browser.execute_script((site/"site_libs"/"book.js").read_text("utf-8"))
    heads = browser.find_elements(By.CSS_SELECTOR, "main th")
    def press(column): heads[column].find_element(By.TAG_NAME, "button").click()
    press(1)
    assert read_rows(browser) == ["c", "b", "d", "a9", "a10"]           # as numbers, the empty cell last
    assert [h.get_attribute("aria-sort") for h in heads] == ["none", "ascending", "none", "none"]
    press(1)
    assert read_rows(browser) == ["a9", "d", "b", "c", "a10"]           # the empty cell still last
    assert heads[1].get_attribute("aria-sort") == "descending"
    heads[2].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)  # by keyboard
    assert read_rows(browser) == ["a9", "a10", "b", "d", "c"]
    assert heads[1].get_attribute("aria-sort") == "none"
    press(0)
    assert read_rows(browser) == ["a9", "a10", "b", "c", "d"]           # words, numbers in them as numbers
    copy = browser.find_elements(By.CSS_SELECTOR, "main td .copy")
    assert [c.get_attribute("aria-label") for c in copy][0] == "Copy: matchbook run d" and len(copy) == 5
    copy[0].click()
    wait(browser, .1)
    assert copy[0].text in ("copied", "selected")


copied = """<table><thead><tr><th>model</th><th>F1</th><th>what</th><th>command</th></tr></thead><tbody>
<tr><td>b, "old"</td><td>0.797 ± 0.004</td><td>a | b</td><td><code>matchbook run b</code></td></tr>
<tr><td>a</td><td>0.801</td><td><a href="https://example.com/x">a
  paper</a></td><td><code>matchbook run a</code></td></tr></tbody></table>"""
spanned = """<table><thead><tr><th></th><th colspan="2">F1</th></tr>
<tr><th>data</th><th>mean</th><th>sd</th></tr></thead><tbody>
<tr><th rowspan="2">abt-buy</th><td>1</td><td>2</td></tr><tr><td>3</td><td></td></tr></tbody></table>"""


@pytest.fixture
def two_tables(browser, tmp_path):
    "A page of two tables with the book's own look and script, opened; what is copied may be read."
    for name in ("book.css", "book.js"): shutil.copy(root/"site"/name, tmp_path)
    boxes = "".join(f'<div class="table-box">{one}</div>' for one in (copied, spanned))
    (tmp_path/"a.html").write_text(
        '<!doctype html><meta charset="utf-8"><title>t</title><link rel="stylesheet" href="book.css">'
        f'<main class="content">{boxes}</main><script src="book.js"></script>', "utf-8")
    with serve(tmp_path) as address:
        rights = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        where = {"origin": address.rstrip("/"), "permissions": rights}
        browser.execute_cdp_cmd("Browser.grantPermissions", where)
        browser.get(address + "a.html")
        yield browser


def read_clipboard(browser):
    ask = "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](`${error}`))"
    wait(browser, .1)
    return browser.execute_async_script(ask)


def test_a_table_is_copied_for_a_spreadsheet_and_as_markdown(two_tables):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    browser = two_tables
    tools = browser.find_elements(By.CSS_SELECTOR, ".table-tools button")
    as_csv, as_markdown, span_csv, span_markdown = tools
    assert [as_csv.text, as_markdown.text] == ["copy as CSV", "copy as Markdown"]
    as_csv.click()
    rows = list(csv.reader(io.StringIO(read_clipboard(browser))))
    head = ["model", "F1", "what", "command"]
    first, second = (['b, "old"', "0.797 ± 0.004", "a | b", "matchbook run b"],
                     ["a", "0.801", "a paper", "matchbook run a"])
    assert rows == [head, first, second] and as_csv.text == "copied"
    browser.find_element(By.CSS_SELECTOR, "th .sort").click()    # by name: the rows as they stand now
    as_csv.send_keys(Keys.ENTER)                                 # by keyboard
    assert list(csv.reader(io.StringIO(read_clipboard(browser)))) == [head, second, first]
    as_markdown.send_keys(Keys.SPACE)
    assert read_clipboard(browser) == (
        "| model | F1 | what | command |\n| --- | --: | --- | --- |\n"
        "| a | 0.801 | [a paper](https://example.com/x) | `matchbook run a` |\n"
        '| b, "old" | 0.797 ± 0.004 | a \\| b | `matchbook run b` |\n')
    span_csv.click()
    assert read_clipboard(browser) == ",F1,F1\r\ndata,mean,sd\r\nabt-buy,1,2\r\nabt-buy,3,\r\n"
    span_markdown.click()
    assert read_clipboard(browser) == ("| data | F1 mean | F1 sd |\n| --- | --: | --: |\n"
                                       "| abt-buy | 1 | 2 |\n| abt-buy | 3 |  |\n")
    wait(browser, 1.6)
    assert as_csv.text == "copy as CSV"                          # it says again what it does


def test_the_table_of_the_front_page_shows_whole_and_copies_as_it_was_written(browser, address):
    show(browser, address + "index.html", width=1300)
    wide, seen = browser.execute_script(
        "const box = document.querySelector('.table-box'); return [box.scrollWidth, box.clientWidth]")
    assert wide <= seen
    browser.execute_script("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    browser.execute_script("document.querySelectorAll('.table-tools button')[1].click()")
    wait(browser, .1)
    rows = browser.execute_script("return window.copied").splitlines()
    written = re.findall(r"^\|.*\|$", (root/"README.md").read_text("utf-8"), re.M)[2:]
    bare = lambda line: re.sub("[*`]", "", line).replace("’", "'")
    assert [bare(line) for line in rows[2:]] == [bare(line) for line in written]


def test_where_nothing_may_be_copied_the_table_is_marked(two_tables):
    from selenium.webdriver.common.by import By
    browser = two_tables
    browser.execute_script("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    button = browser.find_element(By.CSS_SELECTOR, ".table-tools button")
    button.click()
    wait(browser, .1)
    assert button.text == "selected" and "0.801" in browser.execute_script("return `${getSelection()}`")


def test_the_buttons_of_a_table_are_for_the_screen_alone(two_tables):
    from selenium.webdriver.common.by import By
    browser = two_tables
    tools = browser.find_elements(By.CSS_SELECTOR, ".table-tools, td .copy")
    for width in (1280, 320):
        show(browser, width=width)
        assert all(one.is_displayed() for one in tools) and browser.execute_script(overflow) == []
        large = browser.find_elements(By.CSS_SELECTOR, ".table-tools .copy")
        assert all(one.size["height"] >= 24 for one in large)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not any(one.is_displayed() for one in tools)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


sort_all = """
const wrong = [], read = (s) => parseFloat(s.replace(/,/g, '').replace('−', '-'));
let sorted = 0;
document.querySelectorAll('main .table-box').forEach((box) => {
  const button = box.querySelector('th.number .sort');
  if (!button) return;
  button.click();
  const column = button.closest('th').cellIndex;
  const values = [...box.querySelectorAll('tbody tr')].map((row) => read(row.cells[column].textContent));
  const shown = values.filter((value) => !isNaN(value));
  sorted += 1;
  if (shown.some((value, i) => i && value < shown[i - 1])) wrong.push(values.join(' | '));
});
return [sorted, wrong];
"""


def test_tables_of_the_book_sort(browser, address, htmls):
    counted = 0
    for name in [name for name, text in htmls.items() if "table-box" in text]:
        show(browser, address + name)
        number, wrong = browser.execute_script(sort_all)
        assert wrong == [], name
        counted += number
    assert counted


def test_every_table_of_the_book_can_be_copied(browser, address, htmls):
    with_tables = [name for name, text in htmls.items() if "table-box" in text]
    ask = """return [...document.querySelectorAll('main .table-box')].map((box) => box.nextElementSibling)
      .filter((tools) => !tools || tools.querySelectorAll(':scope > .copy').length !== 2).length"""
    assert with_tables
    for name in with_tables:
        show(browser, address + name)
        assert browser.execute_script(ask) == 0, name


def test_the_dark_switch_works_and_is_remembered(browser, address):
    from selenium.webdriver.common.by import By
    show(browser, address + "index.html")
    assert not is_dark(browser)
    try:
        browser.find_element(By.CSS_SELECTOR, ".quarto-color-scheme-toggle").click()
        wait(browser, .15)
        assert is_dark(browser) and browser.execute_script(contrast)[1] == []
        show(browser, address + "index.html")
        assert is_dark(browser)
    finally: browser.execute_script("localStorage.clear()")


def test_the_phone_has_its_menu(browser, address, chapters):
    from selenium.webdriver.common.by import By
    show(browser, address + "index.html", width=390)
    browser.find_element(By.CSS_SELECTOR, ".quarto-btn-toggle").click()
    wait(browser, .4)
    links = [a for a in browser.find_elements(By.CSS_SELECTOR, "#quarto-sidebar a[href]") if a.is_displayed()]
    assert len(links) == len(chapters) + 1
