"""The command ``instdisc``: what a user without Python does, and every error on one line."""

import csv
import dataclasses
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from instdisc_core import command_line
from instdisc_core.checkpoints.record import read_record, write_record
from instdisc_core.index import ImageIndex

pytest.importorskip("click", reason="what the command line is written with")

from click.testing import CliRunner

from instdisc_core.command_line import found as found_module
from instdisc_core.command_line import training
from instdisc_core.command_line.commands import instdisc
from instdisc_core.command_line.group import one_line
from instdisc_core.recipes import Recipe, choosing, for_images

# Training, saving and loading on each backend is tested elsewhere: these need no compiled step.
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="the same commands on every backend"
)
PHOTOS = 10
TINY = Recipe("tiny", "a test", image_size=8, crop_size=8, depth=10, stem="patch", width=2,
              embedding_dim=4, batch_size=5, epochs=2, milestones=(), optimizer="adamw",
              augmentation="simclr", augmentation_settings=(("blur", False),))  # fmt: skip


def write_photos(folder, count=PHOTOS, seed=0):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), "uint8")).save(folder / f"{i}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with ``photos`` and what ``train`` found in them."""
    folder = tmp_path_factory.mktemp("trained")
    write_photos(folder / "photos")
    shutil.copy(folder / "photos/3.png", folder / "photos/copy of 3.png")
    (folder / "photos/broken.png").write_bytes(b"no image")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(training.recipes, "for_images", lambda *_, **__: TINY)
        done = CliRunner().invoke(instdisc, ["train", "photos", "--json", "-q"])
        assert done.exit_code == 0, done.stderr
        (folder / "trained.json").write_text(done.stdout)
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """Run a command in a copy of that folder; returns its JSON, or what it printed."""
    place = shutil.copytree(trained, tmp_path / "work")
    (place / "found" / "found.json").write_text(json.dumps({"photos": str(place / "photos")}))
    monkeypatch.chdir(place)
    monkeypatch.setattr(training.recipes, "for_images", lambda *_, **__: TINY)

    def run(*arguments, code=0):
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            done = CliRunner().invoke(instdisc, list(arguments))
        assert done.exit_code == code, done.output
        if code:
            assert done.stderr.splitlines()[-1].startswith("Error: ")
            assert "Traceback" not in done.output
            return done.stderr.splitlines()[-1]
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


def test_training_says_what_there_is_and_a_second_time_trains_nothing(trained, run, monkeypatch):
    said = json.loads((trained / "trained.json").read_text())
    assert {k: said[k] for k in ("photos", "copies", "skipped", "epochs", "trained")} == {
        "photos": PHOTOS + 1, "copies": 1, "skipped": 1, "epochs": 2, "trained": True
    }  # fmt: skip
    log = (trained / "found" / "log.csv").read_text()
    assert len(log.splitlines()) == 3
    monkeypatch.setattr(Recipe, "train", None)
    assert run("train", "photos", "--json")["trained"] is False
    assert "found holds a model and an index of 11 photos" in run("train", "photos")


def test_an_interrupted_training_continues(run, monkeypatch):
    """By the recipe that was chosen for it, also where steps take another time by then."""
    calls, train = [], Recipe.train
    monkeypatch.setattr(training.recipes, "for_images", for_images)
    monkeypatch.setattr(choosing, "seconds_per_step", lambda recipe, num_images: 25.0)

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            calls.append(epoch)
            if calls == [0, 1]:
                raise KeyboardInterrupt

    monkeypatch.setattr(
        Recipe,
        "train",
        lambda self, *args, **kwargs: train(self, *args, callbacks=[Stop()], **kwargs),
    )
    arguments = ["train", "photos", "-q", "--output", "other", "--minutes", "1"]
    done = CliRunner().invoke(instdisc, arguments)
    assert done.exit_code == 130
    assert "Interrupted. The same command continues." in done.stderr
    monkeypatch.setattr(choosing, "seconds_per_step", lambda recipe, num_images: 5.0)
    run(*arguments)
    assert calls == [0, 1, 1], "the first epoch was saved"
    assert len(Path("other/log.csv").read_text().splitlines()) == 3


def test_search_finds_others_and_copies_elsewhere(run, tmp_path):
    shutil.copy("photos/7.png", tmp_path / "new.png")
    inside, outside = run("search", "photos/7.png", str(tmp_path / "new.png"), "-k", "20", "--json")
    assert inside["query"] == "7.png"
    assert "7.png" not in [n["name"] for n in inside["neighbors"]]
    assert outside["neighbors"][0] == {"name": "7.png", "similarity": 1.0}
    assert len(inside["neighbors"]) == len(outside["neighbors"]) == PHOTOS
    assert re.search(r"^7\.png +\d\.\d{3} +\S+\.png$", run("search", "photos/7.png"), re.M)


def test_a_file_elsewhere_is_not_the_photo_of_its_name(run, monkeypatch):
    """Typed as a photo is named in the index, it is a copy, and both are found at once."""
    Path("copy").mkdir()
    shutil.copy("photos/7.png", "copy/7.png")
    monkeypatch.chdir("copy")
    own, copied, more = "../photos/7.png", "7.png", ["-i", "../found", "-k", "20", "--json"]
    assert len(run("search", own, "../copy/../photos/7.png", *more)) == 1
    inside, outside = run("search", own, copied, "../copy/7.png", *more)
    assert inside["query"] == "7.png"
    assert outside["query"] == str(Path("7.png").resolve())
    assert outside["neighbors"][0] == {"name": "7.png", "similarity": 1.0}


def test_nothing_is_written_among_the_photos(run, monkeypatch):
    for command in ("train", "index"):
        said = run(command, "photos", "--output", "photos/found", code=1)
        assert "photos/found, which is inside the folder of the photos; expected" in said
        assert "--output" in said
    assert "photos, which is inside" in run("report", "--output", "photos", code=1)
    assert not [path for path in Path("photos").iterdir() if path.is_dir()]
    monkeypatch.chdir("photos")
    assert "found, which is inside" in run("train", ".", code=1)


def test_copies_odd_ones_and_clusters_are_listed(run):
    found = run("duplicates", "--threshold", "0.001", "--json")
    assert found["groups"] == [["3.png", "copy of 3.png"]]
    assert found["pairs"][0]["names"] == ["3.png", "copy of 3.png"]
    printed = run("duplicates", "found", "--threshold", "0.001")
    assert printed.splitlines() == [
        "1 groups of near-duplicates, 2 of 11 photos.", "group 1", "3.png", "copy of 3.png"
    ]  # fmt: skip
    odd = run("outliers", "-n", "3", "--json")
    assert len(odd) == 3
    assert odd[0]["similarity"] <= odd[2]["similarity"]
    assert len(run("clusters", "-k", "50", "--json")) == 11, "as many as there are photos"
    groups = run("clusters", "-k", "2", "--json")
    assert sorted(name for one in groups for name in one["names"]) == sorted(
        ImageIndex.load("found/index").names
    )


def test_new_photos_are_added_and_another_folder_has_its_own_index(run):
    write_photos(Path("photos"), PHOTOS + 2)
    before = ImageIndex.load("found/index").rows
    added = {"output": "found", "photos": 13, "added": 2, "removed": 0}
    assert run("index", "photos", "--json") == added
    np.testing.assert_array_equal(ImageIndex.load("found/index").rows[:11], before)
    assert run("index", "photos", "--json")["added"] == 0
    write_photos(Path("others"), 3, seed=1)
    assert "is for the photos in" in run("index", "others", code=1)
    run("index", "others", "--model", "found", "--output", "elsewhere", "-q")
    assert len(ImageIndex.load("elsewhere/index")) == 3
    run("report", "elsewhere")


def test_deleted_and_changed_photos_are_left_out_of_the_index(run):
    Path("photos/copy of 3.png").unlink()
    remedy = "For a search among what is there now: instdisc index "
    assert remedy in run("report", code=1)
    assert remedy in run("train", "photos", code=1)
    shutil.copy("photos/1.png", "photos/5.png")
    found = run("index", "photos", "--json")
    assert (found["photos"], found["added"], found["removed"]) == (10, 1, 2)
    assert "copy of 3.png" not in run("search", "photos/3.png")
    assert ["1.png", "5.png"] in run("duplicates", "--json")["groups"]
    Path("photos").rename("pictures")
    assert run("index", "pictures", "--json")["photos"] == 10
    run("report")


def test_changed_photos_are_a_matter_for_the_index(run):
    """No message says what breaks the index, such as to delete its manifest."""
    shutil.copy("photos/1.png", "photos/5.png")
    said = run("report", code=1)
    assert "1 changed: 5.png; expected the photos that it was made from. For a search" in said
    Path("photos/5.png").write_bytes(b"")
    assert "For a search among what is there now: instdisc index" in run("report", code=1)
    run("index", "photos")
    write_photos(Path("photos"), PHOTOS + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = CliRunner().invoke(instdisc, ["report"])
    assert "are not in its manifest and are left out: 10.png, " in done.stderr
    assert "To include them, train a new model" in done.stderr
    assert "delete" not in done.stderr


def test_a_damaged_index_is_built_again(run, monkeypatch):
    """Of the photos that are there now, whatever the training had."""
    Path("photos/2.png").unlink()
    write_photos(Path("more"), 2, seed=2)
    Path("more/0.png").rename("photos/added.png")
    run("index", "photos")
    before = ImageIndex.load("found/index")
    (rows,) = Path("found/index").glob("rows*")
    rows.write_bytes(b"x" + rows.read_bytes()[1:])
    said = run("duplicates", code=1)
    command = re.search(r"'instdisc (index \S+ --output found)' builds it again", said)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = CliRunner().invoke(instdisc, command.split())
    assert done.exit_code == 0, done.output
    assert "safetensors, which was changed" in done.stderr
    assert "It is built again now." in done.stderr
    again = ImageIndex.load("found/index")
    assert set(again.names) == set(before.names)
    assert np.isfinite(again.rows).all()
    Path("found/index/index.json").write_text("{}")
    assert "builds it again" in run("report", code=1)
    run("index", "photos")
    assert len(ImageIndex.load("found/index")) == 11
    Path("found/model.keras").rename("moved.keras")
    Path("found/index/index.json").write_text("{}")
    assert "--model MODEL' builds it again" in run("report", code=1)
    run("index", "photos", "--model", "moved.keras", "--size", "8")


def test_an_index_knows_mirror_images_as_the_training_did(run, monkeypatch):
    """Where it did not mirror, an image and its mirror image are two; also in a new index."""
    assert ImageIndex.load("found/index").mirror is True
    settings = (*TINY.augmentation_settings, ("flip", False))
    handed = dataclasses.replace(TINY, augmentation_settings=settings)
    monkeypatch.setattr(training.recipes, "for_images", lambda *_, **__: handed)
    run("train", "photos", "--output", "handed", "-q")
    assert ImageIndex.load("handed/index").mirror is False
    shutil.rmtree("handed/index")
    run("index", "photos", "--output", "handed")
    assert ImageIndex.load("handed/index").mirror is False


def test_an_index_of_another_version_is_kept(run):
    about = read_record(Path("found/index/index.json"))
    write_record(Path("found/index/index.json"), about | {"format": 2})
    for command in (("train", "photos"), ("index", "photos"), ("report",)):
        assert "an index of format 2; expected format 1" in run(*command, code=1)


def test_photos_that_were_moved_may_have_changed(run):
    Path("photos").rename("pictures")
    Path("pictures/1.png").rename("pictures/renamed.png")
    assert "is for the photos in" in run("train", "pictures", code=1)
    found = run("index", "pictures", "--json")
    assert (found["photos"], found["added"], found["removed"]) == (11, 1, 1)
    run("report")


def test_photos_may_be_moved(run):
    Path("photos").rename("pictures")
    assert "If they were moved: instdisc index NEW_FOLDER" in run("report", code=1)
    write_photos(Path("others"), 3, seed=1)
    assert "is for the photos in" in run("index", "others", code=1)
    assert run("index", "pictures", "--json")["added"] == 0
    assert "is for the photos in" in run("index", "others", code=1)
    assert "was there already" in run("train", "pictures")
    run("report")


def test_a_training_that_cannot_begin_leaves_nothing(run):
    write_photos(Path("few"), 1)
    shutil.copy("few/0.png", "few/copy.png")
    Path("few/broken.jpg").write_bytes(b"no image")
    message = "2 photos, 1 of them copies, and 1 files that cannot be read; expected at least 2"
    assert message in run("train", "few", "--output", "new", code=1)
    assert not Path("new").exists()
    write_photos(Path("few"), 5)
    assert run("train", "few", "--output", "new", "-q", "--json")["photos"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "photos", "--recipe", "small-cifar10", "--minutes", "5"], "--minutes and --rec"),
        (["index", "photos", "--size", "128"], "--size 128, and an index of images of 8 x 8"),
        (["index", "photos", "-m", "found", "-o", "new", "--size", "9"], "--size 9, and an index"),
    ],
)
def test_options_that_would_be_ignored_are_errors(run, arguments, message):
    assert message in run(*arguments, code=1)


