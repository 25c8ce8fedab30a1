"""Pre-training on a GPU: the real loop from a memory-mapped file, what the same compute takes alone, and a peer.

    python benchmarks/training_gpu.py [--only MAE-2D ...] [--out FILE.jsonl]

For each study: images a second of the loop, with its blocks compiled; of the same steps with their views given, eager, with compiled
blocks, and compiled as a whole; what the views alone take; the data stall, which is the share of a step of the loop that neither
views nor compute take; the share of the rate at which this device multiplies large bf16 matrices; the peak of its memory. Compiling is
told apart. Without a GPU it runs toy sizes on the processor, to show that it runs. The peer is transformers' ViTMAE, with its images
on the device already, where transformers is installed.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.flop_counter import FlopCounterMode

from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import Split
from hilum.client.pretraining.device import device_name, lay_out, make_fabric
from hilum.client.pretraining.fitting import release
from hilum.client.pretraining.loop import RoundPlace, train_round
from hilum.client.pretraining.optimizer import make_optimizer
from hilum.client.pretraining.step import MicroBatch, PlainStep
from hilum.client.views import Viewer, random_numbers, unit_of
from hilum.common.config import StudyConfig, parse_study
from hilum.common.encoders.blocks import compile_blocks
from hilum.common.methods import SSLMethod, build_method

_BASE = {"name": "vit", "size": "base", "patch_size": 16}
_MAE = {"name": "mae", "decoder_width": 512, "decoder_depth": 8}
_STEPS, _WARM_UP = 30, 8
_PEAK_EDGE = 8192


@dataclass(frozen=True)
class Case:
    """One study, and a smaller one of its kind for a processor."""

    name: str
    data: dict[str, Any]
    encoder: dict[str, Any]
    method: dict[str, Any]
    batch: int
    toy: dict[str, Any]
    peer: bool = False


_TOY_VIT = {"encoder": {"name": "vit", "size": "tiny", "patch_size": 8}, "method": {"name": "mae"}}
CASES = [
    Case(
        "MAE-2D",
        {"modality": "radiograph", "image_size": 224},
        _BASE,
        _MAE,
        256,
        _TOY_VIT | {"data": {"modality": "radiograph", "image_size": 32}},
        peer=True,
    ),
    Case(
        "SimCLR",
        {"modality": "radiograph", "image_size": 224},
        {"name": "resnet", "size": "base"},
        {"name": "simclr"},
        128,
        {
            "data": {"modality": "radiograph", "image_size": 32},
            "encoder": {"name": "resnet", "size": "tiny"},
            "method": {"name": "simclr"},
        },
    ),
    Case(
        "MAE-3D",
        {"modality": "ct", "dims": 3, "image_size": 96, "cut": "whole"},
        _BASE,
        _MAE,
        64,
        _TOY_VIT | {"data": {"modality": "ct", "dims": 3, "image_size": 16, "cut": "whole"}},
    ),
    Case(
        "example",
        {"modality": "radiograph", "image_size": 64},
        {"name": "vit", "size": "tiny", "patch_size": 8},
        {"name": "mae"},
        32,
        _TOY_VIT | {"data": {"modality": "radiograph", "image_size": 64}},
    ),
]


def study_of(case: Case, on_gpu: bool) -> StudyConfig:
    """Return the study, or its toy; the loop is given compiled blocks, so it does not compile itself."""
    table = {"data": case.data, "encoder": case.encoder, "method": case.method} if on_gpu else case.toy
    training = {"batch_size": case.batch if on_gpu else 8, "compile": False, "checkpoint_minutes": 1440.0}
    training["local_epochs"] = _STEPS // 4 if on_gpu else 4
    return parse_study({"study": {"name": "bench"}, "training": training, **table})


class _Clock:
    def __init__(self) -> None:
        self.at: list[float] = []

    def advance(self, done: int, note: str = "") -> None:
        """Note the time; a step's outcome lies some steps back, so that these are times of the device."""
        del done, note
        self.at.append(time.perf_counter())


