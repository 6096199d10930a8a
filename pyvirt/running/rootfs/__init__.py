"""Making root file systems: what they are is in `pyvirt.rootfs`."""

from pyvirt.running.rootfs.look import require as require
from pyvirt.running.rootfs.prepare import Prepared as Prepared
from pyvirt.running.rootfs.prepare import prepare as prepare
