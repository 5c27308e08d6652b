"""Tables of pictures, as the Hugging Face Hub and img2dataset lay them out, are a source like a folder."""

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

import pyarrow as pa
import pytest
from datasets import Dataset, Image, List
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet as pq
from pyarrow.parquet import encryption

from components.cli import main
from components.data import parquet, shard_folder, sharding
from components.data.parquet import OUTSIDE, ParquetSource, open_with_tables
from components.data.sources import FolderSource, S3Source
from components.errors import CotamError
from components.files import sha256_tree
from components.paths import ROOT
from tests.pictures import file_bytes, folder_of, noise, put_tar
from tests.test_shard import full_disk

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def jpeg(seed):
    return file_bytes(noise(seed), "JPEG")


def cell(seed):
    """A picture in a column of the Hub's type Image."""
    return {"bytes": jpeg(seed), "path": f"{seed}.jpg"}


def hub_table(path, columns, **features):
    """A table as `datasets` writes it to be put on the Hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = Dataset.from_dict(columns)
    for name, feature in features.items():
        data = data.cast_column(name, feature)
    data.to_parquet(path)


def write(path, columns, metadata=None, **options):
    """A table of columns of Arrow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)


def img2dataset_table(path, rows, kind="jpg"):
    """A table as img2dataset's `--output_format parquet` writes it: (key, bytes or None) per row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [("key", pa.string()), ("caption", pa.string()), ("status", pa.string()), ("width", pa.int32())]
    schema = pa.schema([*fields, (kind, pa.binary())])
    with pq.ParquetWriter(path, schema) as writer:
        for key, content in rows:
            status = "success" if content is not None else "failed_to_download"
            row = {"key": key, "caption": "a", "status": status, "width": 48, kind: content}
            writer.write_table(pa.Table.from_pylist([row], schema))


def content(folder, unpacked):
    """The bytes by name of all that a source lists, and what it left out."""
    source = open_with_tables(folder, unpacked)
    listing = source.list()
    assert [item.name for item in listing.items] == sorted(item.name for item in listing.items)
    found = {item.name: source.read(item) for item in listing.items}
    assert all(len(found[item.name]) == item.size for item in listing.items)
    return found, listing.ignored


def packed(folder):
    """The bytes by name of all pictures in shards."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for name, about in members.items():
            if name.endswith(".json"):
                key = name.removesuffix(".json")
                [picture] = [members[f"{key}.{kind}"] for kind in ("jpg", "png") if f"{key}.{kind}" in members]
                found[json.loads(about)["name"]] = picture
    return found


def test_tables_of_the_hub_are_a_source(tmp_path):
    for number, seeds in enumerate(([0, 1, 2], [3, 4])):
        columns = {"image": [cell(seed) for seed in seeds], "label": seeds}
        hub_table(tmp_path / f"in/data/train-0000{number}-of-00002.parquet", columns, image=Image())
    (tmp_path / "in/README.md").write_text("a card")
    manifest = shard_folder(tmp_path / "in", tmp_path / "out", shard_images=2)
    assert (manifest["images"], manifest["skipped"], manifest["ignored"]) == (5, [], {".md": 1})
    names = [f"data/train-00000-of-00002.parquet/{row:09d}" for row in range(3)]
    names += [f"data/train-00001-of-00002.parquet/{row:09d}" for row in range(2)]
    assert packed(tmp_path / "out") == {name: jpeg(seed) for seed, name in enumerate(names)}  # the very bytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_tables_of_img2dataset_are_a_source(tmp_path, kind):
    img2dataset_table(tmp_path / "00000.parquet", [("0", jpeg(0)), ("1", None), ("2", jpeg(2))], kind)
    names = ["00000.parquet/000000000", "00000.parquet/000000002"]
    assert content(tmp_path, tmp_path / ".unpacked") == (dict(zip(names, [jpeg(0), jpeg(2)], strict=True)), {})


