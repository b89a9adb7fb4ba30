from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from slimline import manifest


@pytest.fixture
def parsed() -> Callable[[Path], Any]:
    """Read a config.pbtxt by Triton's own schema: an unknown field or value is an error."""

    def parse(path: Path) -> Any:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())

    return parse


@pytest.fixture(scope="session")
def measured(
    two_releases: tuple[Path, Path], resealed: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Return a release whose last stage was measured at these {batch size: ms} and holds these {format: facts}.

    The files that the formats' facts name are written beside the model.
    """

    def make(
        latency: dict[int, float] | None = None,
        formats: dict[str, Any] | None = None,
        model: bytes | None = None,
        **facts: Any,
    ) -> Path:
        def change(folder: Path, card: dict[str, Any]) -> None:
            row = card["benchmark"]["stages"][card["last"]]
            row["latency_ms"] = {str(size): {"p50": ms} for size, ms in (latency or {1: 0.1, 8: 0.4}).items()}
            row["threads"] = 2
            stage = folder / "chain" / card["last"]
            if model is not None:
                (stage / "model.onnx").write_bytes(model)
            for each in (formats or {}).values():
                (stage / each.get("engine", each.get("file"))).write_bytes(b"made elsewhere")
            document = {"format": 1, "variant": "fp32", "formats": formats or {}} | facts
            manifest.write_json(stage / "facts.json", document)
            (stage / manifest.MANIFEST).unlink()
            with manifest.sealed(folder / "sealed") as scratch:
                for path in stage.iterdir():
                    (scratch / path.name).write_bytes(path.read_bytes())
            for path in stage.iterdir():
                path.unlink()
            stage.rmdir()
            (folder / "sealed").rename(stage)

        return resealed(two_releases[0], tmp_path_factory.mktemp("measured") / "release", change)

    return make