def test_a_link_is_a_photo_of_its_own(run):
    Path("elsewhere.png").write_bytes(Path("photos/4.png").read_bytes())
    Path("photos/link.png").symlink_to(Path("elsewhere.png").resolve())
    run("index", "photos")
    (found,) = run("search", "photos/link.png", "--json")
    names = [neighbor["name"] for neighbor in found["neighbors"]]
    assert found["query"] == "link.png"
    assert names[0] == "4.png"
    assert "link.png" not in names


def test_an_encoder_that_was_trained_elsewhere_is_taken(run):
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    keras.Sequential([keras.Input((8, 8, 3)), *layers]).save("own.keras")
    run("index", "photos", "--model", "own.keras", "--output", "by-own", "-q")
    assert ImageIndex.load("by-own/index").rows.shape == (11, 3)


def test_the_report_is_a_page_pictures_and_lists(run, monkeypatch):
    found = run("report", "--json")
    assert found["files"] == [
        "index.html", "near-duplicates.csv", "outliers.csv", "tsne.png", "log.png"
    ]  # fmt: skip
    for name in found["files"]:
        assert Path("found/report", name).stat().st_size > 10
    assert len(Path("found/report/outliers.csv").read_text().splitlines()) == 12
    script = Path("found/report/page/data.js").read_text()
    assert all(f'"{name}"' in script for name in ImageIndex.load("found/index").names)
    made = {path: path.stat().st_mtime_ns for path in Path("found/report").rglob("*.webp")}
    assert len(made) == 10, "a copy has the same"
    with monkeypatch.context() as patch:
        patch.setattr(found_module, "layout", None)  # what was computed is kept
        run("report")
    assert made == {path: path.stat().st_mtime_ns for path in made}
    Path("site").mkdir()
    Path("site/.git").mkdir()  # is no obstacle
    for name, why in (("index.html", "would be replaced"), ("log.png", "They would be replaced")):
        Path("site", name).write_text("my own")
        assert why in run("report", "--output", "site", code=1)
        assert {path.name for path in Path("site").iterdir()} == {name, ".git"}
        Path("site", name).unlink()
    run("report", "--output", "site")
    run("report", "--output", "site")
    found = run("report", "--test", "photos", "--output", "evaluated", "--json")
    stored = json.loads(Path("evaluated/report.json").read_text())
    assert stored["about"]["trained_on_train"] is False
    assert found["evaluation"] == stored["rows"]
    assert {"report.csv", "report.json", "report.txt"} <= set(found["files"])


