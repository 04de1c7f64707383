"""The server: what it answers, and to whom; hostile requests."""

import asyncio
import contextlib
import io
import os
import struct
import threading
import time
import zlib

import keras
import numpy as np
import pytest
from image_files import encoded, write
from PIL import Image

from instdisc_core.data import ImageFolder
from instdisc_core.evaluation import unit
from instdisc_core.index import ImageIndex

pytest.importorskip("starlette", reason="what the server is written with")
pytest.importorskip("httpx2", reason="what its test client is written with")

from starlette.testclient import TestClient

from instdisc_core.server import answers, bound, create_app, is_local
from instdisc_core.server.answers import Answers, Computing

pytestmark = pytest.mark.on_one_backend
N = 12
HOSTILE = "</script><img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "photos"
    rng = np.random.default_rng(0)
    for i in range(N - 1):
        pixels = rng.integers(0, 256, (20, 30, 3), "uint8")
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "ab"[i % 2] / f"{i:02}.png")
    try:
        write(folder / "a" / HOSTILE.replace("/", "\u2215"))
    except OSError:  # not a name on Windows
        write(folder / "a" / "x.png")
    return folder


@pytest.fixture(scope="module")
def index(photos):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(6)])
    return ImageIndex.from_encoder(encoder, ImageFolder(photos, 8, verbose=False))


@pytest.fixture
def app(index, photos, tmp_path):
    rng = np.random.default_rng(1)
    positions = rng.random((N, 2))
    return create_app(index, photos, tmp_path / "thumbnails", lambda: positions)


@pytest.fixture
def client(app):
    return TestClient(app, "http://127.0.0.1:8000")


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def waited(client, address):
    """The answer once it is computed."""
    for _ in range(200):
        answer = client.get(address)
        if answer.status_code != 202:
            return answer
        time.sleep(0.05)
    raise AssertionError("it is not computed")


def test_the_page_is_html_with_scripts_of_its_own(client, photos):
    home = client.get("/")
    assert home.headers["content-type"].startswith("text/html")
    assert "<h1>photos</h1>" in home.text
    for name in ("data.js", "page.js", "upload.js", "page.css"):
        assert f'"page/{name}"' in home.text
        assert client.get(f"/page/{name}").status_code == 200
    assert '"total":12' in client.get("/page/data.js").text


def test_photos_are_listed_in_parts_and_found_by_words(client, index):
    assert ids(client.get("/api/photos")) == list(range(N))
    part = client.get("/api/photos?from=3&to=5").json()
    assert (part["total"], [i["id"] for i in part["items"]]) == (N, [3, 4])
    found = client.get("/api/photos", params={"q": "B/ 01"}).json()
    assert [i["name"] for i in found["items"]] == ["b/01.png"]
    assert ids(client.get("/api/photos?from=-5&to=2")) == [0, 1]
    assert client.get("/api/photos?from=x").status_code == 400


def test_neighbors_are_those_of_the_index(client, index):
    answer = client.get("/api/image/3?to=4").json()
    scores, found = index.neighbors(11, [3])
    assert [i["id"] for i in answer["items"]] == found[0, :4].tolist()
    np.testing.assert_allclose([i["score"] for i in answer["items"]], scores[0, :4], atol=6e-4)
    assert answer["total"] == 11
    assert answer["query"]["name"] == index.names[3]
    assert answer["query"]["label"] == 0
    for address in (f"/api/image/{N}", "/api/image/-1", "/api/image/1e3", "/api/image/x"):
        assert client.get(address).status_code == 404


def test_an_image_is_named(client, index):
    assert client.get("/api/name/1").json() == {"name": index.names[1]}
    assert client.get(f"/api/name/{N}").status_code == 404


