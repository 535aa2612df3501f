"""Networks of other libraries that are no chains, with weights by chance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _seeded(net: nn.Module, size: int) -> nn.Module:
    net.input_shape = (3, size, size)  # type: ignore[assignment]
    return net.eval()


def _segmenter(name: str, size: int) -> nn.Module:
    import torchvision

    torch.manual_seed(0)
    make = getattr(torchvision.models.segmentation, name)
    return _seeded(make(weights=None, weights_backbone=None, num_classes=3), size)


class Body(nn.Module):
    """A torchvision detector without what it does to images before and to boxes behind."""

    def __init__(self, name: str) -> None:
        super().__init__()
        import torchvision

        make = getattr(torchvision.models.detection, name)
        whole = make(weights=None, weights_backbone=None, num_classes=4)
        self.backbone, self.head = whole.backbone, whole.head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows of logits and of boxes."""
        found = self.head(list(self.backbone(x).values()))
        return found["cls_logits"], found["bbox_regression"]


def _detector(name: str, size: int) -> nn.Module:
    torch.manual_seed(0)
    return _seeded(Body(name), size)


def _smp(name: str, size: int) -> nn.Module:
    import segmentation_models_pytorch

    torch.manual_seed(0)
    make = getattr(segmentation_models_pytorch, name)
    return _seeded(make("resnet18", encoder_weights=None, classes=3), size)


def _effdet(name: str, size: int) -> nn.Module:
    import effdet

    torch.manual_seed(0)
    options = {"pretrained": False, "pretrained_backbone": False, "num_classes": 4}
    return _seeded(effdet.create_model(name, image_size=(size, size), **options), size)


def lraspp() -> nn.Module:
    """Return torchvision's LR-ASPP with MobileNetV3."""
    return _segmenter("lraspp_mobilenet_v3_large", 128)


def deeplabv3() -> nn.Module:
    """Return torchvision's DeepLabV3 with MobileNetV3."""
    return _segmenter("deeplabv3_mobilenet_v3_large", 128)


def fcn_resnet50() -> nn.Module:
    """Return torchvision's FCN with ResNet-50."""
    return _segmenter("fcn_resnet50", 64)


def ssdlite320() -> nn.Module:
    """Return the body of torchvision's SSDLite."""
    return _detector("ssdlite320_mobilenet_v3_large", 320)


def retinanet() -> nn.Module:
    """Return the body of torchvision's RetinaNet."""
    return _detector("retinanet_resnet50_fpn", 128)


def smp_unet() -> nn.Module:
    """Return segmentation-models-pytorch's U-Net."""
    return _smp("Unet", 64)


def smp_fpn() -> nn.Module:
    """Return segmentation-models-pytorch's feature pyramid network."""
    return _smp("FPN", 64)


def smp_deeplabv3plus() -> nn.Module:
    """Return segmentation-models-pytorch's DeepLabV3+."""
    return _smp("DeepLabV3Plus", 64)


def efficientdet_d0() -> nn.Module:
    """Return effdet's EfficientDet-D0."""
    return _effdet("efficientdet_d0", 128)


def efficientdet_lite0() -> nn.Module:
    """Return effdet's EfficientDet-lite0."""
    return _effdet("tf_efficientdet_lite0", 128)


def features_only() -> nn.Module:
    """Return the maps of timm's ResNet-18."""
    import timm

    torch.manual_seed(0)
    return _seeded(timm.create_model("resnet18", features_only=True), 64)
