"""Reads and judges ModelServerConfig messages: the model config file and what ReloadConfig is sent.

Used by the command line and the core; pure except for reading the file (model_servers/server_core.cc).
"""

import os
from collections.abc import Iterable

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig, ModelType

from tf_serving_standin.errors import invalid_argument, not_found
from tf_serving_standin.source import MonitoredModel

PLATFORM = "tensorflow"
_NO_TYPE = ModelType.MODEL_TYPE_UNSPECIFIED


def read_model_config(path: str) -> ModelServerConfig:
    """The ModelServerConfig in text format in file `path`; an empty file is the empty config.

    Raises NOT_FOUND when the file cannot be read and INVALID_ARGUMENT when it is not such a message.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise not_found(f"{path}; {error.strerror}") from error
    try:
        return text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise invalid_argument(f"Invalid protobuf file: '{path}': {error}") from error


def single_model_config(name: str, base_path: str) -> ModelServerConfig:
    """The config that --model_name and --model_base_path stand for."""
    config = ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=PLATFORM)
    return config


def check_models(models: Iterable[ModelConfig]) -> None:
    """Raise INVALID_ARGUMENT when a name comes twice or a base path is relative."""
    names: set[str] = set()
    for model in models:
        if model.name in names:
            raise invalid_argument(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
    for model in models:
        if "://" not in model.base_path and not os.path.isabs(model.base_path):
            raise invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )


def platform_of(model: ModelConfig) -> str:
    """The platform that a model asks for; raises INVALID_ARGUMENT when it names none, or names it twice."""
    if model.model_type != _NO_TYPE:
        if model.model_platform:
            raise invalid_argument(
                "Illegal setting both ModelServerConfig::model_type (deprecated) "
                f"and ModelServerConfig::model_platform, model name is {model.name}"
            )
        if model.model_type != ModelType.TENSORFLOW:
            raise invalid_argument(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
        return PLATFORM
    if not model.model_platform:
        raise invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) "
            f"nor ModelServerConfig::model_platform, model name is {model.name}"
        )
    return str(model.model_platform)


def check_platforms_kept(old: Iterable[ModelConfig], new: Iterable[ModelConfig]) -> None:
    """Raise INVALID_ARGUMENT when a model that stays changes its platform."""
    platforms = {model.name: platform_of(model) for model in old}
    for model in new:
        before, after = platforms.get(model.name), model.name in platforms and platform_of(model)
        if before is not None and after != before:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {model.name} platform was {before} "
                f"and new platform requested is {after}"
            )


def monitored_models(models: Iterable[ModelConfig]) -> list[MonitoredModel]:
    """What the source should poll; raises INVALID_ARGUMENT for a platform other than TensorFlow."""
    found: list[MonitoredModel] = []
    for model in models:
        platform = platform_of(model)
        if platform != PLATFORM:
            raise invalid_argument(f"Model {model.name} requests unsupported platform {platform}")
        found.append(MonitoredModel(model.name, model.base_path, model.model_version_policy))
    return found