def test_groups_outliers_and_map_are_computed_once(client, index, monkeypatch):
    assert ids(waited(client, "/api/outliers")) == index.outliers(N).indices.tolist()
    clusters = waited(client, "/api/clusters").json()
    assert clusters["total"] == len(clusters["items"]) == N
    assert ids(client.get("/api/cluster/2")) == [clusters["items"][2]["items"][0]["id"]]
    assert client.get("/api/cluster/99").status_code == 404
    groups = waited(client, "/api/duplicates").json()
    assert groups["total"] == len(index.near_duplicates().groups)
    where = waited(client, "/api/map").json()
    assert len(where["points"]) == 2 * N
    assert (min(where["points"]), max(where["points"])) == (0, 9999)
    monkeypatch.setattr(ImageIndex, "outliers", None)
    assert client.get("/api/outliers").status_code == 200


def test_what_takes_long_is_asked_again_and_errors_are_said(index):
    def fail():
        raise ValueError("no map")

    ready = threading.Event()
    slow = Answers(index, lambda: ready.wait() and np.zeros((N, 2)))
    with pytest.raises(Computing):
        slow.map()
    ready.set()
    slow._threads["map"].join()
    assert slow.map()["points"] == [0] * (2 * N)
    failing = Answers(index, fail)

    def ask():
        while True:
            with contextlib.suppress(Computing):
                return failing.map()

    for _ in range(2):  # after an error it is tried again
        with pytest.raises(ValueError, match="no map"):
            ask()


def test_thumbnails_are_made_once(client, tmp_path, index):
    first = client.get("/thumbnail/0")
    assert first.headers["content-type"] == "image/webp"
    with Image.open(io.BytesIO(first.content)) as image:
        assert image.size == (30, 20)
    (path,) = (tmp_path / "thumbnails").rglob("*.webp")
    path.write_bytes(b"kept")
    assert client.get("/thumbnail/0").content == b"kept"
    assert client.get(f"/thumbnail/{N}").status_code == 404


def test_a_folder_that_cannot_be_written_to_is_no_error(index, photos, tmp_path):
    (tmp_path / "file").touch()
    client = TestClient(create_app(index, photos, tmp_path / "file"), "http://127.0.0.1")
    assert client.get("/thumbnail/1").content[8:12] == b"WEBP"


def test_a_picture_finds_its_copy(client, photos, index):
    path = photos / index.names[4]
    answer = client.post("/api/search", content=path.read_bytes()).json()
    assert answer["items"][0]["id"] == 4
    assert answer["items"][0]["score"] == 1
    assert answer["total"] == N


def too_many_pixels():
    """A small file that says it has 60 million pixels."""
    data = bytearray(encoded("PNG"))
    data[16:24] = struct.pack(">II", 10000, 6000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (lambda: b"no image", 400, "no picture to search by"),
        (lambda: b"", 400, "no picture"),
        (lambda: encoded("PNG")[:40], 400, "no picture"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400, "no picture"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", 400, "no picture"),
        (too_many_pixels, 400, "60000000 pixels, more than 50000000"),
    ],
    ids=["text", "nothing", "truncated", "postscript", "svg", "bomb"],
)
def test_what_is_no_picture_is_one_sentence(client, data, status, said):
    answer = client.post("/api/search", content=data())
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_too_many_bytes_are_not_read(client, monkeypatch):
    monkeypatch.setattr("instdisc_core.server.app.MAX_BYTES", 1000)
    for content in (b"x" * 1001, (b"x" * 400 for _ in range(5))):  # of known and unknown length
        answer = client.post("/api/search", content=content)
        assert answer.status_code == 413
    assert client.post("/api/search", content=b"x" * 999).status_code == 400


def test_an_index_without_a_model_has_no_search_by_picture(index, photos, tmp_path):
    rows = ImageIndex(index.rows, index.manifest)
    client = TestClient(create_app(rows, photos, tmp_path / "t"), "http://127.0.0.1")
    assert "upload.js" not in client.get("/").text
    assert client.post("/api/search", content=encoded("PNG")).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/page/../../../etc/passwd", "/page/..%2f..%2fpyproject.toml", "/page/%2e%2e/app.py",
        "/page//etc/passwd", "/page/index.html%00.js", "/original/..%2f..%2fsecret",
        "/thumbnail/../original/0", "/original/%2e%2e/secret.png", "/../secret.png", "/secret.png",
    ],
)  # fmt: skip
def test_no_path_leads_to_other_files(client, photos, path):
    (photos.parent / "secret.png").write_bytes(b"secret")
    answer = client.get(path)
    assert b"secret" not in answer.content
    if "/original/0" not in path:
        assert answer.status_code == 404


