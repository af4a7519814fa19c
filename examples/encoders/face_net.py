"""A face network of your own as a feature: torchvision's MobileNetV3-small, 576 numbers a face.

avfuse extract --videos clips --features face_net --encoder face_net=face_net.py --weights face_net=FILE.safetensors
"""

import torch
from safetensors.torch import load_file
from torchvision.models import mobilenet_v3_small

KIND, REVISION, LICENCE, NEEDS = "face", 1, "BSD-3-Clause (torchvision)", ("torchvision", "safetensors")


class FaceNet:
    """RGB faces uint8 [N, 112, 112, 3] → float32 [N, 576]."""

    dim = 576

    def __init__(self, network, device, precision):
        self.type = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.network, self.device = network.eval().to(device, self.type), device

    def rows(self, faces):
        """Scaled to ImageNet's mean and deviation, then what the classifier would see."""
        inputs = torch.from_numpy(faces).to(self.device).permute(0, 3, 1, 2) / 255
        inputs = (inputs - inputs.new_tensor([0.485, 0.456, 0.406])[:, None, None]) / 0.226
        with torch.inference_mode():
            maps = self.network.avgpool(self.network.features(inputs.to(self.type)))
        return maps.flatten(1).float().cpu().numpy()


def load(weights, device, precision, options):
    """Strict: a key that is missing or too many is an error, which avfuse says in one line."""
    if weights is None:
        raise ValueError("give its weights: --weights face_net=FILE.safetensors")
    network = mobilenet_v3_small()
    network.load_state_dict(load_file(weights))
    return FaceNet(network, device, precision)
