"""``slimline probe`` of a real tritonserver, over HTTP and gRPC."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimline.monitor import probe_command

from .conftest import MODEL, Server


@pytest.mark.parametrize("form", ["http://{0.http}/v2/models/{1}", "triton+grpc://{0.grpc}/{1}"], ids=["http", "grpc"])
def test_the_release_that_a_triton_runs_is_recognized(
    server: Server, two_releases: tuple[Path, Path], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first release's answers have the classes of the second's too, which the newest version runs."""
    options = probe_command.Options(form.format(server, MODEL), two_releases[1], None, "label", None, "triton", 5.0)
    assert probe_command.once(options), capsys.readouterr().out
    assert "16 of 16 golden rows" in capsys.readouterr().out
