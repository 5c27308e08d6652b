"""Attention and token features of every layer, handed out while a tower computes them and kept by no one here."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor

from components.analysis.attention import Listener, listening
from components.analysis.towers import Tower

StateListener = Callable[[int, Tensor], None]
"""Takes a state's index and the state (B, T, D): 0 is what enters the encoder, l what leaves its l-th layer."""


@contextmanager
def watching(tower: Tower, on_attention: Listener, on_state: StateListener) -> Iterator[None]:
    """While the block lasts, every forward of the tower is heard, layer by layer, in the order of computing."""

    def enter(_, arguments: tuple, keywords: dict) -> None:
        on_state(0, arguments[0] if arguments else keywords["hidden_states"])

    def leave(layer: int) -> Callable:
        return lambda _, __, output: on_state(layer + 1, output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        stack.enter_context(listening(tower.model, tower.attentions, on_attention))
        handles = [tower.layers[0].register_forward_pre_hook(enter, with_kwargs=True)]
        handles += [layer.register_forward_hook(leave(index)) for index, layer in enumerate(tower.layers)]
        for handle in handles:
            stack.callback(handle.remove)
        yield
