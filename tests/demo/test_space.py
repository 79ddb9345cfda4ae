"""Hosting: the front matter of a Space, and a start from the container's files with only the required packages."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import gradio as gr
import pytest
import yaml
from gradio_client import Client, handle_file
from packaging.requirements import Requirement
from PIL import Image, ImageDraw

from benchmarks import ROOT
from benchmarks.running_app import free_port
from demo.app import SPACE_PORT, launch_options
from demo.server.request_body import LARGEST_FILE

FRONT = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
REQUIRED = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()]
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
# Starts the app with nothing to import but the standard library, the folder, and the packages named
ALONE = """
import importlib.machinery, importlib.metadata, runpy, sys

class Allowed(importlib.machinery.PathFinder):
    installed = importlib.metadata.packages_distributions()
    names = {allowed!r}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        owners = cls.installed.get(name.partition(".")[0], [])
        if owners and not any(owner.lower().replace("_", "-") in cls.names for owner in owners):
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Allowed
sys.path.insert(0, "")
runpy.run_path("app.py", run_name="__main__")
"""


def test_the_front_matter_is_what_a_space_reads() -> None:
    assert FRONT["sdk"] == "gradio"
    assert (ROOT / FRONT["app_file"]).is_file()
    assert {FRONT["colorFrom"], FRONT["colorTo"]} <= set(COLOURS)
    assert len(FRONT["short_description"]) <= 60
    assert {"title", "emoji", "license", "tags", "python_version"} <= set(FRONT)


def test_the_spaces_gradio_is_one_that_the_requirements_allow() -> None:
    (gradio,) = (requirement for requirement in REQUIRED if requirement.name == "gradio")
    assert FRONT["sdk_version"] in gradio.specifier


def test_the_app_can_be_reached_from_outside_only_on_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    assert launch_options(gr.Blocks())["server_name"] == "127.0.0.1"
    monkeypatch.setenv("SPACE_ID", "somebody/something")
    options = launch_options(gr.Blocks())
    assert (options["server_name"], options["server_port"]) == ("0.0.0.0", SPACE_PORT)


def test_the_app_is_not_shared_and_adds_no_readable_paths() -> None:
    options = launch_options(gr.Blocks())
    assert "allowed_paths" not in options
    assert options["share"] is False
    assert options["max_file_size"] == LARGEST_FILE


def closure(names: set[str]) -> set[str]:
    """The packages `names`, and all that they require in turn."""
    found: set[str] = set()
    waiting = [(name, frozenset[str]()) for name in names]
    while waiting:
        name, extras = waiting.pop()
        if name in found and not extras:
            continue
        found.add(name)
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        for line in required:
            requirement = Requirement(line)
            wanted = [{"extra": extra} for extra in (*extras, "")]
            if requirement.marker is None or any(requirement.marker.evaluate(extra) for extra in wanted):
                other = requirement.name.lower().replace("_", "-")
                if other not in found:
                    waiting.append((other, frozenset(requirement.extras)))
    return found


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """What git has of this working tree and the Dockerfile copies, and nothing else. A Space has all that git has."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY ")]
    command = ["git", "ls-files", "-z", "--", *copied]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_docker_copies_exactly_what_dockerignore_admits() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY ")}
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert ignored[0] == "*"


def test_the_files_of_the_container_start_with_the_required_packages_alone_and_answer(container: Path) -> None:
    port = free_port()
    allowed = closure({requirement.name.lower() for requirement in REQUIRED} | {"mcp"})  # gradio's extra
    assert "playwright" not in allowed
    environment = {**os.environ, "SPACE_ID": "somebody/something", "GRADIO_SERVER_PORT": str(port)}
    environment.pop("GRADIO_SERVER_NAME", None)
    temporary = container / "tmp"
    temporary.mkdir()
    environment["TMPDIR"] = str(temporary)
    command = [sys.executable, "-I", "-c", ALONE.format(allowed=allowed)]
    log = container / "log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=container, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for_health(port, server, log)
        seven = Image.new("L", (90, 90), 255)
        ImageDraw.Draw(seven).line([(20, 15), (70, 15), (35, 80)], fill=0, width=8, joint="curve")
        seven.save(container / "seven.png")
        client = Client(f"http://127.0.0.1:{port}", verbose=False)
        assert client.predict(handle_file(container / "seven.png"), api_name="/predict")["label"] == 7
        assert list(temporary.glob("bnmodel-*"))
    finally:
        server.terminate()
        server.wait(20)
    assert not list(temporary.glob("bnmodel-*"))


def wait_for_health(port: int, server: subprocess.Popen, log: Path) -> None:  # type: ignore[type-arg]
    for _ in range(600):
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
                assert response.read() == b'{"status":"ok"}'
                return
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
    pytest.fail(f"not healthy within two minutes:\n{log.read_text()}")
