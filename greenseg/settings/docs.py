"""`python -m greenseg.settings.docs` prints the settings page of the docs, generated from the declaration."""

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
        text = text.replace("<", "&lt;")  # Markdown reads <name> as a tag
        groups.setdefault(group, []).append(f"| `{name}` | `--{name.replace('_', '-')}` | {default} | {text} |")
    lines = [
        "# Settings",
        "",
        "Each setting is an option of `greenseg train`, a key of a sweep's `base`, `grid`, `include` and `exclude`,",
        "and a key of a run's `config.yaml`. `make docs` generates this page from the declaration of the settings.",
    ]
    for group, rows in groups.items():
        lines += [
            "",
            f"## {group}",
            "",
            "| setting | option | default | description |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(settings_page(), end="")
