"""The wheel, its dependencies, and lazy imports."""

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bnmodel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = PROJECT["dependencies"]
EXTRAS = PROJECT["optional-dependencies"]
DEPLOY, DEMO, DIAGNOSIS = (EXTRAS[extra] for extra in ("deploy", "demo", "diagnosis"))
SLOW_IMPORTS = ("sklearn", "scipy", "matplotlib", "torchvision", "PIL", "onnx", "onnxruntime", "gradio", "tyro")


def listed(file: str) -> list[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r"))]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


@cache
def distributions() -> dict[str, str]:
    """Import name → distribution, from the installed files: what packages_distributions() lacks in Python 3.10."""
    owners = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]  # once: each access parses a file
        for file in distribution.files or []:
            if file.suffix in (".py", ".so", ".pyd") and "tests" not in file.parts[0]:
                owners.setdefault(file.parts[0].partition(".")[0], name)
    return owners


def imported_packages(*paths: Path) -> set[str]:
    """Distributions of the packages imported anywhere in the files, functions included."""
    ours = {"bnmodel", "export", "demo", "benchmarks", "tests"}
    found = set()
    for path in paths:
        imported = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
        found |= {name for name in imported if not path.with_name(f"{name}.py").exists()}  # scripts import neighbours
    owners, standard = distributions(), {*sys.stdlib_module_names, "tomllib"}  # part of Python from 3.11 on
    return {canonicalize_name(owners.get(name, name)) for name in found - standard - ours}


def files(*folders: str, but: str = "-") -> list[Path]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return [path for path in paths if but not in path.relative_to(ROOT).as_posix()]


def test_git_does_not_change_line_ends_of_files_with_a_checksum(tmp_path: Path) -> None:
    """With core.autocrlf, the default of Git for Windows."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "core.autocrlf=true", *arguments], cwd=tmp_path, check=True, capture_output=True)

    original = ROOT / "checkpoints/lecture/golden.json"
    for file in (ROOT / ".gitattributes", original):
        shutil.copy(file, tmp_path)
    git("init")
    git("add", ".")
    (tmp_path / original.name).unlink()
    git("checkout", original.name)
    assert (tmp_path / original.name).read_bytes() == original.read_bytes()


def test_a_space_installs_the_dependencies_and_the_extras_of_the_app() -> None:
    assert listed("requirements.txt") == [*DEPENDENCIES, *DEPLOY, *DEMO]


@pytest.mark.parametrize(
    ("importers", "declared"),
    [
        (files("bnmodel", but="bnmodel/deploy/"), DEPENDENCIES + DIAGNOSIS),
        (files("bnmodel", "export"), DEPENDENCIES + DIAGNOSIS + DEPLOY),
        (files("demo"), DEPENDENCIES + DEPLOY + DEMO),
        (
            files("tests", "benchmarks", "examples", but="runtimes/workers/"),
            listed("requirements.txt") + listed("requirements-dev.txt"),
        ),
    ],
    ids=["bnmodel", "deploy and export", "demo", "tests and benchmarks"],
)
def test_every_imported_package_is_declared(importers: list[Path], declared: list[str]) -> None:
    allowed = names(declared) | {
        "gradio-client",  # gradio pins it to the version that it needs
        # used where they are installed
        *("lightning", "timm"),
    }
    assert imported_packages(*importers) <= allowed


def test_every_declared_package_is_imported() -> None:
    assert names(DEPENDENCIES + DEPLOY + DEMO) - imported_packages(*files("bnmodel", "export", "demo")) <= {
        "onnxscript"  # torch.onnx imports it
    }


def test_every_requirement_has_a_lowest_and_a_highest_version() -> None:
    for requirement in map(Requirement, listed("requirements.txt")):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators in ({">=", "<"}, {"~="}), requirement


@pytest.mark.parametrize(
    "statement",
    [
        "import bnmodel",
        "from bnmodel import CustomBatchNorm, SimpleCNN, SimpleMLP, load_checkpoint",
        "import bnmodel.nn, bnmodel.data, bnmodel.training",
    ],
)
def test_an_import_loads_no_slow_library_that_is_not_used(statement: str) -> None:
    script = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & set(SLOW_IMPORTS)
    assert ("torch" in loaded) == (statement != "import bnmodel")


def test_every_public_name_exists_and_type_checkers_see_the_same_names() -> None:
    for name in bnmodel.__all__:
        assert getattr(bnmodel, name) is not None
    tree = ast.parse((ROOT / "bnmodel/__init__.py").read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == bnmodel._MODULES
    assert {*seen, "__version__"} == set(bnmodel.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'CustomBatchNrom'"):
        _ = bnmodel.CustomBatchNrom


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the backend of the test environment: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of an environment with the wheel and this environment's dependencies, not the clone."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    install = [sys.executable, "-m", "pip", "--python", str(scripts / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--no-index", str(wheel)], check=True)
    where = [str(scripts / "python"), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site_packages = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    dependencies = dict.fromkeys(sysconfig.get_path(path) for path in ("purelib", "platlib"))
    (site_packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    return scripts


def run(command: list[str], cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_one_package_with_its_data_and_no_tests(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert {name.partition("/")[0] for name in held} == {
        "bnmodel",
        f"batchnorm_lab-{bnmodel.__version__}.dist-info",
    }
    folder = ROOT / "bnmodel"
    source = {
        path.relative_to(ROOT).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in held if name.startswith("bnmodel/")} == source
    assert {"bnmodel/py.typed", "bnmodel/data/mnist_sample.npz"} <= source


@pytest.mark.filterwarnings("ignore")
def test_the_installed_library_works_outside_the_clone(scripts: Path, tmp_path: Path) -> None:
    use = [str(scripts / "python"), str(ROOT / "tests/installed_use.py"), "certified"]
    assert str(scripts.parent) in run(use, tmp_path)


def test_the_installed_command_trains(scripts: Path, tmp_path: Path) -> None:
    command = str(scripts / "bnmodel")
    train = [command, "train", "--recipe", "fast", "--dataset", "digits", "--epochs", "1", "--learning-rate", "0.3"]
    assert "best validation loss" in run([*train, "--out", "trained"], tmp_path)
    assert (tmp_path / "trained/best.pt").exists()
