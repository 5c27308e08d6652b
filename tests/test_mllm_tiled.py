"""OneVision and InternVL answer as transformers' own `generate` does, about images, several images and videos."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from components.adapter import AdapterConfig, LatentAdapter
from components.errors import CotamError
from components.mllm import Kind, View, Visual, load_mllm
from components.mllm.visual import as_visual
from tests.models import tiny_llava_folder
from tests.models_tiled import GRID, SIDE, WIDTH, tiny_internvl_folder, tiny_onevision_folder

PROMPTS = ["How many circles are there?", "Is there a red circle in the picture?", "number?"]
SIZES = [(48, 48), (100, 90), (64, 150), (150, 40)]  # height, width
FOLDERS = {"onevision": tiny_onevision_folder, "internvl": tiny_internvl_folder}


@dataclass
class Pair:
    """Ours beside transformers' own."""

    mllm: object
    model: object
    processor: object

    def inputs(self, kind, pictures, prompt):
        content = [{"type": "video"}] if kind == "video" else [{"type": "image"}] * len(pictures)
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        if kind == "video":
            return self.processor(videos=[np.stack(pictures)], text=text, return_tensors="pt")
        return self.processor(images=[pictures], text=[text], return_tensors="pt")

    def answer(self, kind, pictures, prompt):
        inputs = self.inputs(kind, pictures, prompt)
        output = self.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        told = self.processor.tokenizer.decode(output[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        return told.strip()


@pytest.fixture(scope="module", params=FOLDERS)
def pair(request, tmp_path_factory):
    folder = FOLDERS[request.param](tmp_path_factory.mktemp(request.param))
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    return Pair(load_mllm(folder), model, AutoProcessor.from_pretrained(folder))


def _pictures(sizes, seed=2):
    rng = np.random.default_rng(seed)
    flat = [rng.integers(0, 256, (1, 1, 3)) + rng.integers(-60, 60, (*size, 3)) for size in sizes]
    return [image.clip(0, 255).astype(np.uint8) for image in flat]


@pytest.fixture(scope="module")
def images():
    return _pictures(SIZES)


def _ids(mllm, seen, prompt):
    (shown,) = mllm.embed([seen])
    kind, placeholders, embedded = mllm._spoken(seen, shown)
    head, tail = mllm.prompts.ids(prompt, kind, placeholders)
    return [*head, *tail], embedded


def test_pixels_and_prompts_are_those_of_the_processor(pair, images):
    for image in images:
        (seen,) = pair.mllm.views([image])
        inputs = pair.inputs("image", [image], PROMPTS[0])
        pixels = torch.stack([view.pixels_3HW for view in as_visual(seen).views])
        assert torch.equal(pixels, inputs.pixel_values.flatten(0, -4))
        assert _ids(pair.mllm, seen, PROMPTS[0])[0] == inputs.input_ids[0].tolist()


def test_image_embeddings_are_bitwise_those_of_transformers(pair, images):
    for image in images:
        inputs = pair.inputs("image", [image], PROMPTS[0])
        sizes = {"image_sizes": inputs.image_sizes} if "image_sizes" in inputs else {}
        with torch.no_grad():
            told = pair.model.get_image_features(inputs.pixel_values, **sizes).pooler_output
        expected = told[0] if sizes else told.flatten(0, 1)
        (seen,) = pair.mllm.views([image])
        assert torch.equal(_ids(pair.mllm, seen, PROMPTS[0])[1], expected)
        views = [View(view.pixels_3HW, torch.zeros(GRID**2, WIDTH)) for view in as_visual(seen).views]
        zero = Visual(Kind.IMAGE, (tuple(views),), (image.shape[:2],))
        assert torch.equal(_ids(pair.mllm, zero, PROMPTS[0])[1], expected)


def test_answers_are_those_of_generate(pair, images):
    views = pair.mllm.views([Image.fromarray(image) for image in images])
    pairs = [(index, prompt) for prompt in PROMPTS for index in range(len(images))]
    answers = pair.mllm.answer([views[index] for index, _ in pairs], [prompt for _, prompt in pairs])
    assert answers == [pair.answer("image", [images[index]], prompt) for index, prompt in pairs]
    assert len(set(answers)) > len(pairs) / 2


@pytest.mark.parametrize("kind", ["images", "video"])
def test_several_images_and_videos_are_answered_as_by_generate(pair, kind):
    groups = [_pictures([(60, 90)] * 3, seed=3), _pictures([(48, 48)] * 2, seed=4)]
    seen = (pair.mllm.video_views if kind == "video" else pair.mllm.several_views)(groups)
    answers = pair.mllm.answer([*seen, *seen], [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2)
    asked = [(group, prompt) for prompt in PROMPTS[:2] for group in groups]
    assert answers == [pair.answer(kind, group, prompt) for group, prompt in asked]
    for visual, group in zip(seen, groups, strict=True):
        assert _ids(pair.mllm, visual, PROMPTS[0])[0] == pair.inputs(kind, group, PROMPTS[0]).input_ids[0].tolist()


def test_one_of_several_images_is_an_image(pair, images):
    (several,), (alone,) = pair.mllm.several_views([images[1:2]]), pair.mllm.views(images[1:2])
    assert as_visual(several).kind is Kind.IMAGE
    assert pair.mllm.answer([several], PROMPTS[:1]) == pair.mllm.answer([alone], PROMPTS[:1])


@dataclass
class _Decoded:
    image: np.ndarray
    latent: torch.Tensor
    level_map: np.ndarray
    codec: str | None = None


def _decoded(image):
    rows, columns = -(-image.shape[0] // 16), -(-image.shape[1] // 16)
    rng = np.random.default_rng(5)
    latent = torch.from_numpy(rng.standard_normal((6, rows, columns), dtype=np.float32))
    return _Decoded(image, latent, rng.integers(0, 10, (rows, columns)))


def _adapter(width=WIDTH):
    adapter = LatentAdapter(AdapterConfig(latent_channels=6, feature_dim=width, grid=(GRID, GRID), width=16))
    torch.nn.init.normal_(adapter.out_projection.weight, generator=torch.Generator().manual_seed(3))
    return adapter.eval()


def test_every_tile_carries_what_the_adapter_reads_of_its_crop(pair, images):
    adapter = _adapter()
    decoded = [_decoded(image) for image in [*images, images[1][:, ::-1].copy()]]
    seen = pair.mllm.decoded_views(decoded, adapter)
    for one, item in zip(seen, decoded, strict=True):
        size = item.image.shape[:2]
        windows = pair.mllm.family.tiling.frame(size).windows
        visual = as_visual(one)
        assert len(visual.views) == len(windows)
        for view, window in zip(visual.views, windows, strict=True):
            with torch.no_grad():
                expected_1ND = adapter(
                    item.latent[None],
                    torch.from_numpy(item.level_map)[None],
                    lambda map_BCHW, window=window, size=size: window.sample_latent(map_BCHW, size, (GRID, GRID)),
                )
            torch.testing.assert_close(view.residual_ND, expected_1ND[0], atol=1e-5, rtol=1e-4)
    plain = pair.mllm.views([item.image for item in decoded])
    for one, other in zip(seen, plain, strict=True):
        assert not torch.equal(pair.mllm.embed([one])[0][0], pair.mllm.embed([other])[0][0])
    (video,) = pair.mllm.video_views([[decoded[1], decoded[4]]], adapter)
    assert all(view.residual_ND.any() for view in video.views)
    assert len(pair.mllm.answer([seen[1], video], PROMPTS[:2])) == 2


def test_a_residual_acts_where_the_patch_embeddings_are(pair, images):
    """The difference of two images' patch embeddings, as residuals, turns one image into the other."""
    one, other = pair.mllm.views([images[1], images[1][::-1].copy()])
    views = []
    for mine, theirs in zip(one.views, other.views, strict=True):
        patches_BND = pair.mllm.tower.patch_embed(torch.stack([mine.pixels_3HW, theirs.pixels_3HW]))
        views.append(View(mine.pixels_3HW, patches_BND[1] - patches_BND[0]))
    disguised = Visual(Kind.IMAGE, (tuple(views),), one.sizes)
    assert pair.mllm.answer([disguised] * 3, PROMPTS) == pair.mllm.answer([other] * 3, PROMPTS)
    assert pair.mllm.answer([disguised] * 3, PROMPTS) != pair.mllm.answer([one] * 3, PROMPTS)


def test_answers_do_not_depend_on_how_much_fits_into_memory(pair, images, monkeypatch):
    views = pair.mllm.views(images)
    expected = pair.mllm.answer([*views, *views], [PROMPTS[0]] * 4 + [PROMPTS[1]] * 4)
    monkeypatch.setattr("components.mllm.mllm.MEMORY", 1)
    monkeypatch.setattr("components.mllm.mllm.VIEWS_AT_ONCE", 2)
    assert pair.mllm.answer([*views, *views], [PROMPTS[0]] * 4 + [PROMPTS[1]] * 4) == expected


def test_what_cannot_be_shown(pair, images, tmp_path):
    with pytest.raises(CotamError, match="A video has no frames"):
        pair.mllm.video_views([[]])
    with pytest.raises(CotamError, match="A question has no images"):
        pair.mllm.several_views([images, []])
    with pytest.raises(CotamError, match="trained on this MLLM"):
        pair.mllm.video_views([[_decoded(images[0])]], _adapter(width=48))
    token = pair.processor.video_token
    with pytest.raises(CotamError, match="must not contain"):
        pair.mllm.answer(pair.mllm.views(images[:1]), [f"What is {token}?"])
    llava = load_mllm(tiny_llava_folder(tmp_path))
    with pytest.raises(CotamError, match="Llava takes no video; use"):
        llava.video_views([images])
    several = llava.several_views([images[:2]])
    assert llava.embed(several)[0][0].shape == llava.embed(llava.views(images[:1]))[0][0].shape
    assert len(llava.answer(several, PROMPTS[:1])) == 1


def test_tiles_lie_where_their_pixels_do(pair):
    """A ramp over the image, sampled as a latent through every window, is the ramp in the window's pixels."""
    height, width = 200, 136
    ys, xs = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    ramp_13HW = (torch.stack([ys, xs, torch.ones_like(ys)]) * 200 + 30).to(torch.uint8)[None]
    cut = pair.mllm.family.tiling.frame((height, width))
    assert len(cut.windows) > 2
    geometry = cut.geometry
    mean, std = (torch.tensor(values)[:, None, None] for values in (geometry.mean, geometry.std))
    pixels_T3hw = (cut.pixels(ramp_13HW)[0] * std + mean) * 255
    seen_T3hw = torch.nn.functional.avg_pool2d(pixels_T3hw, SIDE // GRID)
    centres = [(torch.arange(-(-extent // 16)) + 0.5) * 16 / extent for extent in (height, width)]
    rows, columns = torch.meshgrid(*centres, indexing="ij")
    latent_13HW = (torch.stack([rows, columns, torch.ones_like(rows)]) * 200 + 30)[None]
    sampled_T3hw = cut.sample_latent(latent_13HW, (height, width), (GRID, GRID))
    # Where all is image, and the latent does not end (its last positions reach over the edge).
    inside = (seen_T3hw[:, 2] > 229) & (sampled_T3hw[:, 2] > 229)
    inside &= ((seen_T3hw[:, :2] > 42) & (seen_T3hw[:, :2] < 218)).all(1)
    assert inside.sum() > 50
    assert (seen_T3hw - sampled_T3hw).abs().amax(1)[inside].max() < 3
    black = seen_T3hw[:, 2] < 1
    assert black.any() == (pair.processor.image_processor.__class__.__name__ == "LlavaOnevisionImageProcessor")
    assert (sampled_T3hw.abs().amax(1)[black] == 0).all()


def test_a_folder_that_is_not_whole(tmp_path):
    folder = tiny_onevision_folder(tmp_path / "model")
    told = json.loads((folder / "config.json").read_text())

    def rewritten(**changes):
        (folder / "config.json").write_text(json.dumps(told | changes))

    rewritten(model_type="qwen2_vl")
    with pytest.raises(CotamError, match="'qwen2_vl' model; an MLLM must be one of llava, llava_onevision, internvl"):
        load_mllm(folder)
    rewritten(vision_config={"model_type": "dinov2"})
    with pytest.raises(CotamError, match="sees through a 'dinov2'; a tower must be one of clip_vision_model"):
        load_mllm(folder)
    rewritten(vision_feature_layer=[-2, -1])
    with pytest.raises(CotamError, match=r"layers \[-2, -1\]; only one"):
        load_mllm(folder)
    rewritten()
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor for name, tensor in tensors.items() if "linear_2.bias" not in name}, weights)
    with pytest.raises(CotamError, match=r"has no weights for model\.multi_modal_projector\.linear_2\.bias"):
        load_mllm(folder)
    weights.unlink()
    with pytest.raises(CotamError, match="has no weights: its safetensors files are missing"):
        load_mllm(folder)
