"""Fit L(N, D) = E + A / N^alpha + B / D^beta to measured runs, and say how sure that is. Only numpy.

Method of Hoffmann et al. 2022 (arXiv:2203.15556, section D.3) as mended by Besiroglu et al. 2024 (arXiv:2404.10102):
the sum, not the mean, of Huber losses of log L, minimised from a grid of starts down to a tight tolerance.
All starts and draws are minimised at once, as columns: L-BFGS one by one took 190 s for 400 draws.
Intervals come from residuals drawn again onto the fitted curve, wider by sqrt(n / (n - 5)) for the five numbers that
were fitted: drawing whole runs again would leave some of so few sizes without any.
Covers: the noise of the runs, with Student's t for how few they are, and the error that the fit made on the largest
run when it had not seen it.  Not covered: a law of another form beyond the measured sizes; with few small runs E is
hardly determined, as its interval shows.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.training.planning.laws import Law

Array = NDArray[np.float64]
HUBER_DELTA = 1e-3  # Hoffmann et al.: robust to the odd run
FITTED_NUMBERS = 5
MINIMUM_RUNS = FITTED_NUMBERS + 1
EXPONENTS = (0.05, 2.0)
ITERATIONS = 150
LARGEST_LOG = 200.0
T_DRAWS = 1000
TOLERANCE = 1e-10
TINY = 1e-12
LOWEST_SHARE = 1e-3  # of the least loss: E stays above it, since a text has some entropy
START_SHARES = (0.2, 0.6, 0.9)  # of the least loss, for E
START_EXPONENTS = (0.2, 0.5, 1.0)
# Logarithms of both terms at the mean run, log E, alpha, beta.
A_AT, B_AT, E_AT, ALPHA_AT, BETA_AT = range(FITTED_NUMBERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run: parameters, training tokens, and the held-out loss at its end."""

    parameters: float
    tokens: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with the range that holds it in `confidence` of the draws."""

    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A law, its draws (each a law), and the relative spread of runs around it, known from `freedom` runs too many."""

    law: Law
    draws: tuple[Law, ...]
    spread: float
    freedom: int
    held_back: tuple[Run, Interval] | None = None

    def predict(self, parameters: float, tokens: float, confidence: float = 0.9) -> Interval:
        """Loss of one run that has not been made: the law's own uncertainty and a run's spread around it."""
        logs = np.log([each.loss(parameters, tokens) for each in self.draws])
        # Student's t, because the spread itself is known from few runs: with normal quantiles a law of six runs missed
        # the seventh. A generator of a fixed seed: the same figure twice.
        errors = np.random.default_rng(0).standard_t(self.freedom, size=T_DRAWS)
        outcomes = (logs[:, None] + self.spread * errors[None, :]).ravel()
        low, high = np.exp(np.quantile(outcomes, [(1 - confidence) / 2, (1 + confidence) / 2]))
        value = self.law.loss(parameters, tokens)
        return Interval(low=float(min(low, value)), value=value, high=float(max(high, value)))

    def interval(self, name: str, confidence: float = 0.9) -> Interval:
        """One of the law's numbers: irreducible, a, alpha, b or beta."""
        values = [getattr(each, name) for each in self.draws]
        low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
        return Interval(low=float(low), value=float(getattr(self.law, name)), high=float(high))


def fit(runs: list[Run], *, source: str, draws: int = 200, seed: int = 0) -> Fitted:
    """The law of the runs. The largest (by N D) is first held back and predicted from the others.

    Raises ValueError with what is missing when five numbers cannot be told from these runs.
    """
    check(runs)
    law, residuals = _fit_once(runs, source)
    spread = float(np.sqrt(np.sum(residuals**2) / (len(runs) - FITTED_NUMBERS)))
    held_back = _held_back(runs, source, draws, seed)
    if held_back is not None:
        run, predicted = held_back
        spread = max(spread, abs(float(np.log(run.loss / predicted.value))))
    return Fitted(
        law=law,
        draws=_draws(runs, law, residuals, draws, seed),
        spread=spread,
        freedom=len(runs) - FITTED_NUMBERS,
        held_back=held_back,
    )


