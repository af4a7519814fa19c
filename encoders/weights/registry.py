"""The weights that avfuse knows, files and folders: what they are, where from, and under which licence.

Names, hashes and licences: docs/sources.md (Weight files, Weight folders). Tested by
tests/encoders/weights/test_resolve.py and test_folder.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PCA = "vggish-pca"  # not a feature: what `vggish` needs for `--vggish-output pca`

_VGGISH_RELEASE = "https://github.com/harritaylor/torchvggish/releases/download/v0.1"
_INSIGHTFACE_RELEASE = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_NON_COMMERCIAL = "non-commercial research only (insightface models)"
_HUB_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


@dataclass(frozen=True)
class Archive:
    """A zip file that is downloaded for one of its members."""

    member: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class WeightFile:
    """One published weight file; `url` None means that it must be downloaded by hand, as `note` says."""

    name: str
    feature: str
    architecture: str
    file_name: str
    url: str | None
    size_bytes: int | None
    sha256: str | None
    licence: str
    note: str
    archive: Archive | None = None

    @property
    def sha256_prefix(self) -> str | None:
        """The hash, or what the file name holds of it by torch.hub's convention `name-<prefix>.pth`."""
        named = _HUB_NAME.search(self.file_name)
        return self.sha256 or (named[1] if named else None)

    def matches(self, sha256: str) -> bool:
        """Whether a file of this hash is this one, as far as its hash is known; false when it is not."""
        return self.sha256_prefix is not None and sha256.startswith(self.sha256_prefix)


_FILES = (
    WeightFile(
        name="vggish",
        feature="vggish",
        architecture="VGGish",
        file_name="vggish-10086976.pth",
        url=f"{_VGGISH_RELEASE}/vggish-10086976.pth",
        size_bytes=None,
        sha256="10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b",
        licence="Apache-2.0",
        note="AudioSet VGGish in the port of torchvggish; about 288.6 MB",
    ),
    WeightFile(
        name=PCA,
        feature=PCA,
        architecture="PCA 128 of VGGish",
        file_name="vggish_pca_params-970ea276.pth",
        url=f"{_VGGISH_RELEASE}/vggish_pca_params-970ea276.pth",
        size_bytes=None,
        sha256=None,
        licence="Apache-2.0",
        note="only for --vggish-output pca",
    ),
    WeightFile(
        name="insightface-r50",
        feature="iresnet50",
        architecture="insightface IResNet-50",
        file_name="backbone.pth",
        url=None,
        size_bytes=None,
        sha256=None,
        licence=_NON_COMMERCIAL,
        note="by hand: backbone.pth of an r50, from the arcface_torch model zoo of deepinsight/insightface",
    ),
    WeightFile(
        name="w600k_r50",
        feature="iresnet50",
        architecture="insightface IResNet-50",
        file_name="w600k_r50.onnx",
        url=f"{_INSIGHTFACE_RELEASE}/buffalo_l.zip",
        size_bytes=174_383_860,
        sha256="4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        licence=_NON_COMMERCIAL,
        note="R50 trained on WebFace600K, out of buffalo_l.zip (289 MB); needs pip install 'avfuse[onnx]'",
        archive=Archive(
            member="w600k_r50.onnx",
            size_bytes=288_621_354,
            sha256="80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        ),
    ),
    WeightFile(
        name="ms1m-ir50",
        feature="iresnet50",
        architecture="face.evoLVe IR-50",
        file_name="backbone_ir50_ms1m_epoch120.pth",
        url=None,
        size_bytes=None,
        sha256=None,
        licence="code MIT; the terms of the training data (MS-Celeb-1M) apply",
        note="by hand: the IR-50 of the model zoo of github.com/ZhaoJ9014/face.evoLVe (Google Drive)",
    ),
    WeightFile(
        name="suzhang-ir50",
        feature="iresnet50",
        architecture="Su Zhang's IR-50",
        file_name="res50_ir_0.887.pth",
        url=None,
        size_bytes=None,
        sha256=None,
        licence="none stated by its author",
        note="by hand: MS-Celeb-1M then FER+, the Google Drive folder in the README of github.com/sucv/ABAW3",
    ),
    *(
        WeightFile(
            name=f"{network}50_ferplus",
            feature=f"{network}50_ferplus",
            architecture=f"{written}-50 of FER+, Caffe's layout",
            file_name=f"{network}50_ferplus_dag.pth",
            url=None,
            size_bytes=None,
            sha256=None,
            licence="none stated; the conversion's code is MIT",
            note="by hand: S. Albanie's conversion, as the README of github.com/zeroQiaoba/MERTools hands it out",
        )
        for network, written in (("resnet", "ResNet"), ("senet", "SENet"))
    ),
)
# The order is the order of preference where a folder holds several files of one feature.
REGISTRY = {file.name: file for file in _FILES}


@dataclass(frozen=True)
class WeightFolder:
    """A published repository that is an encoder's folder; `revision`: of what is not on its main branch."""

    feature: str
    repository: str
    licence: str
    note: str = ""
    revision: str | None = None

    @property
    def command(self) -> str:
        """What downloads it, once, into `$AVFUSE_WEIGHTS`: the client of the hub that it lies on."""
        revision = f" --revision {self.revision}" if self.revision else ""
        kept = "--include '*.json' --include '*.txt' --include 'model*.safetensors'"
        return f"hf download {self.repository}{revision} {kept} --local-dir $AVFUSE_WEIGHTS/{self.feature}"


_FOLDERS = (
    WeightFolder("clip_large", "openai/clip-vit-large-patch14", "MIT in OpenAI's repository (unverified)", "S4's CLIP"),
    WeightFolder("eva02_large", "timm/eva02_large_patch14_224.mim_in22k", "MIT", "what S4's paper names"),
    WeightFolder("eva02_base", "timm/eva02_base_patch14_224.mim_in22k", "MIT", "what S4's code takes"),
    WeightFolder("mobilenetv3_large", "timm/mobilenetv3_large_100.ra_in1k", "Apache-2.0", "S4's expressions"),
    WeightFolder("efficientnetv2_t", "timm/efficientnetv2_rw_t.ra2_in1k", "Apache-2.0", "S4's expressions"),
    WeightFolder(
        *("wavlm_large", "microsoft/wavlm-large", "CC BY-SA 3.0 (of its repository; no tag on the hub)"),
        note="S4's WavLM; its main branch has a pickle alone",
        revision="refs/pr/6",
    ),
    WeightFolder("wavlm_base", "microsoft/wavlm-base", "CC BY-SA 3.0 (of its repository)", "a pickle alone, perhaps"),
    WeightFolder("hubert_large", "facebook/hubert-large-ll60k", "Apache-2.0 (unverified)"),
    WeightFolder("wav2vec2_large", "facebook/wav2vec2-large", "Apache-2.0"),
    WeightFolder(
        *("wav2vec2_emotion", "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim"),
        licence="CC BY-NC-SA 4.0: non-commercial, research only",
        note="trained on arousal, dominance and valence of MSP-Podcast",
    ),
    WeightFolder("whisper_large", "openai/whisper-large-v3", "Apache-2.0 on the hub (unverified)"),
    WeightFolder("bert", "google-bert/bert-base-uncased", "Apache-2.0 (unverified)", "S3's BERT"),
)
FOLDERS = {folder.feature: folder for folder in _FOLDERS}


def entry(name: str) -> WeightFile:
    """The registered file of this name. Raises ValueError for an unknown one."""
    if name not in REGISTRY:
        raise ValueError(f"no weights are called {name!r}; there are {', '.join(REGISTRY)}")
    return REGISTRY[name]