@pytest.fixture
def server(monkeypatch):
    """A server that asks itself for its page, and is interrupted then."""
    pytest.importorskip("httpx2", reason="what its test client is written with")
    from starlette.testclient import TestClient

    from instdisc_core import server

    asked = []

    def run(app, listener):
        host = f"http://127.0.0.1:{listener.getsockname()[1]}"
        asked.append(TestClient(app, host).get("/").status_code)
        listener.close()

    monkeypatch.setattr(server, "run", run)
    return asked


def test_one_photo_is_enough_for_all_but_outliers(run):
    write_photos(Path("one"), 1)
    run("index", "one", "--model", "found", "--output", "single")
    assert "index of" not in run("export", "single", "-o", "one.csv")
    assert run("duplicates", "single", "--json")["groups"] == []
    assert "index.html" in run("report", "single", "--json")["files"]
    assert Path("single/report/outliers.csv").read_text().splitlines() == ["name,similarity"]
    said = run("outliers", "single", code=1)
    assert said == "Error: one image; expected two or more. One has no neighbors."


def test_a_server_says_where_it_is(run, server, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert re.match(r"11 photos at http://127.0.0.1:\d+/\n", run("serve", "found", "-p", "0"))
    assert not opened
    found = run("serve", "--port", "0", "--open", "--json")
    assert opened == [found["url"]]
    assert server == [200, 200]
    for host in (
        "0.0.0.0",
        "127.0.0.2",
    ):  # others may reach it: with a token, which it was not told
        found = run("serve", "-p", "0", "--host", host, "--json")
        assert len(found["url"].partition("/?token=")[2]) == 32
    assert server[2:] == [403, 403]


def test_a_port_in_use_is_an_error_of_one_line(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} of 127.0.0.1, which is in use" in run("serve", "-p", port, code=1)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_a_server_ends_well_when_it_is_interrupted(run):
    code = "from instdisc_core.command_line import main; main()"
    command = [sys.executable, "-c", code, "serve", "found", "-p", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        said = b"".join(iter(process.stdout.readline, b"}\n")) + b"}"
        url = json.loads(said)["url"]
        with urllib.request.urlopen(url) as answer:
            assert b"<main" in answer.read()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, b"")


def test_an_export_has_the_photos_and_their_paths(run):
    found = run("export", "-o", "all.csv", "-k", "2", "--clusters", "2", "--json")
    assert found == {"output": "all.csv", "format": "csv", "photos": PHOTOS + 1}
    rows = list(csv.DictReader(Path("all.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == list(ImageIndex.load("found/index").names)
    assert all(Path(row["path"]).is_file() for row in rows)
    assert {len(row["neighbors"].split()) for row in rows} == {2}
    assert {row["cluster"] for row in rows} == {"0", "1"}
    none = run("export", "-o", "none.csv", "--threshold", "1e-6", "--json")
    assert none["photos"] == len(rows)
    rows = list(csv.DictReader(Path("none.csv").read_text().splitlines()))
    doubled = [row["name"] for row in rows if row["near_duplicate_group"] != "-1"]
    assert doubled == ["3.png", "copy of 3.png"]


def test_the_embeddings_of_a_folder_are_written(run):
    run("embed", "photos", "--output", "new.npz", "-q")
    with np.load("new.npz") as arrays:
        rows = ImageIndex.load("found/index").rows
        np.testing.assert_allclose(arrays["vector"], rows, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "nowhere"), "'nowhere', which does not exist; expected a folder of images."),
        (
            ("duplicates", "photos"),
            "photos, which holds no index; expected a folder that 'instdisc",
        ),
        (("search", "photos/broken.png"), "photos/broken.png is not an image: "),
        (("index", "photos", "--output", "new"), "A new index needs --model"),
        (("export", "--output", "all.txt"), "the suffix of the file='.txt'; expected one of"),
        (("export", "-o", "all.csv", "-f", "onnx"), "expected a file that ends in .onnx."),
        (("export", "-o", "found/photos.csv"), "which holds what a training or an index wrote"),
        (("embed", "photos", "-i", "found", "-o", "found/index/a.csv"), "an index wrote; expected"),
        (("export", "-o", "found", "-f", "projector"), "found, which holds what a training"),
        (("export", "-o", "photos/all", "-f", "projector"), "which is inside the folder of the"),
        (("report", "-o", ""), "--output without a path"),
        (("report", "-o", "photos"), "which is inside the folder of the photos"),
        (("train", "photos", "-o", "found/log.csv"), "found/log.csv, which is a file"),
        (("index", "photos", "-m", "found", "-o", "found/log.csv"), "log.csv, which is a file"),
        (("recipes", "unknown"), "recipe='unknown'; expected one of"),
        (("train", "photos", "--size", "64"), "--epochs or --size; expected --recipe with them."),
    ],
)
def test_an_error_is_one_line(run, arguments, message):
    assert message in run(*arguments, code=1)


def test_a_wrong_output_is_an_error_before_anything_is_computed(run, monkeypatch):
    for method in ("embed", "clusters", "neighbors"):
        monkeypatch.setattr(ImageIndex, method, None)
    Path("file").touch()
    for command in (("embed", "photos"), ("export", "--clusters", "2")):
        assert "the suffix of the file='.txt'" in run(*command, "--output", "all.txt", code=1)
        said = run(*command, "--output", "nowhere/all.csv", code=1)
        assert "nowhere/all.csv, whose folder does not exist" in said
    assert "file, which is a file; expected a folder" in run(
        "export", "--clusters", "2", "--output", "file", code=1
    )


def append(path):
    with open(path, "ab") as file:
        file.write(b"x")


def test_damage_and_changed_photos_are_errors_too(run):
    append("photos/5.png")
    assert "1 changed: 5.png" in run("report", code=1)
    append("found/index/index.json")
    assert "an index that is damaged" in run("outliers", code=1)


def test_wrong_arguments_have_the_status_2():
    for arguments in (["search"], ["search", "nowhere.jpg"], ["unknown"], ["outliers", "-n", "0"]):
        assert CliRunner().invoke(instdisc, arguments).exit_code == 2, arguments


def test_recipes_are_listed():
    done = CliRunner().invoke(instdisc, ["recipes"])
    assert re.search("^small-cifar10 +32 +25 ", done.stdout, re.M)
    done = CliRunner().invoke(instdisc, ["recipes", "paper-cifar10", "--json"])
    assert json.loads(done.stdout)["temperature"] == 0.1


def test_every_command_has_help_with_examples():
    for name in instdisc.commands:
        done = CliRunner().invoke(instdisc, [name, "--help"])
        assert re.search(rf"Examples?:\n +instdisc {name}", done.stdout), done.stdout


def test_what_libraries_say_becomes_one_line():
    said = "Received: St. Moritz.jpg. Expected an image. KERAS_BACKEND is read. Or two."
    shown = "St. Moritz.jpg; expected an image. KERAS_BACKEND is read. Or two."
    assert one_line(ValueError(said)) == shown
    assert one_line(ValueError("a  b.jpg\n\n  lines")) == "a  b.jpg lines."
    assert one_line(OSError()) == "OSError."


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), MemoryError("out of memory")])
def test_what_the_machine_cannot_do_is_one_line_too(run, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ImageIndex, "outliers", fail)
    assert run("outliers", code=1) == "Error: out of memory."


