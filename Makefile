# SPDX-License-Identifier: Apache-2.0
# The front door. Each target installs what the machine lacks (Debian packages, once) and then does its job.
#
#   make run        build everything and run CMD (a shell line; else a greeting) in a guest
#   make test       build and run all tests; SANITIZE=address,undefined or SANITIZE=thread for those
#   make lint       style, layering, static analysis
#   make format     let clang-format lay the code out
#   make bench      measure
#   make fuzz       every fuzz target for SECONDS (60)
#   make install    into PREFIX (/usr/local), below DESTDIR; with the guest kernels that are built
#   make clean      remove what was built here; caches stay
SANITIZE ?=
SECONDS ?= 60
CMD ?=
# A shell line as it stands: its dollars are the guest's.
override CMD := $(value CMD)
export CMD
PREFIX ?= /usr/local
DESTDIR ?=

comma := ,
build := build$(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))
# Only what sanitizers can see: the kernels and the emulated host are not ours to instrument.
tests := $(if $(SANITIZE),--no-boot)
quiet := $(if $(VERBOSE),,>$(build)/.log 2>&1 || { tail -n 60 $(build)/.log; exit 1; })

.PHONY: all run test lint format bench fuzz install clean
all: $(build)/build.ninja
	@ninja -C $(build) $(quiet)

$(build)/build.ninja:
	@scripts/need build
	@mkdir -p $(build)
	@meson setup $(build) "--prefix=$(PREFIX)" \
		$(if $(SANITIZE),-Db_sanitize=$(SANITIZE) -Db_lundef=false) $(quiet)

run: all
	@scripts/run $(build)

test: all
	@scripts/need test
	@$(if $(SANITIZE),,kernel/build all >/dev/null || true) # in sight, with progress; the tests say if it failed
	@scripts/test --build $(build) $(tests)

lint:
	@scripts/need lint
	@scripts/lint

format:
	@scripts/need lint
	@git ls-files '*.c' '*.h' | xargs clang-format -i

bench: all
	@scripts/need test
	@bench/run $(build)
	@bench/storage $(build)
	@bench/network $(build)
	@bench/sandbox $(build)

fuzz:
	@scripts/need fuzz
	@fuzz/run $(SECONDS)

install: all
	@meson configure $(build) "-Dprefix=$(PREFIX)" >/dev/null && ninja -C $(build) $(quiet)
	@DESTDIR="$(DESTDIR)" meson install -C $(build) --no-rebuild --quiet
	@for kernel in kvm-x86_64 uml; do \
		image=$$(kernel/build $$kernel --print-path 2>/dev/null) || \
			{ echo "the guest kernel $$kernel is not built, and so not installed: kernel/build $$kernel"; continue; }; \
		install -D -m 0755 "$$image" "$(DESTDIR)$(PREFIX)/lib/vial/kernel/$$kernel/$${image##*/}"; \
	done

clean:
	@rm -rf build build-*
