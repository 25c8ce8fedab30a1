"""Segmentation: the class of each pixel or voxel, from the masks that are tied to a site's images.

Shapes: N prepared images, M test images, n rows, B batch, K classes without the background, *S space, R bootstrap draws and one.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilum.client.data.masks import Masks, prepare_masks
from hilum.client.data.own_grid import ClassNumbers, OwnGrid, own_grid
from hilum.client.data.site_data import SiteData
from hilum.client.data.splits import labelled_share
from hilum.client.data.volumes import Volumes
from hilum.client.state.cache import ArrayCache
from hilum.client.tasks.base import Criterion, Features, Interval, Rows, Scored
from hilum.client.tasks.decoders import Decoder
from hilum.client.tasks.dense import Network, segment
from hilum.client.tasks.mask_metrics import MEASURES, measure_masks
from hilum.client.tasks.small_samples import MIN_CLASS_PATIENTS, widened_mean
from hilum.client.tasks.validation import validation_rows
from hilum.client.views import Viewer, to_unit
from hilum.common.config import StudyConfig
from hilum.common.config.tasks import SegmentationTask, TaskSection
from hilum.common.encoders import Encoder
from hilum.common.errors import DataError
from hilum.common.results_table import RowNote
from hilum.common.seeding import derive

Table = npt.NDArray[np.float64]
"""(m, K, 3): for each image and class what `measure_masks` gives."""


class Segmentation:
    """The task of one site.

    Args:
        data: The site's images and split, whose labelled rows have a mask.
        masks: Their masks.
        study: The study.
        section: The study's section.
    """

    def __init__(self, data: SiteData, masks: Masks, study: StudyConfig, section: SegmentationTask) -> None:
        self.section: TaskSection = section
        self.names = masks.classes
        self.masks, self.classes, self.tolerance_mm = masks, masks.classes, section.tolerance_mm
        self.test = data.split.test
        self.strata = np.zeros(len(self.test), np.int64)
        self._data, self._study = data, study
        _, which, count = np.unique(data.split.group[self.test], return_inverse=True, return_counts=True)
        self._share = 1 / count[which]  # of each test image in its patient
        self._patients = len(count)

    @classmethod
    def of(cls, data: SiteData, study: StudyConfig) -> "Segmentation":
        """Open the task at a site; its masks are prepared first.

        Raises:
            DataError: If no test patient has a mask, or as `chosen_classes`.
        """
        section, origin = study.tasks.segmentation, data.origin
        assert section is not None, "the study names it"
        assert origin is not None, "a site's own rows"
        if not len(data.split.test):
            raise DataError(f"{data.name}: no test patient has a mask; annotate images of more patients")
        masks = prepare_masks(origin.workspace, origin.prepared, study.data, section.classes)
        return cls(data, masks, study, section)

    def training_rows(self, share: float) -> Rows:
        """See `Task`."""
        marked = ["" if some else None for some in self.masks.of_rows]
        return labelled_share(self._data.split, marked, share, seed=self._study.study.seed)

    def head(self, encoder: Encoder) -> nn.Module:
        """Return a decoder that gives K scores and the background's."""
        rng = torch.Generator().manual_seed(derive(self._study.study.seed, "decoder"))
        return Decoder(encoder, self._study.data.facts.channels, len(self.classes) + 1, rng)

    def criterion(self, train: Rows, device: torch.device) -> Criterion:
        """Return the sum of Dice loss and cross entropy (arXiv 1809.10486); Dice is over the batch, without the background."""
        del train
        from monai.losses.dice import DiceCELoss

        both = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True).to(device)

        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            value: Tensor = both(outputs.float(), targets[:, None])
            return value

        return loss

    def validation_rows(self, train: Rows) -> Rows:
        """Return rows of a share of the patients."""
        share, group = self._study.evaluation.validation_share, self._data.split.group[train]
        return validation_rows(train, np.zeros_like(train), group, share, seed=self._study.study.seed)

    def temperature(self, outputs: Tensor, rows: Rows) -> None:
        """Return none: scores of pixels are not calibrated."""

    def views(
        self, rows: Rows, viewer: Viewer, rng: torch.Generator, pieces: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """See `DenseTask`: targets are class numbers (n, *S), 0 for the background."""
        images = self._data.images
        if isinstance(images, Volumes):
            origins = self.masks.origins(rows, images, pieces)
            blocks = images.blocks(rows, origins)
        else:
            origins, blocks = None, np.asarray(images[rows])
        numbers = torch.from_numpy(self.masks.blocks(rows, origins)).long().to(rng.device)
        shares = F.one_hot(numbers, len(self.classes) + 1).movedim(-1, 1).float()
        view, along = viewer.one_with_shares(to_unit(blocks, rng.device), shares, rng)
        return view, along.argmax(1)

    def predict(self, network: Network, rows: Rows, viewer: Viewer, device: torch.device) -> Table:
        """See `DenseTask`: return (n, K, 3), measured on the images' own grids."""
        found = np.zeros((len(rows), len(self.classes), len(MEASURES)))
        for place, row in enumerate(rows.tolist()):
            grid = self.grid(row)
            predicted = segment(network, self._data.images, row, grid, viewer, device)
            found[place] = self.measured(predicted, row, grid)
        return found

    def grid(self, row: int) -> OwnGrid:
        """Return the own grid of a row's image."""
        assert self._data.origin is not None, "a site's own rows"
        item = self._data.origin.prepared.items[row]
        return own_grid(item, ArrayCache(self._data.origin.workspace.cache), self._study.data)

    def measured(self, predicted: ClassNumbers, row: int, grid: OwnGrid) -> Table:
        """Compare a mask on a row's own grid with what was drawn there, (K, 3)."""
        drawn = self.masks.drawn(row, grid.shape)
        return measure_masks(predicted, drawn, len(self.classes), grid.spacing_mm, self.tolerance_mm)

    def predictions(self, outputs: Tensor) -> Table:
        """Refuse: a mask is measured on its image's own grid, which `predict` knows."""
        raise NotImplementedError("masks are predicted image by image, by `predict`")

    def predict_by_neighbours(self, features: Features, train: Rows, test: Features) -> Table:
        """Refuse: the study's check lets no such protocol through."""
        raise NotImplementedError("neighbours predict of whole images")

    def predict_by_probe(self, features: Features, train: Rows, test: Features) -> Table:
        """Refuse: the study's check lets no such protocol through."""
        raise NotImplementedError("a linear probe predicts of whole images")

    def scores(self, predicted: Table, weights: npt.NDArray[np.float64]) -> dict[str, Scored]:
        """Return the mean over patients of the mean over classes; a class that an image lacks and is not predicted in it is left out."""
        note: RowNote = "" if self._patients >= MIN_CLASS_PATIENTS else "too_few"
        by_image = _mean_over(predicted, axis=1)  # (M, 3)
        found = {}
        for metric in self.section.metrics:
            values = by_image[:, MEASURES.index(metric)]
            known = np.isfinite(values)
            counted = weights[:, known] * self._share[known]
            total = counted.sum(1)
            draws = np.divide(
                counted @ values[known], total, out=np.full(len(weights), np.nan), where=total > 0
            )
            found[metric] = Scored(draws, note)
        return found

    def widened(self, metric: str, known: Interval) -> Interval:
        """See `Task`."""
        low, high = self.section.metrics[metric].low, self.section.metrics[metric].high
        return widened_mean(known, self._patients, low, high)

    def widened_difference(self, metric: str, known: Interval) -> Interval | None:
        """See `Task`."""
        span = self.section.metrics[metric].high - self.section.metrics[metric].low
        enough = self._patients >= MIN_CLASS_PATIENTS
        return widened_mean(known, self._patients, -span, span) if enough else None


def _mean_over(values: Table, axis: int) -> Table:
    """Return the mean of what is not NaN; NaN where all is."""
    known = np.isfinite(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    mean: Table = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean
