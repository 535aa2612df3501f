# perf_test.sh LIBONNXRUNTIME < JOBS: does the jobs of hwnas-runner (see runner.c) by onnxruntime_perf_test, which lies
# beside the library. It has no `#!`: Debian's shell and Android's lie in different places, and execvp takes either.
#
# A process a job: the graph is loaded anew for each. It does not tell which provider took which node.
exec 9<> runner.lock
flock -n 9 || { echo "runner.lock is taken" >&2; exit 75; }
program=${1%/*}/onnxruntime_perf_test
tab=$(printf '\t')
provider=cpu options= entries= threads=0

answer() { # answer FILE < JSON
  cat > "$1.part" && mv "$1.part" "$1" && echo "done $1"
}

refuse() { # refuse FILE < LOG: its last line is the reason
  reason=$(grep . | tail -n 1 | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')
  printf '{"error": "%s"}\n' "$reason" | answer "$1"
}

perf_test() { # perf_test GRAPH RUNS LIMIT_S: adds a line a run to samples.csv; what it prints lies in perf_test.log
  set -- "$3" "$program" -e "$provider" -C "$entries" -x "$threads" -y 1 -m times -r "$2" -I ${options:+-i "$options"} \
    "$1" samples.csv
  timeout -s KILL "$@" < /dev/null > perf_test.log 2>&1
  code=$?
  case $code in
  0) return 0 ;;
  124 | 137) exit 142 ;; # as if by SIGALRM: it took longer than LIMIT_S
  255) return 1 ;; # what it returns where ONNX Runtime refuses something
  *) exit $code ;;
  esac
}

load() { # load GRAPH LIMIT_S FILE
  rm -f samples.csv
  perf_test "$1" 1 "$2" || { refuse "$3" < perf_test.log; return; }
  awk -F '[, ]' '
    /^Session creation time cost/ { load_ms = 1000 * $(NF - 1) }
    /^First inference time cost/ { first_ms = $(NF - 1) }
    FILENAME == "samples.csv" && NF == 5 { peak = $3 }
    END {
      printf "{\"load_ms\": %.3f, \"first_run_ms\": %.3f, \"peak_memory_bytes\": %d, ", load_ms, first_ms, peak
      print "\"placement\": null}"
    }' perf_test.log samples.csv | answer "$3"
}

run() { # run GRAPH RUNS SECONDS LIMIT_S FILE
  rm -f samples.csv
  more=$2
  while [ "$more" -gt 0 ]; do
    perf_test "$1" "$more" "$4" || { refuse "$5" < perf_test.log; return; }
    more=$(awk -F , -v runs="$2" -v seconds="$3" '
      NF == 5 { count++; total_s += $2 }
      END {
        if (!count) print 0
        else if (total_s < seconds) printf "%d", 1 + 1.1 * (seconds - total_s) * count / total_s
        else print (count < runs ? runs - count : 0)
      }' samples.csv)
  done
  awk -F , 'BEGIN { printf "{\"samples_ms\": [" } NF == 5 { printf "%s%.6f", separator, 1000 * $2; separator = ", " }
    END { print "]}" }' samples.csv | answer "$5"
}

echo "ready $$ (onnxruntime_perf_test)"
while IFS=$tab read -r job a b c d e; do
  case $job in
  threads) threads=$a ;;
  session) entries="$entries $a|$b" ;;
  provider) provider=$(echo "$a" | tr '[:upper:]' '[:lower:]') ;;
  option) options="$options $a|$b" ;;
  load)
    eval "graph_$((a))=\$b"
    load "$b" "$c" "$d"
    ;;
  run)
    eval "graph=\$graph_$((a))"
    run "$graph" "$b" "$c" "$d" "$e"
    ;;
  release) echo '{}' | answer "$b" ;;
  quit) exit 0 ;;
  esac
done
exit 3
