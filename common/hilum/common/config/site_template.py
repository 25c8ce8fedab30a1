"""The commented site file that `hilum site new` writes."""

import json
from pathlib import Path

_TEMPLATE = """\
# A Hilum site: what this hospital has, and what it agrees to. Check it with `hilum site check FILE`.
# Paths may be relative to this file's folder.

[site]
name = {name}            # letters, digits, '.', '_' and '-'; as in `hilum site enroll --name`

[data]
dicom = {dicom}            # the archive; it is only read
{labels}

[state]
folder = {state}            # where `hilum site index` keeps its catalogue: HOME/site for --home HOME

[compute]
device = "auto"                # auto, cpu or cuda
devices = 1                    # GPUs that train one round together
# nodes = 2                  # machines that do; torchrun keeps the processes: docs/how-to/gpu.md

# [link] is written by `hilum site join`.

[policy]                       # ceilings that no study can raise
# methods = ["mae", "simclr"]    # default: all of `hilum methods`
# encoders = ["vit", "resnet"]   # default: all of `hilum encoders`
# sizes = ["tiny", "small"]      # default: all
max_rounds = 1000
max_local_epochs = 100
max_batch_size = 4096          # images a step
max_finetune_steps = 10000     # that a fine-tuning may be asked for
max_patches = 16384            # of one image
max_hours = 72.0               # of computing for one run
max_sent_mb = 500000.0         # sent for one run
max_memory_gb = 64.0           # estimated before anything is allocated
max_disk_gb = 200.0
labels = ["label"]             # the columns of the label table that a study may name
min_test_share = 0.1
max_test_share = 0.5
min_patients = 11              # behind every number that leaves; can be raised, not lowered
max_evaluations = 20           # different ones that are begun in all, failed ones too
max_scores = 100               # rounds whose encoder is scored on labelled training patients; 0 allows no such study
max_repeats = 3                # different weights from which one round may be asked for
"""


def site_template(name: str, dicom: Path, labels: Path | None, state: Path) -> str:
    """Return a site file.

    Args:
        name: The site's.
        dicom: The folder of the archive.
        labels: The label table; None leaves the key out, as a comment.
        state: The state folder.
    """
    advice = "# optional: without it the site pre-trains and is not evaluated"
    line = f"labels = {_quoted(labels)}   {advice}" if labels else f'# labels = "labels.csv"   {advice}'
    return _TEMPLATE.format(name=json.dumps(name), dicom=_quoted(dicom), labels=line, state=_quoted(state))


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)  # TOML's basic strings are JSON's
