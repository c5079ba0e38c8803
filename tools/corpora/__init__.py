"""The texts that tools/prepare_*.py fetch for demos and tests: Wikipedia, prose in the public domain, verse tasks."""
