"""search, embed and zero-shot from the command line: tables, JSON, files, exit codes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_cache.cli import main
from align_cache.results import find_run
from align_cache.use.model import AlignedModel
from tests.unit.drawn_folder import extract_scenes, fit_scenes, write_scenes

SENTENCE = "a red circle"
Text = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scenes, their features, and a run on them; nothing in it is to be changed."""
    place = tmp_path_factory.mktemp("use")
    write_scenes(place / "scenes")
    extract_scenes(place / "scenes", place / "cache")
    fit_scenes(place / "cache")
    return place


@pytest.fixture
def pictures(made: Path, tmp_path: Path) -> Path:
    """A folder of three pictures, one of them torn, and a file that is no picture."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    drawn = made / "scenes" / "images" / "drawn"
    shutil.copy(drawn / "001.png", folder / "b.PNG")
    shutil.copy(drawn / "002.png", folder / "deeper" / "a.png")
    (folder / "torn.png").write_bytes((drawn / "003.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def model(made: Path) -> AlignedModel:
    return AlignedModel.from_run(cache_dir=made / "cache", device="cpu")


def answer(made: Path, capsys: Text, *words: str, code: int = 0) -> str:
    """Run a command on the cache and return its stdout; stderr where it fails."""
    assert main([*words, "--cache-dir", str(made / "cache"), "--device", "cpu"]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def parsed(made: Path, capsys: Text, *words: str) -> dict[str, Any]:
    record = json.loads(answer(made, capsys, *words, "--json"))
    assert isinstance(record, dict)
    return record


def test_search_prints_a_table_for_each_query_and_where_it_looked(made: Path, capsys: Text) -> None:
    out = answer(made, capsys, "search", SENTENCE, "a blue square", "--k", "2")
    assert out.lower().count("untrained") == 1, "said once"
    assert "UNTRAINED encoders: small-cnn" in out
    assert out.count("“") == 2
    assert out.count(" drawn/") == 4
    assert "40 images of scenes/small-cnn@" in out
    assert f"images below {made / 'scenes' / 'images'}/" in out


def test_search_as_json_holds_what_the_table_shows(made: Path, capsys: Text) -> None:
    record = parsed(made, capsys, "search", SENTENCE, "--k", "3", "--split", "test")
    (only,) = record["answers"]
    assert [hit["rank"] for hit in only["hits"]] == [1, 2, 3]
    assert (record["find"], record["split"], record["n_candidates"]) == ("images", "test", 8)
    assert all(Path(hit["file"]).is_file() for hit in only["hits"])


def test_a_query_that_is_an_image_file_searches_with_the_image(
    made: Path, capsys: Text, tmp_path: Path
) -> None:
    image = made / "scenes" / "images" / "drawn" / "009.png"
    by_name = parsed(made, capsys, "search", str(image), "--k", "2")
    assert by_name["find"] == "captions"
    renamed = tmp_path / "called otherwise"
    shutil.copy(image, renamed)
    by_option = parsed(made, capsys, "search", "--image", str(renamed), "--k", "2")
    assert by_option["answers"][0]["hits"] == by_name["answers"][0]["hits"]


def test_search_writes_a_page_and_says_where(made: Path, capsys: Text, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    line = ["search", SENTENCE, "--html", str(page), "--cache-dir", str(made / "cache"), "--json"]
    assert main(line) == 0
    out, err = capsys.readouterr()
    assert f"note: page: {page}" in err
    assert json.loads(out)["dataset"] == "scenes"
    assert SENTENCE in page.read_text(encoding="utf-8")


def test_a_saved_model_searches_as_its_run_does(
    made: Path, capsys: Text, tmp_path: Path, model: AlignedModel
) -> None:
    model.save_pretrained(tmp_path / "saved")
    by_run = parsed(made, capsys, "search", SENTENCE, "--k", "4")
    by_model = parsed(made, capsys, "search", SENTENCE, "--k", "4", "--model", str(tmp_path / "saved"))
    assert by_model["answers"] == by_run["answers"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["search"], 2, "nothing to search for"),
        (["search", SENTENCE, "--k", "0"], 2, "--k"),
        (["search", SENTENCE, "--dataset", "sceens"], 1, "there are scenes"),
        (["search", SENTENCE, "--dataset", "mine"], 1, "--dataset folder --data-dir FOLDER --name mine"),
        (["search", SENTENCE, "--run", "nothing"], 1, "no run is called 'nothing'"),
        (["search", "no such folder/a.JPG"], 1, "no such folder/a.JPG is called like an image"),
        (["search", SENTENCE, "--model", "x", "--run", "latest"], 2, "--model is a model by itself"),
        (["embed"], 2, "nothing to embed"),
        (["embed", "--text", "a", "--out", "a.npy"], 2, "embeddings are written as .npz"),
        (["embed", "no such file.png"], 1, "neither a file nor a folder"),
        (["embed", "two dogs in the snow " * 20], 1, "neither a file nor a folder"),
        (["zero-shot", "x.png"], 2, "Missing option '--classes'"),
    ],
)
def test_a_mistake_gets_one_helpful_line(
    made: Path, capsys: Text, words: list[str], code: int, said: str
) -> None:
    err = answer(made, capsys, *words, code=code)
    assert said in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 2


def test_embed_writes_the_rows_that_the_model_gives(
    made: Path, capsys: Text, tmp_path: Path, pictures: Path, model: AlignedModel
) -> None:
    separated = "two\u2028squares"  # a line separator does not end a line of a file
    (tmp_path / "lines.txt").write_text(f"a green triangle\r\n\n  {separated} \n", encoding="utf-8")
    out = tmp_path / "deep" / "rows.npz"
    words = [
        "embed",
        str(pictures),
        "--text",
        SENTENCE,
        "--texts",
        str(tmp_path / "lines.txt"),
        "--out",
        str(out),
    ]
    record = parsed(made, capsys, *words, "--on-error", "skip")
    files = [pictures / "b.PNG", pictures / "deeper" / "a.png"]
    sentences = [SENTENCE, "a green triangle", separated]
    with np.load(out, allow_pickle=False) as written:
        assert written["image_sample_id"].tolist() == [str(file) for file in files]
        assert written["text_caption"].tolist() == sentences
        np.testing.assert_array_equal(written["image_embeddings"], model.encode_image(files))
        np.testing.assert_array_equal(written["text_embeddings"], model.encode_text(sentences))
        assert written["image_embeddings"].dtype == np.float32
    assert record["arrays"] == {"image_embeddings": [2, 16], "text_embeddings": [3, 16]}
    assert [Path(each["file"]).name for each in record["skipped"]] == ["torn.png"]


def test_embed_replaces_a_file_only_when_told_and_leaves_it_whole_where_it_fails(
    made: Path, capsys: Text, tmp_path: Path, pictures: Path
) -> None:
    out = tmp_path / "rows.npz"
    assert "text_embeddings 1 x 16" in answer(made, capsys, "embed", "--text", SENTENCE, "--out", str(out))
    before = out.read_bytes()
    line = ["embed", "--text", "another", "--out", str(out)]
    assert "is there already" in answer(made, capsys, *line, code=2)
    err = answer(made, capsys, *line, str(pictures), "--overwrite", code=1)
    assert str(pictures / "torn.png") in err
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "rows.npz"]
    answer(made, capsys, *line, "--overwrite")
    assert out.read_bytes() != before


def test_zero_shot_chooses_as_the_model_does(
    made: Path, capsys: Text, tmp_path: Path, pictures: Path, model: AlignedModel
) -> None:
    names = ["red circle", "blue square", "green triangle"]
    (tmp_path / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    files = [pictures / "b.PNG", pictures / "deeper" / "a.png"]
    expected = model.zero_shot(files, names, ["a {}", "one {}"], top=2)
    words = ["zero-shot", str(pictures), "--template", "a {}", "--template", "one {}", "--top", "2"]
    for classes in (str(tmp_path / "classes.txt"), ",".join(names)):
        record = parsed(made, capsys, *words, "--on-error", "skip", "--classes", classes)
        assert record["classes"] == names
        for image, file, places, shares in zip(
            record["images"], files, expected.classes, expected.probabilities, strict=True
        ):
            assert image["file"] == str(file)
            assert [top["class"] for top in image["top"]] == [names[place] for place in places]
            assert [top["probability"] for top in image["top"]] == pytest.approx(shares.tolist())
    assert str(pictures / "torn.png") in answer(made, capsys, *words, "--classes", "a,b", code=1)


def test_zero_shot_prints_a_line_for_each_image_and_what_the_numbers_are(
    made: Path, capsys: Text, pictures: Path
) -> None:
    line = ["zero-shot", str(pictures / "b.PNG"), "--classes", "circle,square,triangle"]
    out = answer(made, capsys, *line)
    assert "chance 33.3%, not calibrated" in out
    assert find_run(cache_dir=made / "cache").id in out
    shown = next(row for row in out.splitlines() if "b.PNG" in row)
    assert shown.count("%") == 3


def test_classes_and_queries_of_any_length_are_no_files(made: Path, capsys: Text, pictures: Path) -> None:
    classes = [f"a rather long name of class number {number}" for number in range(40)]
    line = ["zero-shot", str(pictures / "b.PNG"), "--classes", ",".join(classes)]
    assert parsed(made, capsys, *line)["classes"] == classes
    sentence = "a red circle and " * 30 + "a file called x.png"
    assert parsed(made, capsys, "search", sentence, "--k", "1")["find"] == "images"


def test_images_that_can_none_be_read_are_a_failure_even_when_skipped(
    made: Path, capsys: Text, pictures: Path
) -> None:
    line = ["zero-shot", str(pictures / "torn.png"), "--classes", "a,b", "--on-error", "skip"]
    assert "none of 1 images can be read" in answer(made, capsys, *line, code=1)
    assert "no run is called" in answer(made, capsys, *line, "--run", "nothing", code=1), "before any image"


def test_a_folder_without_images_is_named(made: Path, capsys: Text, tmp_path: Path) -> None:
    assert f"{tmp_path} holds no image" in answer(
        made, capsys, "zero-shot", str(tmp_path), "--classes", "a,b", code=1
    )
