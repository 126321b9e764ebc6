"""YAML with positions: every value has its line and column, so that a message can name the place of a mistake.

PyYAML parses the files, but values follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema),
which people expect: `010` is 10, `1e-3` is a number, `no`, `1:30` and `2024-01-01` are text. PyYAML itself follows YAML
1.1, and would read 8, text, false, 90 and a date. The merge key of YAML 1.1, `<<`, is read as well.
"""

import codecs
import math
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from greenseg.errors import UserError

Key = tuple[Hashable, ...]

_TAG = "tag:yaml.org,2002:"
_MOST = 1_000_000
"""Largest number of values of a file with its aliases; a short file could expand beyond the memory."""


def _whole(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(text[2:], base) if base else int(text)


def _number(text: str) -> float:
    if text[-1] in "fFnN":  # .inf and .nan
        return float(text.replace(".", ""))
    value = float(text)
    if math.isinf(value) or (value == 0 and re.match("[^eE]*[1-9]", text)):
        raise ValueError
    return value


class _Kind(NamedTuple):
    """A kind of scalar: a regular expression for its texts, their first characters, its name, and the conversion."""

    form: str
    first: str
    name: str
    value: Callable[[str], Any]


_KINDS = {
    "null": _Kind(r"~|null|Null|NULL|", "~nN", "null", lambda text: None),
    "bool": _Kind(r"true|True|TRUE|false|False|FALSE", "tTfF", "true or false", lambda text: text in "true True TRUE"),
    "int": _Kind(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789", "a whole number", _whole),
    "float": _Kind(
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
        "a number that fits into a float",
        _number,
    ),
    "str": _Kind(r"(?s:.*)", "", "text", str),
    "merge": _Kind(r"<<", "<", "<<", str),  # text if it is a value
}


class _Loader(yaml.SafeLoader):
    """Composes nodes with the tags of the core schema."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that the core schema or YAML 1.1 would read as another kind."""


_Loader.yaml_implicit_resolvers = {}
for _name, _kind in _KINDS.items():
    if _kind.first:
        for _class in (_Loader, _Dumper):
            _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_kind.form})\Z"), [*_kind.first])
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile(r"\Z"), [""])


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """A scalar node for text. Characters that are line breaks only in YAML 1.1 need quotes, else PyYAML folds them."""
    return dumper.represent_scalar(f"{_TAG}str", text, style='"' if re.search("[\x85\u2028\u2029]", text) else None)


_Dumper.add_representer(str, _text)


@dataclass(frozen=True)
class Document:
    """A parsed YAML file.

    Attributes:
        path: the file.
        value: its content as plain Python values.
        marks: path of keys and indices → (line, column) of the value, counted from 1; for values of a mapping, the
            place of the key.
    """

    path: Path
    value: Any
    marks: dict[Key, tuple[int, int]] = field(repr=False)

    def where(self, *key: Hashable) -> str:
        """`file:line:column` of a value, or of its nearest parent in the file."""
        while key and key not in self.marks:
            key = key[:-1]
        line, column = self.marks.get(key, (1, 1))
        return f"{self.path}:{line}:{column}"


