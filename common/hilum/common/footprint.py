"""What a study takes of a machine, by arithmetic alone: nothing is allocated, however large the study's numbers are.

Shapes: B micro-batch, V views, L patches, K visible patches, E and D the widths of encoder and decoder.

The numbers of parameters are exact (a test builds every encoder and method beside them). Memory and disk are
estimates. They rest on float32 everywhere (bf16 needs less), on AdamW with its two moments, on the tensors that
PyTorch 2.13 keeps for the backward pass, counted for each kind of layer, and on attention that is fused, which keeps
nothing of the size L^2: `scaled_dot_product_attention` without mask and dropout is, on processors and on CUDA. Tests
hold the weights and optimizer, and the activations, against real steps within a factor of 2. Left out are the libraries
themselves (half a gigabyte), the allocator's slack, and the prepared images, which are mapped and not read whole.
"""

import math
from dataclasses import dataclass

from hilum.common.config import StudyConfig
from hilum.common.config.choices import MaeConfig, ResNetConfig, SimclrConfig, VitConfig
from hilum.common.encoders.registry import RESNET_SIZES, VIT_SIZES
from hilum.common.encoders.resnet import POOL_FROM_SIZE

_FLOAT = 4  # bytes
_PACKED = 2  # bytes of a prepared value
_BLOCK_TOKEN = (
    18  # widths kept of one token by one block: 2 norms and their outputs, q, k, v, mixed, the MLP's 4 + 4
)
_VIEW_COPIES = 6  # of the stored batch and its views, while they are made: float, int32, grid, cut, filtered
_NORMED = 3  # kept of each convolution: its output, the norm's, the activation's
_INFERENCE_BATCH = 64
_TUPLE_BYTES = 64  # of one patch's place, as Python holds it
_POSITION_BYTES = 20  # of one patch and one width: float64 twice, float32 once
_RAW_COPIES = 3  # of all stored images, for the arm `raw`: as they are, widened, divided


@dataclass(frozen=True)
class Footprint:
    """What one site needs for one study.

    Attributes:
        parameters: Of encoder and method, all of them.
        travelling: P, how many of them travel.
        memory_bytes: Peak while training or evaluating, on the device; on a processor that is the machine's memory.
        image_bytes: One prepared image on disk.
        state_bytes: Checkpoints and local parts of a run on disk.
    """

    parameters: int
    travelling: int
    memory_bytes: int
    image_bytes: int
    state_bytes: int

    @property
    def update_bytes(self) -> int:
        """One update, or one set of weights, on the wire."""
        return _FLOAT * self.travelling


def footprint_of(study: StudyConfig, images: int = 0) -> Footprint:
    """Estimate what a study takes of a site.

    Args:
        study: The study.
        images: How many prepared images the site has: the metrics' bootstrap grows with them.
    """
    encoder = _encoder_parameters(study)
    head = _head_parameters(study)
    shares_head = isinstance(study.method, MaeConfig) and study.method.share_decoder
    travelling = encoder + (head if shares_head else 0)
    training = study.training.batch_size * (_training_floats(study) + _view_floats(study, _views(study)))
    evaluating = (
        _evaluating_floats(study, travelling, images) if study.tasks.classification is not None else 0
    )
    return Footprint(
        parameters=encoder + head,
        travelling=travelling,
        memory_bytes=_FLOAT
        * max(
            training_floats(encoder + head, travelling) + max(training, evaluating),
            update_floats(encoder + head, travelling),
        ),
        image_bytes=_PACKED * _voxels(study)[0],
        # Federated and local pre-training each keep a step checkpoint (weights and moments) and two rounds of local
        # parts; one more set of weights is written before the old one goes.
        state_bytes=2 * _FLOAT * (4 * (encoder + head) + 3 * (encoder + head - travelling) + travelling),
    )


def server_bytes(study: StudyConfig, aggregator_bytes: int) -> int:
    """Estimate the memory that a run takes of a server, apart from updates that are on their way in.

    The weights are built once, with their positions: a list of tuples first, then angles, sines and cosines in float64.
    Later there are at once what the aggregator holds, both sides of a round in eight bytes each, and two sets of weights.

    Args:
        study: The study.
        aggregator_bytes: What its aggregator holds at most.
    """
    footprint = footprint_of(study)
    widths = _encoder_width(study) + (
        study.method.decoder_width if isinstance(study.method, MaeConfig) else 0
    )
    positions = tokens(study) * (_TUPLE_BYTES + _POSITION_BYTES * widths)
    built = 2 * _FLOAT * footprint.parameters
    if isinstance(study.encoder, VitConfig):
        built += positions
    return max(built, 24 * footprint.travelling + aggregator_bytes)


