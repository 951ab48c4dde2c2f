"""What is done. Importing it sets what tools read when they are imported: no telemetry, loopback, private caches."""

from components.core.loopback import keep_local
from components.core.telemetry import switch_off

switch_off()
keep_local()
