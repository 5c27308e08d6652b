"""The table in the terminal and in README.md, and `cotam report`."""

import io
import json

import pytest
from rich.console import Console

from components import cli
from components.errors import CotamError
from components.reporting.table import fill_readme, interval_text, markdown, print_tables
from tests.made_up_summary import BENCHMARKS, RATES, summary

START, END = "<!-- RESULTS -->", "<!-- /RESULTS -->"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    return tmp_path


def test_the_tables_fit_an_ordinary_terminal():
    out = io.StringIO()
    print_tables(summary(), Console(file=out, width=80))
    text = out.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "-31.0 (-37.0 to -25.0)" in text
    assert max(map(len, text.splitlines())) <= 80
    for name in ("clean", "CoTAM", "ELIC", "JPEG", "WebP", "SEED-Bench", "Mean"):
        assert name in text


def test_markdown_is_made_of_whole_tables():
    lines = markdown(summary()).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(BENCHMARKS) + 2 + 2 + len(RATES)
    assert "make demo" in lines[-1]
    assert "**\N{MINUS SIGN}31.0 % (\N{MINUS SIGN}37.0 to \N{MINUS SIGN}25.0)**" in markdown(summary())


def test_undefined_values_are_said_and_not_zero():
    assert interval_text(None) == "not defined"
    assert interval_text({"value": None, "low": None, "high": None}) == "not defined"
    assert interval_text({"value": -3.0, "low": None, "high": None}) == "-3.0 %"


def test_readme_is_filled_between_its_marks_and_nowhere_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{START}\nold\n{END}\n\nThe rest.\n")
    fill_readme(readme, summary())
    once = readme.read_text()
    assert once.startswith(f"# Title\n\n{START}\n")
    assert once.endswith(f"{END}\n\nThe rest.\n")
    assert "old" not in once
    fill_readme(readme, summary())
    assert readme.read_text() == once


@pytest.mark.parametrize("text", ["no marks", START, f"{END} {START}"])
def test_a_readme_without_both_marks_is_left_alone(tmp_path, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(CotamError, match="has no lines"):
        fill_readme(readme, summary())
    assert readme.read_text() == text


def test_report_prints_the_table_and_where_the_page_is(folder, capsys):
    assert cli.main(["report", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "BD-rate against ELIC" in out
    assert str(folder / "index.html") in out


def test_report_prints_json(folder, capsys):
    assert cli.main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == summary()


def test_report_says_what_to_do_when_there_is_none(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path / "nowhere")]) == 1
    assert "make demo" in capsys.readouterr().err
