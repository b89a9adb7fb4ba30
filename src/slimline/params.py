"""params.yaml as typed, frozen sections. An unknown or out-of-range key is an error that names file and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    TypeAdapter,
    ValidationError,
    model_serializer,
)

from slimline import plugins
from slimline.errors import ParamsError, near_miss

FILE = Path("params.yaml")
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Layer = Annotated[str, Field(coerce_numbers_to_str=True)]  # YAML reads the layer 3 as a number
Part = Literal["decode", "queue", "predict", "encode", "total"]  # of a request's time
Signal = Literal["accuracy", "agreement", "estimate", "drift", "latency", "errors", "traffic", "coverage"]


class Section(BaseModel):
    """Base of every section: frozen, and no key passes unread."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Plugin(Section):
    """A plug-in by name with keyword arguments: ``{name: resnet, args: {depth: 18}}``."""

    name: str
    args: dict[str, Any] = {}


class Configured(BaseModel):
    """A plug-in whose own dataclass fields are its keys: ``{name: structured, ratio: 0.4}``."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """Return the keys beside ``name``."""
        return dict(self.model_extra or {})


class Weighted(Configured):
    """A loss and its weight in the sum: ``{name: soft, weight: 0.7, temperature: 4}``."""

    weight: Annotated[float, Field(ge=0)] = 1.0


Losses = Annotated[
    Annotated[Weighted, Tag("[one]")] | Annotated[list[Weighted], Field(min_length=1), Tag("[several]")],
    Discriminator(lambda value: "[several]" if isinstance(value, list) else "[one]"),
]


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Format = Annotated[Configured, BeforeValidator(_by_name)]


class Training(Section):
    """How the one training loop runs.

    ``views`` (None: a new one each epoch) is how many augmentations of the training set there are, ``mixup`` the share
    of them in which rows are blended in pairs (Zhang et al. 2018, arXiv:1710.09412; no label fits a blend, so it takes
    a teacher: Beyer et al. 2022, arXiv:2106.05237). ``best`` is what the epoch that is kept has the best of on the
    validation rows: the primary ``metric``, or the ``loss`` on outputs that is trained by, which says more of few rows.
    """

    epochs: Count
    batch_size: Count = 128
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    warmup: Share = 0.1
    views: Count | None = None
    mixup: Share = 0.0
    patience: Count | None = None
    best: Literal["metric", "loss"] = "metric"
    channels_last: bool = False
    precision: Literal["no", "bf16", "fp16"] = "no"
    clip_norm: Annotated[float, Field(gt=0)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_new(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A key that came later, at its default, changes no recorded decision."""
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if (key, value) != ("best", "metric")}


class Taught(Section):
    """What a student learns from: ``teacher``, further ``teachers``, and one loss or a weighted sum of several."""

    teacher: str | None = None
    teachers: list[str] = []
    loss: Losses = Weighted(name="soft-targets")

    @property
    def heard(self) -> list[str]:
        """Every teacher once, ``teacher`` first."""
        return list(dict.fromkeys(each for each in (self.teacher, *self.teachers) if each))

    def losses(self, where: str) -> list[tuple[Weighted, str]]:
        """Return each loss with its file and key; ``where`` is this section's."""
        if isinstance(self.loss, Weighted):
            return [(self.loss, f"{where}.loss")]
        return [(each, f"{where}.loss.{index}") for index, each in enumerate(self.loss)]


class Recovery(Training, Taught):
    """Fine-tuning after a compression, distilling from ``teacher`` when one is named; ``epochs: 0`` is none."""

    epochs: Annotated[int, Field(ge=0)]


class Before(Training):
    """Training before the methods, taught as ``recovery`` is; its own ``methods`` draw weights towards zero."""

    methods: list[Configured] = Field(min_length=1)


class Teacher(Section):
    """The model that everything is measured against: trained here, or taken from ``weights``.

    Those are a file (safetensors, a state dict, a Lightning checkpoint), a folder that transformers saved or its name
    on the hub, or ``pretrained`` for what a library offers.
    """

    model: Plugin
    weights: str | None = None
    training: Training | None = None


class Distill(Taught):
    """A student learns from a teacher; without ``model`` the input model itself is the student.

    ``keep`` {container: positions} are the blocks of the input model that the student is made of.
    """

    from_: str = Field(alias="from")
    teacher: str = "teacher"
    model: Plugin | None = None
    keep: dict[Layer, list[int]] | None = None
    training: Training


