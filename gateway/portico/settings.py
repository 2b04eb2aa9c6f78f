"""The only reader of the environment. Each setting is one variable, `PORTICO_` and the field's name in capitals."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from portico.redis_address import RedisAccess, check_ca_file, parse, read_password

LogLevel = Literal["debug", "info", "warning", "error"]


def _listen(address: str) -> str:
    if address and not re.fullmatch(r"\S+:\d{1,5}", address):
        raise ValueError("it is not host:port, as in 0.0.0.0:9400")
    return address


Listen = Annotated[str, AfterValidator(_listen)]
"""host:port, or nothing."""


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="PORTICO_", frozen=True, extra="ignore")

    redis_url: str = Field(
        "redis://redis:6379/0",
        description="Redis of the response cache and the routes: redis://, rediss:// (TLS), unix://, redis+cluster:// "
        "or redis+sentinel://.",
    )
    redis_password_file: str = Field(
        "", description="File with Redis' password, in place of one in the URL; it is read for each connection."
    )
    redis_ca_file: str = Field("", description="File with the certificates that vouch for Redis; else the system's do.")
    log_level: LogLevel = Field("info", description="debug, info, warning or error.")

    @field_validator("redis_url")
    @classmethod
    def _url(cls, url: str) -> str:
        parse(url)
        return url

    @field_validator("redis_password_file")
    @classmethod
    def _password_file(cls, path: str) -> str:
        if path:
            read_password(path)
        return path

    @field_validator("redis_ca_file")
    @classmethod
    def _ca_file(cls, path: str, info: ValidationInfo) -> str:
        if path:
            check_ca_file(path)
            if "redis_url" in info.data and not parse(info.data["redis_url"]).tls:
                raise ValueError("it is for TLS, and PORTICO_REDIS_URL does not begin with rediss")
        return path

    @property
    def redis(self) -> RedisAccess:
        """What opens Redis."""
        return RedisAccess(self.redis_url, self.redis_password_file, self.redis_ca_file)


class GatewaySettings(_Settings):
    """What `portico gateway` reads."""

    host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the gateway listens on, REST and gRPC alike.")
    edge: str = Field(
        "",
        description="File with an Envoy configuration, as envoy/envoy.yaml, that the gateway's process carries out as "
        "well (compose.compact.yml): it takes clients where that says. Empty: an Envoy of its own stands in front.",
    )
    own_cores: bool = Field(
        False,
        description="Whether nothing else runs on the gateway's cores, as by cpusets: its threads let each other "
        "finish then (SCHED_BATCH), and it answers up to a quarter more. Beside other programs, answers take "
        "milliseconds longer.",
    )
    model_server: str = Field("ml_model_server:8500", description="The one address of all model servers.")
    max_message_bytes: int = Field(
        64 << 20, ge=1 << 10, le=1 << 30, description="Largest request or answer, in bytes, the same at every hop."
    )
    request_timeout: float = Field(
        60.0, gt=0, description="Seconds a call may take when the client sets no deadline, and at most."
    )
    cache: bool = Field(True, description="Whether answers are kept in Redis.")
    cache_ttl: int = Field(3600, ge=1, description="Seconds an answer is kept.")
    cache_max_entry_bytes: int = Field(1 << 20, ge=1, description="Size of the largest answer that is kept, in bytes.")
    cache_memory: int = Field(
        64 << 20, ge=0, description="Bytes of answers that each gateway keeps in its own memory, before Redis."
    )
    redis_timeout: float = Field(0.05, gt=0, description="Seconds a request waits for Redis before it goes on without.")
    metrics_address: Listen = Field(
        "0.0.0.0:9401", description="host:port of the gateway's Prometheus metrics, empty for none."
    )


class ControllerSettings(_Settings):
    """What `portico controller` reads. An empty server address means that there is no such server."""

    model_repository: str = Field(
        "/models", description="The model repository, at the same place for the controller and the model servers."
    )
    stage: str = Field(
        "/stage",
        description="Where the controller puts links for the model servers, and endpoints for Envoy; the same for all.",
    )
    tf_serving: str = Field(
        "tf-serving:8500",
        description="host:port of TF Serving's gRPC, or several with commas; each address is a replica.",
    )
    torchserve_management: str = Field(
        "torchserve-inference=torchserve-management:7071",
        description="host:port of TorchServe's management gRPC, or several with commas; each address is a replica. "
        "`name=host:port` where calls reach it at another name than its management.",
    )
    torchserve_grpc_port: int = Field(
        7070, ge=1, le=65535, description="Port of the inference gRPC of every TorchServe replica."
    )
    torchserve_rest_port: int = Field(
        8080, ge=1, le=65535, description="Port of the inference REST of every TorchServe replica."
    )
    settle: float = Field(
        1.0, gt=0, description="Seconds for which files must have stayed the same before they are judged."
    )
    scan_interval: float = Field(1.0, gt=0, description="Seconds between two looks at the repository and the servers.")
    load_timeout: float = Field(300.0, gt=0, description="Seconds a model may take to load before it has failed.")
    metrics_address: Listen = Field(
        "0.0.0.0:9400",
        description="host:port for operators: Prometheus metrics, the cache to look at and to purge; empty for none.",
    )
