"""The baseline that every method is compared with: the same networks and views, labelled images only."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_semimed.configuration import arguments_config, check_not_negative
from keras_semimed.layers.views import WeakStrongViews
from keras_semimed.losses import SegmentationLoss
from keras_semimed.models.labeled import supervised_predictions, supervised_terms
from keras_semimed.models.semi_supervised import SemiSupervisedModel
from keras_semimed.networks.encoders import encoder_config
from keras_semimed.networks.joint import JointNetwork
from keras_semimed.optimizers import branch_optimizer


@keras.saving.register_keras_serializable(package="keras_semimed")
class Supervised(SemiSupervisedModel):
    """Segmentation and classification from the labelled images alone ("SupOnly", Hermes Table 1 and 2).

    It takes the same batches as the semi-supervised methods and leaves their `"unlabeled"` images alone.

    Args:
        num_classes: number of mask classes, background included.
        num_labels: number of image classes.
        image_size: side of the square views in pixels, a multiple of 32.
        encoder: name or Keras model, see `keras_semimed.networks.encoder`.
        weights: preset name, local file or None.
        total_steps: length of the run.
        decoder_filters: channels of the decoder's blocks, deepest first.
        tasks: `"both"`, `"segmentation"` or `"classification"`.
        exchange: inter-task attention and saliency, off by default (Hermes Table 3, row 1).
        saliency_level: decoder level of the saliency map, as in `Hermes`.
        lambda_seg: weight of the segmentation loss (Eq. 15).
        lambda_cls: weight of the classification loss (Eq. 15).
        strong: train on the strong view instead of the weak one.
        teacher_momentum: keep the moving average of the weights, see `SemiSupervisedModel`.
        views: see `SemiSupervisedModel`.
        seed: seed of the views.
    """

    term_names = ("mask_supervised", "label_supervised")

    def __init__(
        self,
        num_classes: int = 2,
        num_labels: int = 2,
        image_size: int = 224,
        encoder: str | keras.Model = "resnet18",
        weights: str | None = None,
        total_steps: int = 3000,
        decoder_filters: tuple[int, ...] = (256, 128, 64, 32, 16),
        tasks: str = "both",
        exchange: str = "none",
        saliency_level: str = "P2",
        lambda_seg: float = 0.5,
        lambda_cls: float = 1.0,
        strong: bool = False,
        teacher_momentum: float | None = None,
        views: dict | WeakStrongViews | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, image_size, total_steps, teacher_momentum, views, seed, **kwargs)
        self.num_labels = num_labels
        self.encoder = encoder_config(encoder)
        self.decoder_filters = tuple(decoder_filters)
        self.tasks = tasks
        self.exchange = exchange
        self.saliency_level = saliency_level
        self.lambda_seg = lambda_seg
        self.lambda_cls = lambda_cls
        self.strong = strong
        check_not_negative(self, "lambda_seg", "lambda_cls")
        self.segmentation_loss = SegmentationLoss()
        self._attach(
            lambda: JointNetwork(
                num_classes,
                num_labels,
                encoder,
                weights,
                self.decoder_filters,
                exchange,
                tasks,
                saliency_level,
                contrast_level=None,
                dtype=self.dtype_policy,
                name="network",
            )
        )

    def training_outputs(self, images: dict[str, Any]) -> dict[str, Any]:
        """Runs the network on one view of the labelled images."""
        labeled = images["labeled"]
        shape = ops.shape(labeled)
        geometry = self.views.draw(shape[0], shape[1], shape[2])
        view = self.views.weak(labeled, geometry)
        if self.strong:
            view = self.views.strong(view)
        return {**self.network(view, training=True), "geometry": geometry}

    def loss_terms(self, outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Eq. 1 and 2."""
        return supervised_terms(self, outputs, targets, outputs["geometry"]), {}

    @property
    def loss_weights(self) -> dict[str, float]:
        """Eq. 15, labelled part."""
        return {"mask_supervised": self.lambda_seg, "label_supervised": self.lambda_cls}

    def supervised_outputs(self, outputs: dict[str, Any], targets: dict[str, Any]) -> tuple[dict, dict]:
        """Probabilities and warped targets of the labelled images."""
        return supervised_predictions(self, outputs, targets, outputs["geometry"])

    def default_optimizer(self, **arguments: Any) -> keras.optimizers.Optimizer:
        """`branch_optimizer(total_steps, ...)`, the paper's pair."""
        return branch_optimizer(self.total_steps, **arguments)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the model; start weights are in the saved weights."""
        return {**super().get_config(), **arguments_config(self)}
