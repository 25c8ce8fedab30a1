"""What a command writes is mixed with nothing that was there; it uses the cores that it was given."""

import os
import subprocess
import sys

import pytest

from hilum.common.cores import usable_cores
from hilum.common.errors import RunError
from hilum.common.output_folder import check_output_folder


def test_a_folder_that_is_new_or_empty_is_taken(tmp_path):
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "new" / "one")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_refused_by_its_name(tmp_path):
    (tmp_path / ".hidden").touch()
    with pytest.raises(RunError, match=r"^the run folder is not empty; name a folder that is new or empty"):
        check_output_folder(tmp_path, called="run folder")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"^the output folder is a file;"):
        check_output_folder(tmp_path / "file")


def test_what_is_left_over_does_not_count_and_the_rest_does(tmp_path):
    (tmp_path / "lock").touch()
    check_output_folder(tmp_path, leftover=lambda path: path.name == "lock")
    (tmp_path / "image").touch()
    with pytest.raises(RunError, match="not empty"):
        check_output_folder(tmp_path, leftover=lambda path: path.name == "lock")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_a_process_that_is_pinned_to_one_core_uses_one():
    asked = "import os; from hilum.common.cores import usable_cores; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}); print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert usable_cores() == len(os.sched_getaffinity(0))
