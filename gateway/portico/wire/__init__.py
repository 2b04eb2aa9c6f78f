"""The protobuf modules, generated from `protos/` by `make protos`; never committed and never edited."""
