"""The image: what is in it, what it is built from, and that its files say what was tried."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from fsspec.registry import known_implementations

from tests.serving.manifests import ALL_PODS, ROOT, SERVING, containers


def test_the_image_holds_no_torch_and_no_root() -> None:
    text = re.sub(r"^#.*\n", "", (SERVING / "Dockerfile").read_text(), flags=re.MULTILINE)
    build, final = text.split("\nFROM ")
    assert "ARG EXTRAS=serve\n" in build
    assert '".[${EXTRAS}]"' in build
    assert not re.search(r"\btrain\b", text)
    users = re.findall(r"^USER (.+)$", final, re.MULTILINE)
    assert users[-1:] == ["10001:10001"], "a number: Kubernetes can't tell whether a name is root"
    assert final.index("\nUSER ") < final.index("\nENTRYPOINT ")
    for image in re.findall(r"^(?:FROM )?(python:\S+)", text, re.MULTILINE):
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", image)


@pytest.mark.parametrize("path", ["serving/k8s/deployment.yaml", "docs/serving.md"])
def test_the_documented_build_has_what_the_cluster_needs(path: str) -> None:
    """The driver of a store that replicas share, and what reads the release's URL."""
    (line,) = re.findall(r"docker build (.+)", (ROOT / path).read_text(encoding="utf-8"))
    given = dict(re.findall(r"--build-arg (\w+)=(\S+)", line))
    assert given.keys() == {"EXTRAS", "PACKAGES"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = given["EXTRAS"].split(",")
    assert {"serve", "postgres"} <= set(extras) <= project["optional-dependencies"].keys()
    (url,) = re.findall(r"URL=(\w+)://", (SERVING / "k8s/kustomization.yaml").read_text(encoding="utf-8"))
    assert known_implementations[url]["class"].partition(".")[0] in given["PACKAGES"].split(",")
    assert {each["image"] for name in ALL_PODS for each in containers(name)} == {re.findall(r"-t (\S+)", line)[0]}


def test_the_image_is_built_from_what_the_wheel_needs() -> None:
    ignored = (SERVING / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (SERVING / "Dockerfile").read_text(), re.MULTILINE)
    assert {name for line in copied for name in line.split()} == kept
    for name in kept:
        assert (ROOT / name).exists()
    wheel = (ROOT / "pyproject.toml").read_text().partition("wheel.force-include]")[2].partition("\n[")[0]
    assert set(re.findall(r'^"([\w./]+)" =', wheel, re.MULTILINE)) <= kept


@pytest.mark.parametrize(
    "path",
    sorted([SERVING / "compose.yaml", SERVING / "prometheus.yml", *SERVING.glob("k8s/*.yaml"), SERVING / "Dockerfile"]),
    ids=lambda p: p.name,
)
def test_each_file_says_that_it_was_checked_and_not_run(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert re.search(r"hecked by tests/serving.*not (run|built)", header, re.DOTALL)
