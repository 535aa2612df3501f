/* The part of ONNX Runtime's C API that the runner calls, so that it builds without ONNX Runtime's headers.
 *
 * OrtApi is a table of function pointers. A release only appends to it, so a function keeps its place for good;
 * ort_check.c compares every place below with a real header at build time. Objects are opaque: void pointers.
 */
#ifndef HWNAS_ORT_H
#define HWNAS_ORT_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  const void *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtBase;

typedef const void *const *OrtTable;

/* X(place in the table, result, name, arguments) */
#define ORT_FUNCTIONS(X)                                                                                          \
  X(2, const char *, GetErrorMessage, (const void *status))                                                       \
  X(3, void *, CreateEnv, (int log_level, const char *name, void **env))                                          \
  X(7, void *, CreateSession, (const void *env, const char *path, const void *options, void **session))           \
  X(10, void *, CreateSessionOptions, (void **options))                                                           \
  X(24, void *, SetIntraOpNumThreads, (void *options, int count))                                                 \
  X(25, void *, SetInterOpNumThreads, (void *options, int count))                                                 \
  X(30, void *, SessionGetInputCount, (const void *session, size_t *count))                                       \
  X(31, void *, SessionGetOutputCount, (const void *session, size_t *count))                                      \
  X(33, void *, SessionGetInputTypeInfo, (const void *session, size_t index, void **type))                        \
  X(36, void *, SessionGetInputName, (const void *session, size_t index, void *allocator, char **name))           \
  X(37, void *, SessionGetOutputName, (const void *session, size_t index, void *allocator, char **name))          \
  X(48, void *, CreateTensorAsOrtValue,                                                                           \
    (void *allocator, const int64_t *shape, size_t rank, int element, void **value))                              \
  X(51, void *, GetTensorMutableData, (void *value, void **data))                                                 \
  X(55, void *, CastTypeInfoToTensorInfo, (const void *type, const void **tensor))                                \
  X(60, void *, GetTensorElementType, (const void *tensor, int *element))                                         \
  X(61, void *, GetDimensionsCount, (const void *tensor, size_t *rank))                                           \
  X(62, void *, GetDimensions, (const void *tensor, int64_t *shape, size_t rank))                                 \
  X(64, void *, GetTensorShapeElementCount, (const void *tensor, size_t *count))                                  \
  X(65, void *, GetTensorTypeAndShape, (const void *value, void **tensor))                                        \
  X(69, void *, CreateCpuMemoryInfo, (int allocator_type, int memory_type, void **info))                          \
  X(76, void *, AllocatorFree, (void *allocator, void *memory))                                                   \
  X(78, void *, GetAllocatorWithDefaultOptions, (void **allocator))                                               \
  X(93, void, ReleaseStatus, (void *status))                                                                      \
  X(95, void, ReleaseSession, (void *session))                                                                    \
  X(96, void, ReleaseValue, (void *value))                                                                        \
  X(98, void, ReleaseTypeInfo, (void *type))                                                                      \
  X(99, void, ReleaseTensorTypeAndShapeInfo, (void *tensor))                                                      \
  X(100, void, ReleaseSessionOptions, (void *options))                                                            \
  X(130, void *, AddSessionConfigEntry, (void *options, const char *key, const char *value))                      \
  X(133, void *, RunWithBinding, (void *session, const void *run_options, const void *binding))                   \
  X(134, void *, CreateIoBinding, (void *session, void **binding))                                                \
  X(135, void, ReleaseIoBinding, (void *binding))                                                                 \
  X(136, void *, BindInput, (void *binding, const char *name, const void *value))                                 \
  X(138, void *, BindOutputToDevice, (void *binding, const char *name, const void *memory))                       \
  X(140, void *, GetBoundOutputValues, (const void *binding, void *allocator, void ***values, size_t *count))     \
  X(216, void *, SessionOptionsAppendExecutionProvider,                                                           \
    (void *options, const char *name, const char *const *keys, const char *const *values, size_t count))          \
  /* since 1.22: plugin execution providers */                                                                    \
  X(301, void *, RegisterExecutionProviderLibrary, (void *env, const char *name, const char *path))               \
  X(303, void *, GetEpDevices, (const void *env, const void *const **devices, size_t *count))                     \
  X(304, void *, SessionOptionsAppendExecutionProvider_V2,                                                        \
    (void *options, void *env, const void *const *devices, size_t device_count, const char *const *keys,          \
     const char *const *values, size_t count))                                                                    \
  X(307, int, HardwareDevice_Type, (const void *hardware))                                                        \
  X(312, const char *, EpDevice_EpName, (const void *device))                                                     \
  X(316, const void *, EpDevice_Device, (const void *device))                                                     \
  /* since 1.24: which provider took which node */                                                                \
  X(407, void *, Session_GetEpGraphAssignmentInfo,                                                                \
    (const void *session, const void *const **subgraphs, size_t *count))                                          \
  X(408, void *, EpAssignedSubgraph_GetEpName, (const void *subgraph, const char **name))                         \
  X(409, void *, EpAssignedSubgraph_GetNodes, (const void *subgraph, const void *const **nodes, size_t *count))   \
  X(412, void *, EpAssignedNode_GetOperatorType, (const void *node, const char **type))

enum { ORT_SINCE_PLUGINS = 22, ORT_SINCE_ASSIGNMENT = 24 };

#define ORT_TYPE(place, result, name, arguments) typedef result(*Ort_##name) arguments;
ORT_FUNCTIONS(ORT_TYPE)
#define ORT_PLACE(place, result, name, arguments) ORT_PLACE_##name = place,
enum { ORT_FUNCTIONS(ORT_PLACE) ORT_PLACE_END };

/* ORT(Run)(...) calls a function of the table `ort_table`, which the program defines. */
extern OrtTable ort_table;
#define ORT(name) ((Ort_##name)(uintptr_t)ort_table[ORT_PLACE_##name])

#endif
