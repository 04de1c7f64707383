"""The page in a real browser: from files and from the server."""

import base64
import os
import shutil
import threading
from functools import partial

import keras
import numpy as np
import pytest
from PIL import Image, ImageDraw

from instdisc_core.data import ImageFolder
from instdisc_core.index import ImageIndex

pytest.importorskip("selenium", reason="what drives the browser")
pytest.importorskip("uvicorn", reason="what the server runs on")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from instdisc_core.server import bound, create_app

PROGRAMS = ("chromium", "chromedriver")
N = 60
HOSTILE = "<img src=x onerror=window.hacked=1>'\"$title .png"


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window. Where there is none tests are skipped, and fail in CI."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        said = (
            f"These tests need {' and '.join(missing)}: apt-get install chromium chromium-driver."
        )
        (pytest.fail if os.environ.get("BROWSER_REQUIRED") else pytest.skip)(said)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    flags = ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run")
    for flag in (*flags, "disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Shapes in three colors; the last has a hostile name."""
    folder = tmp_path_factory.mktemp("browser") / "photos"
    rng = np.random.default_rng(0)
    for i in range(N):
        image = Image.new("RGB", (60, 40 + i % 3 * 10), "white")
        corners = np.sort(rng.integers(0, 40, (2, 2)), axis=0)
        corners[1] += 5
        color = [(200, 30, 30), (30, 160, 30), (30, 30, 200)][i % 3]
        ImageDraw.Draw(image).ellipse(corners.ravel().tolist(), fill=color)
        path = folder / ("red", "green", "blue")[i % 3] / (f"{i:02}.png" if i < N - 1 else HOSTILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return ImageFolder(folder, 16, duplicates="keep", verbose=False)


@pytest.fixture(scope="module")
def index(photos):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8)])
    return ImageIndex.from_encoder(encoder, photos)


@pytest.fixture(scope="module")
def files(index, photos, tmp_path_factory):
    """The address of a page on the disk."""
    folder = tmp_path_factory.mktemp("page")
    positions = np.random.default_rng(0).random((N, 2))
    index.save_page(folder, photos, HOSTILE, k=12, num_clusters=4, positions=positions)
    return (folder / "index.html").as_uri()


@pytest.fixture(scope="module")
def served(index, photos, tmp_path_factory):
    """The address of the same page on a server."""
    import uvicorn

    positions = np.random.default_rng(0).random((N, 2))
    app = create_app(index, photos.folder, tmp_path_factory.mktemp("t"), lambda: positions)
    address = bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    run = partial(server.run, sockets=[address.listener])
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield address.url
    server.should_exit = True
    thread.join(10)


class Page:
    """A page that is open, and what a person does with it."""

    def __init__(self, browser, address, width=1200):
        self.browser = browser
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        browser.get("about:blank")
        browser.get_log("browser")
        browser.get(address)
        self.until(self.tiles)

    def until(self, condition):
        return WebDriverWait(self.browser, 20, 0.05).until(lambda _: condition())

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def tiles(self):
        return self.all(".tile")

    def names(self):
        return self.run("return [...document.querySelectorAll('.tile')].map(t => t.title)")

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def press(self, *keys):
        self.browser.switch_to.active_element.send_keys(*keys)

    def go(self, place):
        self.run("location.hash = arguments[0]", f"#/{place}")
        self.until(lambda: not self.all("main[aria-busy]"))

    def place(self):
        return self.run("return location.hash")

    def focused(self):
        return self.run("return document.activeElement.title")

    def check_quiet(self):
        """No script was injected, and no error was logged."""
        assert self.run("return window.hacked") is None
        assert [entry["message"] for entry in self.browser.get_log("browser")] == []


@pytest.fixture(params=["files", "served"])
def page(request, browser):
    page = Page(browser, request.getfixturevalue(request.param))
    yield page
    page.check_quiet()


