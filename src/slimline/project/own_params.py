"""What params.yaml says of one's own data whatever they are: rows, what is judged, the precision of trainings."""

from __future__ import annotations

from typing import Any

from slimline.project.own_data import Described


def rows_args(described: Described, labels: list[str]) -> dict[str, Any]:
    """Return the arguments that both tasks share: which columns say what, and what a label is."""
    said = {"label": described.label, "split": described.split, "group": described.group}
    args: dict[str, Any] = {key: column for key, column in said.items() if column is not None}
    if described.answer != "one":
        args["answer"] = described.answer
    if described.separator != ",":
        args["separator"] = described.separator
    return args | ({"labels": labels} if labels else {"tolerance": described.tolerance})


def judge(document: dict[str, Any], answer: str) -> None:
    """Set what the budget bounds by the kind of answer."""
    primary = {"one": "accuracy", "many": "micro_f1", "number": "within_tolerance"}[answer]
    document["budget"]["max_drop"] = {primary: 0.015}


def set_precision(document: dict[str, Any], *, in_groups: bool = False) -> None:
    """Train in bfloat16 where this machine computes it fast (``make bench-training`` measures it).

    On CPUs convolutions in groups are faster in float32 with channels last; quantizers are trained in float32.
    """
    import torch

    known = torch.cpu.get_capabilities()
    on_cpu = any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16")) and not in_groups
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if on_cpu or on_gpu:
        for each in (document["teacher"]["training"], document["distill"]["training"], document["prune"]["recovery"]):
            if each:  # a teacher may come trained
                each["precision"] = "bf16"
