"""Trains the digits demo model and packs it as a TorchServe archive, `<out>/digits.mar`.

Run by hand or by `tests/examples`, with the TorchServe environment's Python. It knows nothing of Portico.
"""

import argparse
import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from model import Digits
from model_archiver.model_archiver import ModelArchiver
from model_archiver.model_archiver_config import ModelArchiverConfig
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 7
EPOCHS = 15
BATCH = 64
MINIMUM_ACCURACY = 0.97
VERSION = "1.0"
HERE = Path(__file__).resolve().parent
DEFAULT_OUT = HERE.parents[1] / "model-repository"
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def split() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """scikit-learn's handwritten digits, stratified: FP32 [n,1,8,8] to train on, to test on, and their labels."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images.reshape(-1, 1, 8, 8).astype("float32"), labels, test_size=0.2, stratify=labels, random_state=SEED
    )
    return (
        torch.from_numpy(train_x),
        torch.from_numpy(test_x),
        torch.from_numpy(train_y),
        torch.from_numpy(test_y),
    )


def fit(model: Digits, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Adam with a one-cycle learning rate; leaves the model in evaluation mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=EPOCHS * batches)
    model.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def pack(model: Digits, out: Path) -> Path:
    """Runs torch-model-archiver in a scratch folder and moves the finished archive to its place by a rename."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".digits-") as scratch:
        weights = Path(scratch) / "digits.pt"
        torch.save(model.state_dict(), weights)
        tempfile.tempdir = scratch  # the archiver empties <temporary folder>/<model name>, whoever owns it
        ModelArchiver.generate_model_archive(
            ModelArchiverConfig(
                model_name="digits",
                version=VERSION,
                model_file=str(HERE / "model.py"),
                serialized_file=str(weights),
                handler=str(HERE / "handler.py"),
                export_path=scratch,
                force=True,
            )
        )
        archive = Path(scratch) / "digits.mar"
        canonical = Path(scratch) / "canonical.mar"
        canonicalise(archive, canonical)
        return canonical.replace(out / "digits.mar")


def canonicalise(archive: Path, destination: Path) -> None:
    """Copies an archive without the times in it: the same weights give the same bytes, hence the same fingerprint."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(destination, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name == "MAR-INF/MANIFEST.json":
                manifest: dict[str, Any] = json.loads(content)
                manifest["createdOn"] = "01/01/1980 00:00:00"
                content = json.dumps(manifest, indent=2, sort_keys=True).encode()
            target.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), content, zipfile.ZIP_DEFLATED)


def write_samples(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Writes the requests beside this file from test images, which the model was not trained on."""
    seven, four = (images[labels == digit][0, 0] for digit in (7, 4))
    Image.fromarray((seven * 255 / 16).round().to(torch.uint8).numpy()).save(HERE / "seven.png")
    (HERE / "request.json").write_text(json.dumps(four.int().tolist()) + "\n")


def main() -> None:
    """Trains, prints the held-out accuracy, and packs the model only if that is good enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the model repository to write into")
    parser.add_argument("--samples", action="store_true", help="also rewrite seven.png and request.json")
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # for so small a net more threads only wait for each other
    torch.use_deterministic_algorithms(True)
    train_x, test_x, train_y, test_y = split()
    model = Digits()
    fit(model, train_x, train_y)

    with torch.inference_mode():
        accuracy = (model(test_x).argmax(dim=1) == test_y).float().mean().item()
    print(f"held-out accuracy {accuracy:.4f} on {len(test_y)} images")
    if accuracy < MINIMUM_ACCURACY:
        raise SystemExit(f"below {MINIMUM_ACCURACY}: nothing written")
    print(f"wrote {pack(model, arguments.out)}")
    if arguments.samples:
        write_samples(test_x, test_y)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
