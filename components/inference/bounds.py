"""Which numbers every engine takes for sampling. Engines compute in float32 and seed with 32 bits. Light to import.

Below LOWEST_TEMPERATURE logits divided by a temperature leave float32's range: ctranslate2 then gives empty samples,
torch an error. Long before that the most probable token is always the one drawn, so such a temperature means greedy.
A nucleus of LOWEST_TOP_P or less is the most probable token alone; 1e-46 and less would become 0, which engines refuse.
"""

from typing import Annotated

from pydantic import Field

LOWEST_TEMPERATURE = 1e-5
HIGHEST_TEMPERATURE = 2.0
LOWEST_TOP_P = 1e-7
NUM_SEEDS = 2**32
MAX_SAMPLES = 10_000
MAX_NEW_TOKENS = 2**20

# For params.yaml, whose values are meant: what would be taken for another value is refused.
Temperature = Annotated[float, Field(ge=LOWEST_TEMPERATURE, le=HIGHEST_TEMPERATURE)]
TopP = Annotated[float, Field(ge=LOWEST_TOP_P, le=1)]
NumSamples = Annotated[int, Field(ge=1, le=MAX_SAMPLES)]
NewTokens = Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)]
# Half of all seeds: stages count on from theirs.
Seed = Annotated[int, Field(ge=0, lt=NUM_SEEDS // 2)]
