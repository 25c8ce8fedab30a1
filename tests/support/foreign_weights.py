"""State dicts by the public names and shapes of timm, DINO, DINOv2, MAE and torchvision, and what their networks compute, in torch alone.

Shapes: B batch, C channels, H W space, L tokens, E width.
"""

import hashlib
import math

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

WIDTH, HEADS, DEPTH = 192, 3, 12


def random_numbers(seed=1):
    """Small random tensors, one after the other from one generator."""
    rng = torch.Generator().manual_seed(seed)
    return lambda *shape, scale=0.05: torch.randn(shape, generator=rng) * scale


def mae_positions(grid, width):
    """As MAE's `get_2d_sincos_pos_embed` gives them: the column's waves first, then the row's; (L, E)."""
    omega = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    waves = [place.flatten()[:, None] * omega for place in (columns, rows)]
    return torch.cat([part for one in waves for part in (one.sin(), one.cos())], 1).float()


def timm_vit(
    *, width=WIDTH, depth=DEPTH, patch=16, channels=3, grid=14, positions=None, class_token=True, head=10, norm="norm", seed=1
):  # fmt: skip
    """`vit_tiny_patch16_224` or its like."""
    random = random_numbers(seed)
    tokens = grid**2 + class_token
    state = {
        "patch_embed.proj.weight": random(width, channels, patch, patch),
        "patch_embed.proj.bias": random(width),
        "pos_embed": random(1, tokens, width, scale=0.5) if positions is None else positions[None],
        f"{norm}.weight": 1 + random(width),
        f"{norm}.bias": random(width),
    }
    if class_token:
        state["cls_token"] = random(1, 1, width)
    if head:
        state |= {"head.weight": random(head, width), "head.bias": random(head)}
    for number in range(depth):
        at = f"blocks.{number}."
        for name in ("norm1", "norm2"):
            state |= {f"{at}{name}.weight": 1 + random(width), f"{at}{name}.bias": random(width)}
        for name, out, into in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            state |= {f"{at}{name}.weight": random(out, into), f"{at}{name}.bias": random(out)}
    return state


def dinov2_vit(*, grid=5, patch=14, registers=4, chunks=0, **more):
    """DINOv2's: scales of layers, a mask token, registers, and blocks in chunks where asked."""
    random = random_numbers(2)
    state = timm_vit(grid=grid, patch=patch, head=0, **more)
    width = state["cls_token"].shape[-1]
    state |= {"mask_token": random(1, width), "register_tokens": random(1, registers, width)}
    depth = sum(name.endswith(".norm1.weight") for name in state)
    for number in range(depth):
        for part in ("ls1", "ls2"):
            state[f"blocks.{number}.{part}.gamma"] = 0.5 + random(width)
    if chunks:
        state = {
            f"blocks.{int(name.split('.')[1]) // chunks}.{name[7:]}"
            if name.startswith("blocks.")
            else name: tensor
            for name, tensor in state.items()
        }
    return state


def dino_teacher(**more):
    """A DINO checkpoint's teacher and student as one table, each with its projection head."""
    state = timm_vit(head=0, **more)
    width = state["cls_token"].shape[-1]
    head = {"head.mlp.0.weight": torch.zeros(8, width), "head.last_layer.weight_g": torch.ones(4, 1)}
    teacher = {f"teacher.backbone.{name}": tensor for name, tensor in state.items()}
    student = {f"student.module.backbone.{name}": tensor * 2 for name, tensor in state.items()}
    return {**teacher, **{f"teacher.{name}": tensor for name, tensor in head.items()}, **student}


def mae_vit(*, grid=14, width=WIDTH, decoder=64, **more):
    """MAE's: fixed positions with an empty row for the class token, and a decoder beside the encoder."""
    random = random_numbers(3)

    def with_class_row(wide):
        return torch.cat([torch.zeros(1, wide), mae_positions(grid, wide)])

    state = timm_vit(grid=grid, width=width, positions=with_class_row(width), head=0, **more)
    return {
        **state,
        "mask_token": random(1, 1, decoder),
        "decoder_pos_embed": with_class_row(decoder)[None],
        "decoder_embed.weight": random(decoder, width),
        "decoder_embed.bias": random(decoder),
        "decoder_blocks.0.norm1.weight": torch.ones(decoder),
        "decoder_pred.weight": random(768, decoder),
    }


