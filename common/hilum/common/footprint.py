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

_FLOAT = 4  # bytes
_COMING_IN = 10  # sets of weights: an evaluation brings two, held by the link and by its trainer, as messages and as arrays
_PACKED = 2  # bytes of a prepared value
_VIEW_COPIES = 6  # of the stored batch and its views, while they are made: float, int32, grid, cut, filtered
_INFERENCE_BATCH = 64
_DECODER_WIDTH = 16  # channels where an image has its full size; twice as many at each coarser level
_DECODER_LEVELS = 5
_DECODER_MAPS = (
    12  # kept of each level: skip, what comes up, both, and of two convolutions outputs, norms, activations
)
_SCORE_COPIES = 6  # scores, their shares, targets and what the losses keep
_UNNAMED_CLASSES = 8  # of a study that takes all that a site has
_TUPLE_BYTES = 64  # of one patch's place, as Python holds it
_POSITION_BYTES = 20  # of one patch and one width: float64 twice, float32 once
_RAW_COPIES = 3  # of all stored images, for the arm `raw`: as they are, widened, divided
RAW_EDGE = 16  # of the cube that a volume of any shape is averaged to, for the arm `raw`


@dataclass(frozen=True)
class Footprint:
    """What one site needs for one study.

    Attributes:
        parameters: Of encoder and method, all of them.
        travelling: P, how many of them travel.
        memory_bytes: Peak while training or evaluating, on the device; on a processor that is the machine's memory.
        image_bytes: One prepared image on disk; 0 where volumes keep their own shapes, which each site counts for itself.
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
        images: How many prepared images the site has: the metrics' bootstrap grows with them, and no batch
            is larger.
    """
    data, method = study.data, study.method
    encoder = study.encoder.parameters(data)
    head = method.head_parameters(study.encoder, data)
    travelling = encoder + method.shared_head_parameters(study.encoder, data)
    kept = method.kept_values(study.encoder, data, recomputed=study.training.gradient_checkpointing)
    pieces = images * (data.per_volume or 1)
    batch = min(study.training.batch_size, pieces) if images else study.training.batch_size
    training = batch * (kept + _view_floats(study, method.views))
    evaluating = _evaluating_floats(study, travelling, images) if study.tasks.given else 0
    return Footprint(
        parameters=encoder + head,
        travelling=travelling,
        memory_bytes=_FLOAT
        * max(
            training_floats(encoder + head, travelling) + max(training, evaluating),
            update_floats(encoder + head, travelling),
            _COMING_IN * travelling,
        ),
        image_bytes=_PACKED * _voxels(study)[0] if study.data.cut == "whole" else 0,
        # Federated and local pre-training each keep a step checkpoint (weights and moments) and two rounds of local
        # parts; one more set of weights is written before the old one goes.
        state_bytes=2 * _FLOAT * (4 * (encoder + head) + 3 * (encoder + head - travelling) + travelling),
    )


def server_bytes(study: StudyConfig, aggregator_bytes: int) -> int:
    """Estimate the memory that a run takes of a server, apart from updates that are on their way in.

    The weights are built once, with their positions: a list of tuples first, then angles, sines and cosines in float64.
    Later there are at once what the aggregator holds, both sides of a round in eight bytes each, and two sets of weights; what a file gave to
    start from is held from beginning to end.

    Args:
        study: The study.
        aggregator_bytes: What its aggregator holds at most.
    """
    footprint = footprint_of(study)
    built = 2 * _FLOAT * footprint.parameters
    if study.encoder.position_width:
        widths = study.encoder.position_width + study.method.position_width(study.encoder)
        built += study.encoder.tokens(study.data) * (_TUPLE_BYTES + _POSITION_BYTES * widths)
    kept = _FLOAT * footprint.travelling if study.encoder.init is not None else 0
    return max(built, 24 * footprint.travelling + aggregator_bytes) + kept


def _evaluating_floats(study: StudyConfig, travelling: int, images: int) -> int:
    """Values held while arms are measured: all their weights, the bootstrap, and the largest of three works."""
    evaluation = study.evaluation
    stored, seen = _voxels(study)
    kept = study.encoder.kept_values(study.data)
    decoded = _decoder_floats(study) if study.tasks.segmentation is not None else 0
    finetuning = evaluation.finetune_batch_size * (kept + decoded + _view_floats(study, 1))
    inference = _INFERENCE_BATCH * (_view_floats(study, 1) + kept // study.encoder.layers)
    a_raw = _RAW_COPIES * stored + seen if study.data.cut == "whole" else RAW_EDGE**3
    raw = images * a_raw if "raw" in evaluation.arms else 0
    bootstrap = 4 * (evaluation.bootstrap_draws + 1) * images  # two tables in float64
    sets = len(evaluation.arms) + (
        study.encoder.init is not None
    )  # the start comes along for the arm `local`
    return max(finetuning, inference, raw) + bootstrap + sets * travelling


def _decoder_floats(study: StudyConfig) -> int:
    """Values that a decoder of a dense task keeps of one image: maps of each level, and scores, their classes and losses."""
    voxels = math.prod(study.data.view_size)
    levels = sum((2 / 2**study.data.dims) ** level for level in range(_DECODER_LEVELS))
    section = study.tasks.segmentation
    classes = 1 + (len(section.classes) if section is not None and section.classes else _UNNAMED_CLASSES)
    return round(voxels * (_DECODER_MAPS * _DECODER_WIDTH * levels + _SCORE_COPIES * classes))


def training_floats(parameters: int, travelling: int) -> int:
    """Values held for weights while a step is taken: with gradients and both moments, and what was received."""
    return 4 * parameters + travelling


def update_floats(parameters: int, travelling: int) -> int:
    """Values held for weights after the last step: with gradients, before and after, and the difference."""
    return 2 * parameters + 3 * travelling


def _view_floats(study: StudyConfig, count: int) -> int:
    """Values held of one image while its views are made."""
    stored, seen = _voxels(study)
    return _VIEW_COPIES * (stored + seen) + (count - 1) * seen


def _voxels(study: StudyConfig) -> tuple[int, int]:
    """Values of one image, as it is stored and as the encoder sees it."""
    data, channels = study.data, study.data.facts.channels
    return channels * math.prod(data.block_size), channels * math.prod(data.view_size)
