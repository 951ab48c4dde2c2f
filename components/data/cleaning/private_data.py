"""What counts as private data in source code.

email   an address of a mailbox: local@domain under a known top-level domain, of a person, a role or an example
ip      the address of one host, IPv4 or IPv6; not loopback, documentation ranges, networks and masks, nor versions
key     a value that opens something: a key or token by its form, a password in a URL, a random value that a name such
        as api_key or password is given. A value that says of itself that it is none (example, changeme, xxxx), a
        digest, an identifier or a public key is none.
name    a person in an author line (off unless asked for)

Each kind's module says what it does not cover.
"""

from functools import cache

from components.data.cleaning.private.api_keys import key_rules
from components.data.cleaning.private.names import name_rules
from components.data.cleaning.private.network_addresses import EMAIL, IPV4, IPV6
from components.data.cleaning.private.rule import Rule
from components.data.cleaning.private.secrets import secret_rules
from components.data.config import RedactConfig


@cache
def rules(config: RedactConfig) -> tuple[Rule, ...]:
    """The rules of the kinds asked for, in order of precedence: where two spans overlap, the earlier rule's stands."""
    everything = (
        *key_rules(),
        *secret_rules(config),
        EMAIL,
        IPV4,
        IPV6,
        *name_rules(copyright_names=config.copyright_names),
    )
    return tuple(rule for rule in everything if rule.kind in config.kinds)
