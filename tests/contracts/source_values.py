"""What the source checker knows of a value, and what it reports."""

from dataclasses import dataclass, field

from recorded import Symbol

HANDED_IN = {"trt": "tensorrt", "_trt": "tensorrt"}


@dataclass(frozen=True)
class Ref:
    """A module, class, function or enum member of a library, by its recorded path."""

    path: str


@dataclass(frozen=True)
class Bound:
    """A method of an object."""

    symbol: Symbol


@dataclass(frozen=True)
class Obj:
    """An object of a recorded class."""

    path: str


@dataclass(frozen=True)
class Own:
    """An object of one of our classes that inherits from a library's; ``Own`` of the class itself when called."""

    name: str
    is_class: bool = False


@dataclass(frozen=True)
class Foreign:
    """Something that a library gave us and whose class nobody recorded."""

    origin: str


Value = Ref | Bound | Obj | Own | Foreign | None


@dataclass
class OwnClass:
    """One of our classes with a library class among its bases."""

    base: str
    methods: set[str]
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass
class Report:
    """``uses``: recorded names that were met, with their places. ``problems``: what is not recorded."""

    uses: list[Finding] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