def load(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        UserError: the file is missing or unreadable, is not YAML, or has duplicate keys (the message lists them all).
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        line, column = _place(before, len(before))
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "this is UTF-16" if utf16 else f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise UserError(f"{path}:{line}:{column}: not valid YAML: {what}; save the file as UTF-8") from None
    found = _Reader(text)
    if found.problems:
        raise UserError([f"{path}:{problem}" for problem in found.problems])
    return Document(path, found.value, found.marks)


def parse(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is not YAML.
    """
    found = _Reader(text)
    if found.problems:
        raise ValueError(f"{text!r} is not valid YAML")
    return found.value


def dump(value: Any) -> str:
    """YAML that `load` and PyYAML read back as the same value; the order of keys is kept."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Reader:
    """Reads a text.

    Attributes:
        value: its value.
        marks: as in `Document`.
    """

    def __init__(self, text: str) -> None:
        self.value: Any = None
        self.marks: dict[Key, tuple[int, int]] = {}
        self._found: set[tuple[int, int, str]] = set()
        try:
            root = _Loader(text).get_single_node()
            if root is not None:
                self.value = self._build(root, (), ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            hint = "; use spaces, not tabs, to indent and separate" if "'\\t'" in str(error.problem) else ""
            self._found = {(*place, f"not valid YAML: {error.problem or error}{hint}")}
        except yaml.reader.ReaderError as error:
            self._found = {(*_place(text, error.position), f"not valid YAML: {error.reason}")}
        except RecursionError:
            self._found = {(1, 1, "not valid YAML: lists or mappings are nested too deeply")}
        except _TooMuch:
            self._found = {(1, 1, f"not valid YAML: with its aliases, it has more than {_MOST:,} values")}

    @property
    def problems(self) -> list[str]:
        """Problems of the text, in order of place, each as `line:column: message`."""
        return [f"{line}:{column}: {message}" for line, column, message in sorted(self._found)]

    def _report(self, node: yaml.Node, message: str) -> None:
        self._found.add((*_start(node), message))

    def _build(self, node: yaml.Node, key: Key, ancestors: tuple[yaml.Node, ...]) -> Any:
        """The value of the node at `key`, inside its ancestors."""
        self.marks.setdefault(key, _start(node))
        if len(self.marks) > _MOST:
            raise _TooMuch
        if node in ancestors:
            self._report(node, "an alias refers to a value that contains it")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        inside = (*ancestors, node)
        kind = "seq" if isinstance(node, yaml.SequenceNode) else "map"
        if node.tag != _TAG + kind or not isinstance(node, yaml.CollectionNode):
            self._report(node, f"the tag {_short(node.tag)} is not valid here")
            return None
        if kind == "seq":
            return [self._build(item, (*key, i), inside) for i, item in enumerate(node.value)]
        mapping: dict[Hashable, Any] = {}
        for name, key_node, value_node in self._entries(node, inside, set()):
            self.marks[(*key, name)] = _start(key_node)
            mapping[name] = self._build(value_node, (*key, name), inside)
        return mapping

    def _entries(
        self, node: yaml.Node, inside: tuple[yaml.Node, ...], seen: set[yaml.Node]
    ) -> Iterator[tuple[Hashable, yaml.Node, yaml.Node]]:
        """The names of a mapping, each with the nodes of its key and its value. Own names override merged ones.

        Args:
            node: node of the mapping.
            inside: its ancestors, and itself.
            seen: mappings already merged into it; merging them again would change nothing.
        """
        own: dict[Hashable, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(key_node, "a key must be a plain name")
                continue
            name = _MERGE if key_node.tag == f"{_TAG}merge" else self._scalar(key_node)
            if name in own:
                hint = "; to merge several, write <<: [*one, *other]" if name is _MERGE else ""
                first = _start(own[name][0])[0]
                self._report(key_node, f"duplicate key '{_shown(key_node)}' (first on line {first}){hint}")
                continue
            own[name] = key_node, value_node
        taken = set(own)
        for name, (key_node, value_node) in own.items():
            if name is not _MERGE:
                yield name, key_node, value_node
                continue
            for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                if not isinstance(source, yaml.MappingNode):
                    self._report(source, "<< takes a mapping or a list of mappings, such as *name for one with &name")
                elif source in inside:
                    self._report(source, "an alias refers to a value that contains it")
                elif source not in seen:
                    seen.add(source)
                    for entry in self._entries(source, (*inside, source), seen):
                        if entry[0] not in taken:
                            taken.add(entry[0])
                            yield entry

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind not in _KINDS:
            self._report(node, f"not valid YAML: the tag {_short(node.tag)} is not valid here")
            return None
        known = _KINDS[kind]
        try:
            if not re.fullmatch(known.form, node.value):
                raise ValueError
            return known.value(node.value)
        except ValueError:
            self._report(node, f"not valid YAML: '{_shown(node)}' is not {known.name}")
            return None


class _TooMuch(Exception):
    """The text has more than `_MOST` values."""


_MERGE = object()
"""Name of the key `<<`; a quoted '<<' is an ordinary name."""


def _start(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _place(text: str, position: int) -> tuple[int, int]:
    """Line and column of a position in a text."""
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def _shown(node: yaml.ScalarNode) -> str:
    text = str(node.value)
    return text if len(text) <= 60 else f"{text[:57]}…"
