"""`lmms-eval --model cotam`: from the command line on files in the official layouts, and in this process on scenes."""

import hashlib
import json
import multiprocessing
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from components.adapter import AdapterConfig, LatentAdapter
from components.codec import Codec
from components.evaluation.further import write_further
from components.evaluation.step_benchmarks import write_benchmarks
from components.files import read_json, write_json
from components.mllm import load_mllm
from tests.lmms_commands import run_all
from tests.lmms_samples import Evaluated, pictures_of, rows_of
from tests.models import WIDTH, tiny_llava_folder
from tests.models_tiled import tiny_onevision_folder
from tests.official_benchmarks import FILES, TASKS, lmms_eval_environment, write_official
from tests.small_checkout import tiny_codec_folder
from tests.videos import write_video

COUNT = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny_codec_folder(folder / "codec")
    tiny_llava_folder(folder / "llava")
    tiny_onevision_folder(folder / "onevision")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(folder / "bench", COUNT, "bench", seed=3, side=128)
    write_further(folder / "further", COUNT, "bench", seed=3, side=128)
    return folder


def arguments(**chosen):
    return ",".join(f"{name}={value}" for name, value in chosen.items())


def run_command(root, tasks, *command, **model_args):
    return subprocess.run(
        [*command, "--model", "cotam", "--model_args", arguments(**model_args), "--tasks", tasks, "--batch_size", "64"],
        cwd=root,
        env=lmms_eval_environment(root),
        capture_output=True,
        text=True,
    )


