"""Start PyPI's tritonserver for CPUs on a model repository: Triton without a container, to try and to test with.

    make .venv/triton/installed
    .venv/triton/bin/python serving/tritonserver/start.py REPOSITORY [--port 8000] [any option of tritonserver]

HTTP listens on PORT, gRPC on PORT + 1, metrics on PORT + 2, on this machine alone unless --address says otherwise. The
wheel's server needs three things that the container has by itself: the python backend with the stub of this
interpreter beside it, the folder of Python's own library and the wheel's libraries in LD_LIBRARY_PATH (the stub links
against both), and this interpreter first in PATH (the stub finds its packages by it).
"""

import argparse
import os
import shutil
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

OPTIONS = (
    "--model-control-mode=explicit",
    "--disable-auto-complete-config",
    "--strict-readiness=true",
    "--allow-gpu-metrics=false",
    "--metrics-config=summary_latencies=true",  # this server's histograms are for decoupled models alone
)
ADMIN = "model-repository,shared-memory,trace,logging"
HEADER = "TRITON_ADMIN"


def main() -> None:
    """Replace this process by tritonserver."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("repository", type=Path)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--load", action="append", help="a model to load at start; all by default")
    parser.add_argument("--backends", type=Path, help="where to lay out the backend; a new temporary folder by default")
    given, options = parser.parse_known_args()
    wheel = package()
    server = wheel / "tritonserver"
    backends = given.backends or Path(tempfile.mkdtemp(prefix="tritonserver-backends-"))
    lay_out(server, backends)
    command = [
        str(server / "bin" / "tritonserver"),
        f"--model-repository={given.repository.resolve()}",
        f"--backend-directory={backends.resolve()}",
        f"--http-address={given.address}", f"--grpc-address={given.address}",
        f"--http-port={given.port}", f"--grpc-port={given.port + 1}", f"--metrics-port={given.port + 2}",
        *OPTIONS, *restrictions(), *(f"--load-model={name}" for name in given.load or ["*"]), *options,
    ]  # fmt: skip
    os.execve(command[0], command, environment(wheel))  # noqa: S606  (our own command, without a shell)


def package() -> Path:
    """Return the folder of the package pytriton, without importing it."""
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        sys.exit("this Python has no nvidia-pytriton: make .venv/triton/installed, then run .venv/triton/bin/python")
    return Path(spec.origin).parent


def lay_out(server: Path, backends: Path) -> None:
    """Put the python backend and this interpreter's stub side by side: the wheel keeps a stub for every Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        sys.exit(f"nvidia-pytriton has no stub for Python {version}")
    shutil.copytree(server / "backends", backends, dirs_exist_ok=True)
    shutil.copy2(stub, backends / "python" / stub.name)


def environment(wheel: Path) -> dict[str, str]:
    """Return the environment in which the stub finds its libraries and this interpreter's packages."""
    library = Path(sysconfig.get_config_var("LIBDIR") or sys.base_prefix)
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        sys.exit(f"{sys.executable} has no shared libpython, which Triton's stub needs: take a Python built with it")
    folders = [str(library), str(wheel.parent / "nvidia_pytriton.libs"), os.environ.get("LD_LIBRARY_PATH", "")]
    return os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders)),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def restrictions() -> list[str]:
    """Return the options that keep administration for callers with the header NAME=VALUE of the environment."""
    header = os.environ.get(HEADER)
    if not header:
        return []
    return [f"--http-restricted-api={ADMIN}:{header}", f"--grpc-restricted-protocol={ADMIN}:{header}"]


if __name__ == "__main__":
    main()
