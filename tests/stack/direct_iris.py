"""Run by TensorFlow's Python: the rows of measurements on standard input → the model's own answers, without any server.

direct_iris.py SAVED_MODEL < rows.json > {"probabilities": …, "species": …}
"""

import json
import sys

import tensorflow as tf

model = tf.saved_model.load(sys.argv[1])
rows = tf.constant(json.load(sys.stdin), tf.float32)
outputs = model.signatures["serving_default"](measurements=rows)
json.dump({name: value.numpy().tolist() for name, value in outputs.items()}, sys.stdout)