def test_what_img2dataset_writes_beside_its_tars_is_left_out_as_before(tmp_path):
    (tmp_path / "in").mkdir()
    put_tar(tmp_path / "in/00000.tar", {"000000000.jpg": jpeg(0)})
    pq.write_table(pa.table({"url": ["x"], "caption": ["a"], "status": ["success"]}), tmp_path / "in/00000.parquet")
    listing = open_with_tables(tmp_path / "in", tmp_path / "unpacked").list()
    assert listing == FolderSource(tmp_path / "in").list()
    assert listing.ignored == {".parquet": 1}


def test_a_folder_without_tables_is_what_it_was(tmp_path):
    folder = folder_of(tmp_path / "in", 4)
    (folder / "notes.txt").write_text("x")
    source = open_with_tables(folder, tmp_path / "unpacked")
    assert source.list() == FolderSource(folder).list()
    assert source.list().key == FolderSource(folder).list().key
    assert not (tmp_path / "unpacked").exists()
    assert isinstance(open_with_tables("s3://bucket/x", tmp_path), S3Source)
    with pytest.raises(CotamError, match="is a file; give the folder that holds it"):
        open_with_tables(folder / "0.png", tmp_path / "unpacked").list()


def test_pyarrow_is_imported_for_tables_alone(tmp_path):
    folder_of(tmp_path / "in", 2)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from components.data.parquet import open_with_tables\n"
        "open_with_tables(sys.argv[1], Path('unpacked')).list()\n"
        "assert 'pyarrow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "in"], cwd=ROOT, check=True)


def test_several_columns_and_lists_name_their_pictures(tmp_path):
    folder = tmp_path / "in"
    pairs = {"image": [cell(0), cell(1)], "image_2": [cell(2), None]}
    hub_table(folder / "a.parquet", pairs, image=Image(), image_2=Image())
    lists = {"images": [[cell(3), cell(4)], [], None, [None, cell(5)]]}
    hub_table(folder / "b.parquet", lists, images=List(Image()))
    large = pa.array([[cell(6)], [cell(7), cell(8)]], pa.large_list(STRUCT))
    both = {"frames": large, "image": pa.array([jpeg(9), None], pa.large_binary())}
    pq.write_table(pa.table(both), folder / "c.parquet")
    fixed = pa.array([[cell(10), cell(11)]], pa.list_(STRUCT, 2))
    pq.write_table(pa.table({"pair": fixed}), folder / "d.parquet")
    found, ignored = content(folder, tmp_path / "unpacked")
    assert ignored == {}
    assert found == {
        "a.parquet/000000000/image": jpeg(0),
        "a.parquet/000000000/image_2": jpeg(2),
        "a.parquet/000000001/image": jpeg(1),
        "b.parquet/000000000/0": jpeg(3),
        "b.parquet/000000000/1": jpeg(4),
        "b.parquet/000000003/1": jpeg(5),
        "c.parquet/000000000/frames/0": jpeg(6),
        "c.parquet/000000000/image": jpeg(9),
        "c.parquet/000000001/frames/0": jpeg(7),
        "c.parquet/000000001/frames/1": jpeg(8),
        "d.parquet/000000000/0": jpeg(10),
        "d.parquet/000000000/1": jpeg(11),
    }


def test_what_is_no_picture_is_told_apart(tmp_path):
    rows = [cell(0), None, {"bytes": None, "path": "elsewhere/1.jpg"}, {"bytes": None, "path": None}]
    rows += [{"bytes": b"", "path": "4.jpg"}, {"bytes": b"hello", "path": None}]
    write(tmp_path / "in/a.parquet", {"image": pa.array(rows, STRUCT)})
    manifest = shard_folder(tmp_path / "in", tmp_path / "out")
    assert (manifest["images"], manifest["ignored"]) == (1, {OUTSIDE: 1})
    skipped = {skip["name"]: skip["reason"] for skip in manifest["skipped"]}
    assert skipped.pop("a.parquet/000000004") == "is empty"
    assert skipped.pop("a.parquet/000000005").startswith("is not an image") and not skipped


