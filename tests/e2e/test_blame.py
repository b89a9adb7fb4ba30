"""The blame of chains that were trained anew with other seeds: no verdict hangs on one training."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimline.monitor.blame import blame
from tests.monitor.blame.planted import OVER_PRUNED, Traffic, Workshop, blurred, rotated


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_verdicts_hold_for_other_trainings(seed: int, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, seed)
    good = workshop.release("good")
    planted = {
        "nothing": (good, Traffic()),
        "quantize": (workshop.release("miscalibrated", brightness=0.5), Traffic()),
        "prune": (workshop.release("over-pruned", without=OVER_PRUNED), Traffic()),
        "data": (good, Traffic(change=blurred)),
        "data, turned": (good, Traffic(change=rotated)),
        "nothing, other mix": (good, Traffic(mix={1: 3.0, 8: 3.0})),
        "serving": (good, Traffic(delay=0.005)),
    }
    found = {}
    for name, (release, traffic) in planted.items():
        with traffic.write(f"sqlite:///{tmp_path}/{name}.db", release, workshop, seed) as store:
            found[name] = blame(release, store, rounds=5).verdict
    print(found)
    mix = found.pop("nothing, other mix")
    assert found == {name: name.partition(",")[0] for name in found}
    assert mix in {"nothing", "data"}