def test_an_error_that_nobody_expected_is_one_line_and_says_how_to_see_more(monkeypatch):
    class ResourceExhaustedError(Exception):  # TensorFlow's is no MemoryError
        pass

    def fail(*_):
        raise ResourceExhaustedError("no memory\nfor this tensor")

    monkeypatch.setattr(training.recipes, "names", fail)
    done = CliRunner().invoke(instdisc, ["recipes"])
    assert done.exit_code == 1
    assert "Error: ResourceExhaustedError: no memory for this tensor." in done.stderr
    assert "INSTDISC_TRACEBACK=1" in done.stderr
    monkeypatch.setenv("INSTDISC_TRACEBACK", "1")
    assert isinstance(CliRunner().invoke(instdisc, ["recipes"]).exception, ResourceExhaustedError)


def test_only_a_training_says_that_it_continues(run, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageIndex, "outliers", stop)
    done = CliRunner().invoke(instdisc, ["outliers"])
    assert (done.exit_code, done.stderr) == (130, "Interrupted.\n")


def test_an_interruption_of_the_imports_is_no_traceback(monkeypatch):
    class Interrupted:
        def find_spec(self, *_):
            raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "instdisc_core.command_line.commands")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 130


@keras.saving.register_keras_serializable("tests")
class Own(keras.layers.Layer):
    def call(self, images):
        return keras.ops.mean(images, (1, 2))


def test_an_encoder_of_an_unknown_class_is_an_error(run, monkeypatch):
    keras.Sequential([keras.Input((8, 8, 3)), Own()]).save("own.keras")
    registered = keras.saving.get_custom_objects()
    monkeypatch.delitem(registered, "tests>Own")
    said = run("index", "photos", "--model", "own.keras", "--output", "by-own", code=1)
    assert "own.keras, which Keras cannot load (Could not locate class 'Own'" in said
    assert len(said) < 500


def test_a_missing_extra_is_named(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors.numpy", None)
        assert "safetensors is not installed: pip install" in run("outliers", code=1)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "sklearn.cluster", None)
        assert run("clusters", code=1).endswith("'instdisc-core[cli]' scikit-learn.")
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit) as stopped:
        command_line.main()
    assert stopped.value.code == (
        "Error: the command line needs click: pip install 'instdisc-core[cli]'."
    )


def test_the_command_runs_in_a_process_of_its_own(run):
    code = "from instdisc_core.command_line import main; main()"
    command = [sys.executable, "-c", code, "outliers", "-n", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == run("outliers", "-n", "1", "--json")
