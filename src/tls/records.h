/* records.h -- where a record of a TLS stream ends.

   OpenSSL tells by an error that it has not got a whole record yet, and in
   Python that error is an exception, which costs as much as decrypting a short
   record.  Every record begins with five bytes of which the last two are its
   length; so we look by ourselves whether one is complete before we give it to
   OpenSSL.  What the bytes mean is OpenSSL's to say. */
#ifndef FL_TLS_RECORDS_H
#define FL_TLS_RECORDS_H

#include "base/cdefs.h"

#include <stdbool.h>
#include <stddef.h>

#define FL_RECORD_HEAD 5

/* The most that a record may hold (RFC 5246; TLS 1.3 allows less). */
#define FL_RECORD_LONGEST (16384 + 2048)

/* The size of the record that begins with these bytes, as far as they tell: at
   least FL_RECORD_HEAD.  What cannot be a record is as long as there are bytes
   of it, so that OpenSSL gets to see and to refuse it at once. */
static inline size_t
fl_record_size(const unsigned char *bytes, size_t len)
{
    bool odd = (len > 0 && (bytes[0] < 20 || bytes[0] > 24))
               || (len > 1 && bytes[1] != 3);
    if (!odd && len < FL_RECORD_HEAD) {
        return FL_RECORD_HEAD;
    }
    size_t content = odd ? 0 : (size_t)bytes[3] << 8 | bytes[4];
    return odd || content > FL_RECORD_LONGEST ? len
                                              : FL_RECORD_HEAD + content;
}

#endif
