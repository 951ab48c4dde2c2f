"""What is done. Importing it sets what tools read when they are imported: telemetry off, Ray on loopback."""

from components.core.loopback import keep_ray_local
from components.core.telemetry import switch_off

switch_off()
keep_ray_local()
