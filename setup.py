"Joins settings.ini (what the package is and needs) to pyproject.toml (how tools treat it)."
from configparser import ConfigParser

from setuptools import find_packages, setup

settings = ConfigParser(delimiters=["="])
settings.read("settings.ini", encoding="utf-8")
settings = settings["DEFAULT"]


def lines(key): return [line for line in settings.get(key, "").splitlines() if line]


suffix = "_requirements"
setup(
    description=settings["description"],
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    author=settings["author"], author_email=settings["author_email"],
    license=settings["license"], keywords=settings["keywords"].split(),
    url=settings["git_url"], project_urls={"Documentation": settings["doc_url"]},
    packages=find_packages(include=["matchbook", "matchbook.*"]),
    install_requires=lines("requirements"),
    extras_require={key.removesuffix(suffix): lines(key) for key in settings if key.endswith(suffix)},
    entry_points={"console_scripts": lines("console_scripts"), "nbdev": ["matchbook=matchbook._modidx:d"]},
)
