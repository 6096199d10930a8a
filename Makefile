# demo, test, bench and dev install what they miss and say what; a second run finds all in place.
PYTHON ?= python3
PYTEST ?= -n 2 --dist loadfile
FUZZ_SECONDS ?= 2

.NOTPARALLEL:
.PHONY: demo test bench dev csrc fuzz clean demo-packages test-packages bench-packages
.DEFAULT_GOAL := test

demo: demo-packages .venv/demo build/native
	@$(python) -m pyvirt.demo

test: test-packages .venv/test build/native csrc fuzz
	@$(python) -m ruff check
	@$(python) -m mypy
	@$(python) -m pytest $(PYTEST)

bench: test-packages bench-packages .venv/bench build/native
	@$(python) -m benchmarks

dev: test-packages .venv/dev build/native
	@echo "Ready: . .venv/bin/activate"

clean:
	rm -rf build dist *.egg-info pyvirt/_native/bin
	rm -f $(foreach door,$(wildcard pyvirt/_native/*.pyx),$(door:.pyx=.c) $(door:.pyx=.*.so))

# -- Debian packages --------------------------------------------------------------------------

# Another Python than Debian's brings its own headers and venv.
debian-python := $(filter /usr/bin/%,$(realpath $(shell command -v $(PYTHON))))
build-packages := gcc libc6-dev $(if $(debian-python),python3-dev python3-venv)
# The default guest fetches its kernel and busybox itself, which needs no root but apt's lists.
demo-packages := $(build-packages) qemu-system-x86 qemu-utils
# Machines, media and tools that the tests start for real, and sanitizers for the C.
test-packages := $(demo-packages) qemu-block-extra ovmf swtpm seabios iproute2 passt \
	grub-rescue-pc ipxe ipxe-qemu memtest86+ debian-installer-12-netboot-amd64 tesseract-ocr \
	clang llvm libclang-rt-dev \
	binutils bzip2 cpio kmod libarchive-tools lz4 xz-utils zstd \
	btrfs-progs cryptsetup-bin dosfstools e2fsprogs exfatprogs fdisk gdisk genisoimage lvm2 \
	fio iperf3 libcairo2 liblxc1 lxc mmdebstrap ntfs-3g parted squashfs-tools tshark uidmap umoci \
	util-linux xfsprogs
# Peers that only benchmarks run, and the library by which zlib is unpacked fastest.
bench-packages := libdeflate0 libnbd-bin

define install-missing
	@command -v apt-get >/dev/null || { echo "No apt-get here. Needed: $(1)"; exit 0; }; \
	present=" $$(dpkg-query -W -f='$${db:Status-Status}:$${Package} ' $(1) 2>/dev/null)"; \
	for package in $(1); do case "$$present" in \
		*" installed:$$package "*) ;; *) missing="$$missing $$package" ;; esac; done; \
	root() { if [ $$(id -u) = 0 ]; then "$$@"; else sudo "$$@"; fi; }; \
	apt() { root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$$@"; }; \
	get() { apt install --yes --no-install-recommends $$missing >/dev/null; }; \
	ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || \
		{ echo "Fetching apt's lists of packages"; apt update; }; \
	if [ -n "$$missing" ]; then \
		echo "Installing Debian packages:$$missing"; get || { apt update && get; }; fi
endef

demo-packages test-packages bench-packages:
	$(call install-missing,$($@))

# -- The virtual environment and the build ----------------------------------------------------

python := .venv/bin/python
pip := $(python) -m pip install --quiet --disable-pip-version-check
build-requirements := $(python) -c 'import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")'

$(python):
	$(call install-missing,$(build-packages))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pyvirt needs Python 3.11")'
	@echo "Making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv

.venv/demo .venv/test .venv/bench .venv/dev: .venv/%: pyproject.toml setup.py | $(python)
	@echo "Installing pyvirt with what $* needs into .venv"
	@$(build-requirements) | xargs $(pip)
	@$(pip) --no-build-isolation --editable '.$(if $(filter demo,$*),,[$*])'
	@touch $@

# An editable installation builds too, but everything, and only when pyproject.toml changes.
build/native: setup.py $(wildcard csrc/*.[ch] pyvirt/_native/*.pyx) \
		$(shell find csrc/programs -name '*.[ch]') | $(python)
	@$(python) setup.py --quiet build_ext --inplace
	@mkdir -p build && touch $@

# -- csrc without Python ----------------------------------------------------------------------

library := $(wildcard csrc/*.c)
headers := $(wildcard csrc/*.h csrc/tests/*.h)
checks := $(basename $(notdir $(wildcard csrc/tests/*.c)))
fuzzers := $(basename $(notdir $(shell grep -l LLVMFuzzerTestOneInput csrc/tests/*.c)))
strict := -std=c11 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Werror -Icsrc
sanitized := -fsanitize=address,undefined -fno-sanitize-recover=all
libfuzzer := $(shell clang -print-file-name=libclang_rt.fuzzer-x86_64.a 2>/dev/null | grep /)

csrc: $(checks:%=build/csrc/%)
	@for check in $^; do $$check || exit; done

# Begins with the seeds: inputs that together reach whatever was reached so far.
fuzz: $(if $(libfuzzer),$(fuzzers:%=build/fuzz/%))
	@for fuzzer in $^; do echo "fuzzing $${fuzzer##*/} for $(FUZZ_SECONDS) s"; \
		seeds=csrc/tests/seeds/$${fuzzer##*/test_}; [ -d $$seeds ] || seeds=; \
		mkdir -p $$fuzzer.corpus; \
		$$fuzzer -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/ $$fuzzer.corpus \
			$$seeds 2>$$fuzzer.log || { tail -50 $$fuzzer.log; exit 1; }; done

build/csrc/%: csrc/tests/%.c $(library) $(headers)
	@mkdir -p $(@D)
	@$(CC) $(strict) $(sanitized) $< $(library) -o $@

build/fuzz/%: csrc/tests/%.c $(library) $(headers)
	@mkdir -p $(@D)
	@clang $(strict) -DFUZZ $(sanitized) -fsanitize=fuzzer $< $(library) -o $@