def _evaluating_floats(study: StudyConfig, travelling: int, images: int) -> int:
    """Values held while arms are measured: all their weights, the bootstrap, and the largest of three works."""
    evaluation = study.evaluation
    stored, seen = _voxels(study)
    finetuning = evaluation.finetune_batch_size * (_encoder_floats(study) + _view_floats(study, 1))
    inference = _INFERENCE_BATCH * (_view_floats(study, 1) + _encoder_floats(study) // _blocks(study))
    raw = images * (_RAW_COPIES * stored + seen) if "raw" in evaluation.arms else 0
    bootstrap = 4 * (evaluation.bootstrap_draws + 1) * images  # two tables in float64
    return max(finetuning, inference, raw) + bootstrap + len(evaluation.arms) * travelling


def training_floats(parameters: int, travelling: int) -> int:
    """Values held for weights while a step is taken: with gradients and both moments, and what was received."""
    return 4 * parameters + travelling


def update_floats(parameters: int, travelling: int) -> int:
    """Values held for weights after the last step: with gradients, before and after, and the difference in float64."""
    return 2 * parameters + 8 * travelling


def tokens(study: StudyConfig) -> int:
    """Patches in an image for a transformer; for a convolution, pixels or voxels in 1024, rounded up."""
    edge, dims = study.data.image_size, study.data.dims
    if isinstance(study.encoder, VitConfig):
        return int((edge // study.encoder.patch_size) ** dims)
    return int(-(-(edge**dims) // 1024))


def _views(study: StudyConfig) -> int:
    return 2 if isinstance(study.method, SimclrConfig) else 1


def _encoder_parameters(study: StudyConfig) -> int:
    if isinstance(study.encoder, VitConfig):
        width, depth, _ = VIT_SIZES[study.encoder.size]
        return (_patch_values(study) + 1) * width + depth * _block_parameters(width) + 2 * width
    stem = RESNET_SIZES[study.encoder.size][2]
    convolutions: int = sum(
        one.kernel**study.data.dims * one.inside * one.outside + 2 * one.outside
        for one in _convolutions(study.encoder)
    )
    first: int = 3**study.data.dims * stem + 2 * stem
    return first + convolutions


def _head_parameters(study: StudyConfig) -> int:
    """Return the MAE's decoder or SimCLR's projection head."""
    width = _encoder_width(study)
    match study.method:
        case MaeConfig(decoder_width=inner, decoder_depth=depth):
            embed = (width + 1) * inner + inner  # and the mask token
            return embed + depth * _block_parameters(inner) + 2 * inner + (inner + 1) * _patch_values(study)
        case SimclrConfig(projection_width=outer):
            return (width + 1) * width + 2 * width + (width + 1) * outer


def _block_parameters(width: int) -> int:
    """Attention 4 E^2 + 4 E, MLP 8 E^2 + 5 E, two norms 4 E."""
    return 12 * width**2 + 13 * width


def _patch_values(study: StudyConfig) -> int:
    assert isinstance(study.encoder, VitConfig)
    return int(study.encoder.patch_size**study.data.dims)


def _encoder_width(study: StudyConfig) -> int:
    if isinstance(study.encoder, VitConfig):
        return VIT_SIZES[study.encoder.size][0]
    return _convolutions(study.encoder)[-1].outside


def _blocks(study: StudyConfig) -> int:
    """Return how many layers' activations the backward pass keeps, where inference keeps one layer's."""
    if isinstance(study.encoder, VitConfig):
        return VIT_SIZES[study.encoder.size][1]
    return 2  # the widest layers of a convolution are the first ones


@dataclass(frozen=True)
class _Convolution:
    """One convolution and its norm; `reduction` is the edge of the image over the edge of the output."""

    kernel: int
    inside: int
    outside: int
    reduction: int


def _convolutions(config: ResNetConfig) -> list[_Convolution]:
    """Return every convolution after the stem, as `hilum.common.encoders.resnet` builds them; the stem halves once."""
    block, depths, stem = RESNET_SIZES[config.size]
    kernels = (3, 3) if block.expansion == 1 else (1, 3, 1)
    found, inside, reduction = [], stem, 2
    for stage, depth in enumerate(depths):
        width = stem * 2**stage
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            outside, before = width * block.expansion, inside
            reduced = reduction * stride
            for place, kernel in enumerate(kernels):
                last = place == len(kernels) - 1
                strided = kernel == 3 or len(kernels) == 2  # noqa: PLR2004 - the 3-wide one has the stride
                at = reduced if strided or last else reduction
                found.append(_Convolution(kernel, before, outside if last else width, at))
                before = width
            if inside != outside or stride != 1:
                found.append(_Convolution(1, inside, outside, reduced))
            inside, reduction = outside, reduced
    # The order does not matter but for the last one, whose width is the encoder's.
    return found


def _training_floats(study: StudyConfig) -> int:
    """Values kept for the backward pass of one image."""
    if not isinstance(study.method, MaeConfig):
        projected = 6 * _encoder_width(study)
        return _views(study) * (_encoder_floats(study) + projected)
    seen = tokens(study)
    kept = min(max(1, round(seen * (1 - study.method.mask_ratio))), seen - 1)
    depth, inner = study.method.decoder_depth, study.method.decoder_width
    predicted = (
        4 * seen * _patch_values(study)
    )  # patches, their normalised form, the prediction and the error
    return _encoder_floats(study, kept) + seen * inner * (_BLOCK_TOKEN * depth + 6) + predicted


def _encoder_floats(study: StudyConfig, seen: int | None = None) -> int:
    """Values that the encoder keeps of one view for the backward pass; a transformer may see some patches only."""
    if isinstance(study.encoder, VitConfig):
        width, depth, _ = VIT_SIZES[study.encoder.size]
        seen = tokens(study) if seen is None else seen
        return tokens(study) * (_patch_values(study) + width) + seen * width * (_BLOCK_TOKEN * depth + 4)
    edge, dims = study.data.image_size, study.data.dims
    pooled = 2 if edge >= POOL_FROM_SIZE else 1
    stem = RESNET_SIZES[study.encoder.size][2]
    kept = edge**dims + _NORMED * stem * math.ceil(edge / 2) ** dims
    for one in _convolutions(study.encoder):
        kept += _NORMED * one.outside * math.ceil(edge / (one.reduction * pooled)) ** dims
    return int(kept)


def _view_floats(study: StudyConfig, count: int) -> int:
    """Values held of one image while its views are made."""
    stored, seen = _voxels(study)
    return _VIEW_COPIES * (stored + seen) + (count - 1) * seen


def _voxels(study: StudyConfig) -> tuple[int, int]:
    """Pixels or voxels of one image, as it is stored and as the encoder sees it."""
    return int(study.data.store_size**study.data.dims), int(study.data.image_size**study.data.dims)
