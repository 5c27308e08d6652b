"""What every figure of the project has in common, whatever its colours."""


def pyplot(name: str, ink: str, faint: str):
    """Matplotlib, without a screen and set to the project's style.

    Args:
        name: seeds an SVG's ids, so that equal numbers give equal bytes.
        ink, faint: colours of text and of axes.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    plt.rcdefaults()
    plt.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.family": "DejaVu Sans",
            "font.size": 8.5,
            "axes.edgecolor": faint,
            "axes.axisbelow": True,
            "xtick.color": faint,
            "ytick.color": faint,
            "text.color": ink,
        }
    )
    return plt
