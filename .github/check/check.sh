#!/usr/bin/env bash
# Runs the check that the inputs of action.yml ask for, and writes its comment. Inputs are words or lines, never code.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
result="${RUNNER_TEMP:-/tmp}/hwnas-check.md"
rm -f "$result"

baseline="${HWNAS_BASELINE:-}"
if [ -z "$baseline" ] && [ -n "${GITHUB_BASE_REF:-}" ]; then
  baseline="origin/$GITHUB_BASE_REF"
fi
command=(hwnas check run --threshold "${HWNAS_THRESHOLD:-5%}" --markdown "$result")
[ -n "$baseline" ] && command+=(--baseline "$baseline")
[ -n "${HWNAS_DEVICE:-}" ] && command+=(--device "$HWNAS_DEVICE")
while IFS= read -r line; do
  [ -n "$line" ] && command+=("$line")
done <<< "${HWNAS_ARGUMENTS:-}"
command+=(--)
while IFS= read -r line; do
  [ -n "$line" ] && command+=("$line")
done <<< "${HWNAS_MODELS:-}"

"${command[@]}"
code=$?
[ -n "${GITHUB_OUTPUT:-}" ] && echo "exit-code=$code" >> "$GITHUB_OUTPUT"
if [ "${HWNAS_COMMENT:-true}" = true ] && [ -s "$result" ]; then
  python "$here/comment.py" "$result"
fi
if [ "$code" = 3 ] && [ "${HWNAS_FAIL_ON_INCONCLUSIVE:-false}" != true ]; then
  code=0
fi
exit "$code"
