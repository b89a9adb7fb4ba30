"""Checks for plug-in authors: does a method or a task keep the promises that stages, artifacts and exports build on?

Each broken promise is an AssertionError of one line. Call them from a plug-in's own tests:

    check_task(MyTask(), raw=[…])
    check_method(MyMethod(ratio=0.5), MyModel(), MyTask())
"""

from slimline.testing.methods import check_method
from slimline.testing.tasks import check_task

__all__ = ["check_method", "check_task"]
