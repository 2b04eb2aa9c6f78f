"""Run by torch's Python: 8×8 images on standard input → the probabilities of the archived model, without any server.

direct_digits.py ARCHIVE < images.json > [[p0, …, p9], …]
"""

import io
import json
import sys
import types
import zipfile

import torch

with zipfile.ZipFile(sys.argv[1]) as archive:
    manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
    weights = torch.load(io.BytesIO(archive.read(manifest["serializedFile"])), weights_only=True)
    module = types.ModuleType("model")
    exec(archive.read(manifest["modelFile"]).decode(), module.__dict__)

(network,) = [
    thing
    for thing in vars(module).values()
    if isinstance(thing, type) and issubclass(thing, torch.nn.Module) and thing.__module__ == "model"
]
model = network()
model.load_state_dict(weights)
model.eval()
images = torch.tensor(json.load(sys.stdin), dtype=torch.float32).reshape(-1, 1, 8, 8)
with torch.inference_mode():
    json.dump(torch.softmax(model(images), dim=1).tolist(), sys.stdout)
