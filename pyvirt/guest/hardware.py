"""The kernel modules for all hardware that QEMU can give a PC, by the job they do.

A name that a kernel does not know is left out: each version builds in, renames or drops a few.
"""

from __future__ import annotations

AGENT = ("virtio_pci", "virtio_console")
"""What the agent's own port needs: loaded before everything else."""

BUS = ("virtio_mmio", "qemu_fw_cfg", "button")
DISKS = (
    "virtio_blk", "virtio_scsi", "nvme", "ahci", "ata_piix", "ata_generic", "sd_mod", "sr_mod",
    "sg", "sym53c8xx", "am53c974", "megaraid_sas", "vmw_pvscsi", "mptspi", "mptsas",
    "usb_storage", "uas", "sdhci_pci", "mmc_block", "floppy", "nd_pmem", "virtio_pmem", "nfit",
    "loop",
)  # fmt: skip
NETWORK = (
    "virtio_net", "e1000", "e1000e", "igb", "igbvf", "8139cp", "8139too", "vmxnet3", "e100",
    "ne2k_pci", "pcnet32", "tulip", "cdc_ether", "rndis_host",
)  # fmt: skip
FILE_SYSTEMS = (
    "ext4", "vfat", "isofs", "udf", "9p", "9pnet_virtio", "virtiofs", "fuse", "overlay",
    "squashfs", "nls_cp437", "nls_iso8859_1", "nls_ascii", "nls_utf8", "crc32c_generic",
    "crc32c_intel",
)  # fmt: skip
USB = ("xhci_pci", "ehci_pci", "uhci_hcd", "ohci_pci", "usbhid", "hid_generic", "usbserial")
OTHER = (
    "virtio_rng", "virtio_balloon", "virtio_mem", "virtio_input", "virtio_iommu",
    "vmw_vsock_virtio_transport", "tpm_tis", "tpm_crb", "i6300esb", "pvpanic_mmio",
    "pvpanic_pci", "pvpanic", "evdev", "rtc_cmos", "vmgenid",
)  # fmt: skip

DORMANT = ("psmouse", "iTCO_wdt", "i2c_i801", "ib700wdt", "parport_pc", "pcspkr")
"""There for modprobe, and not loaded for hardware: it is in every PC and seldom asked for
(the mouse alone takes 0.4 s to probe under TCG), or cannot be detected."""

EVERYTHING = (*AGENT, *BUS, *DISKS, *NETWORK, *FILE_SYSTEMS, *USB, *OTHER, *DORMANT)