def check(runs: list[Run]) -> None:
    """Raise ValueError unless there are six runs with two sizes and two lengths."""
    sizes, lengths = len({each.parameters for each in runs}), len({each.tokens for each in runs})
    if len(runs) < MINIMUM_RUNS or sizes < 2 or lengths < 2:
        raise ValueError(
            f"found {len(runs)} finished runs of {sizes} sizes and {lengths} lengths; five numbers need at least "
            f"{MINIMUM_RUNS} runs of 2 sizes and 2 lengths: give the fit more minutes"
        )


def _held_back(runs: list[Run], source: str, draws: int, seed: int) -> tuple[Run, Interval] | None:
    """The largest run and what the others say of it; None when they are too few without it."""
    largest = max(runs, key=lambda each: each.parameters * each.tokens)
    others = [each for each in runs if each is not largest]
    try:
        check(others)
    except ValueError:
        return None
    law, residuals = _fit_once(others, source)
    spread = float(np.sqrt(np.sum(residuals**2) / (len(others) - FITTED_NUMBERS)))
    fitted = Fitted(
        law=law, draws=_draws(others, law, residuals, draws, seed), spread=spread, freedom=len(others) - FITTED_NUMBERS
    )
    return largest, fitted.predict(largest.parameters, largest.tokens)


def _draws(runs: list[Run], law: Law, residuals: Array, draws: int, seed: int) -> tuple[Law, ...]:
    """Laws fitted to the curve with residuals drawn again, all at once, each from the fitted law on."""
    generator = np.random.default_rng(seed)
    shape = (draws, len(runs))
    wider = residuals * math.sqrt(len(runs) / (len(runs) - FITTED_NUMBERS))
    noise = generator.choice(wider, size=shape) * generator.choice((-1.0, 1.0), size=shape)
    table = _Table.of(runs)
    curve = np.log([law.loss(each.parameters, each.tokens) for each in runs])
    points, _ = _minimise(np.tile(table.point(law), (draws, 1)), table, curve + noise)
    return tuple(table.law(each, law.source) for each in points)


