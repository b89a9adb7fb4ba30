"""Settings: every mistake names its variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimline.endpoint.settings import from_environment
from slimline.endpoint.variants import describe
from slimline.errors import ParamsError


def test_variables_become_typed_fields() -> None:
    found = from_environment(
        {"SLIMLINE_RELEASE": "deploy", "SLIMLINE_MAX_ROWS": "7", "SLIMLINE_SAMPLE": "0.5", "PATH": "/bin"}
    )
    assert (found.release, found.limits.max_rows, found.sample) == (Path("deploy"), 7, 0.5)
    assert found.limits.max_pixels == 2**24


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SLIMLINE_MAX_ROW", "7", r"SLIMLINE_MAX_ROW: no such setting. Did you mean 'SLIMLINE_MAX_ROWS'\?"),
        ("SLIMLINE_MAX_ROWS", "many", "SLIMLINE_MAX_ROWS: 'many' is no int"),
        ("SLIMLINE_MAX_ROWS", "-1", "SLIMLINE_MAX_ROWS: -1, expected 0 or more"),
        ("SLIMLINE_SAMPLE", "1.5", "SLIMLINE_SAMPLE: 1.5, expected a share"),
        ("SLIMLINE_SAMPLE", "nan", "SLIMLINE_SAMPLE: nan, expected a share"),
        ("SLIMLINE_INPUTS", "all", "SLIMLINE_INPUTS: 'all', expected one of none, outputs, sampled"),
    ],
)
def test_a_mistake_names_its_variable(name: str, value: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        from_environment({name: value})


def test_one_release_is_one_variant() -> None:
    (only,) = describe("", Path("release"))
    assert (only.name, only.release, only.shadow) == ("default", Path("release"), False)


def test_a_release_that_is_missing_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = tmp_path / "nowhere"
    monkeypatch.setenv("SLIMLINE_RELEASE", f"{tmp_path}/./nowhere")
    with pytest.raises(ParamsError, match=f"^SLIMLINE_RELEASE: {nowhere}: no release: .* 'slimline deploy' wrote$"):
        describe("", nowhere)[0].directory()
    with pytest.raises(ParamsError, match=r"^other: no release: .*, as an argument or in SLIMLINE_RELEASE$"):
        describe("", Path("other"))[0].directory()
    with pytest.raises(ParamsError, match=rf"^SLIMLINE_VARIANTS: next\.release: {nowhere}: no release"):
        describe(f'{{"next": {{"release": "{nowhere}"}}}}', Path("other"))[0].directory()


def test_variants_come_as_json_or_from_a_file(tmp_path: Path) -> None:
    text = '{"stable": {"release": "a", "weight": 9}, "next": {"release": "b", "shadow": true}}'
    (tmp_path / "variants.json").write_text(text)
    assert describe(text, Path()) == describe(str(tmp_path / "variants.json"), Path())
    stable, following = describe(text, Path())
    assert (stable.weight, stable.shadow, following.shadow) == (9.0, False, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope.json", "SLIMLINE_VARIANTS: nope.json: can't be read"),
        ("{", "SLIMLINE_VARIANTS: not valid JSON"),
        ("{}", "no variant has a weight above 0"),
        ('{"a": {"release": "x", "shadow": true}}', "no variant has a weight above 0"),
        ('{"A b": {"release": "x"}}', "'A b': a variant's name is"),
        ('{"a": {}}', "a.release: expected the path"),
        ('{"a": {"release": "x", "wait": 1}}', "a.wait: unknown key"),
        ('{"a": {"release": "x", "weight": "1"}}', "a.weight: '1', expected a number"),
        ('{"a": {"release": "x", "weight": true}}', "a.weight: True, expected a number"),
        ('{"a": {"release": "x", "shadow": 1}}', "a.shadow: 1, expected true or false"),
    ],
)
def test_a_mistake_names_the_variant(text: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        describe(text, Path())
