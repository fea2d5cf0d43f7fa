/* cdefs.h -- small tools of plain C that every layer may use. */
#ifndef FL_BASE_CDEFS_H
#define FL_BASE_CDEFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FL_LIKELY(x)   __builtin_expect(!!(x), 1)
#define FL_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* The result must be looked at: -1 or NULL means an exception is set. */
#define FL_RAISES __attribute__((warn_unused_result))

#define FL_NOINLINE __attribute__((noinline))

#endif
