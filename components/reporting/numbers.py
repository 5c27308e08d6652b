"""How numbers are written on the page: a fixed number of digits, a true minus sign, a dash where there is none."""

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
PER_CENT = "\N{NO-BREAK SPACE}%"


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """`12.3`, with `sign` `+12.3`; a dash for None."""
    if value is None:
        return DASH
    return signed(value, digits) if sign else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign; nothing but zeros has none."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS) if float(text) else f"{0:.{digits}f}"


def per_cent(value: float, digits: int = 1) -> str:
    """A signed number with a per cent sign that stays on its line."""
    return signed(value, digits) + PER_CENT