def _fit_once(runs: list[Run], source: str) -> tuple[Law, Array]:
    """The law of least sum, and the residuals of log L, shape (runs,)."""
    table = _Table.of(runs)
    starts = _starts(float(table.log_loss.min()))
    points, sums = _minimise(starts, table, np.tile(table.log_loss, (len(starts), 1)))
    law = table.law(points[int(np.argmin(sums))], source)
    return law, table.log_loss - np.log([law.loss(each.parameters, each.tokens) for each in runs])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Logarithms of the runs, shape (R,), N and D from their means: a law's terms at the mean run are far better
    conditioned than those at one parameter and one token, six decades off."""

    log_n: Array
    log_d: Array
    log_loss: Array
    centre_n: float
    centre_d: float

    @classmethod
    def of(cls, runs: list[Run]) -> Self:
        """The table of some runs."""
        log_n, log_d, log_loss = (
            np.log([getattr(run, name) for run in runs]) for name in ("parameters", "tokens", "loss")
        )
        centre_n, centre_d = float(log_n.mean()), float(log_d.mean())
        return cls(
            log_n=log_n - centre_n, log_d=log_d - centre_d, log_loss=log_loss, centre_n=centre_n, centre_d=centre_d
        )

    def point(self, law: Law) -> Array:
        """A law as the five numbers that are fitted."""
        size = math.log(law.a) - law.alpha * self.centre_n
        length = math.log(law.b) - law.beta * self.centre_d
        return np.array([size, length, math.log(law.irreducible), law.alpha, law.beta])

    def law(self, point: Array, source: str) -> Law:
        """The five numbers as a law, with the range of these runs."""
        return Law(
            source=source,
            irreducible=math.exp(point[E_AT]),
            a=math.exp(point[A_AT] + point[ALPHA_AT] * self.centre_n),
            alpha=float(point[ALPHA_AT]),
            b=math.exp(point[B_AT] + point[BETA_AT] * self.centre_d),
            beta=float(point[BETA_AT]),
            parameters=(math.exp(self.log_n.min() + self.centre_n), math.exp(self.log_n.max() + self.centre_n)),
            tokens=(math.exp(self.log_d.min() + self.centre_d), math.exp(self.log_d.max() + self.centre_d)),
        )


def _starts(least: float) -> Array:
    """What E does not explain of the least loss is shared by both terms evenly. Shape (27, 5)."""
    return np.array(
        [
            [least + math.log((1 - share) / 2)] * 2 + [least + math.log(share), alpha, beta]
            for share, alpha, beta in itertools.product(START_SHARES, START_EXPONENTS, START_EXPONENTS)
        ]
    )


def _minimise(points: Array, table: _Table, log_loss: Array) -> tuple[Array, Array]:
    """P problems at once by Levenberg and Marquardt's steps on reweighted squares, which never raise a Huber sum.

    points (P, 5), log_loss (P, R). Numbers at a bound stay there while the slope points outwards. Returns the points
    and their sums.
    """
    least = log_loss.min(axis=1)
    low = np.stack([np.full_like(least, each) for each in (-np.inf, -np.inf, 0.0, EXPONENTS[0], EXPONENTS[0])], axis=1)
    high = np.stack([np.full_like(least, each) for each in (np.inf, np.inf, 0.0, EXPONENTS[1], EXPONENTS[1])], axis=1)
    low[:, E_AT], high[:, E_AT] = least + math.log(LOWEST_SHARE), least
    points = np.clip(points, low, high)
    damping = np.full(len(points), 1e-2)
    residuals, slopes = _residuals(points, table, log_loss)
    sums = _huber_sums(residuals)
    for _ in range(ITERATIONS):
        weights = 1 / np.maximum(1.0, np.abs(residuals))
        gradient = np.einsum("prk,pr->pk", slopes, weights * residuals)
        held = ((points <= low) & (gradient > 0)) | ((points >= high) & (gradient < 0))
        slopes = np.where(held[:, None, :], 0.0, slopes)
        curvature = np.einsum("prk,pr,prl->pkl", slopes, weights, slopes)
        diagonal = np.einsum("pkk->pk", curvature)
        curvature = curvature + np.einsum("pk,kl->pkl", damping[:, None] * diagonal + TINY, np.eye(FITTED_NUMBERS))
        step = np.linalg.solve(curvature, np.where(held, 0.0, gradient)[..., None])[..., 0]
        tried = np.clip(points - step, low, high)
        tried_residuals, _ = _residuals(tried, table, log_loss)
        tried_sums = _huber_sums(tried_residuals)
        better = tried_sums < sums
        gained = np.where(better, sums - tried_sums, 0.0)
        points = np.where(better[:, None], tried, points)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-12, 1e12)
        sums = np.where(better, tried_sums, sums)
        residuals, slopes = _residuals(points, table, log_loss)
        if (gained <= TOLERANCE * sums).all() and ((damping >= 1e12) | better).all():
            break
    return points, sums


def _residuals(points: Array, table: _Table, log_loss: Array) -> tuple[Array, Array]:
    """(predicted - found) log L in units of Huber's bend, (P, R), and their slopes by the five numbers, (P, R, 5)."""
    size = points[:, [A_AT]] - points[:, [ALPHA_AT]] * table.log_n
    length = points[:, [B_AT]] - points[:, [BETA_AT]] * table.log_d
    logs = np.stack([size, length, np.broadcast_to(points[:, [E_AT]], size.shape)], axis=-1)
    terms = np.exp(
        np.clip(logs, -LARGEST_LOG, LARGEST_LOG)
    )  # a step too far is refused for its sum, not by an overflow
    total = terms.sum(axis=-1)
    shares = terms / total[..., None]
    slopes = np.concatenate([shares, -shares[..., :2] * np.stack([table.log_n, table.log_d], axis=-1)], axis=-1)
    return (np.log(total) - log_loss) / HUBER_DELTA, slopes / HUBER_DELTA


def _huber_sums(residuals: Array) -> Array:
    bent = np.clip(residuals, -1.0, 1.0)
    total: Array = np.sum(bent * (residuals - bent / 2), axis=1)
    return total
