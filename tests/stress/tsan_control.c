/* tsan_control.c -- a race that ThreadSanitizer must see, and the same under the GIL.

   Called through ctypes: CDLL gives the GIL away for the call, PyDLL keeps
   it.  That the first is reported and the second is not shows that the stage
   `tsan` of .ci/run can tell the two apart on an interpreter that is not
   instrumented itself. */

static long counter;

long
control_bump(long count)
{
    for (long i = 0; i < count; i++) {
        counter++;
    }
    return counter;
}