class Compression(Section):
    """A compression stage: training that prepares it, if any, methods in order, then recovery."""

    from_: str = Field(alias="from")
    before: Before | None = None
    methods: list[Configured] = Field(min_length=1)
    recovery: Recovery | None = None
    remeasure: bool = False

    @property
    def steps(self) -> dict[str, list[Configured]]:
        """Return the methods by the key they stand under, in the order in which they run."""
        before = {"before.methods": self.before.methods} if self.before else {}
        return {**before, "methods": self.methods}


class Target(Section):
    """Where the model will run, and how speed is measured."""

    runtime: str = "onnxruntime"
    threads: Count = 1
    batch_sizes: list[Count] = Field(default=[1, 8, 32], min_length=1)


class Export(Section):
    """Which stages are exported, to which formats, and how closely a runtime must agree with torch.

    A format is a plug-in's name, or a mapping with its keys: ``{name: tensorrt, compute: [86, 89]}``.
    """

    stages: list[str] = Field(min_length=1)
    formats: list[Format] = Field(default=[Configured(name="onnx")], min_length=1)
    samples: Count = 512
    min_agreement: Share = 0.99


class Latency(Section):
    """How long the speed measurement lasts: ``rounds`` interleaved rounds of ``repeats`` calls a model and batch."""

    rounds: Count = 40
    repeats: Count = 25


class Benchmark(Section):
    """Metrics measured on the test split beside the task's own, by plug-in name."""

    metrics: list[str] = []


class Budget(Section):
    """What a release may cost and must gain; judged on the bad end of each interval."""

    max_drop: dict[str, Annotated[float, Field(ge=0)]] = {}
    min_speedup: Annotated[float, Field(gt=0)] | dict[int, Annotated[float, Field(gt=0)]] | None = None
    max_bytes: Count | None = None
    min_recall: dict[str, Share] = {}
    confidence: Fraction = 0.95


class Undo(Section):
    """What happens on an alarm: nothing, a proposal, or the rollback itself.

    At most ``budget`` rollbacks within ``per_hours``, none within ``settle_minutes`` of the one before. ``target`` is
    where traffic is moved: a plug-in of the group ``slimline.targets`` with its keys.
    """

    policy: Literal["off", "propose", "act"] = "propose"
    target: Format = Configured(name="deployment")
    on: list[Signal] = ["accuracy", "agreement", "errors"]
    budget: Count = 2
    per_hours: Annotated[float, Field(gt=0)] = 24.0
    settle_minutes: Annotated[float, Field(ge=0)] = 10.0


class Monitor(Section):
    """What production is held to, and how sure an alarm must be.

    ``run_length`` is the average number of labels (or sampled rows) between two false alarms of one signal.
    ``latency_ms`` {part or total: objective} must be kept by ``latency_share`` of the requests; empty: twice what the
    release's benchmark says at the largest batch. ``error_share`` is what may be answered with 5xx.
    ``agreement_drop`` is how far agreement with the teacher may fall below the benchmark's. ``drift_rate`` is the
    chance that the release's references, being a sample, make drift of nothing. ``min_coverage`` is the share of rows
    that must have a label after ``label_delay_hours``; 0: a tenth of what came before. ``runbooks`` is the URL that
    alerts link to, with ``ALERT.md`` after it; where it is none, they carry the page's text.
    """

    run_length: Annotated[float, Field(ge=100)] = 1e6
    latency_ms: dict[Part, Annotated[float, Field(gt=0)]] = {}
    latency_share: Fraction = 0.99
    error_share: Fraction = 0.001
    agreement_drop: Fraction = 0.02
    drift_rate: Fraction = 0.001
    min_coverage: Share = 0.0
    label_delay_hours: Annotated[float, Field(gt=0)] = 24.0
    idle_minutes: Annotated[float, Field(gt=0)] = 15.0
    runbooks: str = "docs/runbooks/"
    undo: Undo = Undo()


class Params(Section):
    """The whole file. ``compressions`` holds the stages with a ``from``, by name, in file order."""

    task: Plugin
    seed: Annotated[int, Field(ge=0)] = 0
    limit: Count | None = None
    trust: list[str] = []
    target: Target = Target()
    teacher: Teacher
    export: Export
    latency: Latency = Latency()
    benchmark: Benchmark = Benchmark()
    budget: Budget = Budget()
    monitor: Monitor = Monitor()
    compressions: dict[str, Distill | Compression]

    @property
    def trusted(self) -> frozenset[str]:
        """The ``module:Name`` references that a loaded artifact may run."""
        return frozenset(self.trust)


FIXED = tuple(name for name in Params.model_fields if name != "compressions")


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep=deep)


