"""A checkpoint holds all that a training needs, in one file without pickles."""

import torch

from components.training.checkpoint import load_checkpoint, save_checkpoint
from components.training.optimizer import make_optimizers


def trained(steps: int) -> tuple[torch.nn.Module, list[torch.optim.Optimizer]]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    optimizers = make_optimizers(model, 0.01)
    go_on(model, optimizers, steps)
    return model, optimizers


def go_on(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], steps: int) -> None:
    for _ in range(steps):
        loss = (model(torch.randn(16, 4)) + torch.rand(16, 1)).square().mean()
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()


def test_training_goes_on_bit_for_bit(tmp_path):
    undisturbed, optimizers = trained(3)
    save_checkpoint(tmp_path / "checkpoint", undisturbed, optimizers, {"step": 3, "sums": {"loss": 0.1}})
    go_on(undisturbed, optimizers, 4)

    resumed, optimizers = trained(0)
    kept = (tmp_path / "checkpoint").read_bytes()
    assert load_checkpoint(kept, resumed, optimizers) == {"step": 3, "sums": {"loss": 0.1}}
    go_on(resumed, optimizers, 4)
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_no_checkpoint_changes_nothing(tmp_path):
    model, optimizers = trained(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_checkpoint(b"", model, optimizers) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_file_is_safetensors_with_json(tmp_path):
    from safetensors import safe_open

    save_checkpoint(tmp_path / "checkpoint", *trained(2), {"step": 2})
    with safe_open(tmp_path / "checkpoint", framework="pt") as file:
        assert file.metadata() == {"position": '{"step": 2}'}
        kept = {"model.0.weight", "optimizer.0.weight.momentum_buffer", "optimizer.0.bias.exp_avg", "random.cpu"}
        assert kept <= set(file.keys())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
