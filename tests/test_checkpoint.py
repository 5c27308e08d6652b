"""A checkpoint holds all that a training needs, in one file without pickles."""

import torch

from components.training.checkpoint import load_checkpoint, save_checkpoint


def trained(steps: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    go_on(model, optimizer, steps)
    return model, optimizer


def go_on(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        loss = (model(torch.randn(16, 4)) + torch.rand(16, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_training_goes_on_bit_for_bit(tmp_path):
    undisturbed, optimizer = trained(3)
    save_checkpoint(tmp_path / "checkpoint", undisturbed, optimizer, {"step": 3, "sums": {"loss": 0.1}})
    go_on(undisturbed, optimizer, 4)

    resumed, optimizer = trained(0)
    assert load_checkpoint(tmp_path / "checkpoint", resumed, optimizer) == {"step": 3, "sums": {"loss": 0.1}}
    go_on(resumed, optimizer, 4)
    for name, tensor in undisturbed.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_no_checkpoint_changes_nothing(tmp_path):
    model, optimizer = trained(1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_checkpoint(tmp_path / "checkpoint", model, optimizer) is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_file_is_safetensors_with_json(tmp_path):
    from safetensors import safe_open

    save_checkpoint(tmp_path / "checkpoint", *trained(2), {"step": 2})
    with safe_open(tmp_path / "checkpoint", framework="pt") as file:
        assert file.metadata() == {"position": '{"step": 2}'}
        assert {"model.0.weight", "optimizer.0.weight.exp_avg", "random.cpu"} <= set(file.keys())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
