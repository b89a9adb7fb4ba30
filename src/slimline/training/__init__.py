"""The one training loop, its losses, the teacher's cached answers, and resumed runs."""

from slimline.training.loop import Epoch, fit
from slimline.training.resume import State
from slimline.training.teacher_cache import TeacherCache

__all__ = ["Epoch", "State", "TeacherCache", "fit"]
