"""What the suites `instructions` and `preferences` judge: one row per pair, from what the model will be given.

Covers: lengths, roles, leaks of the answer into the prompt, margins.  Not covered: whether an answer is right, which
the verifier and the judge say.
"""

import hashlib
from collections.abc import Mapping, Sequence

import polars as pl

from components.alignment.examples.chat import chat_of
from components.alignment.instructions import Instruction
from components.tokens.encoding.special import OURS, SpecialTokens

IGNORED = -100


def instruction_statistics(
    instructions: Sequence[Instruction], rows: Sequence[Mapping[str, list[int]]], special: SpecialTokens = OURS
) -> pl.DataFrame:
    """name, use, prompt_id, has_prompt, has_answer, tokens, answer_tokens, roles, ends, answer_in_prompt by pair.

    `rows` are the pairs' input_ids and labels, in the order of `instructions`.
    """
    chat = chat_of(special)
    return pl.DataFrame(
        [
            {
                "name": each.name,
                "use": each.use,
                "prompt_id": hashlib.sha256(each.prompt.encode()).hexdigest(),
                "has_prompt": bool(each.prompt.strip()),
                "has_answer": bool(each.answer.strip()),
                "tokens": len(row["input_ids"]),
                "answer_tokens": sum(label != IGNORED for label in row["labels"]),
                "roles": " ".join(chat.roles(row["input_ids"])),
                "ends": row["input_ids"][-1:] == [chat.end],
                "answer_in_prompt": bool(each.answer.strip()) and each.answer.strip() in each.prompt,
            }
            for each, row in zip(instructions, rows, strict=True)
        ]
    )


def preference_statistics(pairs: pl.DataFrame) -> pl.DataFrame:
    """name, prompt_id, has_prompt, has_chosen, differs, longest_characters, tier_gap, judged_margin, verifier_weight.

    judged_margin is the difference of the judge's scores where it decided, null where the verifier did.
    """
    tier_gap = pl.col("chosen_tier") - pl.col("rejected_tier")
    prompt = pl.col("prompt")
    return pairs.select(
        name=prompt.str.split("\n").list.first(),
        prompt_id=prompt,
        has_prompt=prompt.str.contains(r"\S"),
        has_chosen=pl.col("chosen").str.contains(r"\S"),
        differs=pl.col("chosen") != pl.col("rejected"),
        longest_characters=pl.max_horizontal(pl.col("chosen", "rejected").str.len_chars()).cast(pl.Int64),
        tier_gap=tier_gap,
        judged_margin=pl.when(tier_gap == 0).then(pl.col("chosen_score") - pl.col("rejected_score")),
        verifier_weight=(tier_gap != 0).cast(pl.Float64),
    )
