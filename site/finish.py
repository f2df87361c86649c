"""What the book adds to the pages that smalldocs writes: its look, maths, tables, links of a chapter."""
import contextlib
import html
import json
import re
import shutil
import unicodedata
from pathlib import Path
from urllib.parse import unquote

from checks import read_page
from notebooks import SiteError
from pages import Chapter, name_picture

assets = Path(__file__).resolve().parent   # book.css, book.js, match.svg


def replace_once(
    text:str,    # A page
    old:str,     # A regular expression that must be found
    new,         # What stands in its place, or a function of the match
    what:str,    # Named if it is not found
)->str:          # The page
    "Replace the first match; a page that has none means smalldocs writes other HTML than this file knows."
    text, count = re.subn(old, new if callable(new) else lambda _: new, text, count=1, flags=re.S)
    if not count: raise SiteError(f"{what}: smalldocs no longer writes what this file expects ({old})")
    return text


alphabets = {v: v.upper() for v in ("double-struck", "bold", "script", "fraktur", "sans-serif", "monospace")}
alphabets["bold-italic"] = "BOLD ITALIC"
digits = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()


def draw_letter(
    letter:str,   # One character
    variant:str,  # A `mathvariant`
)->str:           # The character of that alphabet, or the same one where Unicode has none
    "Browsers ignore `mathvariant`, so the letter itself must be of the alphabet."
    kind = "DIGIT " + digits[int(letter)] if letter in "0123456789" else (
        f"{'CAPITAL' if letter.isupper() else 'SMALL'} {unicodedata.name(letter, '').split()[-1]}")
    for name in (f"MATHEMATICAL {alphabets[variant]} {kind}", f"{alphabets[variant]} {kind}"):
        with contextlib.suppress(KeyError): return unicodedata.lookup(name)
    return letter


def convert_maths(
    tex:str,     # A formula
    block:bool,  # On lines of its own?
)->str:          # `<math …>`
    "One formula as MathML; what latex2mathml does not know is an error."
    from latex2mathml.converter import convert
    known = tex.replace("{aligned}", "{split}").replace("{gathered}", "{gather*}")
    known = known.replace(r"\operatorname*", r"\operatorname")
    known = re.sub(r"\\mathrm\{(\w)\}", r"\\text{\1}", known)
    known = re.sub(r"\\operatorname\{[^}]*\}", lambda m: re.sub(r"\\[,;: ]", " ", m[0]), known)
    try: result = convert(known, display="block" if block else "inline")
    except Exception as error: raise SiteError(f"maths {tex!r}: {type(error).__name__} {error}") from None
    plain = html.unescape(result)
    if unknown := re.search(r">(\\[a-zA-Z]+|&)<", plain.replace("\\ ", "")):
        raise SiteError(f"maths {tex!r}: {unknown[1]} is not known here to latex2mathml")
    result = re.sub(r"<mi>&</mi>", "", result)
    def draw(found):
        kind, variant, letters = found.groups()
        if variant not in alphabets: return found[0]
        return f"<{kind}>{''.join(draw_letter(x, variant) for x in html.unescape(letters))}</{kind}>"
    result = re.sub(r'<(m[ion]) mathvariant="([^"]+)">([^<]+)</m[ion]>', draw, result)
    return result.replace("<math ", f'<math alttext="{html.escape(tex)}" ', 1)


def write_mathml(
    page:str, # HTML in which maths stands as TeX between `\\(` and `\\)` or `\\[` and `\\]`
)->str:       # HTML with MathML
    "Maths as MathML, made here, so that no page needs a script or the network to show it."
    def turn(found):
        block = found[1] == "display"
        tex = html.unescape(found[2])[2:-2].strip()
        kind = found[1] + (" long" if len(tex) > 40 else "")   # a long one gets a box to scroll in on a phone
        return f'<span class="math {kind}"{" tabindex=0" if block else ""}>{convert_maths(tex, block)}</span>'
    pattern = r'<span class="math (inline|display)">(\\\(.*?\\\)|\\\[.*?\\\])</span>'
    return re.sub(pattern, turn, page, flags=re.S)


