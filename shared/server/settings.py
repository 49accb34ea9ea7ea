"""Settings: where the Redis server is, and how a connection to it behaves. Reads the LORAPOOL_* environment."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from lorapool.shared.job import Name
from lorapool.shared.redaction import redact
from lorapool.shared.server.server import READ_MARGIN_S

_SECRET_ANYWHERE = re.compile(r":[^:@\s]*@")  # also in what is no URL yet, for a slip of the keys


class RedisSettings(BaseModel):
    """The server and the pool; each field is also ``LORAPOOL_<FIELD>`` in the environment."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    pool: Name = "default"
    socket_timeout_s: Annotated[float, Field(gt=READ_MARGIN_S)] = (
        8.0  # with the third of a lease before it, less than a lease
    )
    connect_timeout_s: Annotated[float, Field(gt=0)] = 5.0
    health_check_s: Annotated[int, Field(ge=0)] = 15
    max_connections: Annotated[int, Field(ge=2)] = 32

    @property
    def redacted_url(self) -> str:
        return _SECRET_ANYWHERE.sub(":***@", redact(self.redis_url.get_secret_value()))


def redis_settings(redis_url: str | None = None, pool: str | None = None) -> RedisSettings:
    """Settings from the environment, with what the caller gave laid over them."""
    given = {"redis_url": redis_url, "pool": pool}
    variables = {name.upper(): value for name, value in os.environ.items()}
    values = {name: variables.get(f"LORAPOOL_{name.upper()}") for name in RedisSettings.model_fields}
    laid_over = values | {name: value for name, value in given.items() if value is not None}
    return RedisSettings.model_validate({name: value for name, value in laid_over.items() if value is not None})