def plain_vit(state, images, heads=HEADS):
    """What such a network gives: (B, C, H, W) -> (B, E), the mean over its patches after the last norm.

    Class token and registers are in it where the state has them.
    """
    linear = lambda name, x: F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))  # noqa: E731
    norm = lambda name, x: F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)  # noqa: E731
    kernel = state["patch_embed.proj.weight"]
    x = (
        F.conv2d(images, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1])
        .flatten(2)
        .transpose(1, 2)
    )
    B, L, E = x.shape
    if "cls_token" in state:
        x = torch.cat([state["cls_token"].expand(B, -1, -1), x], 1)
    x = x + state["pos_embed"]
    if "register_tokens" in state:
        x = torch.cat([x[:, :1], state["register_tokens"].expand(B, -1, -1), x[:, 1:]], 1)
    for number in range(sum(name.endswith(".norm1.weight") and name.startswith("blocks") for name in state)):
        at = f"blocks.{number}."
        q, k, v = (
            linear(f"{at}attn.qkv", norm(f"{at}norm1", x))
            .unflatten(-1, (3, heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        seen = (q @ k.transpose(-1, -2) / math.sqrt(E // heads)).softmax(-1) @ v
        x = x + linear(f"{at}attn.proj", seen.transpose(1, 2).flatten(2)) * state.get(f"{at}ls1.gamma", 1)
        hidden = F.gelu(linear(f"{at}mlp.fc1", norm(f"{at}norm2", x)))
        x = x + linear(f"{at}mlp.fc2", hidden) * state.get(f"{at}ls2.gamma", 1)
    return norm("norm", x)[:, -L:].mean(1)


def without(state, *names):
    """The same state without some tensors, and its positions without those of the class token."""
    rows = state["pos_embed"].shape[1] - ("cls_token" in names)
    return {
        name: tensor[:, -rows:] if name == "pos_embed" else tensor
        for name, tensor in state.items()
        if name not in names
    }


def torchvision_resnet(depths=(2, 2, 2, 2), *, bottleneck=False, width=64, channels=3, stem=7, seed=4):
    """`resnet18`, `resnet50` or their like."""
    random = random_numbers(seed)
    state, expansion = {}, 4 if bottleneck else 1

    def convolution(name, out, into, edge):
        state[f"{name}.weight"] = random(out, into, edge, edge, scale=(2 / (into * edge**2)) ** 0.5)

    def batch_norm(name, size):
        state.update(
            {
                f"{name}.weight": 1 + random(size, scale=0.2),
                f"{name}.bias": random(size, scale=0.2),
                f"{name}.running_mean": random(size, scale=0.3),
                f"{name}.running_var": 1 + random(size, scale=0.2).abs(),
                f"{name}.num_batches_tracked": torch.tensor(1000),
            }
        )

    convolution("conv1", width, channels, stem)
    batch_norm("bn1", width)
    inside = width
    for stage, depth in enumerate(depths):
        inner = width * 2**stage
        shapes = [(1, inner), (3, inner), (1, 4 * inner)] if bottleneck else [(3, inner), (3, inner)]
        for block in range(depth):
            at, before = f"layer{stage + 1}.{block}.", inside
            for number, (edge, out) in enumerate(shapes, 1):
                convolution(f"{at}conv{number}", out, before, edge)
                batch_norm(f"{at}bn{number}", out)
                before = out
            if inside != inner * expansion or (stage and not block):
                convolution(f"{at}downsample.0", inner * expansion, inside, 1)
                batch_norm(f"{at}downsample.1", inner * expansion)
            inside = inner * expansion
    return {**state, "fc.weight": random(10, inside), "fc.bias": random(10)}


def plain_resnet(state, images, *, pool, calibrate=False):
    """What such a network gives in evaluation: (B, C, H, W) -> (B, E).

    Args:
        state: The tensors.
        images: The images.
        pool: Whether the stem ends with max pooling.
        calibrate: Put the images' own statistics into the running ones, layer by layer.
    """

    def normed(name, x):
        if calibrate:
            state[f"{name}.running_mean"] = x.mean((0, 2, 3))
            state[f"{name}.running_var"] = x.var((0, 2, 3), unbiased=False)
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def convolved(name, x, stride=1):
        kernel = state[f"{name}.weight"]
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    x = F.relu(normed("bn1", convolved("conv1", images, 2)))
    x = F.max_pool2d(x, 3, 2, 1) if pool else x
    for at in sorted(name.removesuffix("conv1.weight") for name in state if name.endswith(".conv1.weight")):
        stride = 2 if at.endswith(".0.") and not at.startswith("layer1") else 1
        last = 3 if f"{at}conv3.weight" in state else 2
        out = x
        for number in range(1, last + 1):
            strided = number == (2 if last == 3 else 1)
            out = normed(f"{at}bn{number}", convolved(f"{at}conv{number}", out, stride if strided else 1))
            out = F.relu(out) if number < last else out
        if f"{at}downsample.0.weight" in state:
            x = normed(f"{at}downsample.1", convolved(f"{at}downsample.0", x, stride))
        x = F.relu(out + x)
    return x.mean((2, 3))


def written(state, path):
    """Write a state, and return the SHA-256 of the file."""
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
