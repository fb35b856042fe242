# An index of commands; nothing in the README needs make.
.PHONY: install test slow lint main reference

install:          ## into the current environment, with the tested versions
	python -m pip install -c constraints.txt -e ".[test]"

main:             ## the main job: a fine-tuned classifier and its report in minutes
	minibert run reuters8

test:             ## the fast tests
	python -m pytest -n auto

slow:             ## every test that this machine can run
	python -m pytest -n auto -m "slow or browser or reference or gpu"

lint:             ## style
	ruff check .
	ruff format --check .

reference:        ## write the stored reference tensors again (needs the extra `peers`)
	python tests/reference/make_reference.py
	python -m tests.reference.make_goldens
