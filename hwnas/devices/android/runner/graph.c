#define _GNU_SOURCE
#include "graph.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "json.h"
#include "ort.h"

enum { MAX_OPTIONS = 64, MAX_VALUES = 16 };

OrtTable ort_table;
static int ort_version;
const char *ort_version_text;
static void *env, *options, *allocator, *cpu_memory;

static struct {
  char *name, *library;
  const char *keys[MAX_OPTIONS], *values[MAX_OPTIONS];
  size_t count;
  bool added;
} provider = {.name = "", .library = ""};

char error_text[4096];

/* Keeps a failure's text; true if there was one. */
static bool failed(void *status) {
  if (status == NULL) return false;
  snprintf(error_text, sizeof error_text, "%s", ORT(GetErrorMessage)(status));
  ORT(ReleaseStatus)(status);
  return true;
}

bool fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error_text, sizeof error_text, format, arguments);
  va_end(arguments);
  return false;
}

#define TRY(call)                     \
  do {                                \
    if (failed(call)) return false;   \
  } while (0)

static double now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return 1e3 * (double)time.tv_sec + 1e-6 * (double)time.tv_nsec;
}

/* VmRSS or VmHWM in bytes; 0 where the kernel does not tell. */
static long memory_bytes(const char *key) {
  char line[256];
  long kilobytes = 0;
  FILE *file = fopen("/proc/self/status", "r");
  if (file == NULL) return 0;
  while (fgets(line, sizeof line, file))
    if (strncmp(line, key, strlen(key)) == 0) kilobytes = strtol(line + strlen(key) + 1, NULL, 10);
  fclose(file);
  return 1024 * kilobytes;
}

static void forget_memory_peak(void) {
  FILE *file = fopen("/proc/self/clear_refs", "w");
  if (file == NULL) return;
  fputs("5", file);
  fclose(file);
}

/* A provider in a library of its own: register it, and take its devices. */
static bool add_plugin(void) {
  const void *const *devices, *chosen[MAX_OPTIONS];
  size_t count, taken = 0;
  if (ort_version < ORT_SINCE_PLUGINS)
    return fail("ONNX Runtime %s has no plugin execution providers, 1.%d has", ort_version_text, ORT_SINCE_PLUGINS);
  TRY(ORT(RegisterExecutionProviderLibrary)(env, provider.name, provider.library));
  TRY(ORT(GetEpDevices)(env, &devices, &count));
  for (size_t i = 0; i < count && taken < MAX_OPTIONS; i++)
    if (strcmp(ORT(EpDevice_EpName)(devices[i]), provider.name) == 0) chosen[taken++] = devices[i];
  if (taken == 0) return fail("%s offers no device for %s", provider.library, provider.name);
  TRY(ORT(SessionOptionsAppendExecutionProvider_V2)(options, env, chosen, taken, provider.keys, provider.values,
                                                    provider.count));
  return true;
}

static bool add_provider(void) {
  if (provider.added || provider.name[0] == '\0') return true;
  if (provider.library[0] != '\0') {
    if (!add_plugin()) return false;
  } else if (strcmp(provider.name, "NNAPI") == 0) {
    void *(*append)(void *, uint32_t) =
        (void *(*)(void *, uint32_t))(uintptr_t)dlsym(RTLD_DEFAULT, "OrtSessionOptionsAppendExecutionProvider_Nnapi");
    if (append == NULL) return fail("this ONNX Runtime was built without NNAPI");
    uint32_t flags = provider.count ? (uint32_t)strtoul(provider.values[0], NULL, 0) : 0;
    TRY(append(options, flags));
  } else {
    TRY(ORT(SessionOptionsAppendExecutionProvider)(options, provider.name, provider.keys, provider.values,
                                                   provider.count));
  }
  provider.added = true;
  return true;
}

/* An input gets the next numbers of a file; without one, float32 those of a linear congruential generator in
 * [-1, 1), and any other type zeros. */
