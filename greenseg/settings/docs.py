"""`python -m greenseg.settings.docs` prints the settings page of the docs, made from their declaration."""

import json

from greenseg.settings.fields import Fields, choices, group_of


def settings_page() -> str:
    """The settings page of the docs, in Markdown."""
    groups: dict[str, list[str]] = {}
    for name, field in Fields.model_fields.items():
        group = group_of(name)
        default = "" if field.default == "" else f"`{json.dumps(field.default).strip(chr(34))}`"
        valid = ", ".join(f"`{value}`" for value in choices(name))
        text = f"{field.description}{f' One of {valid}.' if valid else ''}"
        text = text.replace("<", "&lt;")  # Markdown takes <name> for a tag
        groups.setdefault(group, []).append(f"| `{name}` | `--{name.replace('_', '-')}` | {default} | {text} |")
    lines = [
        "# Settings",
        "",
        "Each is an option of `greenseg train`, and a key of a sweep's `base`, `grid`, `include` and `exclude`, and",
        "of a run's `config.yaml`. This page is made from their declaration, by `make docs`.",
    ]
    for group, rows in groups.items():
        lines += [
            "",
            f"## {group}",
            "",
            "| setting | option | default | what it does |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(settings_page(), end="")