def loop_s(method: SSLMethod, study: StudyConfig, fabric: Fabric) -> float:
    """Return the median seconds of a step of the real loop, from a memory-mapped file of four batches."""
    count = 4 * study.training.batch_size
    shape = (count, study.data.facts.channels, *study.data.block_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=shape)
        rng = np.random.default_rng(0)
        for row in range(count):
            images[row] = rng.integers(0, 65_535, shape[1:], np.uint16)
        images.flush()
        rows = np.arange(count)
        mapped = np.load(path, mmap_mode="r")
        data = SiteData("bench", mapped, (None,) * count, Split(rows, rows[:0], rows[:0], rows), "")
        clock = _Clock()
        train_round(method, data, study, RoundPlace("bench", 1, ""), fabric, clock)
    steps = np.diff(clock.at)
    return statistics.median(steps[len(steps) // 3 :].tolist())


def per_call_s(work: Callable[[], object], fabric: Fabric, calls: int) -> tuple[float, float]:
    """Return the seconds of a call once it is warm, and those of the first."""
    started = time.perf_counter()
    work()
    _wait(fabric)
    first = time.perf_counter() - started
    for _ in range(3):
        work()
    _wait(fabric)
    started = time.perf_counter()
    for _ in range(calls):
        work()
    _wait(fabric)
    return (time.perf_counter() - started) / calls, first


def _wait(fabric: Fabric) -> None:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)


def measure(case: Case, fabric: Fabric) -> dict[str, Any]:
    """Return all numbers of one case."""
    on_gpu = fabric.device.type == "cuda"
    study, calls = study_of(case, on_gpu), 12 if on_gpu else 2
    batch = study.training.batch_size
    viewer = Viewer(study.data, build_method(study).spec.views, study.views)
    shape = (batch, study.data.facts.channels, *study.data.block_size)
    stored = torch.randint(-32_768, 32_767, shape, dtype=torch.int16, device=fabric.device)
    patients = torch.arange(batch, device=fabric.device)
    rng = random_numbers(fabric.device, 0)
    views_s, _ = per_call_s(lambda: viewer(unit_of(stored), rng), fabric, calls)
    views = viewer(unit_of(stored), rng)._replace(patients=patients)

    def compute(compiled: str) -> tuple[float, float, Callable[[], object]]:
        method = build_method(study)
        lay_out(method, fabric)
        if compiled == "blocks":
            compile_blocks(method)
        numbers = {
            name: one.to(fabric.device)
            for name, one in method.draw(batch, random_numbers(fabric.device, 1)).items()
        }
        optimizer = make_optimizer(method, study)
        if compiled == "whole":
            method.compile()
        step = PlainStep(fabric, *fabric.setup(method, optimizer), gradient_clip=1.0)
        work = lambda: step([MicroBatch(views, numbers, batch)], [batch])  # noqa: E731 - timed and counted
        return *per_call_s(work, fabric, calls), work

    row: dict[str, Any] = {"case": case.name, "device": device_name(fabric), "batch": batch}
    eager_s, _, work = compute("")
    with FlopCounterMode(display=False) as counter:
        work()
    flops = counter.get_total_flops()
    del work  # it holds a method and its optimizer
    release(fabric)
    blocks_s, compile_s = compute("blocks")[:2]
    release(fabric)
    whole_s, compile_whole_s = compute("whole")[:2]
    release(fabric)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(fabric.device)
    method = build_method(study)
    compile_blocks(method)
    loop = loop_s(method, study, fabric)
    if on_gpu:
        row["peak_gib"] = torch.cuda.max_memory_allocated(fabric.device) / 2**30
    rates = {"loop": loop, "eager": eager_s, "compiled_blocks": blocks_s, "compiled_whole": whole_s}
    row |= {f"{name}_images_s": batch / seconds for name, seconds in rates.items()}
    row |= {
        "step_ms": 1000 * loop,
        "views_ms": 1000 * views_s,
        "stall": max(0.0, 1 - (blocks_s + views_s) / loop),
        "of_compiled": min(blocks_s, whole_s) / loop,
        "compile_blocks_s": compile_s,
        "compile_whole_s": compile_whole_s,
        "tflops": flops / loop / 1e12,
    }
    if case.peer and (peer := peer_images_s(batch, fabric, on_gpu, calls)) is not None:
        row |= {"peer_images_s": peer, "over_peer": batch / loop / peer}
    return row


def peer_images_s(batch: int, fabric: Fabric, on_gpu: bool, calls: int) -> float | None:
    """Return images a second of transformers' ViTMAE, eager; None where it is not installed."""
    try:
        from transformers import ViTMAEConfig, ViTMAEForPreTraining
    except ImportError:
        print("  the peer is not measured: transformers is not installed")
        return None
    size = {} if on_gpu else {"image_size": 32, "patch_size": 8, "hidden_size": 192, "num_hidden_layers": 12}
    heads = {} if on_gpu else {"num_attention_heads": 3, "intermediate_size": 768, "decoder_hidden_size": 96}
    model = ViTMAEForPreTraining(ViTMAEConfig(num_channels=1, norm_pix_loss=True, **size, **heads))
    model = model.to(fabric.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    edge = 224 if on_gpu else 32
    images = torch.rand(batch, 1, edge, edge, device=fabric.device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(fabric.device.type, torch.bfloat16, enabled=on_gpu):
            loss = model(pixel_values=images).loss
        loss.backward()
        optimizer.step()

    seconds, _ = per_call_s(step, fabric, calls)
    return batch / seconds


def product_tflops(fabric: Fabric) -> float:
    """Return the rate at which this device multiplies large bf16 matrices."""
    edge = _PEAK_EDGE if fabric.device.type == "cuda" else 512
    one = torch.rand(edge, edge, device=fabric.device, dtype=torch.bfloat16)
    seconds, _ = per_call_s(lambda: one @ one, fabric, 10)
    return 2 * edge**3 / seconds / 1e12


def in_words(row: dict[str, Any]) -> str:
    """Return one case's numbers as lines."""
    peer = (
        f"; transformers {row['peer_images_s']:,.0f}: {row['over_peer']:.2f}x"
        if "peer_images_s" in row
        else ""
    )
    peak = f", peak {row['peak_gib']:.1f} GiB" if "peak_gib" in row else ""
    return (
        f"{row['case']}, batch {row['batch']}: loop {row['loop_images_s']:,.0f} images/s ({row['step_ms']:.1f} ms{peak}){peer}\n"
        f"  compute alone: eager {row['eager_images_s']:,.0f}, compiled blocks {row['compiled_blocks_images_s']:,.0f}, "
        f"compiled whole {row['compiled_whole_images_s']:,.0f}; the loop has {row['of_compiled']:.0%} of the best\n"
        f"  views {row['views_ms']:.1f} ms a step, data stall {row['stall']:.1%}; {row['tflops']:.0f} TFLOP/s, "
        f"{row['of_peak']:.0%} of what large products reach here\n"
        f"  compiling took {row['compile_blocks_s']:.0f} s (blocks), {row['compile_whole_s']:.0f} s (whole)"
    )


def main() -> None:
    """Measure and print, each case as soon as it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--out", type=Path, help="Rows are added to this file.")
    options = parser.parse_args()
    fabric = make_fabric("auto", "auto", 1)
    peak = product_tflops(fabric)
    print(
        f"{device_name(fabric)}, torch {torch.__version__}, products of large bf16 matrices {peak:.0f} TFLOP/s"
    )
    for case in CASES:
        if options.only and case.name not in options.only:
            continue
        row = measure(case, fabric)
        row["of_peak"] = row["tflops"] / peak
        print(in_words(row), flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
