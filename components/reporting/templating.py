"""Opening the templates of the pages, and the look that they share."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.reporting import figures

HERE = Path(__file__).parent


def environment(folder: str) -> Environment:
    """The templates in a folder of `templates`; a value that a template asks for and is not given is an error."""
    return Environment(
        loader=FileSystemLoader(HERE / "templates" / folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def stylesheet() -> Markup:
    """The style of every page, figures included."""
    return Markup((HERE / "templates/shared/page.css").read_text(encoding="utf-8") + figures.stylesheet())