@pytest.mark.parametrize(
    ("columns", "features", "images"),
    [
        ({"photo": pa.array([cell(0)], STRUCT)}, {}, {"photo"}),
        ({"photo": pa.array([{"bytes": b"0"}])}, {}, {"photo"}),
        ({"JPG": pa.array([b"0"]), "thumbnail": pa.array([b"0"])}, {}, {"JPG"}),
        ({"image": pa.array([b"0"], pa.binary_view()), "webp": pa.array(["text"])}, {}, {"image"}),
        ({"image": pa.array([cell(0)], STRUCT)}, {"image": {"_type": "Image"}}, {"image"}),
        ({"image": pa.array([[cell(0)]])}, {"image": [{"_type": "Image"}]}, {"image"}),  # as older releases said it
        ({"sound": pa.array([cell(0)], STRUCT)}, {"sound": {"sampling_rate": 1, "_type": "Audio"}}, set()),
        ({"clips": pa.array([[cell(0)]])}, {"clips": {"feature": {"_type": "Video"}, "_type": "List"}}, set()),
        ({"image": pa.array([{"path": "x"}]), "label": pa.array([1])}, {}, set()),
    ],
)
def test_columns_of_images_are_known_by_type_and_name(tmp_path, columns, features, images):
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if features else None
    write(tmp_path / "a.parquet", columns, metadata)
    [table] = ParquetSource(tmp_path, tmp_path / "unpacked")._tables()
    assert set(table.images) == images


def test_metadata_that_is_no_json_says_nothing(tmp_path):
    for number, said in enumerate((b"x", b"[]", b'{"info": null}', b'{"info": {"features": []}}', b"\xff")):
        write(tmp_path / f"{number}.parquet", {"image": pa.array([cell(number)], STRUCT)}, {b"huggingface": said})
    assert len(content(tmp_path, tmp_path / ".unpacked")[0]) == 5


def test_columns_of_one_name_are_left_alone(tmp_path):
    twice = pa.Table.from_arrays([pa.array([b"0"]), pa.array(["1"]), pa.array([jpeg(0)])], ["image", "image", "jpg"])
    write(tmp_path / "a.parquet", twice)
    assert content(tmp_path, tmp_path / ".unpacked")[0] == {"a.parquet/000000000": jpeg(0)}


def test_columns_whose_names_have_dots_are_not_mixed_up(tmp_path):
    write(tmp_path / "a.parquet", {"image.bytes": pa.array(["text"]), "image": pa.array([cell(0)], STRUCT)})
    write(tmp_path / "b.parquet", {"a": pa.array([1]), "a.image": pa.array([cell(1)], STRUCT)})
    found = content(tmp_path, tmp_path / ".unpacked")[0]
    assert found == {"a.parquet/000000000": jpeg(0), "b.parquet/000000000": jpeg(1)}


def test_pictures_tars_and_tables_lie_in_one_folder(tmp_path):
    folder = folder_of(tmp_path / "in", 3)
    put_tar(folder / "0.tar", {"0.jpg": jpeg(10), "0.txt": b"a caption"})
    write(folder / "more/b.PARQUET", {"jpg": pa.array([jpeg(11)])})
    write(folder / ".cache/c.parquet", {"jpg": pa.array([jpeg(12)])})
    (folder / "link.parquet").symlink_to(folder / "more/b.PARQUET")  # as the Hub's cache lays out a data set
    write(folder / "captions.parquet", {"caption": pa.array(["a"])})
    os.mkfifo(folder / "pipe.parquet")
    found, ignored = content(folder, tmp_path / "unpacked")
    tables = {"link.parquet/000000000": jpeg(11), "more/b.PARQUET/000000000": jpeg(11)}
    plain = FolderSource(folder)
    files = {item.name: plain.read(item) for item in plain.list().items}
    assert set(files) == {"0.png", "more/1.png", "2.png", "0.tar/0.jpg"}
    assert found == files | tables
    assert ignored == {".parquet": 1, ".txt": 1, "not a file": 1}


PICTURES = st.none() | st.binary(max_size=40)