def test_photos_load_and_names_are_searched(page, index):
    assert page.names() == list(index.names)[: len(page.names())]
    loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    page.until(lambda: page.run(loaded))
    box = page.all("#search")[0]
    page.press("/")
    page.press("RED 1")
    expected = [n for n in index.names if "red" in n and "1" in n]
    page.until(lambda: page.names() == expected)
    page.until(lambda: page.all("#status")[0].text == f"{len(expected)} photos of {N}")
    page.press(Keys.ESCAPE)
    page.until(lambda: len(page.names()) > len(expected))
    assert box.get_attribute("value") == ""


def test_a_click_shows_neighbors_and_back_returns(page, index):
    page.tiles()[4].click()
    page.until(lambda: page.all(".query-box"))
    assert page.place() == "#/image/4"
    expected = [index.names[i] for i in index.neighbors(12, [4]).indices[0]]
    assert page.names()[:12] == expected
    frames = [t.get_attribute("class") for t in page.tiles()[:12]]
    label = index.names[4].split("/")[0]
    assert ["same" in frame for frame in frames] == [n.startswith(label) for n in expected]
    assert page.all(".query-box a")[0].text == "Original"
    page.browser.back()
    page.until(lambda: not page.all(".query-box") and page.tiles())
    page.go("image/4")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.all(".query-box"))


def test_the_original_is_linked_also_of_an_odd_name(page, index):
    number = next(i for i, name in enumerate(index.names) if name.endswith(HOSTILE))
    page.go(f"image/{number}")
    picture = page.all(".query-box img")[0]
    wide = "return [arguments[0].naturalWidth, arguments[0].alt]"
    page.until(lambda: page.run(wide, picture)[0] == 60)
    assert page.run(wide, picture)[1] == index.names[number]
    assert page.all(".query-box a")[0].get_attribute("href") == picture.get_attribute("src")
    assert page.all(".query-box h2")[0].text.startswith("blue/<img src=x onerror=")


