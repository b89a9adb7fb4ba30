"""The sections of params.yaml, typed and frozen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

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