static bool bind_input(Graph *graph, size_t index, FILE *numbers) {
  void *type, *value, *data;
  const void *tensor;
  char *name;
  int element;
  size_t rank, count;
  int64_t shape[8];
  uint32_t state = 1;
  TRY(ORT(SessionGetInputTypeInfo)(graph->session, index, &type));
  TRY(ORT(CastTypeInfoToTensorInfo)(type, &tensor));
  if (tensor == NULL) return fail("input %zu is no tensor", index);
  TRY(ORT(GetTensorElementType)(tensor, &element));
  TRY(ORT(GetDimensionsCount)(tensor, &rank));
  if (rank > 8) return fail("input %zu has %zu axes", index, rank);
  TRY(ORT(GetDimensions)(tensor, shape, rank));
  for (size_t i = 0; i < rank; i++)
    if (shape[i] < 1) return fail("input %zu has an open shape", index);
  TRY(ORT(GetTensorShapeElementCount)(tensor, &count));
  TRY(ORT(CreateTensorAsOrtValue)(allocator, shape, rank, element, &value));
  TRY(ORT(GetTensorMutableData)(value, &data));
  static const size_t sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 8, 16, 2};
  if (element < 1 || element > 16 || sizes[element] == 0) return fail("input %zu has an element type %d", index, element);
  memset(data, 0, count * sizes[element]);
  if (numbers != NULL && fread(data, sizes[element], count, numbers) != count)
    return fail("the file has no numbers for all of input %zu", index);
  for (size_t i = 0; numbers == NULL && element == 1 && i < count; i++) {
    state = 1664525u * state + 1013904223u;
    ((float *)data)[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
  }
  TRY(ORT(SessionGetInputName)(graph->session, index, allocator, &name));
  TRY(ORT(BindInput)(graph->binding, name, value));
  TRY(ORT(AllocatorFree)(allocator, name));
  ORT(ReleaseValue)(value);
  ORT(ReleaseTypeInfo)(type);
  return true;
}

static bool bind(Graph *graph, FILE *numbers) {
  size_t inputs, outputs;
  char *name;
  TRY(ORT(CreateIoBinding)(graph->session, &graph->binding));
  TRY(ORT(SessionGetInputCount)(graph->session, &inputs));
  for (size_t i = 0; i < inputs; i++)
    if (!bind_input(graph, i, numbers)) return false;
  TRY(ORT(SessionGetOutputCount)(graph->session, &outputs));
  for (size_t i = 0; i < outputs; i++) {
    TRY(ORT(SessionGetOutputName)(graph->session, i, allocator, &name));
    TRY(ORT(BindOutputToDevice)(graph->binding, name, cpu_memory));
    TRY(ORT(AllocatorFree)(allocator, name));
  }
  return true;
}

/* [[provider, operator], …], a pair a node; null where ONNX Runtime is too old to tell. */
static bool write_placement(FILE *out, const Graph *graph) {
  const void *const *subgraphs, *const *nodes;
  const char *name, *type, *separator = "";
  size_t subgraph_count, node_count;
  if (ort_version < ORT_SINCE_ASSIGNMENT) {
    fputs("null", out);
    return true;
  }
  TRY(ORT(Session_GetEpGraphAssignmentInfo)(graph->session, &subgraphs, &subgraph_count));
  fputc('[', out);
  for (size_t i = 0; i < subgraph_count; i++) {
    TRY(ORT(EpAssignedSubgraph_GetEpName)(subgraphs[i], &name));
    TRY(ORT(EpAssignedSubgraph_GetNodes)(subgraphs[i], &nodes, &node_count));
    for (size_t j = 0; j < node_count; j++, separator = ", ") {
      TRY(ORT(EpAssignedNode_GetOperatorType)(nodes[j], &type));
      fprintf(out, "%s[", separator);
      write_text(out, name);
      fputs(", ", out);
      write_text(out, type);
      fputc(']', out);
    }
  }
  fputc(']', out);
  return true;
}

