/* Graphs in ONNX Runtime: load, run, release. What returns bool leaves its reason in `error_text` when it is false. */
#ifndef HWNAS_GRAPH_H
#define HWNAS_GRAPH_H

#include <stdbool.h>
#include <stdio.h>

typedef struct {
  void *session, *binding;
} Graph;

extern char error_text[4096];
extern const char *ort_version_text;

/* Writes `error_text`; always false. */
bool fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Opens ONNX Runtime; the settings below hold for every graph that is loaded after them. */
bool start(const char *library);
bool set_threads(const char *count);
bool set_session_entry(const char *key, const char *value);
bool set_provider(const char *name, const char *library);
bool set_provider_option(const char *key, const char *value);

/* Loads a graph and runs it once; writes members of a JSON object. */
bool load_graph(FILE *out, Graph *graph, const char *path);

/* At least `runs` runs that take at least `seconds` together; writes a member of a JSON object. */
bool run_graph(FILE *out, const Graph *graph, long runs, double seconds);

/* Runs on the numbers of a file, those of all inputs in order, again and again until its end; writes the outputs'
 * numbers into another in the same way, and members of a JSON object: the outputs' shapes, and how many runs. The
 * outputs are float32. */
bool infer_graph(FILE *out, const Graph *graph, const char *inputs, const char *outputs);

void release_graph(Graph *graph);

#endif
