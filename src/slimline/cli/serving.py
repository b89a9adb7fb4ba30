"""Commands that serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def serve(
    release: Annotated[
        Path | None, typer.Argument(help="A release or a deployment folder; by default SLIMLINE_RELEASE, or ./release.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")] = 3000,
) -> None:
    """Serve a release over HTTP.

    Nothing but uvicorn is around it; settings come from SLIMLINE_… variables.
    """
    import os

    from slimline.endpoint import server, settings

    given = {} if release is None else {"SLIMLINE_RELEASE": str(release)}
    server.serve(settings.from_environment(os.environ | given), host, port)