@given(
    rows=st.lists(st.tuples(PICTURES, st.lists(PICTURES, max_size=4)), max_size=70),
    group=st.integers(1, 80),
    codec=st.sampled_from(["none", "snappy", "zstd"]),
)
def test_every_picture_is_read_as_it_was_put_in(tmp_path_factory, rows, group, codec):
    folder = tmp_path_factory.mktemp("table")
    one = pa.array([row[0] for row in rows], pa.binary())
    many = pa.array([[{"bytes": each, "path": None} for each in row[1]] for row in rows], pa.list_(STRUCT))
    columns = {"jpg": one, "label": pa.array(range(len(rows))), "images": many}
    write(folder / "t.parquet", columns, row_group_size=group, compression=codec)
    expected = {f"t.parquet/{row:09d}/jpg": each for row, (each, _) in enumerate(rows)}
    expected |= {f"t.parquet/{row:09d}/images/{n}": each for row, (_, s) in enumerate(rows) for n, each in enumerate(s)}
    found, ignored = content(folder, folder / ".unpacked")
    assert found == {name: each for name, each in expected.items() if each is not None}
    assert ignored == {}


@pytest.mark.parametrize("group", [3, 50, 1000])
def test_a_table_is_read_a_few_rows_at_a_time(tmp_path, monkeypatch, group):
    sizes, options, cells, opened = [], [], parquet._cells, pq.ParquetFile

    def counted(column):
        sizes.append(len(column))
        return cells(column)

    def noted(*args, **given):
        options.append(given)
        return opened(*args, **given)

    monkeypatch.setattr(parquet, "_cells", counted)
    monkeypatch.setattr(pq, "ParquetFile", noted)
    write(tmp_path / "a.parquet", {"jpg": pa.array([b"0"] * 200)}, row_group_size=group)
    assert len(content(tmp_path, tmp_path / ".unpacked")[0]) == 200
    assert sum(sizes) == 200 and max(sizes) <= parquet.ROWS
    assert options[-1]["buffer_size"] == parquet.BUFFER and not options[-1]["pre_buffer"]  # no group as a whole


def test_a_second_run_gives_the_same_bytes(tmp_path):
    for number in range(2):
        write(tmp_path / f"in/{number}.parquet", {"jpg": pa.array([jpeg(10 * number + n) for n in range(6)])})
    shard_folder(tmp_path / "in", tmp_path / "a", shard_images=5)
    for number in range(2):  # in other groups of rows, at another time
        contents = pa.array([jpeg(10 * number + n) for n in range(6)])
        write(tmp_path / f"in/{number}.parquet", {"jpg": contents}, row_group_size=4)
        os.utime(tmp_path / f"in/{number}.parquet", (1, 1))
    shard_folder(tmp_path / "in", tmp_path / "b", shard_images=5)
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


KILLED = """
import os, signal, sys
from components.data import parquet, sharding
calls = 0
def dying(do):
    def die(*args):
        global calls
        calls += 1
        done = do(*args)
        if calls == 2: os.kill(os.getpid(), signal.SIGKILL)
        return done
    return die
{place} = dying({place})
sharding.shard_folder(sys.argv[1], sys.argv[2], shard_images=4)
"""


