/* hwnas-runner LIBONNXRUNTIME: loads ONNX graphs and times them, many in one process that stays warm.
 *
 * It takes a line a job on stdin, fields separated by tabs, works in the current folder, writes the result of a job
 * into a file as JSON (complete or absent), and then prints `done FILE`:
 *
 *   threads COUNT                          within an operator; 0 lets ONNX Runtime choose
 *   session KEY VALUE                      a session config entry
 *   provider NAME LIBRARY                  an execution provider; LIBRARY is its plugin, or empty where it is built in
 *   option KEY VALUE                       of that provider
 *   load ID GRAPH LIMIT_S FILE             ID is 0 … 255
 *   run ID RUNS SECONDS LIMIT_S FILE       at least RUNS runs that take at least SECONDS together
 *   infer ID INPUTS OUTPUTS LIMIT_S FILE   runs on the numbers of the file INPUTS, what comes out into OUTPUTS
 *   release ID FILE
 *   quit                                   end when all jobs before it are done
 *
 * The end of stdin without `quit` means that the host is gone: the runner ends at once, whatever it is doing. A job
 * that takes longer than LIMIT_S ends it too, with SIGALRM. Libraries print on stdout, so theirs is stderr.
 * One runner works in a folder at a time: it holds a lock on `runner.lock`, and ends with code 75 where it cannot.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "graph.h"
#include "json.h"

enum { MAX_GRAPHS = 256, MAX_FIELDS = 6, MAX_LINE = 8192, EXIT_HOST_GONE = 3, EXIT_BUSY = 75 };

static Graph graphs[MAX_GRAPHS];
static FILE *answers;

static int split(char *line, char *fields[MAX_FIELDS]) {
  int count = 0;
  line[strcspn(line, "\n")] = '\0';
  while (count < MAX_FIELDS && (fields[count] = strsep(&line, "\t")) != NULL) count++;
  return count;
}

static Graph *graph_of(const char *id) {
  long index = strtol(id, NULL, 10);
  return index >= 0 && index < MAX_GRAPHS ? &graphs[index] : NULL;
}

/* Settings have no result of their own: what is wrong with one is told by every load that follows. */
static char settings_error[sizeof error_text];

static bool setting(int count, char *fields[]) {
  const char *job = fields[0];
  bool good = false;
  if (strcmp(job, "threads") == 0 && count == 2)
    good = set_threads(fields[1]);
  else if (strcmp(job, "session") == 0 && count == 3)
    good = set_session_entry(fields[1], fields[2]);
  else if (strcmp(job, "provider") == 0 && count == 3)
    good = set_provider(fields[1], fields[2]);
  else if (strcmp(job, "option") == 0 && count == 3)
    good = set_provider_option(fields[1], fields[2]);
  else
    return false;
  if (!good) memcpy(settings_error, error_text, sizeof error_text);
  return true;
}

static bool graph_job(FILE *out, int count, char *fields[]) {
  Graph *graph = graph_of(fields[1]);
  if (graph == NULL) return fail("graphs are numbered 0 to %d", MAX_GRAPHS - 1);
  if (strcmp(fields[0], "load") == 0 && count == 5) {
    if (settings_error[0]) return fail("%s", settings_error);
    release_graph(graph);
    alarm((unsigned)strtoul(fields[3], NULL, 10));
    if (load_graph(out, graph, fields[2])) return true;
    release_graph(graph);
    return false;
  }
  if (strcmp(fields[0], "run") == 0 && count == 6) {
    if (graph->session == NULL) return fail("graph %s is not loaded", fields[1]);
    alarm((unsigned)strtoul(fields[4], NULL, 10));
    return run_graph(out, graph, strtol(fields[2], NULL, 10), strtod(fields[3], NULL));
  }
  if (strcmp(fields[0], "infer") == 0 && count == 6) {
    if (graph->session == NULL) return fail("graph %s is not loaded", fields[1]);
    alarm((unsigned)strtoul(fields[4], NULL, 10));
    return infer_graph(out, graph, fields[2], fields[3]);
  }
  if (strcmp(fields[0], "release") == 0 && count == 3) {
    release_graph(graph);
    return true;
  }
  return fail("unknown job %s with %d fields", fields[0], count);
}

/* Does a job and writes its file; false where that could not be written. */
static bool answer(int count, char *fields[]) {
  const char *name = fields[count - 1];
  char *body = NULL, part[MAX_LINE + 8];
  size_t size = 0;
  FILE *out = open_memstream(&body, &size);
  if (out == NULL) return false;
  bool good = graph_job(out, count, fields);
  alarm(0);
  fclose(out);
  snprintf(part, sizeof part, "%s.part", name);
  FILE *file = fopen(part, "w");
  if (file == NULL) return false;
  fputc('{', file);
  if (good) {
    fputs(body, file);
  } else {
    fputs("\"error\": ", file);
    write_text(file, error_text);
  }
  fputs("}\n", file);
  free(body);
  bool written = !ferror(file);
  written = fclose(file) == 0 && written;
  if (!written || rename(part, name) != 0) return false;
  fprintf(answers, "done %s\n", name);
  fflush(answers);
  return true;
}

/* Passes stdin on, so that its end is seen while a graph runs. */
static void *pass_on(void *descriptor) {
  FILE *jobs = fdopen(*(int *)descriptor, "w");
  char line[MAX_LINE];
  while (jobs && fgets(line, sizeof line, stdin)) {
    fputs(line, jobs);
    fflush(jobs);
    if (strcmp(line, "quit\n") == 0) return NULL;
  }
  _exit(EXIT_HOST_GONE);
}

static int take_lock(void) {
  int lock = open("runner.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0) return lock;
  fprintf(stderr, "runner.lock: %s\n", strerror(errno));
  exit(EXIT_BUSY);
}

int main(int argc, char *argv[]) {
  static int ends[2];
  char line[MAX_LINE], *fields[MAX_FIELDS];
  pthread_t reader;
  if (argc != 2) {
    fprintf(stderr, "usage: hwnas-runner LIBONNXRUNTIME < JOBS\n");
    return 2;
  }
  take_lock();
  answers = fdopen(dup(STDOUT_FILENO), "w");
  if (answers == NULL || dup2(STDERR_FILENO, STDOUT_FILENO) < 0 || pipe(ends) != 0) {
    perror("hwnas-runner");
    return 1;
  }
  if (!start(argv[1])) {
    fprintf(stderr, "%s\n", error_text);
    return 1;
  }
  fprintf(answers, "ready %d %s\n", (int)getpid(), ort_version_text);
  fflush(answers);
  if (pthread_create(&reader, NULL, pass_on, &ends[1]) != 0) return 1;
  FILE *jobs = fdopen(ends[0], "r");
  while (jobs && fgets(line, sizeof line, jobs) && strcmp(line, "quit\n") != 0) {
    int count = split(line, fields);
    if (setting(count, fields)) continue;
    if (count < 3) {
      fprintf(stderr, "unknown job: %s\n", fields[0]);
      return 2;
    }
    if (!answer(count, fields)) {
      fprintf(stderr, "cannot write %s: %s\n", fields[count - 1], strerror(errno));
      return 1;
    }
  }
  fflush(answers);
  _exit(0); /* without the destructors of providers, some of which crash */
}
