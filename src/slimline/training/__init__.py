"""The one training loop, its losses, the teacher's cached answers, and resumed runs."""

from slimline.training.features import find_layer
from slimline.training.loop import Epoch, fit
from slimline.training.objective import Objective, Term, check_terms
from slimline.training.resume import State
from slimline.training.teacher_cache import TeacherCache

__all__ = ["Epoch", "Objective", "State", "TeacherCache", "Term", "check_terms", "find_layer", "fit"]