@pytest.mark.parametrize("place", ["sharding._write_tar", "parquet._unpack"])
def test_a_run_that_was_killed_does_not_unpack_again(tmp_path, monkeypatch, place):
    for number in range(3):
        write(tmp_path / f"in/{number}.parquet", {"jpg": pa.array([jpeg(4 * number + n) for n in range(4)])})
    shard_folder(tmp_path / "in", tmp_path / "undisturbed", shard_images=4)
    script = [sys.executable, "-c", KILLED.format(place=place), tmp_path / "in", tmp_path / "out"]
    assert subprocess.run(script, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    tables = tmp_path / ".out.shards.tmp/tables"
    unpacked = [path for path in tables.iterdir() if path.is_dir()]
    whole = {path.name for path in unpacked if not path.name.startswith(".")}
    assert (len(whole), len(unpacked)) == ((3, 3) if "write" in place else (1, 2))

    unpack, again = parquet._unpack, []
    monkeypatch.setattr(parquet, "_unpack", lambda table, folder: (again.append(table.key), unpack(table, folder)))
    shard_folder(tmp_path / "in", tmp_path / "out", shard_images=4)
    assert len(again) == 3 - len(whole) and not whole & set(again)
    assert sha256_tree(tmp_path / "out") == sha256_tree(tmp_path / "undisturbed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "undisturbed"]


def test_a_run_that_failed_keeps_what_it_can_go_on_from(tmp_path, monkeypatch):
    write(tmp_path / "in/a.parquet", {"jpg": pa.array([jpeg(n) for n in range(6)])})
    written = sharding._write_tar

    def fail(at):
        def write_or_fail(path, first, pictures):
            if first == at:
                raise CotamError("it failed")
            written(path, first, pictures)

        return write_or_fail

    for at in (2, 0):  # after the first shard, and before it
        monkeypatch.setattr(sharding, "_write_tar", fail(at))
        with pytest.raises(CotamError, match="it failed"):
            shard_folder(tmp_path / "in", tmp_path / "out", shard_images=2)
        assert any(tmp_path.glob(".out.shards.tmp/tables/*/pictures"))
        monkeypatch.setattr(sharding, "_write_tar", written)
        shard_folder(tmp_path / "in", tmp_path / "out", shard_images=2)
        shutil.rmtree(tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_changed_table_is_unpacked_anew(tmp_path):
    table, unpacked = tmp_path / "in/a.parquet", tmp_path / "unpacked"
    write(table, {"jpg": pa.array([b"old!", b"same"])})
    key = open_with_tables(tmp_path / "in", unpacked).list().key
    assert open_with_tables(tmp_path / "in", unpacked).list().key == key
    before = table.stat()
    write(table, {"jpg": pa.array([b"new!", b"same"])})
    assert table.stat().st_size == before.st_size
    os.utime(table, ns=(0, before.st_mtime_ns + 1))
    assert open_with_tables(tmp_path / "in", unpacked).list().key != key
    found = {"a.parquet/000000000": b"new!", "a.parquet/000000001": b"same"}
    assert content(tmp_path / "in", unpacked) == (found, {})
    assert len(list(unpacked.glob("*/pictures"))) == 1  # the old one takes no room
    write(table, {"jpg": pa.array([b"longer than before"])})
    os.utime(table, ns=(0, before.st_mtime_ns + 1))
    assert content(tmp_path / "in", unpacked)[0] == {"a.parquet/000000000": b"longer than before"}


def test_runs_that_share_what_is_unpacked_do_not_unpack_twice(tmp_path, monkeypatch):
    for number in range(3):
        write(tmp_path / f"in/{number}.parquet", {"jpg": pa.array([b"%d" % number])})
    unpack, times, found = parquet._unpack, [], []

    def slow(table, folder):
        times.append(table.name)
        time.sleep(0.05)
        unpack(table, folder)

    monkeypatch.setattr(parquet, "_unpack", slow)
    runs = [
        threading.Thread(target=lambda: found.append(content(tmp_path / "in", tmp_path / "unpacked"))) for _ in range(3)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(times) == ["0.parquet", "1.parquet", "2.parquet"]
    assert found == [({f"{n}.parquet/000000000": b"%d" % n for n in range(3)}, {})] * 3


def test_what_was_unpacked_and_is_gone_is_an_error_not_a_skipped_picture(tmp_path):
    write(tmp_path / "in/a.parquet", {"jpg": pa.array([jpeg(0)])})
    source = open_with_tables(tmp_path / "in", tmp_path / "unpacked")
    [item] = source.list().items
    shutil.rmtree(tmp_path / "unpacked")
    with pytest.raises(CotamError, match=r"a.parquet/000000000 cannot be read .* run again"):
        source.read(item)


def test_a_damaged_table_is_one_sentence(tmp_path):
    path = tmp_path / "in/a.parquet"
    write(path, {"image": pa.array([cell(n) for n in range(6)], STRUCT)}, row_group_size=2)
    whole = path.read_bytes()
    lost = whole[:4] + whole[3000:]  # the head of the first picture's page
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for damaged in (b"", whole[:3], whole[:100], whole[: len(whole) // 2], whole[:-1], whole[4:], lost, pointer):
        path.write_bytes(damaged)
        with pytest.raises(CotamError, match=r"^.*a.parquet is damaged or cannot be read \([^\n]+\); fetch it again.$"):
            shard_folder(tmp_path / "in", tmp_path / "out")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["in"]
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(CotamError, match=r"a.parquet is damaged or cannot be read \(.*No such file"):
        shard_folder(tmp_path / "in", tmp_path / "out")


def test_a_flipped_bit_is_found_where_the_table_has_checksums(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, {"jpg": pa.array([jpeg(n) for n in range(4)])}, write_page_checksum=True, compression="none")
    damaged = bytearray(path.read_bytes())
    damaged[path.read_bytes().index(jpeg(2)) + 100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CotamError, match=r"a.parquet is damaged or cannot be read .*CRC"):
        open_with_tables(tmp_path, tmp_path / ".unpacked").list()


class Keys(encryption.KmsClient):
    """Keys that are wrapped in nothing."""

    def __init__(self, _):
        super().__init__()

    def wrap_key(self, key, _):
        return base64.b64encode(key)

    def unwrap_key(self, key, _):
        return base64.b64decode(key)


@pytest.mark.parametrize("plain", [True, False])
def test_an_encrypted_table_is_one_sentence(tmp_path, plain):
    table = pa.table({"jpg": pa.array([jpeg(0)])})
    how = encryption.EncryptionConfiguration("foot", column_keys={"column": ["jpg"]}, plaintext_footer=plain)
    secret = encryption.CryptoFactory(Keys).file_encryption_properties(encryption.KmsConnectionConfig(), how)
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, encryption_properties=secret) as writer:
        writer.write_table(table)
    with pytest.raises(CotamError, match=r"a.parquet is encrypted; store it without encryption first"):
        open_with_tables(tmp_path, tmp_path / ".unpacked").list()


def test_only_tables_without_images_are_one_sentence(tmp_path, capsys):
    write(tmp_path / "in/a.parquet", {"url": pa.array(["x"]), "caption": pa.array(["y"])})
    assert main(["shard", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    [error] = capsys.readouterr().err.splitlines()
    assert "a.parquet has no column of images (url, caption): one has the type Image of the Hugging Face Hub" in error
    assert "is called image, image_bytes, jpg, png, webp." in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_table_without_pictures_holds_no_images(tmp_path):
    write(tmp_path / "in/a.parquet", {"image": pa.array([None, {"bytes": None, "path": "x"}], STRUCT)})
    with pytest.raises(CotamError, match=f"holds no images .only 1 {OUTSIDE}.; give a folder of images"):
        shard_folder(tmp_path / "in", tmp_path / "out")


def test_a_full_disk_while_unpacking_is_one_sentence(tmp_path, capsys):
    write(tmp_path / "in/a.parquet", {"jpg": pa.array([random.Random(n).randbytes(50_000) for n in range(8)])})
    with full_disk(150_000):
        assert main(["shard", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    [error] = capsys.readouterr().err.splitlines()
    assert "a.parquet cannot be unpacked into" in error and "see that there is room for its pictures" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_disk_that_is_full_for_the_places_says_so_too(tmp_path):
    write(tmp_path / "in/a.parquet", {"jpg": pa.array([b""] * 4000)})
    with full_disk(100_000), pytest.raises(CotamError, match="cannot be unpacked"):
        open_with_tables(tmp_path / "in", tmp_path / "unpacked").list()


def test_the_command_reports_on_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [cell(0), {"bytes": None, "path": "1.jpg"}, {"bytes": b"x", "path": None}]
    write(tmp_path / "in/train.parquet", {"image": pa.array(rows, STRUCT)})
    assert main(["shard", "in", "-o", "out", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["images"], report["ignored"]) == (1, {OUTSIDE: 1})
    assert [skip["name"] for skip in report["skipped"]] == ["train.parquet/000000002"]
    assert main(["shard", "in", "-o", "out", "--no-track"]) == 0
    assert f"left out, not images by name: 1 {OUTSIDE}" in capsys.readouterr().out
