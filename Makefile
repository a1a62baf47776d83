# Everything that is downloaded or built lies in the cache folder, outside the repository.
CACHE := $(or $(KSB_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keystone-broker)
export KSB_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-releases bench fuzz lint stack-up stack-down

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: ## sign in to a real local cloud through a browser, then use openstack, rclone and OpenTofu
	@tests/demo

test: ## run every test: linters, the fast ones, and those on the real stack
	@tests/run all

test-fast: ## run the tests that need no stack
	@tests/run fast

test-releases: ## run the main jobs on Keystones and with clients of other releases
	@tests/run releases

bench: ## measure and print a table (needs the stack, brings it up)
	@tests/run bench

fuzz: ## feed what reads foreign bytes with anything, FUZZ_SECONDS each (300)
	@tests/run fuzz

lint: ## rustfmt, clippy, cargo-deny, cargo-shear, ruff, mypy
	@tests/run lint

stack-up: ## start the real cloud that demo and test use
	@tests/stack/stack up

stack-down: ## end it again
	@tests/stack/stack down
