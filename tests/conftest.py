"What several test files share: the command line in this process, and a real browser."
import shutil
import tempfile

import pytest

from matchbook import cli

chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
chromedriver = shutil.which("chromedriver")


@pytest.fixture
def call(capsys):
    "Run a command line in this process: exit code, stdout, stderr."
    def run(*words):
        with pytest.raises(SystemExit) as stop: cli.main([str(word) for word in words])
        return stop.value.code, *capsys.readouterr()
    return run


@pytest.fixture(scope="session")
def browser():
    if not chromium or not chromedriver: pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in ("headless=new", "no-sandbox", "no-first-run", "disable-gpu", "disable-quic",
                     "disable-background-networking", "disable-component-update", "disable-sync",
                     f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=Service(chromedriver))
        driver.set_script_timeout(20)
        yield driver
        driver.quit()
