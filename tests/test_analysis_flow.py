"""The numbers of one layer's attention: cases that have an answer on paper, and the equations read out loop by loop."""

import numpy as np
import pytest
import torch

from components.analysis.flow import FLOWS, Layout, flow_of
from components.analysis.pca import pca_colours
from components.analysis.similarity import token_similarity
from components.errors import CotamError
from tests import analysis_reference as reference


def random_attention(layout: Layout, images: int = 3, sharpness: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(images, layout.tokens, layout.tokens, generator=generator, dtype=torch.float64)
    return (sharpness * scores).softmax(-1)


def test_even_attention():
    layout = Layout(1, (3, 5))
    flow = flow_of(torch.full((2, 16, 16), 1 / 16), layout)
    # Attention to CLS has no distance, so D_avg has 15 of 16 parts of the mean distance; scaled to patches, all of it.
    assert flow.values["d_avg"].tolist() == pytest.approx([15 / 16 * layout.even_distance] * 2)
    assert flow.values["d_avg_patches"].tolist() == pytest.approx([layout.even_distance] * 2)
    assert flow.values["cls_share"].tolist() == pytest.approx([1 / 16] * 2)
    assert flow.values["summary_tokens"].tolist() == [0, 0]
    assert flow.received_BN.numpy() == pytest.approx(np.ones((2, 15)))
    assert (flow.inflow_BT == 0).all()  # of equals the first
    assert (flow.outflow_BT == 0).all()
    assert flow.values["inflow_cls"].tolist() == [1, 1]


def test_the_mean_distance_of_a_square_of_four():
    # Sides 1 and a diagonal, and 0 to itself.
    assert Layout(0, (2, 2)).even_distance == pytest.approx((2 + 2**0.5) / 4)


def test_attention_to_oneself():
    flow = flow_of(torch.eye(17)[None], Layout(1, (4, 4)))
    for name in ("d_avg", "d_avg_patches", "d_top1", "cls_share", "summary_tokens", "summary_share"):
        assert flow.values[name].tolist() == [0], name
    assert flow.inflow_BT[0].tolist() == flow.outflow_BT[0].tolist() == list(range(17))
    assert flow.values["inflow_itself"].tolist() == flow.values["outflow_itself"].tolist() == [1]
    assert not flow.received_BN.any()


def test_one_summary_token():
    layout = Layout(0, (4, 4))
    attention = torch.zeros(1, 16, 16)
    attention[..., 5] = 1
    flow = flow_of(attention, layout)
    assert (flow.inflow_BT == 5).all()
    assert flow.summary_BN[0].nonzero().flatten().tolist() == [5]
    assert flow.values["summary_tokens"].tolist() == [1]
    assert flow.values["summary_share"].tolist() == pytest.approx([1])
    mean = float(layout.distances_NN[5].mean())
    assert flow.values["d_avg"].tolist() == pytest.approx([mean])
    assert flow.values["d_top1"].tolist() == pytest.approx([mean])
    # All but the token itself take from a summary token.
    assert flow.values["inflow_summary"].tolist() == pytest.approx([15 / 16])
    assert flow.values["inflow_itself"].tolist() == pytest.approx([1 / 16])


def test_neighbours_are_no_summary_tokens():
    layout = Layout(0, (6, 6))
    attention = (layout.distances_NN <= 1.5).double()
    attention /= attention.sum(-1, keepdim=True)
    flow = flow_of(attention[None], layout)
    assert flow.values["summary_tokens"].tolist() == [0]
    assert flow.values["inflow_far"].tolist() == [0]
    assert flow.values["d_avg"].item() < 1.3


@pytest.mark.parametrize("layout", [Layout(1, (4, 5)), Layout(0, (5, 4))])
def test_it_is_what_the_equations_say(layout):
    attention = random_attention(layout)
    flow, columns = flow_of(attention, layout), layout.grid[1]
    for image, attention_TT in enumerate(attention.numpy()):
        for name in ("d_avg", "d_avg_patches", "d_top1"):
            expected = getattr(reference, name)(attention_TT, layout.cls, columns)
            assert flow.values[name][image].item() == pytest.approx(expected, rel=1e-12), name
        ends = {"inflow": reference.inflow(attention_TT), "outflow": reference.outflow(attention_TT)}
        assert flow.inflow_BT[image].tolist() == ends["inflow"]
        assert flow.outflow_BT[image].tolist() == ends["outflow"]
        received_N = reference.received(attention_TT, layout.cls)
        assert flow.received_BN[image].numpy() == pytest.approx(received_N)
        for name, ends_T in ends.items():
            shares = reference.shares(ends_T, received_N >= 4, layout.cls, columns)
            assert {kind: flow.values[f"{name}_{kind}"][image].item() for kind in FLOWS} == pytest.approx(shares)
        looks_N = attention_TT[0, 1:] if layout.cls else attention_TT.mean(0)
        assert flow.cls_attention_BN[image].numpy() == pytest.approx(looks_N)


def test_shares_add_up():
    flow = flow_of(random_attention(Layout(1, (4, 5)), sharpness=6), Layout(1, (4, 5)))
    for name in ("inflow", "outflow"):
        total = sum(flow.values[f"{name}_{kind}"] for kind in FLOWS)
        assert total.tolist() == pytest.approx([1, 1, 1])


def test_attention_of_other_tokens_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        flow_of(torch.ones(1, 9, 9), Layout(1, (3, 3)))


def test_similarity_is_the_cosine():
    rng = np.random.default_rng(1)
    raw, others = rng.normal(size=(5, 8)), rng.normal(size=(3, 5, 8))
    found = token_similarity(torch.from_numpy(raw).float(), torch.from_numpy(others).float())
    for place, other in enumerate(others):
        expected = [reference.cosine(*pair) for pair in zip(raw.astype("f4"), other.astype("f4"), strict=True)]
        assert found[place].numpy() == pytest.approx(expected)


def test_similarity_of_nothing():
    raw = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
    other = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [-2.0, -4.0]]])
    assert token_similarity(raw, other)[0].tolist() == pytest.approx([1, 0, -1])


def test_equal_versions_have_equal_colours_in_one_basis():
    features = np.random.default_rng(2).normal(size=(1, 30, 6))
    colours = pca_colours(np.concatenate([features, features]))
    assert colours.shape == (2, 30, 3)
    assert np.array_equal(colours[0], colours[1])
    assert (colours.min(), colours.max()) == (0, 1)
    # Turning all features round turns no colour round: the sign of a component is fixed.
    assert pca_colours(np.concatenate([features, features])[:, ::-1])[:, ::-1] == pytest.approx(colours)


def test_colours_of_too_little():
    with pytest.raises(CotamError, match="three tokens"):
        pca_colours(np.ones((1, 2, 8)))
