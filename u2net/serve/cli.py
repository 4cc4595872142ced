"""`u2net serve`: cut-outs over HTTP on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from u2net.commandline import Application, Doc
from u2net.errors import ConfigError

__all__ = ["ServeSettings", "application", "main"]

application = Application("u2net serve", "An HTTP service: a picture in, a cut-out out.", default="serve")


@dataclass(frozen=True)
class ServeSettings:
    """Where the service listens, and what may be asked of it."""

    host: Annotated[str, Doc("address to listen on")] = "127.0.0.1"  # this machine alone; 0.0.0.0 is everybody
    port: Annotated[int, Doc("port to listen on; 0 takes a free one")] = 8000  # no rights are needed above 1023
    jobs: Annotated[int | None, Doc("pictures at a time, a process each (as many as there are cores)")] = None
    waiting: Annotated[int, Doc("requests that may wait besides; more are sent away")] = 16  # each may hold an upload
    max_mb: Annotated[float, Doc("largest upload in megabytes")] = 50.0  # a photograph of 100 megapixels has 30
    max_pixels: Annotated[float, Doc("largest picture, or all frames of one, in megapixels")] = 50.0  # cameras have 45
    upload_s: Annotated[float, Doc("seconds that an upload may take")] = 30.0  # 50 MB at 14 Mbit/s
    work_s: Annotated[float, Doc("seconds that a picture may take")] = 60.0  # animations take a second a few frames

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"the port must be 0 to 65535, got {self.port}")
        if self.jobs is not None and not 1 <= self.jobs <= 256:
            raise ConfigError(f"jobs must be 1 to 256, got {self.jobs}")
        if not 0 <= self.waiting <= 10_000:
            raise ConfigError(f"waiting must be 0 to 10000, got {self.waiting}")
        for name, most in (("max_mb", 1024), ("max_pixels", 1e5), ("upload_s", 86_400), ("work_s", 86_400)):
            if not 0 < getattr(self, name) <= most:
                raise ConfigError(f"{name} must be above 0 and at most {most:g}, got {getattr(self, name):g}")


@application.command(
    examples="""
u2net serve
curl --data-binary @photo.jpg 'http://127.0.0.1:8000/cutout?format=webp&crop=true' -o cutout.webp
curl http://127.0.0.1:8000/health
"""
)
def serve(
    service: Annotated[ServeSettings, "Service"],
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="an ONNX file or a name as small; the packaged one, else one under build/"),
    ] = None,
    preset: Annotated[
        Literal["fast", "balanced", "best"], typer.Option(help="where a request names none")
    ] = "balanced",
) -> int:
    """Serve cut-outs over HTTP, to this machine alone unless told otherwise, until interrupted.

    POST a picture's file to /cutout; options are those of the command line, as ?format=webp&crop=true.
    """
    from .http import run

    return run(service, model, preset)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `u2net serve`; the exit status."""
    return application.run(argv)
