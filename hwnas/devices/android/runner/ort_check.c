/* Compares ort.h with ONNX Runtime's own header; compiles where the two agree. It is no part of the program. */
#include <stddef.h>

#include "onnxruntime_c_api.h"
#define ORT(...)
#include "ort.h"

#define CHECK_PLACE(name) \
  _Static_assert(offsetof(OrtApi, name) == ORT_PLACE_##name * sizeof(void *), "ort.h: wrong place of " #name)
#define CHECK(place, result, name, arguments) CHECK_PLACE(name);
#if ORT_API_VERSION >= 24
ORT_FUNCTIONS(CHECK)
#else
#error "onnxruntime_c_api.h is older than 1.24; ort.h cannot be checked with it"
#endif
