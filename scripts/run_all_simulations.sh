#!/usr/bin/env bash
# Checks every closed form over the published grids (49,315 configurations); ten minutes to an hour on two cores.
# Prints the table of errors and writes docs/simulation_results.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
.venv/bin/dslm simulate --grid full --json docs/simulation_results.json