def finish_page(
    page:str,                 # HTML as smalldocs writes it
    chapter:Chapter | None,   # Its notebook; none for a page that is not a chapter
    settings:dict,            # settings.ini
)->str:                       # HTML of the book
    "All that the book adds to one page: its look, its own script, maths, tables, the links of a chapter."
    up = re.search(r'<meta name="smalldocs:offset" content="([^"]*)">', page)[1]
    page = re.sub(r'<(link|script)[^>]*cdn\.jsdelivr\.net/npm/katex[^>]*>(</script>)?', "", page)
    page = write_mathml(page)
    page = replace_once(page, "</head>", f'<link rel="stylesheet" href="{up}site_libs/book.css">'
        f'<link rel="icon" type="image/svg+xml" href="{up}site_libs/match.svg">'
        f'<script src="{up}site_libs/book.js" defer></script></head>', "head")
    page = replace_once(page, r"<body", '<body data-book="1"', "body")
    page = replace_once(page, '(<a class="navbar-brand"[^>]*>)', lambda m: m[1] +
        f'<img src="{up}site_libs/match.svg" alt="" class="navbar-logo" width="28" height="28">', "brand")
    repository = (f'<li class="nav-item compact"><a class="nav-link" href="{settings["git_url"]}"'
                  ' aria-label="Repository" title="Repository"><i class="bi bi-git"></i></a></li>')
    toggle = '<li class="nav-item compact"><a class="quarto-color-scheme-toggle nav-link"'
    button = ' href="#" role="button" aria-label="Dark mode"'
    page = replace_once(page, toggle + ' href=""', repository + toggle + button, "toggle")
    page = page.replace(' role="navigation" aria-expanded', ' role="button" tabindex="0" aria-expanded')
    page = re.sub(r"<style scoped>.*?</style>\s*", "", page, flags=re.S)
    page = re.sub(r'<table border="1"', "<table", page)
    page = re.sub(r'<tr style="text-align: right;">', "<tr>", page)
    box = '<div class="table-box" role="region" tabindex="0" aria-label="Table">'
    page = re.sub(r"<table\b.*?</table>", lambda m: f"{box}{m[0]}</div>", page, flags=re.S)
    page = re.sub(r'<pre class="sourceCode', '<pre tabindex="0" class="sourceCode', page)
    symbol = r'(<section id="[^"]*" class="level3 symbol">\s*<h3[^>]*>)(.*?)</h3>'
    source = r'\s*<p>(<a [^>]*class="symbol-source".*?</a>)</p>'
    page = re.sub(symbol + source, r"\1\2 \3</h3>", page, flags=re.S)
    if chapter is None: return page
    page = re.sub(r'<img (?:alt="[^"]*" )?src="(data:[^"]*)"', lambda m: size_picture(m, chapter), page)
    return page if chapter.source == "index.ipynb" else add_chapter_links(page, chapter, settings)


def size_picture(found, chapter):
    size = chapter.sizes.get(name_picture(found[1]))
    return found[0] + (f' width="{size[0]}" height="{size[1]}"' if size else "")


def add_chapter_links(
    page:str,        # HTML
    chapter:Chapter, # Its notebook
    settings:dict,   # settings.ini
)->str:              # HTML with the links under the title
    "The Colab badge, the notebook and the module, all made from the repository's address."
    place = f"blob/{settings['branch']}/nbs/{chapter.source}"
    owner = settings["git_url"].removeprefix("https://github.com/")
    ring = '<circle cx="{}" cy="12" r="5" fill="none" stroke="{}" stroke-width="3.4"/>'
    rings = ring.format("6.9", "#e8710a") + ring.format("17.1", "#f9ab00")
    icon = f'<svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true">{rings}</svg>'
    colab = f"https://colab.research.google.com/github/{owner}/{place}"
    links = [f'<a class="colab" href="{colab}">{icon}Open in Colab</a>',
             f'<a class="notebook" href="{settings["git_url"]}/{place}">Notebook source</a>']
    if chapter.module:
        file = f"{settings['lib_name']}/{chapter.module.replace('.', '/')}.py"
        links.append(f'<a class="module" href="{settings["git_url"]}/blob/{settings["branch"]}/{file}">'
                     f"<code>{settings['lib_name']}.{chapter.module}</code></a>")
    row = f'<p class="chapter-links">{"".join(links)}</p>'
    title = r'<header id="title-block-header".*?</header>'
    return replace_once(page, title, lambda m: m[0] + row, chapter.page)


def finish_site(
    site:Path,               # The rendered site; changed in place
    chapters:list[Chapter],  # Its pages
    settings:dict,           # settings.ini
):
    "Finish every page, take the fonts of other hosts out of the themes, and put the book's own files in."
    by_page = {c.page: c for c in chapters}
    for name in ("book.css", "book.js", "match.svg"): shutil.copyfile(assets/name, site/"site_libs"/name)
    for path in (site/"site_libs").rglob("*.css"):
        text = path.read_text("utf-8")
        path.write_text(re.sub(r"@import url\(\s*['\"]?https?:[^)]*\);?", "", text), "utf-8")
    for path in sorted(site.rglob("*.html")):
        name = path.relative_to(site).as_posix()
        try: path.write_text(finish_page(path.read_text("utf-8"), by_page.get(name), settings), "utf-8")
        except SiteError as error: raise SiteError(f"{name}: {error}") from None
    index = json.loads((site/"search.json").read_text("utf-8"))
    for entry in index: entry["text"] = re.sub(r"\bsource$", "", entry["text"].strip()).strip()
    (site/"search.json").write_text(json.dumps(index, ensure_ascii=False), "utf-8")
    mend_anchors(site)


def mend_anchors(
    site:Path, # The site; changed in place
):
    "Links that nbdev made to a method go to its class; to a name without a heading, to the page."
    ids = {path.resolve(): read_page(path).ids for path in site.rglob("*.html")}
    for path in ids:
        def mend(found, path=path):
            target, _, anchor = html.unescape(found[1]).partition("#")
            known = ids.get((path.parent/unquote(target)).resolve() if target else path)
            if known is None or not anchor or anchor in known or re.match(r"[a-z]+:", target): return found[0]
            while "." in anchor and anchor not in known: anchor = anchor.rpartition(".")[0]
            return f'<a href="{target}{"#" + anchor if anchor in known else ""}"{found[2]}><code>'
        text = path.read_text("utf-8")
        path.write_text(re.sub(r'<a href="([^"]*#[^"]*)"([^>]*)><code>', mend, text), "utf-8")
