from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slimline import plugins
from slimline.errors import ParamsError, PluginError
from slimline.method import Method
from slimline.methods.structured import Structured


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A folder on sys.path where distributions can be laid out."""
    sys.path.insert(0, str(tmp_path))
    plugins._all_entry_points.cache_clear()
    plugins._entry_points.cache_clear()
    yield tmp_path
    sys.path.remove(str(tmp_path))
    plugins._all_entry_points.cache_clear()
    plugins._entry_points.cache_clear()


def distribution(folder: Path, name: str, points: str, version: str = "1.2") -> None:
    """Lay out an installed distribution that declares entry points, as pip would."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)


def test_a_builtin_is_found_by_its_name() -> None:
    assert plugins.find("methods", "structured") is Structured


def test_an_unknown_name_lists_what_there_is_and_hints_at_a_near_miss() -> None:
    with pytest.raises(PluginError) as caught:
        plugins.find("methods", "structred", where="params.yaml: prune.methods.0")
    text = str(caught.value)
    assert text.startswith("params.yaml: prune.methods.0: no plug-in 'structred' among slimline.methods")
    assert "Did you mean 'structured'?" in text
    assert "float16, heads, linear, magnitude, n-m, neurons, sparsify, spatial, structured" in text


def test_a_name_like_no_other_gets_no_hint() -> None:
    with pytest.raises(PluginError) as caught:
        plugins.find("methods", "zzz")
    assert "Did you mean" not in str(caught.value)


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(PluginError, match="'method' is no kind of plug-in; the kinds are tasks, models, methods"):
        plugins.find("method", "structured")


def test_a_foreign_distribution_is_found_like_a_builtin(path: Path) -> None:
    (path / "thirds_one.py").write_text("class Third: pass\n")
    distribution(path, "thirds", "[slimline.methods]\nthird = thirds_one:Third\n")
    assert plugins.find("methods", "third").__module__ == "thirds_one"
    (offer,) = [each for each in plugins.offers("methods") if each.name == "third"]
    assert offer == plugins.Offer("methods", "third", "thirds_one:Third", "thirds", "1.2")


@pytest.mark.parametrize("name", ["structured", "mine"], ids=["builtin", "foreign"])
def test_a_name_offered_twice_is_an_error_that_names_both_distributions(path: Path, name: str) -> None:
    distribution(path, "alpha", f"[slimline.methods]\n{name} = alpha:Mine\n")
    distribution(path, "beta", f"[slimline.methods]\n{name} = beta:Mine\n")
    with pytest.raises(PluginError) as caught:
        plugins.find("methods", name)
    assert "several distributions (alpha, beta" in str(caught.value)
    assert "uninstall one" in str(caught.value)


def test_a_module_beside_params_yaml_needs_no_packaging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_beside.py").write_text("class Outer:\n    class Inner: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert plugins.find("methods", "mine_beside:Outer.Inner").__qualname__ == "Outer.Inner"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Name", "can't be imported: No module named 'no_such_module'"),
        ("slimline.method:Nothing", "module slimline.method has no Nothing"),
        ("slimline.method:", "has no"),
        (":Name", "can't be imported"),
    ],
    ids=["module", "name", "empty name", "empty module"],
)
def test_a_reference_that_leads_nowhere_is_named(name: str, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        plugins.find("methods", name, where="here")
    assert str(caught.value).startswith(f"here: plug-in {name!r}")
    assert message in str(caught.value)


def test_an_artifact_may_not_run_code_that_nobody_trusts(path: Path) -> None:
    (path / "evil.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(PluginError, match="'evil:Method' would run code that is not registered"):
        plugins.find("methods", "evil:Method", trust=frozenset())
    assert "evil" not in sys.modules


def test_an_artifact_may_run_what_is_registered_or_trusted() -> None:
    assert plugins.find("methods", "structured", trust=()) is Structured
    assert plugins.find("methods", "slimline.method:Method", trust=["slimline.method:Method"]) is Method


def test_trust_is_for_whole_references() -> None:
    with pytest.raises(PluginError, match="not registered"):
        plugins.find("methods", "slimline.method:Plan", trust=["slimline.method:Method", "slimline.method"])


def test_offers_are_sorted_and_complete() -> None:
    rows = plugins.offers()
    assert {row.kind for row in rows} == set(plugins.KINDS)
    assert rows == sorted(rows, key=lambda row: (plugins.KINDS.index(row.kind), row.name))
    assert all(row.distribution and row.version for row in rows)


def test_listing_and_locating_import_nothing() -> None:
    code = (
        "import sys; from slimline import plugins; plugins.offers(); plugins.locate('methods', 'structured')\n"
        "heavy = {'torch', 'numpy', 'onnxruntime', 'slimline.methods'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("offer", plugins.offers(), ids=lambda offer: f"{offer.kind}-{offer.name}")
def test_everything_offered_can_be_loaded(offer: plugins.Offer) -> None:
    assert callable(plugins.find(offer.kind, offer.name))


FAMILY = "families_of_nets"


@pytest.fixture
def nets(path: Path) -> Path:
    """A distribution that offers the family ``zoo:``."""
    (path / f"{FAMILY}.py").write_text("def net(name, size=3):\n    return name, size\n")
    distribution(path, "zoo", f"[slimline.models]\nzoo: = {FAMILY}:net\n")
    return path


@pytest.mark.parametrize("trust", [None, ()], ids=["params.yaml", "artifact"])
@pytest.mark.parametrize("member", ["bear", "hub:bear", ""])
def test_a_family_is_called_with_what_stands_behind_the_colon(nets: Path, member: str, trust: Any) -> None:
    assert plugins.find("models", f"zoo:{member}", trust=trust)(size=5) == (member, 5)
    assert plugins.locate("models", f"zoo:{member}") == f"{FAMILY}:net"
    assert "zoo:" in [each.name for each in plugins.offers("models")]


def test_a_family_is_one_of_its_kind_only(nets: Path) -> None:
    assert plugins.locate("methods", "zoo:bear") == "zoo:bear"
    with pytest.raises(PluginError, match="would run code that is not registered"):
        plugins.find("methods", "zoo:bear", trust=())


def test_a_family_offered_twice_is_an_error(nets: Path) -> None:
    distribution(nets, "ark", f"[slimline.models]\nzoo: = {FAMILY}:net\n")
    with pytest.raises(
        PluginError, match=r"'zoo:' is registered as slimline.models by several distributions \(ark, zoo"
    ):
        plugins.find("models", "zoo:bear")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_missing_is_named_with_what_to_install(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ParamsError, match=rf"^{library}:net: {library} .*; pip install "):
        plugins.find("models", f"{library}:net")(classes=3)