def test_the_command_line_evaluates_official_files(tmp_path):
    """micro-llava and elic-micro on seven benchmarks: lmms-eval's own names, loading, prompts and scoring."""
    write_official(tmp_path)
    report = tmp_path / "report.json"
    done = run_command(
        *(tmp_path, ",".join(TASKS), "lmms-eval", "--output_path", str(tmp_path / "out"), "--log_samples"),
        **{"quality": 3, "cache": tmp_path / "cache", "report": report},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check_what_was_said(tmp_path, Evaluated(tmp_path / "out"))

    coded = json.loads(report.read_text())
    assert coded["pictures"] == coded["encoded"] == 3  # of six tasks the same two, and of the seventh one more
    pictures = {picture.tobytes(): picture for row in rows_of(tmp_path, "mmmu_val") for picture in pictures_of(row)}
    streams = Codec.from_pretrained("codec/elic-micro").encode(list(pictures.values()), 3)
    assert coded["bits"] == 8 * sum(map(len, streams))
    assert coded["bpp"] == pytest.approx(coded["bits"] / (3 * 128 * 128))


def check_what_was_said(root, evaluated):
    """Every answer is micro-llava's own about what elic-micro leaves at quality 3; the scores are those answers'."""
    codec, mllm = Codec.from_pretrained("codec/elic-micro"), load_mllm("mllm/micro-llava")
    assert set(evaluated.results) == set(TASKS)
    said = {}
    for task in TASKS:
        left = [codec.decode(codec.encode(pictures_of(row), 3)) for row in rows_of(root, task)]
        said[task] = evaluated.answers(task)
        assert said[task] == evaluated.expected(task, mllm, mllm.several_views(left)), task
    assert len({answer for answers in said.values() for answer in answers}) > 2  # or it would be a test of nothing
    right = {
        task: [answer == row["answer"].lower() for answer, row in zip(said[task], rows_of(root, task), strict=True)]
        for task in ("mme", "pope")
    }
    pairs = list(zip(right["mme"][::2], right["mme"][1::2], strict=True))
    both = sum(map(all, pairs)) / len(pairs)
    perception = 100 * (np.mean(right["mme"]) + both)
    assert evaluated.results["mme"]["mme_perception_score,none"] == pytest.approx(perception)
    assert evaluated.results["pope"]["pope_accuracy,none"] == pytest.approx(np.mean(right["pope"]))
    chosen = [answer[:1].upper() == "B" for answer in said["seedbench"]]  # the truth of all its questions
    assert evaluated.results["seedbench"]["seed_image,none"] == pytest.approx(np.mean(chosen))


PROMPTS = {
    "mme": "question",
    "pope": "question",
    "textvqa_val": "question",
    "vqav2_val": "question",
    "seedbench": "choice_a",
    "mmbench_en_dev_static": "hint",
    "mmmu_val": "question_type",
    "videomme": "options",
}
"""Of every layout a column that the task reads to ask a question."""


def test_bad_input_ends_the_command_with_one_sentence_and_1(tmp_path):
    """What lmms-eval would print a traceback for, and exit with 0: most of it before the model hears of the task."""
    write_official(tmp_path)
    empty, damaged, cut = tmp_path / "empty", tmp_path / "damaged", tmp_path / "cut"
    empty.mkdir()
    for folder in (damaged, cut):
        shutil.copytree(tmp_path / "lmms-lab-encoder", folder / "lmms-lab-encoder")
    change_rows(damaged / FILES["mme"], lambda rows: rows[0]["image"].update(bytes=b"no picture"))
    change_rows(damaged / FILES["pope"], lambda rows: rows[3]["image"].update(bytes=rows[3]["image"]["bytes"][:-99]))
    change_rows(damaged / FILES["mmmu_val"], lambda rows: rows[0].update(options="['one', "))
    change_rows(damaged / FILES["textvqa_val"], list.clear)
    (damaged / FILES["seedbench"]).rename((damaged / FILES["seedbench"]).with_name("train-00000-of-00001.parquet"))
    (cut / FILES["mme"]).write_bytes((tmp_path / FILES["mme"]).read_bytes()[:999])
    for task, column in PROMPTS.items():
        table = pq.read_table(tmp_path / FILES[task])
        pq.write_table(table.drop_columns([column]), tmp_path / FILES[task])
    expected = [
        *((tmp_path, task, {}, f"{task} has no column {column!r}; fetch") for task, column in PROMPTS.items()),
        (tmp_path, "mmmu_val_qwen", {}, "mmmu_val_qwen has no column 'question_type'; fetch"),  # of no known layout
        (empty, "mme", {}, "mme is neither in a folder lmms-lab-encoder/MME here nor could it be fetched"),
        (cut, "mme", {}, "benchmark mme cannot be loaded (ArrowInvalid"),
        (damaged, "mme", {}, "Question 0 of mme cannot be read (UnidentifiedImageError: cannot identify image file)"),
        (damaged, "pope", {}, "Question 3 of pope cannot be read (OSError: image file is truncated"),
        (damaged, "mmmu_val", {}, "Question 0 of mmmu_val cannot be read (SyntaxError"),
        (damaged, "textvqa_val", {}, "benchmark textvqa_val cannot be loaded (ArrowInvalid"),
        (damaged, "seedbench", {}, "benchmark seedbench has no split 'test'; fetch"),
        (damaged, "nothing", {}, "There is no task 'nothing'"),
        (damaged, "pope", {"colour": "red"}, "There is no model argument 'colour'"),
        (damaged, "pope", {"batch_size": 3}, "use lmms-eval's own option --batch_size"),
        (damaged, "pope", {"dtype": "int8"}, "There is no dtype 'int8'"),
        (damaged, "pope", {"guidance": 1}, "guidance is 1; write guidance=True or guidance=False"),
        (damaged, "pope", {"device": "cuda:97"}, "--device names 'cuda:97', which is no device of this machine"),
        (damaged, "pope", {"codec": "codec/elic-micro", "quality": 11}, "There is no quality 11"),
        (damaged, "pope", {"codec": "codec/elic-micro", "adapter": "nowhere"}, "There is no model at nowhere"),
        (damaged, "pope", {"mllm": "nowhere"}, "There is no model at nowhere"),
    ]
    runs = [
        [str(folder), "--model", "cotam", "--model_args", arguments(**{"codec": "none"} | chosen), "--tasks", task]
        for folder, task, chosen, _ in expected
    ]
    for (*_, words), (code, said) in zip(expected, run_all(tmp_path, runs), strict=True):
        assert "Traceback" not in said
        last = said.splitlines()[-1]
        assert last.startswith("cotam: ") and words in last
        assert code == 1


@pytest.mark.soak
@pytest.mark.parametrize("command", [("lmms-eval",), (sys.executable, "-m", "lmms_eval")], ids=["script", "module"])
def test_both_commands_as_they_are_installed_exit_with_1(tmp_path, command):
    write_official(tmp_path)
    table = pq.read_table(tmp_path / FILES["mme"])
    pq.write_table(table.drop_columns(["question"]), tmp_path / FILES["mme"])
    for task, words in (("mme", "mme has no column 'question'"), ("mmee", "no task 'mmee'"), ("pope", None)):
        done = run_command(tmp_path, task, *command, codec="none")
        assert done.returncode == (1 if words else 0), done.stderr[-2000:]
        assert words is None or words in done.stderr.splitlines()[-1]


def test_what_nobody_foresaw_has_a_traceback_and_1(capsys):
    from components.evaluation.lmms_failures import fails

    def function(one):
        raise ZeroDivisionError("by nought.\nMore")

    with pytest.raises(SystemExit, match=r"^cotam: lmms-eval stopped \(ZeroDivisionError: by nought\)\.$"):
        fails(function, lambda one: one == "ours")("ours")
    assert "Traceback" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        fails(function, lambda one: one == "ours")("theirs")


def change_rows(file, change):
    """Rewrite a parquet file with its rows changed, in the same layout."""
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


@pytest.mark.soak
def test_two_processes_report_what_one_reports(tmp_path, models):
    write_official(tmp_path)
    found = []
    for name, *launcher in (("one",), ("two", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")):
        report, out = tmp_path / f"{name}.json", tmp_path / name
        command = (sys.executable, "-m", *launcher, "lmms_eval", "--output_path", str(out), "--log_samples")
        chosen = {"mllm": models / "llava", "codec": models / "codec", "cache": "none", "report": report}
        done = run_command(tmp_path, "mme,mmmu_val", *command, **chosen)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stderr.count("distinct streams at quality") == 1
        lines = [line for path in out.glob("*samples*.jsonl") for line in path.read_text().splitlines()]
        [results] = out.glob("*results.json")
        found.append((json.loads(report.read_text()), len(lines), json.loads(results.read_text())["results"]))
    assert found[0] == found[1]


def share(rank: int, port: int, result: Path) -> None:
    """Of three pictures the first process has coded two and the second two, of which one is the same."""
    from components.evaluation.coded import gather_coded, summed

    cpu = torch.device("cpu")
    torch.distributed.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=3)
    mine = [[b"a", b"b"], [b"b", b"c"], []][rank]
    found = gather_coded({hashlib.sha256(name).digest(): (8 * ord(name), 128 * 128) for name in mine}, cpu)
    told = sorted((name.hex(), *sizes) for name, sizes in found.items())
    write_json(result / f"{rank}.json", [told, summed([len(mine), 1], cpu)])


def test_what_several_processes_coded_is_put_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=share, args=(rank, port, tmp_path)) for rank in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    wanted = sorted([hashlib.sha256(name).hexdigest(), 8 * ord(name), 128 * 128] for name in (b"a", b"b", b"c"))
    assert [read_json(tmp_path / f"{rank}.json") for rank in range(3)] == [[wanted, [4, 3]]] * 3


@pytest.mark.soak
def test_python_m_lmms_eval_answers_videos_of_the_official_layout(tmp_path, models):
    write_official(tmp_path)
    chosen = {"mllm": models / "onevision", "codec": models / "codec", "cache": "none", "frames": 4}
    out = ("--output_path", str(tmp_path / "out"), "--log_samples")
    done = run_command(tmp_path, "videomme", sys.executable, "-m", "lmms_eval", *out, **chosen)
    assert done.returncode == 0, done.stderr[-2000:]
    check_what_was_said_of_videos(tmp_path, Evaluated(tmp_path / "out"), models)


def check_what_was_said_of_videos(root, evaluated, models):
    """Every answer is the MLLM's own about four decoded frames, and the score is those answers'."""
    from lmms_eval.tasks.videomme.utils import extract_characters_regex

    from components.data.video import open_video

    codec, mllm = Codec.from_pretrained(models / "codec"), load_mllm(models / "onevision")
    rows = rows_of(root, "videomme")
    clips = [open_video(root / f"home/videomme/data/{row['videoID']}.mp4", 4).frames for row in rows]
    seen = mllm.video_views([codec.decode(codec.encode(frames, 4)) for frames in clips])
    said = evaluated.answers("videomme")
    assert said == evaluated.expected("videomme", mllm, seen)
    right = [extract_characters_regex(answer) == row["answer"] for answer, row in zip(said, rows, strict=True)]
    found = evaluated.results["videomme"]["videomme_perception_score,none"]
    assert found == pytest.approx(100 * np.mean(right))


@pytest.fixture
def evaluate(monkeypatch, tmp_path, scenes):
    """lmms-eval's own `simple_evaluate` in this process, on the tasks over scenes."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from components.evaluation.lmms_model import CotamModel
    from components.evaluation.suite import TASKS

    def run(tasks, **model_args):
        manager = TaskManager(include_path=str(TASKS), include_defaults=False)
        names = {"mmmu": "further/mmmu.parquet", "videomme": "further/videomme.parquet"}
        asked = []
        for name in tasks:
            file = scenes / names.get(name, f"bench/{name}.jsonl")
            split = "validation" if name == "mmmu" else "test"
            where = {"data_files": {split: str(file)}, "cache_dir": str(tmp_path / "datasets"), "keep_in_memory": True}
            asked.append({"task": f"scenes_{name}", "dataset_kwargs": where})
        model = CotamModel(scenes=str(scenes), **model_args)
        return model, simple_evaluate(model, tasks=asked, task_manager=manager, log_samples=True, bootstrap_iters=0)

    return run


def test_a_second_mllm_costs_no_encoding(evaluate, models, tmp_path):
    tasks = ["mme", "pope", "vqav2", "mmmu"]
    chosen = {"codec": str(models / "codec"), "cache": str(tmp_path / "cache")}
    first, found = evaluate(tasks, mllm=str(models / "llava"), **chosen)
    assert set(found["results"]) == {f"scenes_{name}" for name in tasks}
    assert first.cache.encoded == len(first.coded) == COUNT + 2 + 3 + 2  # of MMMU two, three and two pictures
    counts = []
    for name in ("onevision", "llava", "onevision"):
        model, _ = evaluate(tasks, mllm=str(models / name), **chosen)
        counts.append(model.cache.encoded)
    assert counts == [0, 0, 0]
    assert model.coded == first.coded


def test_answers_are_those_of_the_decoded_pictures(evaluate, models, scenes):
    torch.manual_seed(0)
    adapter = LatentAdapter(AdapterConfig(latent_channels=12, feature_dim=WIDTH, grid=(8, 8), width=16))
    torch.nn.init.normal_(adapter.out_projection.weight, std=2)
    adapter.save(models / "adapter")
    chosen = {"mllm": str(models / "llava"), "codec": str(models / "codec"), "cache": "none", "quality": 2}
    model, found = evaluate(["pope"], adapter=str(models / "adapter"), guidance=False, **chosen)
    codec, mllm = Codec.from_pretrained(models / "codec"), load_mllm(models / "llava")
    pictures = [np.array(Image.open(path)) for path in sorted((scenes / "bench/images").glob("*.png"))]
    streams = codec.encode(pictures, 2)
    views = mllm.decoded_views(codec.decode(streams), adapter.eval())
    samples = sorted(found["samples"]["scenes_pope"], key=lambda sample: sample["doc_id"])
    expected = mllm.answer(
        [views[int(sample["doc"]["image"])] for sample in samples], [sample["doc"]["prompt"] for sample in samples], 8
    )
    assert [sample["filtered_resps"][0] for sample in samples] == expected
    assert model.cache is None
    plain = evaluate(["pope"], **(chosen | {"codec": "none"}))[0]
    assert plain.codec is None


def test_videos_go_through_the_codec_frame_by_frame(evaluate, models):
    chosen = {"mllm": str(models / "onevision"), "codec": str(models / "codec"), "cache": "none"}
    model, found = evaluate(["videomme"], frames=4, **chosen)
    assert len(found["samples"]["scenes_videomme"]) == 2 * COUNT
    assert 0 <= found["results"]["scenes_videomme"]["videomme_perception_score,none"] <= 100
    assert len(model.coded) <= 4 * COUNT


def request(visuals, prompt="How many ?", **options):
    return SimpleNamespace(args=(prompt, {"max_new_tokens": 4, **options}, lambda _: visuals, 0, "t", "test"))


@pytest.fixture(scope="module")
def model(models):
    from components.evaluation.lmms_model import CotamModel

    chosen = {"mllm": str(models / "llava"), "codec": str(models / "codec"), "cache": "none"}
    model = CotamModel(**chosen)
    model.task_dict["t"] = {"test": [{}]}
    return model


def test_requests_are_answered_in_their_order_whatever_they_show(model, tmp_path):
    rng = np.random.default_rng(0)
    one, other = (Image.fromarray(rng.integers(0, 256, (64, 80, 3), np.uint8)) for _ in range(2))
    one.save(tmp_path / "one.png")
    asked = [[one], [one, other], [str(tmp_path / "one.png")], [other], [one.copy()]]
    requests = [request(visuals, prompt=f"<image>\nHow many circles {k % 2} ?") for k, visuals in enumerate(asked)]
    assert model.generate_until([]) == []
    together = model.generate_until(requests)
    assert together == [model.generate_until([one])[0] for one in requests]
    assert together[0] == together[2] == together[4]
    assert model.generate_until([request(np.asarray(one), prompt="<image>\nHow many circles 0 ?")]) == together[:1]
    stop = together[0].split()[1]
    [stopped] = model.generate_until([request([one], "How many circles 0 ?", until=[stop])])
    assert stopped == together[0].split(stop)[0].strip() != together[0]


@pytest.mark.parametrize(
    ("answer", "stops", "left"),
    [
        ("yes\n\nno", "\n\n", "yes"),
        ("one two three", ["three", "two"], "one"),
        ("one two", ["", "three"], "one two"),
        (" one ", None, "one"),
        ("one", ["one"], ""),
    ],
)
def test_an_answer_ends_where_its_task_says(answer, stops, left):
    from components.evaluation.asking import _until

    assert _until(answer, stops) == left


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"colour": "red"}, "no model argument 'colour'"),
        ({"quality": 11}, "There is no quality 11"),
        ({"quality": "best"}, "quality is 'best'; give a whole number from 0 on"),
        ({"frames": 0}, "frames is 0; give a whole number from 1 on"),
        ({"guidance": "no"}, "guidance is 'no'; write guidance=True or guidance=False"),
        ({"codec": "none", "adapter": "a"}, "An adapter reads a decoded latent"),
        ({"codec": "nowhere"}, "There is no model at nowhere"),
        ({"mllm": "nowhere"}, "There is no model at nowhere"),
    ],
)
def test_wrong_arguments_end_lmms_eval_with_one_sentence(models, options, words):
    from components.evaluation.lmms_model import CotamModel

    with pytest.raises(SystemExit, match=words) as found:
        CotamModel(**({"mllm": str(models / "llava"), "codec": str(models / "codec"), "cache": "none"} | options))
    assert str(found.value).startswith("cotam: ")
    assert "\n" not in str(found.value)


def test_what_it_cannot_answer_ends_lmms_eval_with_one_sentence(model, tmp_path):
    clip = str(write_video(tmp_path / "a.mp4", 5))
    (tmp_path / "bad.mp4").write_text("no video")
    for visuals, options, words in [
        ([clip], {}, "takes no video; use LLaVA-OneVision or InternVL"),
        ([str(tmp_path / "bad.mp4")], {}, "not a video that can be read"),
        ([str(tmp_path / "none.png")], {}, "does not exist"),
        ([], {}, "has no picture"),
        ([3], {}, "A task shows int"),
        ([Image.new("RGB", (32, 32))], {"do_sample": True}, "wants sampled answers"),
    ]:
        with pytest.raises(SystemExit, match=words):
            model.generate_until([request(visuals, **options)])
    with pytest.raises(SystemExit, match="output_type is generate_until"):
        model.loglikelihood([])


def test_a_missing_column_is_named_before_anything_is_asked(scenes, tmp_path):
    from datasets import Dataset

    from components.errors import CotamError
    from components.evaluation.layouts import OFFICIAL, CheckedTasks
    from components.evaluation.suite import Suite

    for name, columns in OFFICIAL.items():
        rows = Dataset.from_list([dict.fromkeys(columns[:-1], "x")])
        with pytest.raises(CotamError, match=rf"benchmark {name} has no column '{columns[-1]}'; fetch"):
            CheckedTasks()[name] = {"test": rows}
        CheckedTasks()[name] = {"test": rows.add_column(columns[-1], ["x"])}
    broken = tmp_path / "bench"
    broken.mkdir()
    for path in (scenes / "bench").glob("*.jsonl"):
        (broken / path.name).write_text(path.read_text().replace('"answer_type"', '"kind"'))
    with pytest.raises(CotamError, match="vqav2 has no column 'answer_type'; make it again"):
        Suite(broken, SimpleNamespace())
