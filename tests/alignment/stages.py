"""The stages on the tests' small world, and how they are configured there."""

from pathlib import Path

from components.alignment import preferences, sft
from components.alignment.config import AlignConfig, GuardConfig, PreferencesConfig, ReplayConfig, SftConfig
from components.core.artifact import Manifest
from components.training.parameters.rates import RatesConfig

SFT_READS = ("base", "instructions", "tokens", "plan")
RATES = RatesConfig(embedding=5e-3, output=5e-3, norm=5e-3, momentum_warmup_steps=0)

LENIENT = GuardConfig(max_text_loss=9.0, max_infilling_loss=9.0)
SFT = SftConfig(
    max_steps=20,
    batch_rows=8,
    micro_batch_rows=8,
    replay=ReplayConfig(share=0.25, anchor=0.5),
    adamw_matrix=5e-3,
    rates=RATES,
    guard=LENIENT,
)
PREFERENCES = PreferencesConfig(
    max_prompts=48,
    temperatures=(0.3, 0.8),
    max_new_tokens=24,
    chunk_prompts=8,
    min_score_gap=0.0,
    require_compiling=False,
)
ALIGN = AlignConfig(max_steps=8, batch_size=4, min_pairs=4, learning_rate=1e-3, heldout_fraction=0.4, guard=LENIENT)


def run_sft(world: Path, out: Path) -> Manifest:
    return sft.run(SFT, **{name: world / name for name in SFT_READS}, out=out)


def run_preferences(world: Path, out: Path, config: PreferencesConfig = PREFERENCES, **paths: Path) -> Manifest:
    given = {name: world / name for name in ("sft", "instructions", "plan")}
    return preferences.run(config, **given | paths, out=out)
