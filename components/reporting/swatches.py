"""The little line with its marker that stands before a name in a legend."""

from markupsafe import Markup

from components.reporting.methods import Look

_MARKERS = {
    "o": '<circle cx="18" cy="7" r="4"/>',
    "s": '<rect x="14.3" y="3.3" width="7.4" height="7.4"/>',
    "^": '<path d="M18 2.4 22.6 11H13.4z"/>',
    "v": '<path d="M18 11.6 13.4 3H22.6z"/>',
    "D": '<path d="M18 2 23 7 18 12 13 7z"/>',
}


def swatch(look: Look) -> Markup:
    """An inline SVG in the colour, dash and marker of a series."""
    dash = f' stroke-dasharray="{" ".join(f"{length * look.width:g}" for length in look.dash)}"' if look.dash else ""
    line = f'<path d="M1 7H35" stroke="{look.colour}" stroke-width="{look.width}"{dash}/>'
    return Markup(
        f'<svg viewBox="0 0 36 14" aria-hidden="true" fill="{look.colour}">{line}{_MARKERS.get(look.marker, "")}</svg>'
    )
