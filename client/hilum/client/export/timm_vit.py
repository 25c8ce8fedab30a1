"""A ViT by timm's names, which `timm.create_model("local-dir:...")` loads: `vit_tiny_patch16_224` and its like, pooled by the mean.

The convolution of timm's patch embedding is the linear layer of ours, its `pos_embed` our positions, computed or learned. Nothing
is folded: as all of timm's networks it takes what is standardised, by `mean` and `std` of `pretrained_cfg`.

Shapes: E width, p edge of a patch, C channels, L patches.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from hilum.client.export.exportable import Exportable
from hilum.common.config.encoders import Size
from hilum.common.config.encoders.vit import SIZES
from hilum.common.encoders.transformer import Block
from hilum.common.encoders.vit import ViT
from hilum.common.errors import RunError
from hilum.common.files import write_json, write_text

FOLDER = "timm"
_IMAGES = 2  # dimensions
_PLACES = {
    "norm1": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "norm2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def check_vit(source: Exportable) -> ViT:
    """Return the network, if timm has one like it.

    Raises:
        RunError: If it has none.
    """
    other = "`--to onnx`, `torch`, `monai` and `safetensors` hold it"
    if source.kind != "encoder":
        raise RunError(
            f"timm's names hold an encoder, and this is a model with a head; {other}, and timm takes the encoder that it came from"
        )
    if not isinstance(source.module, ViT):
        raise RunError(
            f"timm has no network like this one: its ViTs alone are as here, and this is a {source.manifest['encoder']['name']}, "
            f"whose norms or stem timm's lacks; {other}"
        )
    if source.module.dims != _IMAGES:
        raise RunError(f"timm has ViTs of images, and this one is of volumes in 3D; {other}")
    return source.module


def timm_tensors(vit: ViT) -> dict[str, Tensor]:
    """Return the tensors of a 2D ViT by timm's names."""
    own = vit.state_dict()
    found = {}
    for name, tensor in own.items():
        if name.startswith("blocks."):
            _, number, layer = name.split(".", 2)
            place, _, kind = layer.rpartition(".")
            found[f"blocks.{number}.{_PLACES[place]}.{kind}"] = tensor
        elif name.startswith("norm."):
            found[name] = tensor
    kernel = own["patch_embed.weight"].unflatten(1, (vit.patch_size, vit.patch_size, vit.channels))
    found["patch_embed.proj.weight"] = kernel.movedim(-1, 1)
    found["patch_embed.proj.bias"] = own["patch_embed.bias"]
    positions = vit.positions if vit.position_table is None else own["position_table.weight"][None]
    assert positions is not None, "computed ones are a buffer"
    found["pos_embed"] = positions
    return {name: tensor.detach().contiguous() for name, tensor in found.items()}


def timm_arguments(vit: ViT) -> tuple[str, dict[str, Any]]:
    """Return the name of timm's network, and what of it is other than by default."""
    block = vit.blocks[0]
    assert isinstance(block, Block)
    shape = (vit.width, len(vit.blocks), block.attention.heads)
    size: Size = next((size for size, known in SIZES.items() if known == shape), "base")
    arguments: dict[str, Any] = {
        "img_size": vit.space[0],
        "patch_size": vit.patch_size,
        "in_chans": vit.channels,
        "class_token": False,
        "global_pool": "avg",
        "fc_norm": False,  # the norm is before the mean
    }
    if shape != SIZES[size]:
        arguments |= dict(zip(("embed_dim", "depth", "num_heads"), shape, strict=True))
    return f"vit_{size}_patch16_224", arguments


def write_timm(source: Exportable, folder: Path) -> str:
    """Write `timm/`: `model.safetensors`, `config.json` and how to load them.

    Raises:
        RunError: If timm has no network like it.
    """
    vit = check_vit(source)
    place = folder / FOLDER
    place.mkdir()
    name, arguments = timm_arguments(vit)
    save_file(timm_tensors(vit), place / "model.safetensors", {"format": "pt", **source.description()})
    standard = {"mean": [vit.scale.mean] * vit.channels, "std": [vit.scale.deviation] * vit.channels}
    write_json(
        place / "config.json",
        {
            "architecture": name,
            "num_classes": 0,
            "num_features": vit.width,
            "global_pool": "avg",
            "model_args": arguments,
            "pretrained_cfg": {
                **standard,
                "input_size": [vit.channels, *vit.space],
                "fixed_input_size": True,
                "num_classes": 0,
                "pool_size": None,
                "first_conv": "patch_embed.proj",
                "classifier": "head",
                "license": source.licence,
            },
        },
    )
    write_text(place / "README.md", _readme(source, vit, name, arguments))
    return f"{FOLDER}/: a ViT by timm's names, for {name}"


def _readme(source: Exportable, vit: ViT, name: str, arguments: dict[str, Any]) -> str:
    said = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    size = ", ".join(map(str, (vit.channels, *vit.space)))
    return f"""# {source.name}, as timm has it

Encoder of {source.data.modality}, SHA-256 `{source.sha256}`. Licence: {source.licence}.

```python
import timm
import torch

model = timm.create_model("local-dir:timm", pretrained=True).eval()  # this folder
images = torch.rand(1, {size})  # values in [0, 1]; see below
with torch.no_grad():
    features = model((images - {vit.scale.mean!r}) / {vit.scale.deviation!r})  # (1, {vit.width})
```

or, without `config.json`:

```python
model = timm.create_model("{name}", num_classes=0, {said})
model.load_state_dict(safetensors.torch.load_file("timm/model.safetensors"))
```

{source.input_words}
"""
