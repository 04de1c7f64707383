"""What somebody meets who has photos and no environment: from ``pip install`` to a parquet file.

    KERAS_BACKEND=torch python -m benchmarks.newcomer --photos sets/trash sets/grocery

In an empty folder, with a new virtual environment: install, train and serve with the commands of
the README, drop altered copies of photos on the page in Chromium, export to parquet, and read that.
Each step with its seconds, and those of the processor. Needs Selenium, Chromium and chromedriver.
"""

import argparse
import base64
import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks import harness
from benchmarks.near_duplicates import cropped

ROOT = Path(__file__).parent.parent
EXTRAS = "torch,cli,parquet"
QUALITY = 50  # of the JPEG that an altered copy is saved as
NOT_NEW = ("KERAS_BACKEND", "PYTHONPATH", "VIRTUAL_ENV", "INSTDISC_TRACEBACK")
PARQUET = "photos.parquet"
VERSIONS = """
import importlib.metadata, json
names = "instdisc-core", "keras", "torch", "numpy", "pillow", "pyarrow", "starlette"
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
"""
READ = f"""
import json
import pyarrow.parquet
table = pyarrow.parquet.read_table({PARQUET!r})
rows = table.slice(0, 1).to_pylist()
print(json.dumps({{"rows": table.num_rows, "columns": table.column_names, "first": rows[0]}}))
"""
DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], 'altered.jpg', {type: 'image/jpeg'}));
const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
document.body.dispatchEvent(new DragEvent('drop', options));
"""
IDLE = "shown.view !== null && !document.querySelector('main[aria-busy]')"
NAMES = "return [...document.querySelectorAll('.grid .tile')].slice(0, 10).map(t => t.title)"


def commands(readme):
    """The two commands that the README shows after the installation, each as its words."""
    line = re.search(r"^instdisc train .*&& instdisc serve .*$", readme, flags=re.M)
    if line is None:
        raise ValueError("the README no longer has 'instdisc train ... && instdisc serve ...'")
    train, serve = (shlex.split(part) for part in line[0].split("&&"))
    return train, serve


def copied(folders, count, place, seed=0):
    """Copy some photos of folders into an empty one, each under a name of its own."""
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    found = [p for folder in folders for p in sorted(folder.rglob("*")) if p.suffix in suffixes]
    if len(found) < count:
        raise ValueError(f"{len(found)} photos in {', '.join(map(str, folders))}, not {count}")
    place.mkdir()
    for number, i in enumerate(np.random.default_rng(seed).permutation(len(found))[:count]):
        shutil.copyfile(found[i], place / f"{number:04}-{found[i].name}")
    return sorted(path.name for path in place.iterdir())


def altered(path, rng):
    """The bytes of a copy that is cropped to 90 % and compressed again."""
    with Image.open(path) as image:
        copy, data = cropped(image.convert("RGB"), rng), io.BytesIO()
    copy.save(data, "JPEG", quality=QUALITY)
    return data.getvalue()


def environment(folder):
    """The variables of a shell in which nothing is set up but the new environment."""
    kept = {k: v for k, v in os.environ.items() if k not in NOT_NEW and "THREADS" not in k}
    # "serve --open" would open a second browser: a command without effect takes its place.
    return {**kept, "PATH": f"{folder}{os.pathsep}{kept['PATH']}", "BROWSER": "true"}


def run(*command, folder, variables):
    """What a command prints, and its seconds: of the clock, and of the processor."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return done.stdout, {"wall": time.perf_counter() - start, "processor": processor}


def processor_seconds(pid):
    """The seconds of the processor that a process has used, in all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Seconds since it was made: of the clock, and of a process on the processor."""

    def __init__(self, pid):
        self.pid, self.start, self.before = pid, time.perf_counter(), processor_seconds(pid)

    def read(self):
        """Both of them."""
        processor = processor_seconds(self.pid) - self.before
        return {"wall": time.perf_counter() - self.start, "processor": processor}


def served(command, folder, variables):
    """A server that answers, the address that it says, and the seconds until then."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True
    )
    address = re.search(r"http://\S+", process.stdout.readline())
    if address is None:
        process.kill()
        raise RuntimeError(f"{shlex.join(command)} said no address")
    seconds = {"wall": time.perf_counter() - start, "processor": processor_seconds(process.pid)}
    return process, address[0], seconds


def browser():
    """Chromium without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


