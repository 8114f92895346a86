"""The model servers of the tiers, as the config names them one by one."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, Strict, ValidationInfo, field_validator

from octoroute.config.section import Section, Tier
from octoroute.config.values import REFERENCE, ApiKey, BaseUrl, Name, PlainText, TlsServerName


class Model(Section):
    """One model server of a tier."""

    name: Name = Field(
        description="What clients may ask for. Servers of one tier may share a name: they are replicas then."
    )
    model: PlainText = Field(
        default="", validate_default=True, description="What the server is asked for; empty means the name."
    )
    base_url: BaseUrl = Field(description="Where the server's OpenAI API is.")
    max_tokens: int = Field(
        ge=1, le=4_294_967_295, description="Length of answers to requests that name no max_tokens."
    )
    temperature: float = Field(
        default=0.7, ge=0, le=2, description="Temperature for requests that name none."
    )
    weight: float = Field(
        default=1.0, gt=0, description="Share of the tier's requests, against servers of the same priority."
    )
    priority: int = Field(
        default=1, ge=0, le=255, description="The highest is tried first; lower ones are backups."
    )
    kind: Annotated[Literal["auto", "llama_cpp", "vllm", "sglang", "ollama", "openai"], REFERENCE] = Field(
        default="auto", description="The server's software; auto finds out."
    )
    api_key: ApiKey = Field(
        default=SecretStr(""), description="Sent to the server as a bearer token; empty sends none."
    )
    max_in_flight: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Requests sent at the same time; 0 is what the server says, else no limit.",
    )
    tls_verify: bool = Field(
        default=True, description="Whether the certificate of an https server is checked."
    )
    tls_server_name: TlsServerName = Field(
        default="", description="The name that it must be made out to; empty means the host of base_url."
    )

    @field_validator("model")
    @classmethod
    def _model_or_name(cls, value: str, info: ValidationInfo) -> str:
        return value or str(info.data.get("name", ""))


ModelServers = Annotated[tuple[Model, ...], Strict(False)]


class Models(Section):
    """The servers of each tier. A tier may be without any only where a source finds some (agreement.py)."""

    fast: ModelServers = Field(default=(), description="Small, quick models.")
    balanced: ModelServers = Field(default=(), description="Models of middle size.")
    deep: ModelServers = Field(default=(), description="Large, slow models.")

    def of(self, tier: Tier) -> tuple[Model, ...]:
        """The servers of a tier, in the order of the file."""
        servers: tuple[Model, ...] = getattr(self, tier)
        return servers