def test_an_address_has_a_largest_length(client):
    for path in ("/thumbnail/", "/api/name/", "/original/"):
        assert client.get(path + 5000 * "9").status_code == 414
        assert client.get(path + 100 * "9").status_code == 404


def test_an_upload_that_is_given_up_is_no_error(app):
    scope = {
        "type": "http", "method": "POST", "path": "/api/search", "raw_path": b"/api/search",
        "query_string": b"", "headers": [(b"host", b"localhost")], "http_version": "1.1",
    }  # fmt: skip
    parts = iter([{"type": "http.request", "body": b"x", "more_body": True}])

    async def receive():
        return next(parts, {"type": "http.disconnect"})

    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # raises what a terminal would show
    assert [message.get("status") for message in sent] == [400, None], "not 500"
    assert not sent[-1].get("body")


def test_only_what_was_indexed_is_given(tmp_path):
    """Also where a link to another file has taken the place of a photo."""
    for i in range(4):
        write(tmp_path / "photos" / f"{i}.png", [60 * i, 0, 0])
    source = ImageFolder(tmp_path / "photos", 8, verbose=False)
    index = ImageIndex(unit(np.random.default_rng(0).random((4, 3))), source)
    app = create_app(index, tmp_path / "photos", tmp_path / "t")
    client = TestClient(app, "http://localhost:1234")
    original = client.get("/original/0")
    assert original.content == (tmp_path / "photos/0.png").read_bytes()
    assert original.headers["content-type"] == "image/png"
    write(tmp_path / "secret.png")
    changed = {0: os.symlink, 1: lambda *_: None, 2: lambda *_: write(tmp_path / "photos/2.png")}
    for i, change in changed.items():
        (tmp_path / f"photos/{i}.png").unlink()
        change(tmp_path / "secret.png", tmp_path / f"photos/{i}.png")
        for kind in ("original", "thumbnail"):
            answer = client.get(f"/{kind}/{i}")
            assert answer.status_code == 404
            assert "cannot be read" in answer.json()["error"]
            assert str(tmp_path) not in answer.text


def test_a_folder_of_links_is_served_as_long_as_they_lead_to_what_was_indexed(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(2):
        write(tmp_path / f"{i}.png", [60 * i, 0, 0])
        os.symlink(tmp_path / f"{i}.png", tmp_path / f"photos/{i}.png")
    source = ImageFolder(tmp_path / "photos", 8, verbose=False)
    app = create_app(ImageIndex(np.eye(2), source), tmp_path / "photos", tmp_path / "t")
    client = TestClient(app, "http://localhost")
    write(tmp_path / "1.png", [0, 0, 90])
    for kind in ("original", "thumbnail"):
        assert [client.get(f"/{kind}/{i}").status_code for i in range(2)] == [200, 404]


def test_a_name_that_leaves_the_folder_is_not_read(tmp_path):
    write(tmp_path / "secret.png")
    (tmp_path / "photos").mkdir()
    source = ImageFolder(tmp_path, 8, verbose=False)
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        manifest = source.manifest
        object.__setattr__(manifest, "names", (name,))  # as in an index that somebody has made
        app = create_app(ImageIndex([[1.0, 0]], manifest), tmp_path / "photos", tmp_path / "t")
        client = TestClient(app, "http://localhost")
        assert client.get("/original/0").status_code == 404
        assert client.get("/thumbnail/0").status_code == 404


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8000", "[::1]:8000", "LOCALHOST"])
def test_this_machine_s_names_are_answered(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.com", "127.0.0.1.evil.com", "evil.com:8000", "localhost@evil.com", "[::1].x", "", "a/b",
     "localhost/../x", "192.168.0.2"],
)  # fmt: skip
def test_other_names_of_the_host_are_rejected(client, host):
    for path in ("/", "/api/photos", "/thumbnail/0", "/original/0", "/page/data.js"):
        assert client.get(path, headers={"host": host}).status_code == 403
    assert client.post("/api/search", headers={"host": host}, content=b"").status_code == 403


