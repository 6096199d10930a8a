"""The kernel command line of the default guest: every word is there because it was measured.

CPU milliseconds to the agent's first answer that a word saves on TCG (q35 -nodefaults,
256 MiB, one CPU, Debian's Linux 6.1, least of 5 to 7 interleaved boots of 1.2 to 1.5 s):

    cryptomgr.notests       250   ciphers test themselves when they are registered
    nolapic_timer           210   the timer is measured for 100 ms of wall-clock time (`timer`)
    rodata=off              100   page attributes are changed, and searched for mistakes
    load_system_certificate_list   55   keys for signatures that the modules do not have
    crypto_kdf108_init       30   a self-test that cryptomgr.notests does not spare

Tried, and within the noise: tsc_early_khz=, lpj=, noreplace-smp, nosmp, audit=0 with no
security module, rcupdate.rcu_expedited=1 (slower).
"""

from __future__ import annotations

_WORDS = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # a panic is a reset at once, which the host sees
    "mitigations=off",
    "init_on_alloc=0",
    "cryptomgr.notests",
    "rodata=off",
    "initcall_blacklist=crypto_kdf108_init,load_system_certificate_list",
    "memhp_default_state=online_movable",  # so that a DIMM plugged later can be unplugged
    "usb_storage.delay_use=0",  # otherwise every USB disk comes a second later
    "sym53c8xx.settle=0",  # ... and a SCSI bus is left alone for three seconds
    "esp_scsi.esp_bus_reset_settle=0",
)


def append(extra: str = "") -> str:
    """The kernel command line of a default guest, with the user's *extra* words last."""
    return " ".join((*_WORDS, *extra.split()))


def timer(accel: str) -> tuple[str, ...]:
    """Words for a board that wires its timer as PCs do; there is no need to check that.

    A microvm does not: QEMU gives the timer another pin of the interrupt controller than the
    one that Linux takes for it, so there Linux must check, and use its local timer. Elsewhere
    that one is better under KVM only.
    """
    return ("no_timer_check", "nolapic_timer") if accel == "tcg" else ("no_timer_check",)


def tsc(khz: int) -> str:
    """The frequency of the time-stamp counter, without which a microvm on TCG hangs at times.

    It has no other clock to measure it against, and the measurement may never end.
    """
    return f"tsc_early_khz={khz}"


def initrd_at(address: int, size: int) -> tuple[str, str]:
    """The words for an initramfs of *size* bytes that lies at *address* in guest memory."""
    pages = -(-size // 4096) * 4096
    return f"initrdmem={address:#x},{size}", f"memmap={pages}${address:#x}"


def quiet_ports() -> str:
    """A word more for guests with many PCI Express ports.

    Each port takes an interrupt vector for its own events, and a vCPU has some 200 for all:
    with 72 ports every second card of 32 found none left. Plugging goes through ACPI.
    """
    return "pcie_ports=compat"


def ip(mac: str, address: str, gateway: str = "", server: str = "") -> str:
    """The word that gives the interface *mac* ("*": every one) its IPv4 address at once.

    *address* has its prefix (``10.0.2.15/24``); without this word the guest asks by DHCP.
    """
    return f"pyvirt.ip={mac},{address},{gateway},{server}"
