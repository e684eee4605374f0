"""The table of sources: names, options and combinations that cannot be meant."""

import subprocess
import sys
from pathlib import Path

import pytest

from align_cache.errors import SourceError, UsageError
from align_cache.sources import SOURCES, open_source


def test_a_misspelt_dataset_is_answered_with_the_nearest_name_and_the_list() -> None:
    with pytest.raises(UsageError, match="no dataset 'flicker8k'") as caught:
        open_source("flicker8k")
    assert caught.value.hint == f"did you mean flickr8k? the datasets are {', '.join(SOURCES)}"


def test_a_misspelt_option_is_answered_with_the_nearest_name_and_the_list() -> None:
    with pytest.raises(UsageError, match="shapes has no option 'image_sise'") as caught:
        open_source("shapes", options={"image_sise": 64})
    assert caught.value.hint == "did you mean image_size? its options are count, image_size, seed"


def test_a_source_without_options_says_so() -> None:
    with pytest.raises(UsageError) as caught:
        open_source("cifar10", options={"data_dir": "x"})
    assert caught.value.hint == "its options are none"


@pytest.mark.parametrize("value", ["64", 64.0, True, None])
def test_an_option_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="wanted int"):
        open_source("shapes", options={"count": value})


def test_a_drawn_source_takes_no_folder_and_a_folder_no_revision(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="shapes takes no --data-dir"):
        open_source("shapes", data_dir=tmp_path)
    with pytest.raises(UsageError, match="folder takes no --revision"):
        open_source("folder", data_dir=tmp_path, revision="main")


def test_a_revision_of_a_copy_on_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--revision"):
        open_source("cifar10", data_dir=tmp_path, revision="main")


def test_a_split_without_images_is_refused_beside_one_that_has_some() -> None:
    source = open_source("shapes", options={"count": 20})
    with pytest.raises(UsageError, match="no images in split tset; its splits: test, train, val"):
        source.restricted(splits=["train", "tset"], limit=None)
    bare = open_source("shapes", options={"count": 8}).restricted(splits=["training"], limit=3)
    assert [image.split for image in bare.images] == ["train"] * 3


@pytest.mark.parametrize("name", ["flickr30k", "flickr8k", "cifar10", "folder"])
def test_a_folder_that_is_not_there_is_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not a folder"):
        open_source(name, data_dir=tmp_path / "nowhere")


def test_importing_the_sources_loads_nothing_heavy() -> None:
    program = (
        "import sys, align_cache.sources as s; s.open_source('shapes', options={'count': 1}).read_image(0); "
    )
    program += "print({'torch', 'torchvision', 'datasets', 'pyarrow', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