def read(path: Path = FILE) -> dict[str, Any]:
    """Read a params file as plain data. Raises ParamsError when it is missing or not a YAML mapping."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a safe loader)
    except FileNotFoundError as error:
        raise ParamsError(
            f"{path}: not found; run this in the project's folder, or 'slimline init' to make one"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ParamsError(f"{path}: expected keys and values, found {type(document).__name__}")
    return document


def load(path: Path = FILE) -> Params:
    """Read and validate ``path``; ``configure`` validates plug-in settings, ``pipeline.check_order`` the order."""
    return parse(read(path), path)


def parse(document: Mapping[str, Any], path: Path = FILE) -> Params:
    """Validate a params document. Raises ParamsError with file, key and what to do."""
    fixed = {key: value for key, value in document.items() if key in FIXED}
    compressions: dict[str, Distill | Compression] = {}
    for key, value in document.items():
        if key in FIXED:
            continue
        if not isinstance(value, Mapping) or "from" not in value:
            known = [*FIXED, "distill", "prune", "quantize", "factorize"]
            missing = "a stage needs 'from'" if isinstance(value, Mapping) else "unknown key"
            raise ParamsError(f"{path}: {key}: {missing}.{near_miss(str(key), known)} Known: {', '.join(known)}")
        section: type[Distill | Compression] = Distill if "methods" not in value else Compression
        compressions[key] = _validate(section, value, f"{path}: {key}")
        if value.get("model") and value.get("keep"):
            raise ParamsError(f"{path}: {key}.keep: it takes blocks of the input model, and 'model' builds another")
    checked: Params = _validate(Params, {**fixed, "compressions": compressions}, f"{path}:")
    return checked


def configure(kind: str, chosen: Configured, where: str) -> Any:
    """Build the plug-in ``chosen`` names; its dataclass fields are its keys, checked as their annotations say.

    ``where`` is the file and key to name in an error, such as ``params.yaml: prune.methods.0``.
    """
    factory = plugins.find(kind, chosen.name, where=where)
    if not is_dataclass(factory):
        raise ParamsError(f"{where}: plug-in {chosen.name!r} must be a dataclass, its fields are its params.yaml keys")
    own = [field.name for field in fields(factory)]
    known = [*own, *(key for key in type(chosen).model_fields if key != "name")]
    for key in chosen.settings:
        if key not in own:
            raise ParamsError(
                f"{where}.{key}: unknown key of {chosen.name!r}.{near_miss(key, known)} Known: {', '.join(known)}"
            )
    return _validate(factory, chosen.settings, where)


def _validate(kind: Any, value: Any, where: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ParamsError(_first_line(error, kind, where)) from error


def _first_line(error: ValidationError, kind: Any, where: str) -> str:
    errors = error.errors(include_url=False)
    unknown = [each for each in errors if each["type"] in {"extra_forbidden", "unexpected_keyword_argument"}]
    first = (unknown or errors)[0] if errors[0]["type"] == "missing" else errors[0]  # a slip says why a key is missing
    location = [str(part) for part in first["loc"] if not _is_union_member(part)]
    at = where if where.endswith(":") else where + "."
    key = (at + " " if at.endswith(":") else at) + ".".join(location) if location else where.rstrip(":.")
    if first in unknown:
        known = _known_keys(kind, location)
        return f"{key}: unknown key.{near_miss(location[-1], known)}" + (f" Known: {', '.join(known)}" if known else "")
    if first["type"] == "missing":
        return f"{key}: missing; it has no default"
    text = first["msg"][0].lower() + first["msg"][1:]
    return f"{key}: {text}, found {first['input']!r}"


def _is_union_member(part: int | str) -> bool:
    """Pydantic puts the tried member of a union into an error's location; no such key stands in the file."""
    return isinstance(part, str) and (part in {"float", "int", "constrained-int", "constrained-float"} or "[" in part)


def _known_keys(kind: Any, location: list[str]) -> list[str]:
    """Return the keys allowed beside the last one of ``location``, walking the types from ``kind``."""
    kinds = _members(kind)
    for part in location[:-1]:
        kinds = [member for each in kinds for member in _members(_inner(each, part))]
    return [key for each in kinds for key in _keys(each) if key != "compressions"]


def _members(kind: Any) -> list[Any]:
    """Return the members of a union, annotations taken off."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        return [member for each in get_args(kind) for member in _members(each)]
    return [kind]


def _inner(kind: Any, part: str) -> Any:
    """Return the type behind the key (or position) ``part`` of a section, a dataclass, a mapping or a list."""
    if get_origin(kind) in {dict, list}:
        return get_args(kind)[-1]
    return _keys(kind).get(part)


def _keys(kind: Any) -> dict[str, Any]:
    """Return {key: type} of a section or a dataclass; none of anything else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    if not is_dataclass(kind):
        return {}
    types = get_type_hints(kind)
    return {field.name: types[field.name] for field in fields(kind)}
