"""A real browser without a window: Chromium with its driver, where both are installed."""

import json
import shutil

import pytest

# Nothing of these asks another machine for anything.
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


class Browser:
    """What the tests ask of a browser."""

    def __init__(self, driver):
        self.driver = driver

    def resize(self, width, height=900):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def run(self, script, *arguments):
        """The value of a JavaScript function, waited for if it is a promise."""
        return self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            f"Promise.resolve(({script})(...Array.from(arguments).slice(0, -1))).then(done, e => done('error: ' + e))",
            *arguments,
        )

    def problems(self):
        """Errors of the console, and requests that failed or went to another machine, since the last call."""
        found = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            kind, values = message["method"], message["params"]
            if kind == "Network.requestWillBeSent":
                url = values["request"]["url"]
                found += [f"asks for {url}"] * (not url.startswith(("http://127.0.0.1:", "data:", "blob:", "chrome")))
            elif kind == "Network.responseReceived" and values["response"]["status"] >= 400:
                found.append(f"{values['response']['status']} {values['response']['url']}")
            elif kind == "Network.loadingFailed" and not values.get("canceled"):
                found.append(values["errorText"])
        return found


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("needs Chromium and chromedriver: on Debian, apt install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    driver.set_script_timeout(60)
    yield Browser(driver)
    driver.quit()
