"""Packed questions teach exactly what the same questions teach one at a time, and what the MLLM will be asked."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.modeling_outputs import BaseModelOutputWithPast

from components.evaluation.clips import FRAMES
from components.mllm import load_mllm, see
from components.mllm.visual import Kind
from components.paths import PRETRAINED
from components.scenes import Scene, render
from components.scenes.moving import moving_vocabulary
from components.scenes.questions import draw_questions
from components.scenes.world import SHAPES
from pipelines.pretrain import attention
from pipelines.pretrain.groups import LONG, WHOLE_BATCH, Group
from pipelines.pretrain.lessons import EASY, IGNORED, LENGTH, PLACES, WAYS, draw_clip_questions, lesson, whereabouts
from pipelines.pretrain.material import Material
from pipelines.pretrain.micro_models import MODELS
from pipelines.pretrain.packing import ROOM, pack, packed_mask
from pipelines.pretrain.tiles import GRID
from pipelines.pretrain.train_clip import image_processor
from pipelines.pretrain.train_mllm import QUESTIONS, Lesson, family_of, save
from pipelines.pretrain.warm_start import start_language, tower_from_clip
from pipelines.pretrain.whereabouts import HEADS, LAYER
from pipelines.pretrain.words import PAD

CLIP, LLAVA = PRETRAINED / "clip/micro", PRETRAINED / "mllm/micro-llava"
TOWERS = {"internvl": "internvit", "onevision": "siglip"}


@pytest.fixture(scope="module", params=sorted(MODELS))
def model_and_processor(request, tmp_path_factory):
    """One of each kind, with the micro LLaVA's language model: answers differ between images."""
    folder = CLIP
    if request.param in TOWERS:
        folder = tmp_path_factory.mktemp("tower")
        tower_from_clip(TOWERS[request.param], CLIP).save_pretrained(folder)
        image_processor().save_pretrained(folder)
    torch.manual_seed(0)
    model, processor = MODELS[request.param](folder)
    start_language(model, LLAVA)
    return model.eval(), processor


STILL, LARGE, MOVING = Material("train"), Material("train", 2), Material("train", frames=FRAMES)
LARGEST = Material("train", 4)


def kinds_of(family) -> list[Material]:
    """What a model of this family learns from."""
    return [LARGE, LARGEST, MOVING] if Kind.VIDEO in family.kinds else [STILL]


def drawn_of(material: Material, seed: int):
    draw = draw_clip_questions if material.frames else draw_questions
    return draw(material.graph(seed), np.random.default_rng(seed), QUESTIONS)


def frames_of(material: Material, seed: int) -> list[Scene]:
    return material.clip(seed).frames(FRAMES) if material.frames else [material.scene(seed)]


def pixels_of(material: Material, seed: int) -> list[np.ndarray]:
    """The picture of a scene, or the frames of a clip."""
    return [render(one) for one in frames_of(material, seed)]


def lessons_of(material: Material, seeds, processor) -> np.ndarray:
    ids, rows = processor.tokenizer.get_vocab(), []
    for seed in seeds:
        known = whereabouts(material.graph(seed))
        told = (lesson(*one, ids, known) for one in drawn_of(material, seed))
        rows.append(np.stack([np.stack(column) for column in zip(*told, strict=True)]))
    return np.stack(rows)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([ROOM, 2 * ROOM]))
def test_packing_moves_whole_questions_and_changes_nothing_in_them(seed, images, room):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, LENGTH + 1, (images, QUESTIONS))
    given_BCQL = rng.integers(1, 100, (images, 4 + len(PLACES), QUESTIONS, LENGTH)).astype(np.int16)
    outside = np.arange(LENGTH) >= lengths[..., None]
    given_BCQL[:, 0][outside] = PAD
    given_BCQL[:, 1:].swapaxes(1, 2).swapaxes(2, 3)[outside] = IGNORED
    packed = pack(given_BCQL, rng, room)
    assert packed.tokens.shape == (images, room)
    for image in range(images):
        kept = packed.owners[image].unique().tolist()
        originals = {given_BCQL[image, :, q, : lengths[image, q]].tobytes() for q in range(QUESTIONS)}
        for owner in filter(None, kept):
            inside = packed.owners[image] == owner
            columns = packed.tokens[image], packed.answers[image], packed.marks[image], *packed.whereabouts[image]
            columns = torch.stack(columns)[:, inside]
            assert columns.numpy().astype(np.int16).tobytes() in originals
            assert packed.offsets[image][inside].tolist() == list(range(int(inside.sum())))
        assert len(kept) > 1 or lengths[image].min() > room
        assert (packed.tokens[image][packed.owners[image] == 0] == PAD).all()
        for targets in (packed.answers[image], packed.marks[image], *packed.whereabouts[image]):
            assert (targets[packed.owners[image] == 0] == IGNORED).all()


def features_of(family, material: Material, seeds) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack([one for seed in seeds for one in pixels_of(material, seed)]))
    framing = family.framing(Kind.VIDEO if material.frames else Kind.IMAGE, (material.size, material.size))
    views = framing.pixels(pixels.permute(0, 3, 1, 2)).flatten(0, 1)
    layer = family.tower.feature_layer
    states = family.tower.hidden_states(family.tower.patch_embed(views), {layer})[layer]
    return states.unflatten(0, (len(seeds), -1))


