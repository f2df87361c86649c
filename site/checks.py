"""Checks a rendered site without a browser: links, anchors, other hosts, titles, texts of pictures, paths."""
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from notebooks import root


@dataclass
class Page:
    "What a page holds, as far as the checks need it."
    ids:set = field(default_factory=set)         # Its anchors
    links:list = field(default_factory=list)     # Where its links lead
    resources:list = field(default_factory=list) # What a browser loads to show it
    pictures:list = field(default_factory=list)  # (source, alternative text)
    h1:int = 0                                   # Number of main headings
    title:str = ""                               # Title of the window
    text:str = ""                                # What can be read on it


class PageReader(HTMLParser):
    "Reads a page."
    loads = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src",
             "audio": "src", "embed": "src", "object": "data", "image": "href", "use": "href"}

    def __init__(self):
        super().__init__()
        self.page, self.within = Page(), []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if "id" in attrs: self.page.ids.add(attrs["id"])
        if tag in ("a", "area") and attrs.get("href") is not None: self.page.links.append(attrs["href"])
        if loaded := attrs.get(self.loads.get(tag, "")): self.page.resources.append(loaded)
        if tag == "img": self.page.pictures.append((attrs.get("src", ""), attrs.get("alt")))
        if tag == "h1": self.page.h1 += 1
        if tag in ("title", "script", "style"): self.within.append(tag)

    def handle_endtag(self, tag):
        if self.within and tag == self.within[-1]: self.within.pop()

    def handle_data(self, data):
        if self.within and self.within[-1] == "title": self.page.title += data
        elif not self.within: self.page.text += data


def read_page(
    path:Path, # An HTML file
)->Page:       # What it holds
    "Read a page for the checks."
    reader = PageReader()
    reader.feed(path.read_text("utf-8"))
    return reader.page


def check_site(
    site:Path,          # The site
    folder:Path = root, # The project
)->list[str]:           # What is wrong, a line each; empty when all is well
    "Broken links and anchors, resources of other hosts, missing titles and texts of pictures, private paths."
    site = site.resolve()
    pages = {path.resolve(): read_page(path) for path in sorted(site.rglob("*.html"))}
    trouble = []
    if not pages: return [f"{site.name}: no pages"]
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for kind, links in (("link", page.links), ("resource", page.resources)):
            for link in links:
                parts = urlsplit(link)
                if parts.scheme == "data" and kind == "resource": continue
                if parts.scheme or parts.netloc:
                    if kind == "resource": trouble.append(f"{name}: loads {link} from another host")
                    continue
                target = (path.parent/unquote(parts.path)).resolve() if parts.path else path
                if target.is_dir(): target = target/"index.html"
                if site not in target.parents: trouble.append(f"{name}: {kind} {link} leads out of the site")
                elif not target.is_file(): trouble.append(f"{name}: {kind} {link} leads nowhere")
                elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                    trouble.append(f"{name}: {kind} {link} has no such anchor")
        if not page.title.strip(): trouble.append(f"{name}: no title")
        if page.h1 != 1: trouble.append(f"{name}: {page.h1} main headings (h1), wanted 1")
        trouble += [f"{name}: picture {src[:60]} has no alternative text" for src, alt in page.pictures
                    if alt is None or (not alt and "match.svg" not in src)]
        for place in {str(Path.home()), str(folder)}:
            if len(place) > 4 and place in page.text: trouble.append(f"{name}: shows the path {place}")
    for path in site.rglob("*.css"):
        pattern = r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")]+)"
        for link in re.findall(pattern, path.read_text("utf-8")):
            trouble.append(f"{path.relative_to(site).as_posix()}: loads {link} from another host")
    for entry in json.loads((site/"search.json").read_text("utf-8")):
        target, _, anchor = entry["href"].partition("#")
        page = pages.get(site/target)
        if page is None or (anchor and anchor not in page.ids):
            trouble.append(f"search.json: {entry['href']} leads nowhere")
    return trouble