/* The first values of the first output, for comparison with another machine's. */
static bool write_outputs(FILE *out, const Graph *graph) {
  void **values, *tensor;
  float *data;
  size_t value_count, count;
  int element;
  TRY(ORT(GetBoundOutputValues)(graph->binding, allocator, &values, &value_count));
  TRY(ORT(GetTensorTypeAndShape)(values[0], &tensor));
  TRY(ORT(GetTensorElementType)(tensor, &element));
  TRY(ORT(GetTensorShapeElementCount)(tensor, &count));
  TRY(ORT(GetTensorMutableData)(values[0], (void **)&data));
  fputc('[', out);
  for (size_t i = 0; element == 1 && i < count && i < MAX_VALUES; i++) {
    if (i) fputs(", ", out);
    write_number(out, data[i]);
  }
  fputc(']', out);
  ORT(ReleaseTensorTypeAndShapeInfo)(tensor);
  for (size_t i = 0; i < value_count; i++) ORT(ReleaseValue)(values[i]);
  TRY(ORT(AllocatorFree)(allocator, values));
  return true;
}

void release_graph(Graph *graph) {
  if (graph->binding) ORT(ReleaseIoBinding)(graph->binding);
  if (graph->session) ORT(ReleaseSession)(graph->session);
  *graph = (Graph){NULL, NULL};
}

bool load_graph(FILE *out, Graph *graph, const char *path) {
  forget_memory_peak();
  long before = memory_bytes("VmRSS:");
  double start_ms = now_ms();
  if (!add_provider()) return false;
  TRY(ORT(CreateSession)(env, path, options, &graph->session));
  double loaded_ms = now_ms();
  if (!bind(graph, NULL)) return false;
  double bound_ms = now_ms();
  TRY(ORT(RunWithBinding)(graph->session, NULL, graph->binding));
  fprintf(out, "\"onnxruntime\": \"%s\", \"load_ms\": %.3f, \"first_run_ms\": %.3f, \"peak_memory_bytes\": %ld",
          ort_version_text, loaded_ms - start_ms, now_ms() - bound_ms, memory_bytes("VmHWM:") - before);
  fputs(", \"placement\": ", out);
  if (!write_placement(out, graph)) return false;
  fputs(", \"outputs\": ", out);
  return write_outputs(out, graph);
}

bool run_graph(FILE *out, const Graph *graph, long runs, double seconds) {
  size_t count = 0, room = 1024;
  double total_ms = 0, *samples_ms = malloc(room * sizeof *samples_ms);
  while (samples_ms && ((long)count < runs || total_ms < 1e3 * seconds)) {
    double start_ms = now_ms();
    if (failed(ORT(RunWithBinding)(graph->session, NULL, graph->binding))) {
      free(samples_ms);
      return false;
    }
    double taken_ms = now_ms() - start_ms;
    total_ms += taken_ms;
    samples_ms[count++] = taken_ms;
    if (count == room) samples_ms = realloc(samples_ms, (room *= 2) * sizeof *samples_ms);
  }
  if (samples_ms == NULL) return fail("no memory is left for the samples");
  fputs("\"samples_ms\": [", out);
  for (size_t i = 0; i < count; i++) fprintf(out, "%s%.6f", i ? ", " : "", samples_ms[i]);
  fputc(']', out);
  free(samples_ms);
  return true;
}

/* Writes a tensor of float32: its numbers as they lie in memory, and its shape as JSON where that is wanted. */
static bool write_tensor(FILE *out, FILE *numbers, void *value) {
  void *tensor;
  float *data;
  size_t rank, count;
  int64_t shape[8];
  int element;
  TRY(ORT(GetTensorTypeAndShape)(value, &tensor));
  TRY(ORT(GetTensorElementType)(tensor, &element));
  TRY(ORT(GetDimensionsCount)(tensor, &rank));
  TRY(ORT(GetTensorShapeElementCount)(tensor, &count));
  if (element != 1 || rank > 8) return fail("an output has the element type %d and %zu axes", element, rank);
  TRY(ORT(GetDimensions)(tensor, shape, rank));
  TRY(ORT(GetTensorMutableData)(value, (void **)&data));
  ORT(ReleaseTensorTypeAndShapeInfo)(tensor);
  if (out != NULL) {
    fputc('[', out);
    for (size_t i = 0; i < rank; i++) fprintf(out, "%s%lld", i ? ", " : "", (long long)shape[i]);
    fputc(']', out);
  }
  return fwrite(data, sizeof *data, count, numbers) == count || fail("there is no room for the outputs");
}

