"""Tables that a command writes into a page: what stands between `<!-- NAME -->` and `<!-- /NAME -->` is its own."""

from pathlib import Path

from components.errors import CotamError
from components.files import atomic_write


def fill(page: Path, found: dict[str, str]) -> None:
    """Replace what stands between the marks of a page, mark -> Markdown; the rest of the page stays.

    Raises:
        CotamError: the page is missing, or lacks one of the marks; then nothing is written.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CotamError(f"{page} does not exist; run this in a checkout that has it.") from None
    for mark, content in found.items():
        text = between(text, mark, content, page)
    atomic_write(page, text)


def between(text: str, mark: str, content: str, page: Path) -> str:
    """The text with `content` between the marks. Raises CotamError, which names the page, where one is missing."""
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise CotamError(f"{page} has no lines {start} and {end}; add them where the tables are to stand.")
    return f"{before}{start}\n{content}\n{end}{after}"
