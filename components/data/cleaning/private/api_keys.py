"""Keys and tokens that have a form of their own, and passwords in URLs.

Covers: the forms that detect-secrets knows, newer ones, private-key blocks, and the password of `scheme://user:it@host`.
Not covered: keys that only the name of their variable gives away; these are in secrets.

Where a pattern of detect-secrets takes more than the secret, less than it, or quadratic time on a long line (Azure,
npm, JWT, OpenAI, basic auth), a pattern of ours takes its place.
"""

import re
from collections.abc import Iterator

from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

from components.data.cleaning.private.rule import Accept, Rule, always, stands_alone, words
from components.data.cleaning.private.stand_ins import is_stand_in

# Forms that detect-secrets 1.5 does not know, or knows with more around them.
_FORMS = {
    "anthropic_or_openai": r"sk-(?:ant|proj|svcacct|admin)-[A-Za-z0-9_\-]{40,200}",
    "artifactory": r"AKC[a-zA-Z0-9]{20,}",
    "azure_account_key": r"(?:AccountKey|SharedAccessKey)=([a-zA-Z0-9+/]{40,90}={0,2})",
    "databricks": r"dapi[a-f0-9]{32}",
    "digitalocean": r"do[opr]_v1_[a-f0-9]{64}",
    "docker_hub": r"dckr_pat_[A-Za-z0-9_\-]{27}",
    "github_fine_grained": r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}",
    "google_api": r"AIza[0-9A-Za-z_\-]{35}",
    "google_oauth": r"GOCSPX-[A-Za-z0-9_\-]{28}|ya29\.[A-Za-z0-9_\-]{40,200}",
    "grafana": r"glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}",
    "hugging_face": r"hf_[A-Za-z0-9]{34}",
    "linear": r"lin_api_[A-Za-z0-9]{40}",
    "mailgun": r"key-[0-9a-f]{32}",
    "npm": r"npm_[A-Za-z0-9]{36}",
    "npm_registry": r"/:_authToken=[ \t]{0,4}([A-Fa-f0-9\-]{36})",
    "openai": r"sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}",
    "shopify": r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    "stripe_test_or_webhook": r"[rs]k_test_[0-9a-zA-Z]{24,99}|whsec_[A-Za-z0-9+/]{32,64}",
    "telegram": r"(?:bot)?(\d{8,10}:[0-9A-Za-z_\-]{35})",
    "vault": r"hv[sbr]\.[A-Za-z0-9_\-]{24,200}",
}
# Those of detect-secrets that need no mending: (name, detector, whether a digit must be in it, hint where the pattern
# itself would not be one).
_DETECTORS = (
    ("discord", DiscordBotTokenDetector, True, r"[A-Za-z\d_-]\.[A-Za-z\d_-]{6}\.[A-Za-z\d_-]{27}"),
    ("github", GitHubTokenDetector, False, ""),
    ("gitlab", GitLabTokenDetector, False, "gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-|GR1348941"),
    ("mailchimp", MailchimpDetector, True, ""),
    ("pypi", PypiTokenDetector, False, ""),
    ("sendgrid", SendGridDetector, False, ""),
    ("slack", SlackDetector, False, r"(?i)xox[abposr]-|hooks\.slack\.com"),
    ("square", SquareOAuthDetector, False, ""),
    ("stripe", StripeDetector, False, ""),
    ("twilio", TwilioKeyDetector, True, ""),
)
_KEY_HEADER = r"-----BEGIN ([A-Z0-9 ]{0,20}PRIVATE KEY(?: BLOCK)?)-----"
_PRIVATE_KEY = re.compile(
    rf"{_KEY_HEADER}(?:[^-]*(?:-(?!----)[^-]*)*-----END \1-----|(?:(?:\\[nr]|[\s\"'+])*[A-Za-z0-9+/=]{{40,}})+)"
)
# The first dot comes after the header, so a run without dots is read once.
_JWT = re.compile(r"(?<![A-Za-z0-9_\-.])eyJ[A-Za-z0-9_\-]{10,}={0,2}\.[A-Za-z0-9_\-]{4,}={0,2}(?:\.[A-Za-z0-9_\-]+)?")
_URL_PASSWORD = re.compile(r"://[^\s/:@\"'<>{}$]{0,64}:([^\s/@\"'<>{}`,]{3,128})@(?=[A-Za-z0-9\[])")
_STAND_INS = words("tiger guest redacted port")


def _has_digit(match: re.Match[str]) -> bool:
    return stands_alone(match) and re.search(r"\d", match.group()) is not None


def _is_jwt(match: re.Match[str]) -> bool:
    return bool(JwtTokenDetector.is_formally_valid(match.group()))


def _is_key_block(match: re.Match[str]) -> bool:
    """With the key's own base64 in it: programs that read keys name the header alone, and texts leave it out (...)."""
    return "..." not in match.group() and re.search(r"[A-Za-z0-9+/=]{40}", match.group()) is not None


def _is_password(match: re.Match[str]) -> bool:
    """Not a place where a password would be put in, as in `://user:{password}@host` and `://user:password@host`, and
    not a default that everybody knows, as in `://guest:guest@host` and `://scott:tiger@host`."""
    password = match[1]
    if match.string[: match.start(1) - 1].endswith(f"/{password}") or password.lower() in _STAND_INS:
        return False
    if re.fullmatch(r"[A-Za-z_.\-]*|\d{1,5}|[$%\[].*", password):
        return False  # words, a port, or what a program puts in
    return not is_stand_in(password) and not re.search(r"[{}<>*\\]|%[^0-9A-F]", password)


def _rule(name: str, pattern: str | re.Pattern[str], accept: Accept, *, hint: str = "", group: int = 0) -> Rule:
    """A rule for keys. The hint is the pattern itself where both regex engines read it alike."""
    compiled = re.compile(pattern)
    return Rule(name=name, kind="key", hint=hint or compiled.pattern, pattern=compiled, accept=accept, group=group)


def key_rules() -> Iterator[Rule]:
    """The rules for keys by their form."""
    yield Rule(
        name="private_key",
        kind="key",
        hint="-----BEGIN [A-Z0-9 ]*PRIVATE KEY",
        pattern=_PRIVATE_KEY,
        accept=_is_key_block,
        spans_lines=True,
    )
    yield _rule("aws_key_id", AWSKeyDetector.denylist[0], stands_alone)
    aws_hint = r"(?i)aws.{0,20}(?:key|pwd|pw|password|pass|token)"
    yield _rule("aws_secret", AWSKeyDetector.denylist[1], always, hint=aws_hint, group=1)
    for name, form in _FORMS.items():
        yield _rule(name, form, stands_alone, group=re.compile(form).groups)
    for name, detector, digit, hint in _DETECTORS:
        for pattern in detector.denylist:
            yield _rule(name, pattern, _has_digit if digit else stands_alone, hint=hint)
    yield _rule("jwt", _JWT, _is_jwt, hint=r"eyJ[A-Za-z0-9_\-]{10,}={0,2}\.")
    yield _rule("url_password", _URL_PASSWORD, _is_password, hint=r"://[^\s/:@]{0,64}:[^\s/@]{3,128}@", group=1)
