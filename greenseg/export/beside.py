"""The files beside an exported network."""

from pathlib import Path
from typing import Any

from greenseg.export import description
from greenseg.export.network import Network


def write_beside(out: Path, value: dict[str, Any], network: Network, loading: str) -> list[str]:
    """Write the description of a file beside it, as JSON and Markdown.

    Args:
        out: the exported file.
        value: its description.
        network: the network in it.
        loading: sentences on how to load it.

    Returns:
        Sentences for the user.
    """
    out.with_suffix(".json").write_text(description.as_text(value), encoding="utf-8")
    markdown = description.as_markdown(value, network, out.name, loading)
    out.with_suffix(".md").write_text(markdown, encoding="utf-8")
    check = value["check"]
    return [
        f"{network.name}: {out.stat().st_size / 1e6:.1f} MB; its probabilities differ from the original's by at most "
        f"{check['largest_difference']:.1e} (allowed: {check['allowed']:g})",
        *network.predictor.notes,
    ]
