"""JupyterLab as `./run_all.sh lab` starts it: the first lesson runs, and its sliders change the picture."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSON = ROOT / "notebooks" / "00_start_here.ipynb"
PATIENCE = 300  # s; where two cores are busy and compile for the first time

pytest.importorskip("selenium", reason="needs the environment of the book, see docs/running.md")
if not (ROOT / ".venv" / "made-from.txt").exists():
    pytest.skip("there is no environment: ./run_all.sh status quick makes it", allow_module_level=True)

# Every cell is shown, and nothing is saved.
SETTINGS = {
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "docmanager-extension/plugin": '{"autosave": false}',
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
}
CELLS = """() => Array.from(document.querySelectorAll(".jp-CodeCell"), cell => ({
    code: cell.querySelector(".jp-InputArea-editor").textContent,
    prompt: cell.querySelector(".jp-InputPrompt").textContent,
    errors: cell.querySelectorAll("[data-mime-type='application/vnd.jupyter.error']").length,
}))"""
PICTURE = """() => document.querySelector(".jp-CodeCell:has(.widget-hslider) .jp-OutputArea img").src"""


def wait_for(condition, seconds=PATIENCE):
    """The first value of a function that is true, and how long that took."""
    start = time.monotonic()
    while not (value := condition()):
        assert time.monotonic() < start + seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return value, time.monotonic() - start


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab without settings of the user."""
    for name, text in SETTINGS.items():
        path = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    variables = {name: str(tmp_path / folder) for name, folder in folders.items()}
    options = ["--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            [ROOT / "run_all.sh", "lab", *options], env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        printed, _ = wait_for(lambda: re.search(r"http://127\S+/lab\?token=\w+", (tmp_path / "log").read_text()))
        yield printed[0].replace("/lab?", f"/lab/tree/{LESSON.name}?")
    finally:
        server.terminate()
        server.wait(30)


def test_the_first_lesson_runs_and_its_sliders_change_the_picture(browser, lab):
    webdriver = pytest.importorskip("selenium.webdriver")
    before = LESSON.read_bytes()
    driver = browser.driver
    find = lambda css: driver.find_elements("css selector", css)  # noqa: E731
    browser.resize(1280, 1000)
    browser.problems()
    driver.get(lab)
    n_cell = sum(cell["cell_type"] == "code" for cell in json.loads(before)["cells"])
    wait_for(lambda: len(find(".jp-CodeCell")) == n_cell)
    wait_for(lambda: find(".jp-Notebook-ExecutionIndicator[data-status='idle']"))

    wait_for(lambda: [e for e in find(".lm-MenuBar-itemLabel") if e.text == "Run"])[0][0].click()
    wait_for(lambda: [e for e in find(".lm-Menu-itemLabel") if e.text == "Run All Cells"])[0][0].click()
    wait_for(lambda: all(re.match(r"\[\d+\]", cell["prompt"]) for cell in browser.run(CELLS)))
    assert [cell["code"] for cell in browser.run(CELLS) if cell["errors"]] == []

    for handle in find(".widget-hslider .noUi-handle"):
        picture = browser.run(PICTURE)
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
        webdriver.ActionChains(driver).drag_and_drop_by_offset(handle, 40, 0).perform()
        _, seconds = wait_for(lambda picture=picture: browser.run(PICTURE) != picture)
        assert seconds < 2
    assert browser.problems() == []
    assert LESSON.read_bytes() == before