def dropped(driver, address, pid, pictures, shots=None):
    """Drop pictures on the page, one after the other.

    Args:
        driver: Selenium's browser.
        address: of the page.
        pid: of the server.
        pictures: dict from the name of a photo to the bytes of an altered copy.
        shots: a folder for screenshots of the page, or None.

    Returns:
        The seconds until the page is open; and for each picture its seconds and the first ten names
        that the page shows.
    """
    from selenium.webdriver.support.ui import WebDriverWait

    def until(script):
        return WebDriverWait(driver, 120, 0.05).until(lambda _: driver.execute_script(script))

    watch = Stopwatch(pid)
    driver.get(address)
    until(NAMES + ".length")
    opened, found = watch.read(), {}
    for number, (name, data) in enumerate(pictures.items()):
        watch = Stopwatch(pid)
        driver.execute_script(DROP, base64.b64encode(data).decode())
        until(f"return shown.path === 'upload/{number}' && {IDLE}")
        found[name] = {"names": driver.execute_script(NAMES), **watch.read()}
    if shots is not None:
        shots.mkdir(parents=True, exist_ok=True)
        for tab in ("upload/0", "photos", "duplicates", "outliers", "clusters", "map"):
            driver.execute_script("location.hash = arguments[0]", f"#/{tab}")
            until(f"return shown.path === '{tab}' && {IDLE}")
            time.sleep(1)  # for the pictures
            for width in (1280, 420):
                driver.set_window_size(width, 900)
                driver.save_screenshot(str(shots / f"{tab.replace('/', '-')}-{width}.png"))
    return opened, found


def summary(drops):
    """How often the original was first, and among the first ten; and the median seconds."""
    return {
        "copies": len(drops),
        "first": sum(name == drop["names"][0] for name, drop in drops.items()),
        "among_ten": sum(name in drop["names"] for name, drop in drops.items()),
        "seconds": median(drop["wall"] for drop in drops.values()),
    }


def checked(read, names):
    """What was read from parquet, once it is all of the photos with vectors and neighbors."""
    first = read["first"]
    assert read["rows"] == len(names), read["rows"]
    assert first["name"] in names
    assert abs(float(np.linalg.norm(first["vector"])) - 1) < 1e-3
    assert len(first["neighbors"]["ids"]) == len(first["neighbors"]["distances"]) > 0
    return {"rows": read["rows"], "columns": read["columns"]}


def tried(place, args):
    """All steps in an empty folder, and what each took."""
    binaries = place / "env" / ("Scripts" if os.name == "nt" else "bin")
    variables, steps, machine = environment(binaries), {}, harness.machine()
    call = {"folder": place, "variables": variables}
    names = copied(args.photos, args.count, place / "photos")
    source = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "HEAD"], stdout=subprocess.PIPE, check=True
    )
    (place / "checkout").mkdir()
    subprocess.run(["tar", "-x", "-C", place / "checkout"], input=source.stdout, check=True)
    pip = str(binaries / "pip"), "install", "--quiet"
    made = run(sys.executable, "-m", "venv", "env", **call)[1]
    torch = run(*pip, args.torch, **call)[1]
    rest = run(*pip, f"./checkout[{EXTRAS}]", **call)[1]
    steps["install"] = {key: made[key] + torch[key] + rest[key] for key in made}
    train, serve = commands((ROOT / "README.md").read_text())
    minutes = [] if args.minutes is None else ["--minutes", f"{args.minutes:g}"]
    train[0] = serve[0] = str(binaries / "instdisc")
    steps["train"] = run(*train, *minutes, **call)[1]
    epochs = len((place / "found" / "log.csv").read_text().splitlines()) - 1
    print(steps, flush=True)

    rng = np.random.default_rng(1)
    chosen = [names[i] for i in rng.choice(len(names), args.copies, replace=False)]
    pictures = {name: altered(place / "photos" / name, rng) for name in chosen}
    server, address, steps["serve"] = served([*serve, "--port", "0"], place, variables)
    try:
        driver = browser()
        try:
            found = dropped(driver, address, server.pid, pictures, args.screenshots)
        finally:
            driver.quit()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
    steps["open the page"], drops = found
    first = drops[chosen[0]]
    steps["drop a copy"] = {key: first[key] for key in ("wall", "processor")}
    instdisc = str(binaries / "instdisc")
    steps["export"] = run(instdisc, "export", "found", "-o", PARQUET, **call)[1]
    printed, steps["read"] = run(str(binaries / "python"), "-c", READ, **call)
    installed, _ = run(str(binaries / "python"), "-c", VERSIONS, **call)
    return {
        "machine": machine,  # with the commit whose archive was installed
        "photos": len(names),
        "minutes": args.minutes,
        "epochs": epochs,
        "commands": [shlex.join(["instdisc", *command[1:]]) for command in (train, serve)],
        "steps": steps,
        "drops": summary(drops),
        "parquet": checked(json.loads(printed), names),
        "installed": json.loads(installed),
    }


def main():
    """Try it, and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--photos", type=Path, nargs="+", required=True, help="folders; nothing is written there")
    add("--count", type=int, default=2000, help="how many of their photos")
    add("--copies", type=int, default=20, help="altered copies that are dropped")
    add("--minutes", type=float, help="of the training; by default what the command takes")
    add("--torch", default="torch==2.13.0", help="what pip installs first")
    add("--screenshots", type=Path, help="a folder for pictures of the page")
    add("--note", help="what else the machine did, for the document")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = tried(Path(folder), args)
    print(json.dumps(result, indent=1))
    harness.write("newcomer", {**result, "note": args.note})


if __name__ == "__main__":
    main()