def test_other_pages_get_nothing(client):
    for site in ("cross-site", "same-site"):
        headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
        assert client.get("/thumbnail/0", headers=headers).status_code == 403
        headers["sec-fetch-mode"] = "navigate"  # a link to the page is no harm
        assert client.get("/", headers=headers).status_code == 200
    same, other = {"origin": "http://127.0.0.1:8000"}, {"origin": "http://evil.com"}
    rejected = ["http://evil.com", "null", "", "http://[", "http://[evil]:8000"]
    for origin, status in ((same, 400), *(({"origin": text}, 403) for text in rejected)):
        answer = client.post("/api/search", headers=origin, content=b"x")
        assert answer.status_code == status
        assert "access-control-allow-origin" not in answer.headers
    assert client.options("/api/search", headers=other).status_code == 403


def test_every_answer_has_headers_that_keep_it_here(client):
    for path in ("/", "/page/page.js", "/api/photos", "/thumbnail/0", "/original/0", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_an_error_that_nobody_expected_has_these_headers_too(app, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(Answers, "photos", fail)
    client = TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)
    answer = client.get("/api/photos")
    assert answer.status_code == 500
    assert answer.json() == {"error": "The server failed. The terminal in which it runs shows why."}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    with pytest.raises(ZeroDivisionError):  # whoever runs the server sees it
        TestClient(app, "http://127.0.0.1").get("/api/photos")


def test_a_token_is_required_and_becomes_a_cookie(index, photos, tmp_path):
    app = create_app(index, photos, tmp_path / "t", token="s3cret-é")
    client = TestClient(app, "http://machine:8000", follow_redirects=False)
    for path in ("/", "/?token=", "/?token=wrong", "/api/photos?token=s3cret-é", "/original/0"):
        answer = client.get(path)
        assert answer.status_code == 403, path
        assert "token" in answer.text
    app = create_app(index, photos, tmp_path / "t", token="s3cret")
    client = TestClient(app, "http://machine:8000", follow_redirects=False)
    welcome = client.get("/?token=s3cret")
    assert (welcome.status_code, welcome.headers["location"]) == (303, "./")
    cookie = welcome.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert client.get("/").status_code == 200
    assert client.get("/api/photos").status_code == 200
    client.cookies.clear()
    assert client.get("/api/photos").status_code == 403


def test_names_are_data_in_every_answer(client, index, tmp_path):
    listed = client.get("/api/photos")
    assert listed.headers["content-type"] == "application/json"
    app = create_app(index, tmp_path / "<img src=x>", tmp_path / "t")
    client = TestClient(app, "http://127.0.0.1:8000")
    data = client.get("/page/data.js").text
    assert "<img" not in data
    assert "\\u003cimg" in data
    assert "<h1>&lt;img src=x&gt;</h1>" in client.get("/").text


def test_an_address_in_use_is_one_sentence():
    first = bound("127.0.0.1", 0)
    port = first.listener.getsockname()[1]
    assert first.with_token(None) == f"http://127.0.0.1:{port}/"
    assert first.with_token("a b") == f"http://127.0.0.1:{port}/?token=a%20b"
    with pytest.raises(ValueError, match=rf"port {port} of 127\.0\.0\.1, which is in use\. Expec"):
        bound("127.0.0.1", port)
    first.listener.close()
    with pytest.raises(ValueError, match="where this machine cannot listen"):
        bound("no-such-host.invalid", 0)
    assert [is_local(h) for h in ("127.0.0.1", "::1", "0.0.0.0", "")] == [True, True, False, False]


def test_the_largest_picture_is_that_of_the_page(client):
    assert f'"maxBytes":{answers.MAX_BYTES}' in client.get("/page/data.js").text
