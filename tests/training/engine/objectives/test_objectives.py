"""No objective loses or invents text, each asks only for what it should, and a row depends on its place alone."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from components.core.config import validate
from components.core.errors import ConfigError, DataError
from components.inference.infilling_prompts import fim_prompt
from components.tokens import vocabulary
from components.tokens.encoding.codec import TextCodec
from components.training.engine.batches.batch import IGNORED, Batch
from components.training.engine.model.shape import Kind
from components.training.engine.objectives.denoise import Denoiser
from components.training.engine.objectives.document_pieces import MINIMUM_PIECE_TOKENS, Piece, pieces_of
from components.training.engine.objectives.masked import Masking
from components.training.engine.objectives.packing import Mixture
from components.training.parameters.objectives import ObjectivesConfig
from components.training.run.objective_mixture import mixture_of

END, PREFIX, MIDDLE, SUFFIX, PAD, MASK, FILE = 0, 1, 2, 3, 4, 9, 13
MODES = {"denoise_r": 10, "denoise_s": 11, "denoise_x": 12}
NAMES = range(16, 24)
ORDINARY = 24  # the first id that is text
LEARNED = [f"def größe_{number}(value):\n    return value + {number}  # ∑ 😀\n" for number in range(300)]
LENGTH = 64

documents = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("aé∑😀 \n("), min_size=1, max_size=90),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer that names eight spans."""
    directory = tmp_path_factory.mktemp("tokenizer")
    vocabulary.write(vocabulary.learn(LEARNED, 340, span_tokens=len(NAMES)), directory, span_tokens=len(NAMES))
    return directory


@pytest.fixture(scope="module")
def codec(tokenizer: Path) -> TextCodec:
    return TextCodec(tokenizer)


@pytest.fixture(scope="module")
def spelled(tokenizer: Path) -> list[bytes]:
    """The bytes of each token's text; its name for a special one."""
    found = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    visible = sorted(pre_tokenizers.ByteLevel.alphabet())
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
    others = (byte for byte in range(256) if byte not in kept)
    byte_of = {char: ord(char) if ord(char) in kept else next(others) for char in visible}
    names = [str(found.id_to_token(token)) for token in range(found.get_vocab_size())]
    return [name.encode() if name[:2] == "<|" else bytes(byte_of[char] for char in name) for name in names]


def configured(**rates: Any) -> ObjectivesConfig:
    """The defaults, with other rates: infill=0.5."""
    values = {name: {**ObjectivesConfig().model_dump()[name], "rate": rate} for name, rate in rates.items()}
    return ObjectivesConfig.model_validate({"infill": {"rate": 0.0}, **values})


@functools.cache
def mixture(tokenizer: Path, kind: Kind = "decoder", **rates: float) -> Mixture:
    return mixture_of(configured(**rates), kind, tokenizer, seed=7)


def windows_of(codec: TextCodec, texts: list[str], *starts: int) -> NDArray[np.int64]:
    """T + 1 tokens from some places in documents laid end to end, again and again; some begin inside a character."""
    laid = np.array([token for text in texts for token in [*codec.encode(text), END]], dtype=np.int64)
    return np.stack([np.resize(np.roll(laid, -(start % len(laid))), LENGTH + 1) for start in starts])


def batch_of(mix: Mixture, windows: NDArray[np.int64]) -> Batch:
    numbers = list(range(len(windows)))
    return mix.batch(windows, [0] * len(windows), numbers, np.array(numbers))


def joined(tokens: NDArray[np.int64], spelled: list[bytes]) -> bytes:
    return b"".join(spelled[token] for token in tokens.tolist())


@given(texts=documents, start=st.integers(0, 500))
def test_pieces_fill_the_window_and_hold_its_text_in_order(texts: list[str], start: int, codec: TextCodec) -> None:
    window = windows_of(codec, texts, start)[0]
    pieces = pieces_of(np.stack([window, window]), END)
    for row in range(2):
        here = [piece for piece in pieces if piece.row == row]
        assert [piece.start for piece in here] == [0, *(piece.stop for piece in here[:-1])]
        assert here[-1].stop == LENGTH
        assert np.concatenate([piece.tokens for piece in here]).tolist() == window[window != END].tolist()
        assert [piece.ends for piece in here] == [bool(window[piece.stop] == END) for piece in here]


