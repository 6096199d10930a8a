"""The words of every field of machine, processors, memory and firmware."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from pyvirt.machine import (
    CPU,
    DIMM,
    NVDIMM,
    OVMF,
    RTC,
    BiosInfo,
    Board,
    Cache,
    Chassis,
    IOThread,
    Locality,
    Machine,
    Memory,
    MemoryModule,
    NumaNode,
    Processor,
    QBoot,
    Rom,
    SeaBIOS,
    Smbios,
    System,
    VirtioMem,
    VirtioPmem,
)
from pyvirt.qemu.need import CopiedFile, Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At
from pyvirt.qemu.render import argv

AT = At("part0", {"bus": "port2.0", "addr": "0x0"})


def words(described, at: At | None = None) -> str:
    items = described.options(at) if at else described.options()
    return " ".join(argv(item for item in items if isinstance(item, Option)))


def case(described, expected: str, at: At | None = None):
    return pytest.param(described, expected, at, id=repr(described)[:60])


@pytest.mark.parametrize(
    ("described", "expected", "at"),
    [
        case(Machine(), "-machine q35"),
        case(Machine("pc-i440fx-7.2", acpi=False), "-machine pc-i440fx-7.2,acpi=off"),
        case(
            Machine(acpi=True, smm=True, vmport=False, hpet=False, usb=True, i8042=False),
            "-machine q35,acpi=on,smm=on,vmport=off,hpet=off,usb=on,i8042=off",
        ),
        case(
            Machine("pc", graphics=False, nvdimm=True, hmat=True, kernel_irqchip="split"),
            "-machine pc,graphics=off,nvdimm=on,hmat=on,kernel-irqchip=split",
        ),
        case(Machine(max_ram_below_4g="1G"), "-machine q35,max-ram-below-4g=1073741824"),
        case(
            Machine("microvm", pcie=True, properties={"rtc": True, "x-option-roms": False}),
            "-machine microvm,pcie=on,rtc=on,x-option-roms=off"
            " -global driver=virtio-mmio,property=force-legacy,value=off",
        ),
        case(
            Machine(rtc=RTC("localtime", clock="vm", driftfix="slew")),
            "-machine q35 -rtc base=localtime,clock=vm,driftfix=slew",
        ),
        case(
            Machine(rtc=RTC(datetime(2030, 5, 6, 7, 8, 9))),
            "-machine q35 -rtc base=2030-05-06T07:08:09,clock=host,driftfix=none",
        ),
        case(CPU(), "-smp 1"),
        case(CPU(2, "max"), "-cpu max -smp 2"),
        case(
            CPU(2, flags=["+avx2", "-hle", "sse4.2"], properties={"hv-time": True}),
            "-cpu qemu64,avx2=on,hle=off,sse4.2=on,hv-time=on -smp 2",
        ),
        case(
            CPU(2, "qemu64", sockets=2, dies=1, cores=2, threads=2, maximum=8),
            "-cpu qemu64 -smp 2,maxcpus=8,sockets=2,dies=1,cores=2,threads=2",
        ),
        case(CPU(4, pins={0: 1, 3: [0, 1]}), "-smp 4"),
        case(
            IOThread(
                "io0",
                poll_max_ns=100,
                poll_grow=2,
                poll_shrink=3,
                aio_max_batch=4,
                thread_pool_min=1,
                thread_pool_max=8,
                pins=1,
            ),
            '-object {"qom-type":"iothread","id":"io0","poll-max-ns":100,"poll-grow":2,'
            '"poll-shrink":3,"aio-max-batch":4,"thread-pool-min":1,"thread-pool-max":8}',
        ),
        case(
            Memory("1G"),
            '-m 1024M -object {"qom-type":"memory-backend-memfd","id":"ram0","size":1073741824,'
            '"share":true} -machine memory-backend=ram0',
        ),
        case(
            Memory("4104K", slots=4, maximum="1G", backend="anonymous"),
            '-m 4202496B,slots=4,maxmem=1024M -object {"qom-type":"memory-backend-ram",'
            '"id":"ram0","size":4202496,"share":false} -machine memory-backend=ram0',
        ),
        case(
            Memory(
                "64M",
                backend="file",
                path="/mem, here",
                share=False,
                prealloc=True,
                prealloc_threads=2,
                reserve=True,
                merge=False,
                dump=False,
                host_nodes=[0, 1],
                policy="interleave",
            ),
            '-m 64M -object {"qom-type":"memory-backend-file","id":"ram0",'
            '"mem-path":"/mem, here","size":67108864,"share":false,"prealloc":true,'
            '"prealloc-threads":2,"reserve":true,"merge":false,"dump":false,'
            '"host-nodes":[0,1],"policy":"interleave"} -machine memory-backend=ram0',
        ),
        case(
            Memory("64M", hugepages="2M"),
            '-m 64M -object {"qom-type":"memory-backend-memfd","id":"ram0","hugetlb":true,'
            '"hugetlbsize":2097152,"size":67108864,"share":true} -machine memory-backend=ram0',
        ),
        case(
            Memory(
                nodes=[
                    NumaNode("64M", cpus=[0, 1, 4], distances={1: 20}, host_nodes=[0]),
                    NumaNode("32M", cpus=[2, 3], initiator=0),
                    NumaNode(distances={0: 30, 1: 40}),
                ],
                hmat=[
                    Locality(0, 1, latency=10),
                    Locality(0, 0, bandwidth="1G", hierarchy="first-level", access="read"),
                    Cache(0, "10K", 2, associativity="direct", policy="write-back", line=32),
                ],
            ),
            '-m 96M -object {"qom-type":"memory-backend-memfd","id":"ram0","size":67108864,'
            '"share":true,"host-nodes":[0],"policy":"bind"} -object {"qom-type":'
            '"memory-backend-memfd","id":"ram1","size":33554432,"share":true} '
            "-numa node,nodeid=0,memdev=ram0,cpus=0-1,cpus=4 "
            "-numa node,nodeid=1,memdev=ram1,cpus=2-3,initiator=0 -numa node,nodeid=2 "
            "-numa dist,src=0,dst=1,val=20 -numa dist,src=2,dst=0,val=30 "
            "-numa dist,src=2,dst=1,val=40 -numa hmat-lb,initiator=0,target=1,"
            "hierarchy=memory,data-type=access-latency,latency=10 -numa hmat-lb,initiator=0,"
            "target=0,hierarchy=first-level,data-type=read-bandwidth,bandwidth=1073741824B "
            "-numa hmat-cache,node-id=0,size=10240B,level=2,associativity=direct,"
            "policy=write-back,line=32",
        ),
        case(
            DIMM("128M", node=1, number=2, backend="anonymous"),
            '-object {"qom-type":"memory-backend-ram","id":"part0-memory","size":134217728,'
            '"share":false} -device {"driver":"pc-dimm","id":"part0","memdev":"part0-memory",'
            '"slot":2,"node":1}',
            At("part0"),
        ),
        case(
            NVDIMM("/nv", "32M", label_size="128K", readonly=True, pmem=True, node=0),
            '-object {"qom-type":"memory-backend-file","id":"part0-memory","mem-path":"/nv",'
            '"size":33554432,"share":true,"readonly":true,"pmem":true} -device {"driver":'
            '"nvdimm","id":"part0","memdev":"part0-memory","label-size":131072,"node":0,'
            '"unarmed":true}',
            At("part0"),
        ),
        case(
            VirtioPmem("/nv", "32M", share=False),
            '-object {"qom-type":"memory-backend-file","id":"part0-memory","mem-path":"/nv",'
            '"size":33554432,"share":false} -device {"driver":"virtio-pmem-pci","id":"part0",'
            '"memdev":"part0-memory","bus":"port2.0","addr":"0x0"}',
            AT,
        ),
        case(
            VirtioMem("64M", requested="16M", block_size="4M", node=0),
            '-object {"qom-type":"memory-backend-memfd","id":"part0-memory","size":67108864,'
            '"share":true,"reserve":false} -device {"driver":"virtio-mem-pci","id":"part0",'
            '"memdev":"part0-memory","requested-size":16777216,"block-size":4194304,"node":0,'
            '"bus":"port2.0","addr":"0x0"}',
            AT,
        ),
        case(Rom("/roms/my, rom"), "-bios /roms/my, rom"),
        case(SeaBIOS(), "-bios bios-256k.bin"),
        case(QBoot(), "-bios qboot.rom"),
        case(
            OVMF(code="/c.fd", template="/v.fd"),
            '-blockdev {"driver":"raw","node-name":"firmware-code","file":{"driver":"file",'
            '"filename":"/c.fd"},"read-only":true} -blockdev {"driver":"raw","node-name":'
            '"firmware-vars","file":{"driver":"file","filename":"<firmware>"}} '
            "-machine pflash0=firmware-code,pflash1=firmware-vars",
        ),
        case(
            OVMF(secure_boot=True),
            '-blockdev {"driver":"raw","node-name":"firmware-code","file":{"driver":"file",'
            '"filename":"<firmware.code>"},"read-only":true} -blockdev {"driver":"raw",'
            '"node-name":"firmware-vars","file":{"driver":"file","filename":'
            '"<firmware.vars>"}} -machine pflash0=firmware-code,pflash1=firmware-vars '
            "-machine smm=on -global driver=cfi.pflash01,property=secure,value=on",
        ),
        case(
            Smbios(
                bios=BiosInfo(
                    vendor="v", version="1,2", date="01/02/2003", release="4.5", uefi=True
                ),
                system=System(
                    manufacturer="m", product="p", version="v", serial="s", sku="k", family="f"
                ),
                board=Board(
                    manufacturer="m", product="p", version="v", serial="s", asset="a", location="l"
                ),
                chassis=Chassis(manufacturer="m", version="v", serial="s", asset="a", sku="k"),
                processor=Processor(
                    sock_pfx="S", manufacturer="m", version="v", serial="s", asset="a", part="p",
                    max_speed=3000, current_speed=2000,
                ),
                strings=["one", "two, three"],
                memory=MemoryModule(
                    loc_pfx="D", bank="b", manufacturer="m", serial="s", asset="a", part="p",
                    speed=3200,
                ),
            ),
            "-smbios type=0,vendor=v,version=1,,2,date=01/02/2003,release=4.5,uefi=on "
            "-smbios type=1,manufacturer=m,product=p,version=v,serial=s,sku=k,family=f "
            "-smbios type=2,manufacturer=m,product=p,version=v,serial=s,asset=a,location=l "
            "-smbios type=3,manufacturer=m,version=v,serial=s,asset=a,sku=k "
            "-smbios type=4,sock_pfx=S,manufacturer=m,version=v,serial=s,asset=a,part=p,"
            "max-speed=3000,current-speed=2000 "
            "-smbios type=11,value=one -smbios type=11,value=two,, three "
            "-smbios type=17,loc_pfx=D,bank=b,manufacturer=m,serial=s,asset=a,part=p,speed=3200",
        ),
    ],
)
def test_words(described, expected, at):
    assert words(described, at) == expected


def test_a_variable_store_is_kept_where_the_user_said():
    given = OVMF(code="/c.fd", template="/v.fd", store="/mine.fd")
    (need,) = (item for item in given.options() if isinstance(item, Need))
    assert need == CopiedFile("firmware", Path("/v.fd"), Path("/mine.fd"))


def test_sources_name_fields():
    sources = [option.source for option in Memory("64M").options()]
    assert sources == ["size", "", "backend"]
    assert [o.source for o in CPU(2, "max").options()] == ["model", "count"]
