"""What all tables of the config have in common, and the names of the tiers."""

from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

Tier = Literal["fast", "balanced", "deep"]
TIERS: Final[tuple[Tier, ...]] = get_args(Tier)


class Section(BaseModel):
    """What all tables have in common: unknown keys are errors, nothing is coerced, no NaN, no infinity."""

    # hide_input_in_errors: a value may be a secret, and pydantic's own text must never carry one into a log.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True
    )
