"Joins settings.ini (what the package is and needs) to pyproject.toml (how tools treat it)."
import re
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

settings = ConfigParser(delimiters=["="])
settings.read("settings.ini", encoding="utf-8")
settings = settings["DEFAULT"]


def lines(key): return [line for line in settings.get(key, "").splitlines() if line]


class BuildWithResults(build_py):
    "The recorded runs go into the wheel, so that tables and `reproduce` know them without a checkout."
    def run(self):
        super().run()
        if self.editable_mode: return
        place = Path(self.build_lib)/"matchbook"/"results"
        if place.exists(): shutil.rmtree(place)
        shutil.copytree("data/results", place)


suffix = "_requirements"
place = f"{settings['git_url']}/blob/{settings['branch']}"
# in the package index a link leads to the repository
read_me = re.sub(r"\]\((?!https?:)", f"]({place}/", Path("README.md").read_text(encoding="utf-8"))
setup(
    description=settings["description"],
    long_description=read_me.replace(".svg)", ".svg?raw=true)"),
    long_description_content_type="text/markdown",
    author=settings["author"], author_email=settings["author_email"],
    license_expression=settings["license"], keywords=settings["keywords"].split(),
    classifiers=lines("classifiers"), url=settings["git_url"],
    project_urls={"Documentation": settings["doc_url"], "Source": settings["git_url"],
                  "Changelog": f"{place}/CHANGELOG.md",
                  "Issues": f"{settings['git_url']}/issues"},
    packages=find_packages(include=["matchbook", "matchbook.*"]),
    package_data={"matchbook.products": ["untrained.json"]},
    install_requires=lines("requirements"),
    extras_require={key.removesuffix(suffix): lines(key) for key in settings if key.endswith(suffix)},
    cmdclass={"build_py": BuildWithResults},
    entry_points={"console_scripts": lines("console_scripts"), "nbdev": ["matchbook=matchbook._modidx:d"]},
)
