"""YAML with positions: every value knows the line it came from, so that a mistake can be shown where it is."""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from greenseg.errors import UserError

Key = tuple[Hashable, ...]

_KINDS: dict[type[yaml.Node], str] = {yaml.MappingNode: "map", yaml.SequenceNode: "seq"}


class _Loader(yaml.SafeLoader):
    """Safe loader that reads `1e-3` as a number (YAML 1.2), which PyYAML (YAML 1.1) takes for text."""


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes text which `_Loader` would read as a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


@dataclass(frozen=True)
class Document:
    """A parsed YAML file.

    Attributes:
        path: the file.
        value: its content as plain Python values.
        marks: (line, column), counted from 1, of each value by its path of keys and indices; for the value of a
            mapping, the place of its key.
    """

    path: Path
    value: Any
    marks: dict[Key, tuple[int, int]] = field(repr=False)

    def where(self, *key: Hashable) -> str:
        """`file:line:column` of a value, or of its nearest parent that stands in the file."""
        while key and key not in self.marks:
            key = key[:-1]
        line, column = self.marks.get(key, (1, 1))
        return f"{self.path}:{line}:{column}"


def load(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        UserError: the file is missing or unreadable, is not YAML, or has duplicate keys (all of them are named).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    problems: list[str] = []
    marks: dict[Key, tuple[int, int]] = {}

    def build(node: yaml.Node, key: Key, ancestors: tuple[yaml.Node, ...] = ()) -> Any:
        position = (node.start_mark.line + 1, node.start_mark.column + 1)
        marks.setdefault(key, position)
        if node in ancestors:
            problems.append(f"{path}:{position[0]}:{position[1]}: an alias refers to the value that it is in")
            return None
        if (kind := _KINDS.get(type(node))) and node.tag != f"tag:yaml.org,2002:{kind}":
            problems.append(f"{path}:{position[0]}:{position[1]}: the tag {node.tag} does not belong here")
            return None
        if isinstance(node, yaml.MappingNode):
            mapping: dict[Hashable, Any] = {}
            for key_node, value_node in node.value:
                line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    problems.append(f"{path}:{line}:{column}: a key must be a plain name")
                    continue
                name = scalar(key_node)
                if name in mapping:
                    first = marks[(*key, name)][0]
                    problems.append(f"{path}:{line}:{column}: duplicate key '{name}' (first on line {first})")
                    continue
                marks[(*key, name)] = (line, column)
                mapping[name] = build(value_node, (*key, name), (*ancestors, node))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [build(item, (*key, i), (*ancestors, node)) for i, item in enumerate(node.value)]
        return scalar(node)

    def scalar(node: yaml.Node) -> Any:
        try:
            if node.tag.rpartition(":")[2] in ("map", "seq", "set", "omap", "pairs"):
                raise ValueError
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError, AttributeError, LookupError, TypeError):  # PyYAML checks few of its values
            line, column = node.start_mark.line + 1, node.start_mark.column + 1
            kind = node.tag.rpartition(":")[2]
            problems.append(f"{path}:{line}:{column}: not valid YAML: {node.value!r} is not a {kind}")
            return None

    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        value = build(root, ()) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UserError(f"{place}: not valid YAML: {error.problem or error}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise UserError(f"{path}:{line}:{column}: not valid YAML: {error.reason}") from None
    except RecursionError:
        raise UserError(f"{path}: not valid: lists or mappings are nested too deeply") from None
    if problems:
        raise UserError(problems)
    return Document(path, value, marks)


def parse(text: str) -> Any:
    """The value that a text is in YAML.

    Raises:
        ValueError: it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, TypeError):  # PyYAML checks few of its values
        raise ValueError(f"{text!r} is not valid YAML") from None


def dump(value: Any) -> str:
    """YAML that `load` reads back as the same value; keys stay in order."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
