"""What the suites `instructions` and `preferences` judge: one row per pair, from what the model will be given.

Covers: lengths, roles, leaks of the answer into the prompt, margins.  Not covered: whether an answer is right, which
the verifier and the judge say.
"""

import hashlib
from collections.abc import Sequence

import polars as pl

from components.alignment.examples.chat import Conversation, chat_of
from components.alignment.examples.instruction import Instruction
from components.tokens.encoding.special import OURS, SpecialTokens


def instruction_statistics(
    instructions: Sequence[Instruction], conversations: Sequence[Conversation], special: SpecialTokens = OURS
) -> pl.DataFrame:
    """name, use, prompt_id, has_prompt, has_answer, tokens, answer_tokens, roles, ends, answer_in_prompt by pair.

    The conversations are in the order of `instructions`.
    """
    chat = chat_of(special)
    return pl.DataFrame(
        [
            {
                "name": each.name,
                "use": each.use,
                "prompt_id": hashlib.sha256(repr(each.messages[:-1]).encode()).hexdigest(),
                "has_prompt": bool(each.prompt.strip()),
                "has_answer": bool(each.answer.strip()),
                "tokens": len(encoded.ids),
                "answer_tokens": int(encoded.said.sum()),
                "roles": " ".join(chat.roles(encoded.ids.tolist())),
                "ends": int(encoded.ids[-1]) == chat.end,
                "answer_in_prompt": bool(each.answer.strip()) and each.answer.strip() in each.prompt,
            }
            for each, encoded in zip(instructions, conversations, strict=True)
        ]
    )


def preference_statistics(pairs: pl.DataFrame) -> pl.DataFrame:
    """name, pair_id, pairs_of_prompt, has_prompt, has_chosen, chosen_finish, differs, longest_characters, tier_gap,
    judged_margin, verifier_weight.

    judged_margin is the difference of the judge's scores where it decided, null where the verifier or a defect did.
    """
    tier_gap = pl.col("chosen_tier") - pl.col("rejected_tier")
    prompt = pl.col("prompt")
    judged = (tier_gap == 0) & (pl.col("rejected_defect") == "")
    return pairs.select(
        name=prompt.str.split("\n").list.first(),
        pair_id=pl.concat_str("prompt", "chosen", "rejected", separator="\x00"),
        pairs_of_prompt=pl.len().over("prompt").cast(pl.Int64),
        has_prompt=prompt.str.contains(r"\S"),
        has_chosen=pl.col("chosen").str.contains(r"\S"),
        chosen_finish=pl.col("chosen_finish"),
        differs=(pl.col("chosen") != pl.col("rejected")) & (pl.col("chosen_ids") != pl.col("rejected_ids")),
        longest_characters=pl.max_horizontal(pl.col("chosen", "rejected").str.len_chars()).cast(pl.Int64),
        tier_gap=tier_gap,
        judged_margin=pl.when(judged).then(pl.col("margin")),
        verifier_weight=(tier_gap != 0).cast(pl.Float64),
    )
