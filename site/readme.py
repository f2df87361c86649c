"""Makes README.md from nbs/index.ipynb: text, code, tables, picture; links lead into the repository.

    python site/readme.py
"""
import re

from notebooks import join_lines, read_notebook, read_settings, root, say

picture = "data/results/front.svg"   # What the one cell of the front page draws


def draw_picture(
    path,  # Where it goes
):
    "The picture of the front page, the same bytes for the same run files."
    import matplotlib
    matplotlib.use("agg")
    from matchbook.runs import draw_headlines
    with matplotlib.rc_context({"svg.hashsalt": "matchbook", "svg.fonttype": "none"}):
        draw_headlines().savefig(path, metadata={"Date": None, "Creator": None})


def make_readme(
    folder = root,  # The project
)->str:             # Markdown
    "The front page as a README: cells in order, hidden ones left out, code as code, addresses filled in."
    settings, parts = read_settings(folder), []
    for cell in read_notebook(folder/"nbs"/"index.ipynb")["cells"]:
        text = join_lines(cell["source"])
        alt = re.search(r"^#\| *fig-alt: *(.+)", text, flags=re.M)
        if alt: parts.append(f"![{alt[1]}]({picture})")
        if re.search(r"^#\| *(hide|echo: *false)", text, flags=re.M): continue
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    text = "\n\n".join(parts).replace("{{git_url}}", settings["git_url"])
    text = re.sub(r"\]\((?!https?:|data/)([^)#]+\.ipynb)\)", r"](nbs/\1)", text)
    return text + f"\n\nThe book is at <{settings['doc_url']}>. Licence: {settings['license']}.\n"


if __name__ == "__main__":
    draw_picture(root/picture)
    path, text = root/"README.md", make_readme()
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")
        say("wrote README.md")
