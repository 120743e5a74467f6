"""SAR in a plain training loop: scikit-learn's digits, a timm ViT as it is, and two more lines (marked).

python book/examples/plug_in.py [epochs]
"""

import sys

import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import sarlib


def main(epochs: int) -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1  # (1797, 1, 8, 8), from -1 to 1
    labels = torch.tensor(digits.target)

    size = {"img_size": 8, "patch_size": 1, "in_chans": 1, "embed_dim": 48, "depth": 3, "num_classes": 10}
    model = timm.create_model("vit_tiny_patch16_224", **size)
    sar = sarlib.SAR(model, weight=0.01)  # line one
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for epoch in range(epochs):
        entropy = []
        for batch in torch.randperm(len(images)).split(64):
            loss = F.cross_entropy(model(images[batch]), labels[batch]) + sar.loss()  # line two
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            entropy.append(sar.entropy.item())
        print(f"epoch {epoch}: loss {loss.item():.3f}, spatial entropy {sum(entropy) / len(entropy):.3f} nats a map")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
