// A gRPC-Web client as a browser's would be, with what it needs to know of the services from a FileDescriptorSet.
// Called with the stack's URL and that file; prints JSON.

import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-node";

const [url, descriptors] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const transport = createGrpcWebTransport({ baseUrl: url, httpVersion: "1.1", defaultTimeoutMs: 20000 });

function client(service) {
  return createClient(registry.getService(service), transport);
}

const health = client("grpc.health.v1.Health");
const status = (await health.check({ service: "iris" })).status;

let refused = null;
try {
  await health.check({ service: "absent" });
} catch (error) {
  const known = ConnectError.from(error);
  refused = { code: Code[known.code], message: known.rawMessage };
}

const measurements = {
  dtype: 1,
  tensorShape: { dim: [{ size: 1n }, { size: 4n }] },
  floatVal: [5.1, 3.5, 1.4, 0.2],
};
const predicted = await client("tensorflow.serving.PredictionService").predict({
  modelSpec: { name: "iris" },
  inputs: { measurements },
});

const watched = [];
for await (const answer of health.watch({ service: "digits" })) {
  watched.push(answer.status);
  break;
}

const model = predicted.modelSpec.name;
console.log(JSON.stringify({ status, refused, model, outputs: Object.keys(predicted.outputs).sort(), watched }));
process.exit(0);
