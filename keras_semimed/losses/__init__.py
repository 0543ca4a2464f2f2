"""Losses: each is callable on plain tensors, works in float32 and stays finite on degenerate batches."""

from keras_semimed.losses.adversarial import AdversarialSmoothness, unit_per_image
from keras_semimed.losses.anchors import sample_anchors
from keras_semimed.losses.attention_transfer import AttentionTransfer
from keras_semimed.losses.complementary import ComplementaryLoss, guidance_time, spatial_concentration
from keras_semimed.losses.consistency import InterTaskConsistency
from keras_semimed.losses.cross_entropy import masked_cross_entropy
from keras_semimed.losses.cross_pseudo_supervision import CrossPseudoSupervision
from keras_semimed.losses.delta_consistency import DeltaConsistencyLoss
from keras_semimed.losses.dice import DiceLoss
from keras_semimed.losses.directional_consistency import DirectionalConsistency
from keras_semimed.losses.entropy_partition import EntropyPartition, entropy_partition, reliable_cross_entropy
from keras_semimed.losses.feature_adversarial import (
    trusted_adversarial_loss,
    trusted_directions,
    uncertain_directions,
    uncertain_loss,
)
from keras_semimed.losses.image_contrast import ImageContrastiveLoss
from keras_semimed.losses.logit_agreement import LogitAgreement
from keras_semimed.losses.low_contrast import LowContrastLoss, LowContrastMaps
from keras_semimed.losses.mixed_cross_entropy import mixed_cross_entropy
from keras_semimed.losses.pixel_contrast import Anchors, PixelContrastiveLoss
from keras_semimed.losses.pseudo_losses import PseudoLosses, pseudo_losses
from keras_semimed.losses.segmentation import SegmentationLoss
from keras_semimed.losses.separation import ClassSeparation
from keras_semimed.losses.shrunk_space import ShrunkSpace, shrunk_cross_entropy
from keras_semimed.losses.softmax_consistency import SoftmaxConsistency
from keras_semimed.losses.unreliable_contrast import Drawn, UnreliableContrastLoss, draw_members
from keras_semimed.losses.view_contrast import ViewContrastiveLoss

__all__ = [
    "AdversarialSmoothness",
    "Anchors",
    "AttentionTransfer",
    "ClassSeparation",
    "ComplementaryLoss",
    "CrossPseudoSupervision",
    "DeltaConsistencyLoss",
    "DiceLoss",
    "DirectionalConsistency",
    "Drawn",
    "EntropyPartition",
    "ImageContrastiveLoss",
    "InterTaskConsistency",
    "LogitAgreement",
    "LowContrastLoss",
    "LowContrastMaps",
    "PixelContrastiveLoss",
    "PseudoLosses",
    "SegmentationLoss",
    "ShrunkSpace",
    "SoftmaxConsistency",
    "UnreliableContrastLoss",
    "ViewContrastiveLoss",
    "draw_members",
    "entropy_partition",
    "guidance_time",
    "masked_cross_entropy",
    "mixed_cross_entropy",
    "pseudo_losses",
    "reliable_cross_entropy",
    "sample_anchors",
    "shrunk_cross_entropy",
    "spatial_concentration",
    "trusted_adversarial_loss",
    "trusted_directions",
    "uncertain_directions",
    "uncertain_loss",
    "unit_per_image",
]