def test_the_keyboard_moves_and_opens(page, index):
    page.press(Keys.ARROW_DOWN)
    assert page.focused() == index.names[0]
    page.press(Keys.ARROW_RIGHT)
    assert page.focused() == index.names[1]
    columns = page.run(
        "const tops = [...document.querySelectorAll('.tile')].map(t => t.offsetTop);"
        "return tops.filter(t => t === tops[0]).length"
    )
    page.press(Keys.ARROW_DOWN)
    assert page.focused() == index.names[1 + columns]
    page.press(Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert page.focused() == index.names[0]
    page.press(Keys.ENTER)
    page.until(lambda: page.place() == "#/image/0" and page.all(".query-box"))
    page.press(Keys.ESCAPE)
    page.until(lambda: page.all(".tile") and not page.all(".query-box"))


def test_groups_outliers_and_clusters_have_tabs(page, index):
    tabs = [tab.text.split(" ")[0] for tab in page.all("nav a")]
    assert tabs == ["Photos", "Near-duplicates", "Outliers", "Clusters", "Map"]
    page.go("outliers")
    page.until(lambda: page.names()[:9] == [index.names[i] for i in index.outliers(9).indices])
    page.go("clusters")
    page.until(lambda: page.all("section"))
    total = int(page.all("section h2 a")[0].text.split(" ")[0])
    page.all("section h2 a")[0].click()
    page.until(lambda: page.place() == "#/cluster/0" and len(page.tiles()) == total)
    page.go("duplicates")
    page.until(lambda: "nearly the same" in page.all("#status")[0].text)


def test_the_map_is_drawn_zoomed_and_opens_photos(page, index):
    page.go("map")
    canvas = page.until(lambda: page.all("canvas"))[0]
    colors = (
        "const c = arguments[0], d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return new Set(new Uint32Array(d.buffer)).size"
    )
    if page.browser.current_url.startswith("http"):  # pictures of files may not be read again
        page.until(lambda: page.run(colors, canvas) > 3)
    before = page.run("return shown.view.scale")
    page.press("+")
    assert page.run("return shown.view.scale") > before
    x, y = page.run("return shown.view.screen(7)")
    found = page.run("return shown.view.nearest(...arguments)", x, y)
    page.run(
        "const [canvas, x, y] = arguments, box = canvas.getBoundingClientRect();"
        "const place = {clientX: box.x + x, clientY: box.y + y};"
        "canvas.dispatchEvent(new PointerEvent('pointermove', place))",
        canvas,
        x,
        y,
    )
    page.until(lambda: page.all(".tip span")[0].text == index.names[found].rstrip())
    event = {"offset": [x, y]}
    page.run(
        "const box = arguments[0].getBoundingClientRect(), [x, y] = arguments[1].offset;"
        "for (const type of ['pointerdown', 'pointerup']) arguments[0].dispatchEvent("
        "new PointerEvent(type, {pointerId: 1, clientX: box.x + x, clientY: box.y + y}))",
        canvas,
        event,
    )
    page.until(lambda: page.place() == f"#/image/{found}")


def test_the_map_stays_in_the_middle_of_a_window_that_grows(browser, files):
    page = Page(browser, files, 420)
    page.go("map")
    middle = "const v = shown.view; return v.fitted && [v.fitted[0], v.screen(0)[0], v.scale]"
    width, x, scale = page.until(lambda: page.run(middle))
    screen = {"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    page.until(lambda: page.run(middle)[0] > width)
    wider, moved, larger = page.run(middle)
    assert larger > scale
    assert (moved - wider / 2) / larger == pytest.approx((x - width / 2) / scale)


@pytest.mark.parametrize("place", ["photos", "image/3", "clusters", "map"])
def test_a_phone_s_width_is_enough(browser, files, place):
    page = Page(browser, files, 420)
    page.go(place)
    page.until(lambda: page.all("main > *"))
    assert page.run("return document.documentElement.scrollWidth") <= 420
    sides = page.run("return [...document.querySelectorAll('.grid .tile')].map(t => t.offsetLeft)")
    assert place in ("map", "clusters") or len(set(sides)) == 3
    page.check_quiet()


def test_it_is_dark_where_a_person_wants_it(browser, files):
    page = Page(browser, files)
    color = "return getComputedStyle(document.body).backgroundColor"
    bright = page.run(color)
    for value, same in (("dark", False), ("light", True)):
        features = [{"name": "prefers-color-scheme", "value": value}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        assert (page.run(color) == bright) is same


def test_a_policy_forbids_inline_scripts(browser, files):
    page = Page(browser, files)
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.hacked=1>')")
    page.until(lambda: browser.get_log("browser"))
    assert page.run("return window.hacked") is None


SEND = """
const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], arguments[1], {type: 'image/png'}));
const event = arguments[2] === 'drop'
  ? new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true})
  : new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true, cancelable: true});
document.body.dispatchEvent(event);
"""


@pytest.mark.parametrize("way", ["drop", "paste", "choose"])
def test_a_picture_finds_its_copy(browser, served, photos, index, way):
    page = Page(browser, served)
    path = photos.folder / index.names[20]
    if way == "choose":
        page.all("#file")[0].send_keys(str(path))
    else:
        page.run(SEND, base64.b64encode(path.read_bytes()).decode(), HOSTILE, way)
    page.until(lambda: page.place().startswith("#/upload/") and page.all(".query-box"))
    assert index.names[20] in page.names()[:2]
    named = path.name if way == "choose" else HOSTILE.rstrip()
    assert page.all(".query-box h2")[0].text == named
    page.check_quiet()


def test_what_is_no_picture_is_said(browser, served):
    page = Page(browser, served)
    page.run(SEND, base64.b64encode(b"text").decode(), "x.png", "drop")
    page.until(lambda: "no picture to search by" in page.all("#status")[0].text)
    assert page.tiles()


def test_the_page_of_one_file_opens(browser, index, photos, tmp_path):
    found = index.retrieve(photos, photos, k=4, indices=[0, 30])
    found.save_html(tmp_path / "found.html", HOSTILE)
    page = Page(browser, (tmp_path / "found.html").as_uri())
    rows = page.all(".strip.row")
    assert len(rows) == 2
    expected = [index.names[0], *found.names()[0][1]]
    assert [t.get_attribute("title") for t in rows[0].find_elements(By.CSS_SELECTOR, ".tile")] == (
        expected
    )
    assert page.run("return document.images.length") == 10
    page.check_quiet()
