"""The micro CLIP learns in coordinates of its own and ships as a plain CLIP."""

import pytest
import torch
from torch.nn.utils import parametrize
from transformers import CLIPModel

from components.scenes.labels import IMAGE_CLASSES, PATCH_CLASSES
from pipelines.pretrain.dense import PATCH_TARGETS
from pipelines.pretrain.train_clip import SIDE, Lesson, Whitened, micro_clip, save
from pipelines.pretrain.words import word_tokenizer


@pytest.fixture(scope="module")
def patches() -> torch.Tensor:
    """Patches whose neighbouring pixels are alike, as those of pictures are."""
    torch.manual_seed(0)
    return torch.randn(2000, 3 * 16 * 16).cumsum(1) / 20


@pytest.fixture
def clip() -> CLIPModel:
    torch.manual_seed(1)
    return micro_clip(len(word_tokenizer()))


def whiten(clip: CLIPModel, patches: torch.Tensor) -> None:
    parametrize.register_parametrization(clip.vision_model.embeddings.patch_embedding, "weight", Whitened(patches))


def test_whitening_makes_the_patches_white(patches):
    white = (patches - patches.mean(0)) @ Whitened(patches, floor=0.0).whiten
    torch.testing.assert_close(torch.cov(white.T), torch.eye(patches.shape[1]), atol=0.02, rtol=0)


def test_a_whitened_embedding_starts_as_the_function_it_was_and_ships_as_a_plain_weight(clip, patches, tmp_path):
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        before = clip.vision_model(pixels).pooler_output
        whiten(clip, patches)
        torch.testing.assert_close(clip.vision_model(pixels).pooler_output, before, atol=1e-3, rtol=1e-3)
    save(clip, word_tokenizer(), tmp_path)
    shipped = CLIPModel.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(shipped.vision_model(pixels).pooler_output, before, atol=2e-2, rtol=2e-2)


def test_patches_without_an_object_count_for_nothing_in_what_is_read_rightly(clip):
    lesson = Lesson(clip)
    patch_labels = torch.zeros(2, 64, len(PATCH_CLASSES), dtype=torch.long)
    patch_labels[:, 5] = 1
    image_labels = torch.zeros(2, len(IMAGE_CLASSES), dtype=torch.long)
    with torch.no_grad():
        lesson.dense.patch.weight.zero_()
        lesson.dense.patch.bias.copy_(torch.cat([torch.eye(n)[1 % n] for n in PATCH_TARGETS.values()]))
        _, right = lesson.dense(torch.zeros(2, 64, 128), patch_labels, image_labels)
    assert [float(share) for share in right] == [1.0] * len(PATCH_CLASSES) + [1 / 8] * 2 + [0.0] * len(IMAGE_CLASSES)
