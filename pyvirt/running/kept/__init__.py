"""Containers that are kept: there whether they run or not, copied, put back, carried elsewhere."""

from pyvirt.running.kept.autostart import autostart as autostart
from pyvirt.running.kept.bases import prune as prune
from pyvirt.running.kept.kept import Kept as Kept
from pyvirt.running.kept.record import Snapshot as Snapshot
