#include "compute/cpu/isa/vmath.h"

/* The last, short vector is padded with 0, which every function here takes. */
#define MAP(T, name, load, store, load_n, store_n, lanes)                          \
    void KS_FN(ks_##name)(T * y, const T *x, size_t n)                             \
    {                                                                              \
        size_t i = 0;                                                              \
        for (; i + lanes <= n; i += lanes) store(y + i, ks_v_##name(load(x + i))); \
        if (i < n) store_n(y + i, n - i, ks_v_##name(load_n(x + i, n - i, 0)));    \
    }
#define MAP_FLOAT(name) MAP(float, name, ks_load, ks_store, ks_load_n, ks_store_n, KS_LANES)
#define MAP_DOUBLE(name) MAP(double, name, ks_loadd, ks_stored, ks_loadd_n, ks_stored_n, KS_LANES / 2)

MAP_FLOAT(expf)
MAP_FLOAT(expm1f)
MAP_FLOAT(tanhf)
MAP_FLOAT(sigmoidf)
MAP_FLOAT(slopef)
MAP_FLOAT(sech2f)
MAP_DOUBLE(exp)
MAP_DOUBLE(expm1)
MAP_DOUBLE(expm1_minus_x)
MAP_DOUBLE(log)
MAP_DOUBLE(log1p)