def halves_of(window: NDArray[np.int64], positions: NDArray[np.int64]) -> list[Piece]:
    """The pieces of a window, those that were cut in two as two."""
    found = []
    for piece in pieces_of(window[None], END):
        restarts = piece.start + 1 + np.flatnonzero(positions[piece.start + 1 : piece.stop] == 0)
        assert len(restarts) == (len(piece.tokens) >= 2 * MINIMUM_PIECE_TOKENS)
        for cut in restarts.tolist():
            size = cut - piece.start
            found.append(replace(piece, stop=cut, tokens=piece.tokens[:size], ends=False))
            piece = replace(piece, start=cut, tokens=piece.tokens[size:])
        found.append(piece)
    return found


def undo_infill(tokens: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Prefix with middle (which one asks for), the middle's possible start, and suffix of <prefix>...<end>."""
    assert tokens[0] == PREFIX and tokens[-1] == END
    (suffix,), (middle,) = np.flatnonzero(tokens == SUFFIX), np.flatnonzero(tokens == MIDDLE)
    assert suffix < middle
    return tokens[1:suffix], tokens[middle + 1 : -1], tokens[suffix + 1 : middle]


@given(texts=documents, start=st.integers(0, 500), suffix_first=st.sampled_from([0.0, 1.0]))
def test_infilling_keeps_the_text_of_a_piece_but_for_lone_bytes_and_what_has_no_room(
    texts: list[str], start: int, suffix_first: float, codec: TextCodec, tokenizer: Path, spelled: list[bytes]
) -> None:
    mix = mixture(tokenizer, infill=1.0)
    assert mix.infill is not None
    mix = replace(mix, infill=replace(mix.infill, suffix_first=suffix_first))
    window = windows_of(codec, texts, start)[0]
    batch = batch_of(mix, window[None])
    for piece in halves_of(window, batch.positions[0]):
        inputs, labels = batch.inputs[0, piece.start : piece.stop], batch.labels[0, piece.start : piece.stop]
        text = codec.decode(piece.tokens.tolist()).strip("\ufffd")
        if len(piece.tokens) < MINIMUM_PIECE_TOKENS or not text or "\ufffd" in text:
            assert labels.tolist() == window[piece.start + 1 : piece.stop + 1].tolist()
            continue
        last = int(np.flatnonzero(labels == END)[-1])
        tokens = np.append(inputs[: last + 1], END)
        first, middle, suffix = (joined(part, spelled) for part in undo_infill(tokens))
        undone = first + middle + suffix
        assert undone in text.encode()
        lost = len(text.encode()) - len(undone)
        assert lost == 0 or last + 1 == piece.room, "text was cut although there was room"
        assert (suffix_first == 1.0) == (tokens[1] == SUFFIX) or not first
        assert set(inputs[last + 1 :].tolist()) <= {PAD}
        unasked = (tokens[1:] == SUFFIX) | (tokens[1:] == MIDDLE)
        assert np.where(unasked, IGNORED, tokens[1:]).tolist() == labels[: last + 1].tolist()
        assert (labels[last + 1 :] == IGNORED).all()


def repository(codec: TextCodec, texts: list[str]) -> NDArray[np.int64]:
    """Texts as files of one package, with the ends of the documents before and behind it."""
    files = [
        [FILE, *codec.encode(f"p/{number}.py"), *codec.encode("\n"), *codec.encode(text)]
        for number, text in enumerate(texts)
    ]
    return np.array([END, *(token for file in files for token in file), END], dtype=np.int64)


@given(texts=documents, draw=st.integers(0, 99), size=st.integers(9, 200))
def test_of_files_of_a_package_one_is_infilled_below_those_before_it(
    texts: list[str], draw: int, size: int, codec: TextCodec, tokenizer: Path, spelled: list[bytes]
) -> None:
    """Wherever a window is cut: what stands before the file stays, positions go on, and no middle spans files."""
    laid = repository(codec, texts)
    start = draw % max(1, len(laid) - size)
    window = laid[start : start + size]
    batch = mixture(tokenizer, infill=1.0).batch(window[None], [0], [draw], np.zeros(1, np.int64))
    inputs, labels, positions = batch.inputs[0], batch.labels[0], batch.positions[0]
    forms = np.flatnonzero(inputs == PREFIX)
    assert len(forms) <= 2 * (np.count_nonzero(window[:-1] == END) + 1)
    if not len(forms) or FILE not in window:
        return
    first = int(forms[0])
    before = inputs[:first]
    assert before.tolist() == window[:first].tolist()
    assert positions[: first + 1].tolist() == list(range(first + 1))
    if first:
        assert labels[: first - 1].tolist() == window[1:first].tolist() and labels[first - 1] == IGNORED
        assert before[-1] == codec.encode("\n")[-1] and FILE in before, "the form begins below the file's path"
    stop = int(np.append(np.flatnonzero(positions[first + 1 :] == 0) + first + 1, len(inputs))[0])
    following = np.flatnonzero(window[first:] == FILE)
    assert not len(following) or stop <= first + following[0], "a form goes beyond its file"
    said = inputs[first:stop]
    assert FILE not in said
    parts = undo_infill(np.append(said[: int(np.flatnonzero(labels[first:stop] == END)[-1]) + 1], END))
    file = joined(window[first : first + following[0] if len(following) else len(window)], spelled)
    assert b"".join(joined(part, spelled) for part in parts) in file
    if len(following) and len(forms) == 1 and stop < len(inputs):
        rest = inputs[first + following[0] :]
        assert rest.tolist() == window[first + following[0] : -1].tolist(), "the files behind it stay as they are"


def test_every_file_of_a_package_is_asked_for(codec: TextCodec, tokenizer: Path) -> None:
    window = repository(codec, LEARNED[:3])
    mix = mixture(tokenizer, infill=1.0)
    leads = {
        int((inputs[: np.flatnonzero(inputs == PREFIX)[0]] == FILE).sum())
        for inputs in (mix.batch(window[None], [0], [sample], np.zeros(1, np.int64)).inputs[0] for sample in range(40))
    }
    assert leads == {1, 2, 3}
    plain = replace(mix, files=None).batch(window[None], [0], [0], np.zeros(1, np.int64)).inputs[0]
    assert plain[0] == PREFIX, "without the token a piece is one document"


@given(text=st.text(st.characters(exclude_categories=["Cs", "Co"]), min_size=1, max_size=60), draw=st.integers(0, 99))
def test_a_server_writes_the_prompt_that_training_wrote(
    text: str, draw: int, codec: TextCodec, tokenizer: Path
) -> None:
    """Also where the cursor stands inside a word: cuts fall between characters."""
    mix = mixture(tokenizer, infill=1.0)
    tokens = np.array(codec.encode(text), dtype=np.int64)
    piece = Piece(row=0, start=0, stop=4 * len(text) + 9, tokens=tokens, ends=True)
    cuts = np.random.default_rng(draw).random(2)
    assert mix.infill is not None
    (found,) = replace(mix.infill, suffix_first=0.0).examples([piece], np.array([[*cuts, 0.5]]))
    if "\ufffd" in text:
        return
    assert found is not None
    first, second = sorted(int(cut * (len(text) + 1)) for cut in cuts)
    prompt = fim_prompt(codec, text[:first], text[second:])
    assert found.tokens.tolist() == [*prompt, *codec.encode(text[first:second]), END]


def test_cursors_inside_words_are_asked_for(codec: TextCodec, tokenizer: Path) -> None:
    windows = windows_of(codec, LEARNED, *range(0, 31 * 64, 31))
    inputs = batch_of(mixture(tokenizer, infill=1.0), windows).inputs
    (starts,) = np.nonzero((inputs == MIDDLE).any(axis=1))
    middles = [codec.decode(row[np.flatnonzero(row == MIDDLE)[0] + 1 :].tolist())[:1] for row in inputs[starts]]
    assert np.mean([each.isalpha() for each in middles]) > 0.2
    ends = {int(stop) for row in inputs for stop in np.flatnonzero(np.isin(row, [PREFIX]))[1:]}
    assert len(ends) > LENGTH / 2, "middles end at few places, which a model would learn instead of what ends them"


@given(
    length=st.integers(2, 200),
    noise=st.floats(0.01, 0.85),
    span_tokens=st.none() | st.floats(1, 40),
    names=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_denoising_can_be_undone_and_takes_out_the_share_that_was_asked_for(
    length: int, noise: float, span_tokens: float | None, names: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    spans = np.array(NAMES[:names])
    noise = min(noise, 0.45) if span_tokens is None else noise
    denoiser = Denoiser(rate=1.0, noise=noise, span_tokens=span_tokens, spans=spans, mode=MODES["denoise_r"], end=END)
    tokens = generator.integers(ORDINARY, 340, size=length)
    draw = float(generator.random())
    noisy = denoiser.noisy(length, draw, generator)
    given, answer = denoiser.split(tokens, noisy)
    assert given[0] == MODES["denoise_r"] and answer[-1] == END
    assert undo_denoising(given[1:], answer[:-1]).tolist() == tokens.tolist()
    taken, count = denoiser.counts(length, denoiser.share(draw))
    assert noisy.sum() == taken == min(max(round(length * denoiser.share(draw)), 1), length - 1)
    assert (given < ORDINARY).sum() - 1 == count <= names
    assert not noisy[0]
    if span_tokens is None:
        assert count == 1 and noisy[-taken:].all()


def undo_denoising(given: NDArray[np.int64], answer: NDArray[np.int64]) -> NDArray[np.int64]:
    """The text, with each name replaced by what the answer says behind it."""
    begins = np.flatnonzero(answer < ORDINARY)
    said = {int(each[0]): each[1:] for each in np.split(answer, begins[1:])}
    assert list(said) == given[given < ORDINARY].tolist() == list(NAMES[: len(said)])
    return np.concatenate([said.get(int(token), np.array([token])) for token in given])


@given(texts=documents, start=st.integers(0, 500), name=st.sampled_from(sorted(MODES)))
def test_a_decoder_is_asked_for_the_answer_alone(
    texts: list[str], start: int, name: str, codec: TextCodec, tokenizer: Path
) -> None:
    window = windows_of(codec, texts, start)[0]
    batch = batch_of(mixture(tokenizer, **{name: 1.0}), window[None])
    for piece in pieces_of(window[None], END):
        inputs, labels = batch.inputs[0, piece.start : piece.stop], batch.labels[0, piece.start : piece.stop]
        if len(piece.tokens) < MINIMUM_PIECE_TOKENS:
            assert labels.tolist() == window[piece.start + 1 : piece.stop + 1].tolist()
            continue
        assert inputs[0] == MODES[name]
        answer = int(np.flatnonzero(inputs == NAMES[0])[1])
        scored = np.flatnonzero(labels != IGNORED)
        assert scored.tolist() == list(range(answer, scored[-1] + 1))
        written = inputs[answer : scored[-1] + 1]
        assert labels[answer : scored[-1]].tolist() == written[1:].tolist()
        ended = labels[scored[-1]] == END
        said = written if ended else np.append(written, labels[scored[-1]])
        undone = undo_denoising(inputs[1:answer], said)
        assert undone.tolist() == piece.tokens[: len(undone)].tolist()
        whole = len(undone) == len(piece.tokens)
        assert ended == (name != "denoise_s" or (piece.ends and whole))
        assert whole or len(undone) >= piece.room - 2 * len(NAMES) - 2


@given(texts=documents, start=st.integers(0, 500), name=st.sampled_from(sorted(MODES)))
def test_an_encoder_decoder_reads_and_says_each_piece_in_its_order(
    texts: list[str], start: int, name: str, codec: TextCodec, tokenizer: Path
) -> None:
    window = windows_of(codec, texts, start)[0]
    batch = batch_of(mixture(tokenizer, "encoder-decoder", **{name: 1.0}), window[None])
    assert batch.encoder_inputs is not None and batch.encoder_positions is not None
    assert batch.encoder_inputs.shape == (1, LENGTH)
    read = parts_of(batch.encoder_inputs[0], batch.encoder_positions[0])
    inputs = parts_of(batch.inputs[0], batch.positions[0])
    said = parts_of(batch.labels[0], batch.positions[0])
    pieces = [piece for piece in pieces_of(window[None], END) if len(piece.tokens) >= MINIMUM_PIECE_TOKENS]
    found = [number for number, part in enumerate(said) if (part != IGNORED).any()]
    assert found == list(range(len(found))) and len(found) <= len(pieces)
    assert pieces == [] or len(found) >= 1
    for number, piece in zip(found, pieces, strict=False):
        answer = said[number][said[number] != IGNORED]
        assert read[number][0] == MODES[name]
        assert inputs[number].tolist()[: len(answer)] == [PAD, *answer[:-1].tolist()]
        undone = undo_denoising(read[number][1:], answer[:-1] if answer[-1] == END else answer)
        assert undone.tolist() == piece.tokens[: len(undone)].tolist()
        assert len(undone) >= MINIMUM_PIECE_TOKENS


def parts_of(tokens: NDArray[np.int64], positions: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """A row cut where positions restart."""
    return np.split(tokens, np.flatnonzero(positions == 0)[1:])


@given(seed=st.integers(0, 1000))
def test_masking_hides_the_chosen_tokens_and_asks_for_them_alone(seed: int) -> None:
    generator = np.random.default_rng(seed)
    tokens = np.where(generator.random(400) < 0.1, END, generator.integers(ORDINARY, 340, size=400))
    masking = Masking(noise=0.3, mask=MASK, ordinary=np.arange(ORDINARY, 340))
    inputs, labels = masking.hide(tokens, END, generator)
    chosen = labels != IGNORED
    assert labels[chosen].tolist() == tokens[chosen].tolist()
    assert inputs[~chosen].tolist() == tokens[~chosen].tolist()
    assert not (tokens[chosen] == END).any()
    assert set(inputs[chosen].tolist()) <= {MASK, *range(ORDINARY, 340)}


def test_rates_are_met(codec: TextCodec, tokenizer: Path) -> None:
    windows = windows_of(codec, LEARNED, *range(0, 13 * 400, 13))
    rates = {"infill": 0.3, "denoise_r": 0.1, "denoise_s": 0.1, "denoise_x": 0.2}
    inputs = batch_of(mixture(tokenizer, **rates), windows).inputs
    long = [piece for piece in pieces_of(windows, END) if len(piece.tokens) >= MINIMUM_PIECE_TOKENS]
    first = np.array([inputs[piece.row, piece.start] for piece in long])
    for name, token in {"infill": PREFIX, **MODES}.items():
        error = (rates[name] * (1 - rates[name]) / len(long)) ** 0.5
        assert abs((first == token).mean() - rates[name]) < 4 * error, name
    # Without a prefix both orders are the same.
    mix = mixture(tokenizer, **rates)
    assert mix.infill is not None
    ordered = batch_of(replace(mix, infill=replace(mix.infill, suffix_first=0.0)), windows).inputs
    seconds = [(piece.row, piece.start + 1) for piece, token in zip(long, first, strict=True) if token == PREFIX]
    swapped = np.array([inputs[place] == SUFFIX for place in seconds if ordered[place] != SUFFIX])
    assert abs(swapped.mean() - 0.5) < 4 * 0.5 / len(swapped) ** 0.5
    masking = mixture(tokenizer, "encoder", masked=1.0)
    batch = batch_of(masking, windows)
    text = windows[:, :-1] != END
    chosen = batch.labels != IGNORED
    assert abs(chosen[text].mean() - 0.3) < 0.02
    assert abs((batch.inputs[chosen] == MASK).mean() - 0.8) < 0.02
    assert abs((batch.inputs[chosen] == batch.labels[chosen]).mean() - 0.1) < 0.02


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("decoder", {"infill": 0.4, "denoise_r": 0.2, "denoise_s": 0.2}),
        ("encoder", {"masked": 1.0}),
        ("encoder-decoder", {"denoise_r": 0.5, "denoise_x": 0.5}),
    ],
)
def test_a_row_is_a_function_of_window_epoch_sample_and_seed(
    kind: Kind, rates: dict[str, float], codec: TextCodec, tokenizer: Path
) -> None:
    mix = mixture(tokenizer, kind, **rates)
    windows = windows_of(codec, LEARNED, *range(0, 13 * 12, 13))
    places, numbers = np.array([0, 1, 2] * 4), np.arange(12)
    whole = mix.batch(windows, places.tolist(), numbers.tolist(), numbers)
    order = np.array([5, 0, 11, 3])
    some = mix.batch(windows[order], places[order].tolist(), numbers[order].tolist(), order)
    for row, number in enumerate(order):
        assert same_row(some, row, whole, int(number))
    later = mix.batch(windows, (places + 1).tolist(), numbers.tolist(), numbers)
    other = replace(mix, seed=8).batch(windows, places.tolist(), numbers.tolist(), numbers)
    for changed in (later, other):
        assert not all(same_row(changed, row, whole, row) for row in range(12))
    assert whole.sources.tolist() == numbers.tolist()


def same_row(one: Batch, row: int, other: Batch, number: int) -> bool:
    arrays = ("inputs", "labels", "positions", "encoder_inputs", "encoder_positions")
    pairs = [(getattr(one, name), getattr(other, name)) for name in arrays]
    return all(np.array_equal(a[row], b[number]) for a, b in pairs if a is not None)


@given(texts=documents, start=st.integers(0, 500))
def test_without_objectives_a_window_is_read_as_it_is(
    texts: list[str], start: int, codec: TextCodec, tokenizer: Path
) -> None:
    window = windows_of(codec, texts, start)[0]
    batch = batch_of(mixture(tokenizer), window[None])
    assert batch.inputs[0].tolist() == window[:-1].tolist()
    assert batch.labels[0].tolist() == window[1:].tolist()
    begins = window[:-1] == END
    begins[0] = True
    assert (batch.positions[0] == 0).tolist() == begins.tolist()
    assert (np.diff(batch.positions[0])[~begins[1:]] == 1).all()


@pytest.mark.parametrize(
    ("kind", "rates", "refused"),
    [
        ("decoder", {"masked": 1.0}, r"asks a decoder for masked; set masked\.rate to 0"),
        ("encoder", {"infill": 0.3}, r"asks an encoder for infill and next_token; set masked\.rate to 1 and"),
        ("encoder", {"denoise_x": 1.0}, r"asks an encoder for denoise_x; set masked\.rate to 1"),
        ("encoder-decoder", {"denoise_r": 0.5}, r"asks an encoder-decoder for next_token; set infill\.rate to 0 and"),
        ("encoder", {"masked": 1.0}, None),
        ("encoder-decoder", {"denoise_r": 0.1, "denoise_s": 0.2, "denoise_x": 0.7}, None),
        ("decoder", {"infill": 0.3, "denoise_s": 0.7}, None),
    ],
)
def test_what_a_kind_of_model_cannot_be_asked_is_refused(kind: Kind, rates: dict[str, float], refused: str) -> None:
    found = configured(**rates).refusal(kind)
    assert (found is None) == (refused is None)
    if found is not None:
        with pytest.raises(ValueError, match=refused):
            raise ValueError(found)


def test_rates_above_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the rates \(infill 0\.8, masked 0\.5\) add up to 1\.3; at most 1"):
        validate({"infill": {"rate": 0.8}, "masked": {"rate": 0.5}}, ObjectivesConfig, "params.yaml", "objectives")


def test_a_tokenizer_that_lacks_what_objectives_need_is_refused(tmp_path: Path) -> None:
    vocabulary.write(vocabulary.learn(LEARNED, 300), tmp_path)
    with pytest.raises(DataError, match=r"no special tokens for spans \(vocabulary\.span_tokens\), which pretrain"):
        mixture(tmp_path, denoise_r=0.5)
    foreign = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "</s>": 2, "<extra_id_0>": 3}, merges=[]))
    foreign.add_special_tokens(["</s>", "<extra_id_0>"])
    foreign.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    lacking = r"no special tokens for fim_prefix, fim_middle, fim_suffix, mode_r, mode_x, which"
    with pytest.raises(DataError, match=lacking):
        mixture(tmp_path, infill=0.5, denoise_r=0.2, denoise_x=0.2)
    assert mixture(tmp_path, "encoder-decoder", denoise_r=1.0).denoisers[0].mode is None


def test_a_tokenizer_that_adds_a_space_to_each_part_is_refused_for_infilling(tokenizer: Path, tmp_path: Path) -> None:
    spaced = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    spaced.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    spaced.decoder = decoders.ByteLevel()
    spaced.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match=r"encoded in parts comes back as .*; infilling needs a tokenizer that adds no"):
        mixture(tmp_path, infill=0.3)
