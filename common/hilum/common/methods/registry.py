"""The one list of methods."""

import torch

from hilum.common.config import StudyConfig
from hilum.common.config.choices import MaeConfig, SimclrConfig
from hilum.common.encoders import build_encoder
from hilum.common.encoders.base import initialise
from hilum.common.encoders.vit import ViT
from hilum.common.methods.base import MethodSpec, SSLMethod
from hilum.common.methods.mae import MAE
from hilum.common.methods.simclr import SimCLR
from hilum.common.seeding import derive

METHODS: dict[str, MethodSpec] = {spec.name: spec for spec in (MAE.spec, SimCLR.spec)}


def build_method(study: StudyConfig) -> SSLMethod:
    """Return the study's method around the study's encoder, with first values that the study's seed decides.

    Every participant who builds it gets the same bits, the local parts included.
    """
    encoder = build_encoder(study)
    method: SSLMethod
    match study.method:
        case MaeConfig() as config:
            assert isinstance(encoder, ViT), "StudyConfig refuses other pairs"
            method = MAE(
                encoder,
                mask_ratio=config.mask_ratio,
                decoder_width=config.decoder_width,
                decoder_depth=config.decoder_depth,
                share_decoder=config.share_decoder,
            )
        case SimclrConfig() as config:
            method = SimCLR(encoder, temperature=config.temperature, projection_width=config.projection_width)
    initialise(method, torch.Generator().manual_seed(derive(study.study.seed, "initial weights")))
    return method