@given(st.integers(0, 1000), st.sampled_from([STILL, LARGE, MOVING]))
def test_a_word_that_names_a_shape_knows_where_it_is(seed, material):
    """Held against what is drawn: the places of the objects in the first frame that shows them and in the last."""
    graph, frames = material.graph(seed), frames_of(material, seed)
    words = ["", *moving_vocabulary(), "ASSISTANT:"]
    ids = {word: number for number, word in enumerate(words)}
    for one in drawn_of(material, seed):
        tokens, _, _, *where = lesson(*one, ids, whereabouts(graph))
        answered = False
        for token, told in zip(tokens, np.transpose(where), strict=True):
            showing = [[obj for obj in frame.objects if obj.shape == words[token]] for frame in frames]
            answered |= words[token] == "ASSISTANT:"
            if told[0] == IGNORED:
                assert (told == IGNORED).all() and (answered or words[token] not in SHAPES or len(showing[-1]) != 1)
                continue
            first = next(number for number, objects in enumerate(showing) if objects)
            ends = showing[first][0], showing[-1][0]
            cells = [int(v / frames[0].side * GRID) for obj in ends for v in (obj.cx, obj.cy)]
            assert told[:5].tolist() == [first, *cells]
            assert material.frames or told[5] == IGNORED
            if material.frames:
                dx, dy = ends[1].cx - ends[0].cx, ends[1].cy - ends[0].cy
                assert WAYS[told[5]] == {(-1, 0): "left", (1, 0): "right", (0, -1): "up", (0, 1): "down"}.get(
                    (np.sign(dx), np.sign(dy))
                )


@torch.no_grad()
def test_the_tokens_of_a_cell_are_those_that_its_patches_change(model_and_processor):
    """Of tiles and of frames; a view of the whole beside tiles has no cells."""
    model, processor = model_and_processor
    family = family_of(model, processor)
    learn, tiled = Lesson(family, processor), Kind.VIDEO in family.kinds
    generator = torch.Generator().manual_seed(0)
    for material in [STILL, LARGE, LARGEST, MOVING] if tiled else [STILL, LARGE]:
        blank = torch.zeros_like(features_of(family, material, [0]))
        views, width = blank.shape[1], blank.shape[-1]
        shown, visual, tokens = learn.shown(blank, material)
        before, at = learn.prefix(shown, visual)
        cells = learn.cells(at, tokens, views, material)
        whole = 0 if model.config.model_type == "llava_onevision" else views - 1
        whole = None if material.frames or views == 1 else whole
        tiles = [view for view in range(views) if view != whole]
        for view in (0, views // 2, views - 1):
            row, column = torch.randint(GRID, (2,), generator=generator).tolist()
            changed = blank.clone()
            changed[0, view, row * GRID + column - GRID**2] = 3 * torch.randn(width, generator=generator)
            after, _ = learn.prefix(learn.shown(changed, material)[0], visual)
            found = (cells == (after - before).abs().sum(-1).argmax()).nonzero()[:, :3].tolist()
            if view == whole:
                assert not found
                continue
            frame, tile = (view, 0) if material.frames else (0, tiles.index(view))
            down, right = divmod(tile, material.detail)
            patches = GRID * (1 if views == 1 else material.detail)
            due = ((down * GRID + row, right * GRID + column), cells.shape[1:3])
            assert found == [[frame, *(place * side // patches for place, side in zip(*due, strict=True))]]


@torch.no_grad()
def test_attention_of_packed_questions_is_that_of_transformers(model_and_processor):
    """The states of every layer, and what two heads of one layer look at."""
    model, processor = model_and_processor
    Lesson(family_of(model, processor), processor)  # which sets it
    language = model.model.language_model
    packed, before = pack(lessons_of(STILL, [3, 4], processor), np.random.default_rng(0)), 9
    mask, positions = packed_mask(packed, before)
    told = {"attention_mask": mask, "position_ids": positions, "use_cache": False, "questions": ROOM}
    told |= {"output_attentions": True, "output_hidden_states": True}
    prefix = torch.randn(2, before, model.config.text_config.hidden_size, generator=torch.Generator().manual_seed(0))
    told["inputs_embeds"] = torch.cat([prefix, model.get_input_embeddings()(packed.tokens)], 1)
    found = language(**told)
    language.set_attn_implementation("eager")
    due = language(**told)
    attention.use(language, LAYER, HEADS)
    assert len(found.attentions) == len(due.attentions)
    inside = torch.cat([torch.ones(2, before, dtype=torch.bool), packed.owners > 0], 1)  # padding asks nothing
    for one, other in zip(found.hidden_states, due.hidden_states, strict=True):
        torch.testing.assert_close(one[inside], other[inside], atol=1e-4, rtol=1e-4)
    looked, all_looked = found.attentions[LAYER], due.attentions[LAYER]
    asked = packed.owners > 0
    for head in range(HEADS):
        torch.testing.assert_close(looked[:, head][asked], all_looked[:, head, before:][asked], atol=1e-5, rtol=1e-4)


def test_questions_of_clips_are_of_what_one_frame_does_not_show():
    """Rarely of what ordinary scenes teach as well; of motion, in all forms."""
    drawn = [pair for seed in range(400) for pair in drawn_of(MOVING, seed)]
    easy = np.mean([fact.family in EASY for fact, _ in drawn])
    assert 0.15 < easy < 0.35  # of three of the six families; evenly it would be one half
    ways = Counter(question.form for fact, question in drawn if fact.family == "direction")
    assert min(ways.values()) > 0.25 * ways.total() and len(ways) == 3


def test_long_prompts_have_more_questions_and_smaller_batches():
    """As many tokens a step, within a tenth, whatever is shown."""

    def group(length: int) -> Group:
        return Group(LARGE, torch.zeros(1), np.zeros(1), np.zeros(0), length)

    assert group(64).room == ROOM and group(LONG + 1).room == 2 * ROOM
    for length in (20, 140, 300, 700, 1200):
        one = group(length)
        assert one.share(32) == 32 or 0.9 < one.share(32) * (length + one.room) / (32 * WHOLE_BATCH) <= 1
    assert group(140).share(32) == 32
    assert group(5000).share(2) == 1


@torch.no_grad()
def test_marks_are_asked_for_while_later_words_can_use_them(model_and_processor):
    """A question mark's two layers before the last but one, an option's one later; nothing else counts."""
    model, processor = model_and_processor
    learn = Lesson(family_of(model, processor), processor)
    packed = pack(lessons_of(STILL, [3, 4], processor), np.random.default_rng(0))
    asked = packed.tokens == processor.tokenizer.convert_tokens_to_ids("?")
    marked = packed.marks != IGNORED
    width = model.config.text_config.hidden_size
    states = [torch.randn(2, 5 + ROOM, width, generator=torch.Generator().manual_seed(n)) for n in range(LAYER + 5)]

    def loss(layer: int | None = None, changed: torch.Tensor = marked) -> float:
        given = [state.clone() for state in states]
        if layer is not None:
            given[layer][:, 5:][changed] = torch.randn(int(changed.sum()), width)
        return float(learn.early(BaseModelOutputWithPast(hidden_states=tuple(given)), packed, marked))

    for layer in range(LAYER + 5):
        assert (loss(layer, marked & asked) != loss()) == (layer == LAYER + 2)
        assert (loss(layer, marked & ~asked) != loss()) == (layer == LAYER + 3)
        assert loss(layer, ~marked) == loss()


@torch.no_grad()
def test_a_packed_question_is_answered_as_if_it_were_alone(model_and_processor):
    model, processor = model_and_processor
    family = family_of(model, processor)
    learn = Lesson(family, processor)
    for material in kinds_of(family):
        features = features_of(family, material, [3, 4])
        packed = pack(lessons_of(material, [3, 4], processor), np.random.default_rng(0))
        _, (together, *_) = learn(features, packed, material)
        total, count = 0.0, 0
        for image in range(2):
            for owner in filter(None, packed.owners[image].unique().tolist()):
                inside = packed.owners[image] == owner
                alone = type(packed)(*(column[image][..., inside][None] for column in packed))
                alone = alone._replace(owners=torch.ones_like(alone.owners))
                _, (answer, *_) = learn(features[image : image + 1], alone, material)
                targets = int((alone.answers != IGNORED).sum())
                total, count = total + float(answer) * targets, count + targets
        assert float(together) == pytest.approx(total / count, rel=1e-4)


@torch.no_grad()
def test_training_shows_what_the_mllm_will_be_asked(model_and_processor, tmp_path: Path):
    """The first word that the shipped folder answers is the likeliest in training; tiles, frames and marks included."""
    model, processor = model_and_processor
    family = family_of(model, processor)
    learn, ids = Lesson(family, processor), processor.tokenizer.get_vocab()
    save(model, processor, tmp_path)
    mllm = load_mllm(tmp_path)
    family.model.load_state_dict(mllm.model.state_dict())  # rounded to float16, as that is
    for material in kinds_of(family):
        drawn = drawn_of(material, 5)
        (seen,) = see(mllm, Kind.VIDEO if material.frames else Kind.IMAGE, [pixels_of(material, 5)])
        answers = mllm.answer([seen] * QUESTIONS, [question.prompt for _, question in drawn], max_new_tokens=1)
        rows = []
        for one, answer in zip(drawn, answers, strict=True):
            tokens, targets, *marks = lesson(*one, ids, whereabouts(material.graph(5)))
            start = int((targets != IGNORED).argmax())
            targets[:] = IGNORED
            targets[start] = processor.tokenizer.convert_tokens_to_ids(answer)
            rows.append(np.stack([tokens, targets, *marks]))
        packed = pack(np.stack(rows).transpose(1, 0, 2)[None], np.random.default_rng(0))
        _, (*_, right) = learn(features_of(family, material, [5]), packed, material)
        assert len(set(answers)) > 1
        assert float(right) == 1.0