static bool write_tensors(FILE *out, FILE *numbers, const Graph *graph) {
  void **values;
  size_t count;
  bool good = true;
  TRY(ORT(GetBoundOutputValues)(graph->binding, allocator, &values, &count));
  if (out != NULL) fputs("\"shapes\": [", out);
  for (size_t i = 0; good && i < count; i++) {
    if (out != NULL && i) fputs(", ", out);
    good = write_tensor(out, numbers, values[i]);
  }
  if (out != NULL) fputc(']', out);
  for (size_t i = 0; i < count; i++) ORT(ReleaseValue)(values[i]);
  TRY(ORT(AllocatorFree)(allocator, values));
  return good;
}

static bool infer_once(FILE *out, const Graph *graph, FILE *inputs, FILE *outputs) {
  Graph once = {graph->session, NULL}; /* in a binding of its own: the timed runs keep their input */
  bool good = bind(&once, inputs) && !failed(ORT(RunWithBinding)(once.session, NULL, once.binding)) &&
              write_tensors(out, outputs, &once);
  if (once.binding) ORT(ReleaseIoBinding)(once.binding);
  return good;
}

static bool is_at_end(FILE *file) {
  int next = fgetc(file);
  if (next != EOF) ungetc(next, file);
  return next == EOF;
}

bool infer_graph(FILE *out, const Graph *graph, const char *inputs, const char *outputs) {
  FILE *given = fopen(inputs, "rb"), *found = fopen(outputs, "wb");
  bool good = (given != NULL && found != NULL) || fail("%s, %s: %s", inputs, outputs, strerror(errno));
  long runs = 0;
  do {
    good = good && infer_once(runs++ ? NULL : out, graph, given, found);
  } while (good && !is_at_end(given));
  fprintf(out, ", \"runs\": %ld", runs);
  if (given) fclose(given);
  if (found && fclose(found) != 0 && good) good = fail("there is no room for the outputs");
  return good;
}

bool start(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (library == NULL) return fail("%s", dlerror());
  const OrtBase *(*base)(void) = (const OrtBase *(*)(void))(uintptr_t)dlsym(library, "OrtGetApiBase");
  if (base == NULL) return fail("%s is no ONNX Runtime: it has no OrtGetApiBase", path);
  ort_version_text = base()->GetVersionString();
  ort_version = atoi(ort_version_text + strcspn(ort_version_text, ".") + 1);
  ort_table = base()->GetApi((uint32_t)ort_version);
  if (ort_table == NULL) return fail("ONNX Runtime %s does not give its own API", ort_version_text);
  TRY(ORT(CreateEnv)(3 /* errors only */, "hwnas", &env));
  TRY(ORT(CreateSessionOptions)(&options));
  TRY(ORT(SetInterOpNumThreads)(options, 1));
  if (ort_version >= ORT_SINCE_ASSIGNMENT)
    TRY(ORT(AddSessionConfigEntry)(options, "session.record_ep_graph_assignment_info", "1"));
  TRY(ORT(GetAllocatorWithDefaultOptions)(&allocator));
  TRY(ORT(CreateCpuMemoryInfo)(0 /* device allocator */, 0 /* default memory */, &cpu_memory));
  return true;
}

bool set_threads(const char *count) {
  TRY(ORT(SetIntraOpNumThreads)(options, atoi(count)));
  return true;
}

bool set_session_entry(const char *key, const char *value) {
  TRY(ORT(AddSessionConfigEntry)(options, key, value));
  return true;
}

bool set_provider(const char *name, const char *library) {
  provider.name = strdup(name);
  provider.library = strdup(library);
  return true;
}

bool set_provider_option(const char *key, const char *value) {
  if (provider.count == MAX_OPTIONS) return fail("a provider takes %d options at most", MAX_OPTIONS);
  provider.keys[provider.count] = strdup(key);
  provider.values[provider.count++] = strdup(value);
  return true;
}
