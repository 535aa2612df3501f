/* Writing JSON: texts with everything escaped that must be, numbers without what JSON lacks. */
#ifndef HWNAS_JSON_H
#define HWNAS_JSON_H

#include <math.h>
#include <stdio.h>

static inline void write_text(FILE *out, const char *text) {
  fputc('"', out);
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c == '"' || *c == '\\')
      fprintf(out, "\\%c", *c);
    else if (*c < 0x20 || *c > 0x7e)
      fprintf(out, "\\u%04x", *c); /* as Latin-1: messages of libraries are ASCII but for names */
    else
      fputc(*c, out);
  }
  fputc('"', out);
}

static inline void write_number(FILE *out, double number) {
  if (isfinite(number))
    fprintf(out, "%.9g", number);
  else
    fputs("null", out);
}

#endif
