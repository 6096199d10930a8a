"""The kernel modules for all hardware that QEMU can give a PC, by the job they do.

A name that a kernel does not know is left out: each version builds in, renames or drops a few.
"""

from __future__ import annotations

BUS = ("virtio_pci", "virtio_mmio", "fw_cfg", "qemu_fw_cfg", "shpchp")
AGENT = ("virtio_pci", "virtio_console")
"""What the agent's own port needs: loaded before everything else."""

DISKS = (
    "virtio_blk", "virtio_scsi", "nvme", "ahci", "ata_piix", "ata_generic", "pata_acpi",
    "sd_mod", "sr_mod", "sg", "sym53c8xx", "am53c974", "megaraid_sas", "vmw_pvscsi",
    "mptspi", "mptsas", "usb_storage", "uas", "sdhci_pci", "mmc_block", "floppy",
    "nd_pmem", "virtio_pmem", "nfit", "loop",
)  # fmt: skip
NETWORK = (
    "virtio_net", "e1000", "e1000e", "igb", "igbvf", "8139cp", "8139too", "vmxnet3", "e100",
    "ne2k_pci", "pcnet32", "tulip", "cdc_ether", "rndis_host", "net_failover", "af_packet",
)  # fmt: skip
FILE_SYSTEMS = (
    "ext4", "vfat", "isofs", "udf", "9p", "9pnet_virtio", "virtiofs", "fuse", "overlay",
    "squashfs", "xfs", "btrfs", "nls_cp437", "nls_iso8859_1", "nls_ascii", "nls_utf8",
    "crc32c_generic", "crc32c_intel",
)  # fmt: skip
USB = ("xhci_pci", "ehci_pci", "uhci_hcd", "ohci_pci", "usbhid", "hid_generic", "usbserial")
OTHER = (
    "virtio_rng", "virtio_balloon", "virtio_mem", "virtio_input", "virtio_iommu",
    "vmw_vsock_virtio_transport", "tpm_tis", "tpm_crb", "i6300esb", "pvpanic_mmio",
    "pvpanic_pci", "pvpanic", "iTCO_wdt", "i2c_i801", "i2c_piix4", "psmouse", "evdev",
    "button", "rtc_cmos", "vmgenid", "ivshmem", "parport_pc", "ppdev", "lp", "pcspkr",
    "snd_hda_intel", "snd_intel8x0", "snd_ens1370", "snd_ens1371",
)  # fmt: skip
"""Without a modalias of their own, and so only loaded when asked for: ib700wdt, sb16 and
other ISA cards; they are here so that `modprobe` finds them."""
UNDETECTED = ("ib700wdt",)

EVERYTHING = (*AGENT, *BUS, *DISKS, *NETWORK, *FILE_SYSTEMS, *USB, *OTHER, *UNDETECTED)
