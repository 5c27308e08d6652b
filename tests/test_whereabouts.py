"""What teaches a language model where things are: each loss asks for the right thing, and all of it is learned from."""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPast

from pipelines.pretrain.lessons import WAYS
from pipelines.pretrain.tiles import GRID, IGNORED
from pipelines.pretrain.whereabouts import LAYER, WEIGHTS, Whereabouts, looking

FRAMES, SIDE, TOKENS = 3, 4, 2
BEFORE, LENGTH, WIDTH = 5 + FRAMES * SIDE * SIDE * TOKENS, 6, 8
CELLS = 5 + torch.arange(FRAMES * SIDE * SIDE * TOKENS).view(FRAMES, SIDE, SIDE, TOKENS)
PLACE = torch.tensor([[1, 2, 7, 5, 0]])  # from frame 1 on: first in column 2 and row 7, last in column 5 and row 0


def looked(first: tuple[int, int, int], last: tuple[int, int, int]) -> torch.Tensor:
    """Attention of one word that looks at the tokens of one cell with one head, at those of another with the other."""
    found = torch.zeros(1, 2, BEFORE + LENGTH)
    for head, cell in enumerate((first, last)):
        found[0, head, CELLS[cell]] = 1 / TOKENS
    return found


def test_looking_at_the_first_place_and_at_the_last_costs_nothing():
    assert looking(looked((1, 3, 1), (2, 0, 2)), PLACE, CELLS) == 0


@pytest.mark.parametrize(
    ("first", "last"),
    [((1, 1, 3), (2, 0, 2)), ((1, 3, 1), (2, 2, 0)), ((0, 3, 1), (2, 0, 2)), ((1, 3, 1), (1, 0, 2)),
     ((2, 0, 2), (1, 3, 1))],
    ids=["first transposed", "last transposed", "too early", "not the end", "heads exchanged"],
)  # fmt: skip
def test_looking_elsewhere_costs(first, last):
    assert looking(looked(first, last), PLACE, CELLS) > 10


def test_what_is_hardly_looked_at_is_learned_from_too():
    scores = torch.zeros(1, 2, BEFORE + LENGTH)
    scores[..., 0] = 30  # all else has a share of e**-30
    scores.requires_grad_()
    looking(scores.softmax(-1), PLACE, CELLS).backward()
    assert scores.grad[0, 0, CELLS[1, 3, 1]].sum() < -0.4


def read(generator: torch.Generator) -> BaseModelOutputWithPast:
    """What a language model of random states gives of a sequence."""
    states = [torch.randn(1, BEFORE + LENGTH, WIDTH, generator=generator) for _ in range(LAYER + 4)]
    attention = torch.randn(1, 3, BEFORE + LENGTH, BEFORE + LENGTH, generator=generator).softmax(-1)
    return BaseModelOutputWithPast(states[-1], hidden_states=tuple(states), attentions=(attention,) * (LAYER + 2))


def known(*way: int) -> torch.Tensor:
    """Of one question in which the third word names a shape, if any way is given."""
    where = torch.full((1, 6, LENGTH), IGNORED)
    if way:
        where[0, :, 2] = torch.tensor([*PLACE[0].tolist(), *way])
    return where


def test_states_are_read_where_the_model_can_use_them():
    """Each loss changes with what it reads, and with nothing else: what a word knows is read at once, or too late."""
    torch.manual_seed(0)
    losses, word = Whereabouts(WIDTH), BEFORE + 2
    given = read(torch.Generator().manual_seed(1))
    before = losses(given, known(1), CELLS)
    for names, layer, token in ((["cells"], LAYER, 5), (["places", "ways"], LAYER + 1, word), ([], LAYER + 2, word)):
        states = [state.clone() for state in given.hidden_states]
        states[layer][0, token] += torch.randn(WIDTH, generator=torch.Generator().manual_seed(2))
        changed = BaseModelOutputWithPast(states[-1], hidden_states=tuple(states), attentions=given.attentions)
        differs = losses(changed, known(1), CELLS) != before
        assert [one for one, changed in zip(WEIGHTS, differs, strict=True) if changed] == names


def test_cells_and_places_are_learned():
    """Read-outs of states that say where they are come to read every one rightly."""
    torch.manual_seed(0)
    losses, width = Whereabouts(64), 64
    names = torch.randn(BEFORE + LENGTH, width, generator=torch.Generator().manual_seed(3))
    given = read(torch.Generator().manual_seed(1))
    given.hidden_states = (names[None],) * (LAYER + 4)
    optimizer = torch.optim.Adam(losses.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        found = losses(given, known(WAYS.index("up")), CELLS)
        (found[0] + found[2] + found[3]).backward()
        optimizer.step()
    scores = losses.cell(losses.norm(names[CELLS[2, 1, 3]])).split([16, GRID, GRID], -1)
    assert [score.argmax(-1).tolist() for score in scores] == [[2, 2], [2, 2], [6, 6]]  # frame, row, column of 8
    assert WAYS[losses.way(losses.norm(names[BEFORE + 2])).argmax()] == "up"


@pytest.mark.parametrize("where", [known(), known(IGNORED)], ids=["no shape is named", "it is a picture's"])
def test_what_is_not_asked_costs_nothing_and_leaves_no_parameter_out(where):
    """Processes that train together wait for every gradient."""
    losses = Whereabouts(WIDTH)
    found = losses(read(torch.Generator().manual_seed(1)), where, CELLS)
    assert found[-1] == 0 and found.isfinite().all()
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in losses.parameters())
