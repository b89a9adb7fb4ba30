"""Slimline's own code for Triton's Python, copied into the repository.

Triton's python backend runs in whatever Python its image has. So that nothing of Slimline has to be installed there
(and two versions of a model may need two versions of it), a version's folder carries the few modules that it runs,
laid out as ``pip install --target`` would: modules, and a ``.dist-info`` for each distribution whose preprocessing
steps are named, so that plug-ins are found by entry point as everywhere. numpy, onnxruntime, Pillow and tokenizers stay
Triton's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from slimline import __version__, plugins, source_code
from slimline.plugins import Offer

PACKAGE = "slimline"
FOLDER = "python"


def copy(modules: Sequence[str], operations: Iterable[str], target: Path) -> None:
    """Write ``modules``, the plug-ins of preprocessing ``operations``, and all they import of their own packages.

    Raises PluginError when an operation isn't registered.
    """
    offers = _offers(operations)
    wanted = [*modules, *(offer.target.partition(":")[0] for offer in offers)]
    packages = {PACKAGE, *(module.partition(".")[0] for module in wanted)}
    for name, path in sorted(source_code.sources(wanted, packages).items()):
        parts = name.split(".")
        is_package = path.name == "__init__.py"
        copied = target.joinpath(*(parts if is_package else parts[:-1]), path.name)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    described = {(PACKAGE, __version__)} | {(offer.distribution, offer.version) for offer in offers}
    for distribution, version in sorted(described):
        _describe(target, distribution, version, [each for each in offers if each.distribution == distribution])


def _offers(operations: Iterable[str]) -> list[Offer]:
    names = sorted(set(operations))
    for name in names:
        plugins.locate("preprocess", name, where=f"preprocess.json: {name}")
    return [offer for offer in plugins.offers("preprocess") if offer.name in names]


def _describe(target: Path, distribution: str, version: str, offers: Sequence[Offer]) -> None:
    folder = target / f"{distribution.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    points = [f"{offer.name} = {offer.target}" for offer in offers]
    if distribution == PACKAGE:
        runtime = plugins.locate("runtimes", "onnxruntime")
        sections = ["[slimline.preprocess]", *points, "", "[slimline.runtimes]", f"onnxruntime = {runtime}"]
    else:
        sections = ["[slimline.preprocess]", *points]
    (folder / "entry_points.txt").write_text("\n".join(sections) + "\n")
